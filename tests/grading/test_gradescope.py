"""What Gradescope reads and runs: results.json and the zip."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from solutions import MODELS, WRONG, changed
from started_grader import command, solution

from grading.make_zip import make_zip

RESULT_FIELDS = {"score", "execution_time", "output", "visibility", "stdout_visibility", "extra_data", "tests"}
TEST_FIELDS = {
    "score", "max_score", "status", "name", "name_format", "number", "output", "tags", "visibility", "extra_data",
}  # fmt: skip


def test_results_json_follows_gradescopes_format(tmp_path):
    path = tmp_path / "results.json"
    wrong = solution(tmp_path / "s", changed(WRONG["missing ReLU"][1]))
    command("2", "1c", "--path", wrong, "--gradescope", path)
    results = json.loads(path.read_text())
    assert set(results) <= RESULT_FIELDS
    assert results["execution_time"] > 0
    for test in results["tests"]:
        assert {"number", "name", "score", "max_score", "output", "visibility"} <= set(test) <= TEST_FIELDS
        assert test["visibility"] in {"visible", "hidden", "after_due_date", "after_published"}
        assert test["status"] in {"passed", "failed"}
        assert isinstance(test["score"], int | float)
        assert 0 <= test["score"] <= test["max_score"]
        assert isinstance(test["output"], str)
    by_number = {test["number"]: test for test in results["tests"]}
    assert {number: test["score"] for number, test in by_number.items()} == {
        "1c-0-basic": 1,
        "2-0-basic": 0,
        "2-1-hidden": 0,
    }
    assert by_number["2-1-hidden"]["visibility"] == "after_published"
    assert by_number["2-0-basic"]["visibility"] == "visible"
    assert "expected:" in by_number["2-0-basic"]["output"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="Gradescope runs it with bash")
def test_the_zip_works_as_gradescope_runs_it(tmp_path):
    make_zip(tmp_path / "autograder.zip")
    place = tmp_path / "autograder"
    with zipfile.ZipFile(tmp_path / "autograder.zip") as archive:
        archive.extractall(place / "source")
        assert archive.getinfo("run_autograder").external_attr >> 16 & 0o111
    (place / "results").mkdir()
    solution(place / "submission", MODELS)
    shutil.copy(place / "source" / "run_autograder", place / "run_autograder")
    environment = {**os.environ, "AUTOGRADER": str(place), "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", place / "run_autograder"], cwd=place, env=environment, capture_output=True, text=True
    )
    results = json.loads((place / "results" / "results.json").read_text())
    assert done.returncode == 0
    assert sum(test["score"] for test in results["tests"]) == 14

    (place / "submission" / "models.py").unlink()
    (place / "results" / "results.json").unlink()
    done = subprocess.run(
        ["bash", place / "run_autograder"], cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert json.loads((place / "results" / "results.json").read_text())["score"] == 0
