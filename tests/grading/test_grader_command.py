"""The command grader.py: its results, arguments and messages."""

import json
import time
import zipfile

import pytest
from conftest import ROOT
from solutions import MODELS, WRONG, changed
from started_grader import command, solution

import grader
from grading.checks import all_checks


def test_a_correct_solution_gets_14_of_14_and_exit_code_0():
    start = time.perf_counter()
    done = command()
    assert done.returncode == 0, done.stdout
    assert "Total" in done.stdout
    assert "14 / 14" in done.stdout
    assert done.stdout.count("PASS") == 14
    assert done.stderr == ""
    print(f"{time.perf_counter() - start:.1f} s")


def test_the_starter_gets_0_of_14_without_a_traceback():
    done = command("--path", ROOT / "starter", "-v")
    assert done.returncode == 1
    assert " 0 / 14" in done.stdout
    assert done.stdout.count("NOT IMPLEMENTED") == 14
    assert "Traceback" not in done.stdout + done.stderr


def test_the_student_view_hides_the_hidden_checks(tmp_path):
    wrong = solution(tmp_path / "s", changed(WRONG["user bias besides"][1]))  # only a hidden check finds this error
    done = command("--public", "--fast", "--path", wrong)
    assert "8 / 8" in done.stdout
    assert done.stdout.count("shown after hand-in") == 4
    assert done.returncode == 0
    assert "3c-0-hidden" in done.stdout
    assert "expected" not in done.stdout


def test_questions_checks_and_fast_checks_can_be_selected():
    assert "Total" in command("2").stdout
    assert "2 / 2" in command("2").stdout
    done = command("1a-0-basic", "1c")
    assert "2 / 2" in done.stdout
    assert "1b" not in done.stdout
    listed = command("--list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [check.id for check in all_checks()]
    fast = grader.select(list(all_checks()), [], fast=True)
    assert {check.id for check in all_checks()} - {check.id for check in fast} == {"3c-1-hidden", "3c-2-hidden"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1d"], "there is no check '1d'"),
        (["1a-0-basics"], "did you mean 1a-0-basic?"),
        (["--path", "/nowhere"], "there is no /nowhere"),
        (["--path", ROOT / "docs"], "there is no models.py in docs"),
        (["--path", ROOT / "README.md"], "neither a folder, a zip nor a Python file"),
        (["--gradescope", "/nowhere/results.json"], "no folder that can be written to"),
        (["--class", ROOT / "docs"], "--class needs --csv FILE"),
        (["--csv", "grades.csv"], "--csv goes with --class DIR"),
        (["--class", "/nowhere", "--csv", "grades.csv"], "there is no folder /nowhere"),
        (["--class", ".", "--csv", "grades.csv", "-v"], "--verbose does not go with --class"),
        (["--timeout-scale", "0"], "must be greater than 0"),
        (["--timeout-scale", "inf"], "at most 1000"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--public", "3c"], "--public counts none of them"),
        (["--fast", "3c-1-hidden"], "leaves none"),
    ],
)
def test_wrong_arguments_get_one_sentence_and_exit_code_2(arguments, message):
    done = command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failure_reports_expected_and_actual_values_and_a_hint(tmp_path):
    wrong = solution(tmp_path / "s", changed(WRONG["missing ReLU"][1]))
    done = command("2-0-basic", "--path", wrong)
    assert "expected: for layer_sizes=[96, 64]: Linear(96, 64), ReLU, Linear(64, 1)" in done.stdout
    assert "got:      Linear(96, 64), Linear(64, 1)" in done.stdout
    assert "hint:     layer_sizes lists" in done.stdout


def test_what_a_solution_prints_and_its_own_frames_are_shown_with_v(tmp_path):
    line = "user, item = self.U(user_ids), self.Q(item_ids)  # (B, d) each"
    wrong = changed([(line, f"{line}\n        print('shape', user.shape)\n        user.nothing()")])
    folder = solution(tmp_path / "s", wrong)
    quiet, verbose = command("3a-0-basic", "--path", folder), command("3a-0-basic", "--path", folder, "-v")
    number = wrong.splitlines().index("        user.nothing()") + 1
    assert f"AttributeError: 'Tensor' object has no attribute 'nothing' (models.py, line {number})" in quiet.stdout
    assert "shape torch.Size" not in quiet.stdout
    assert "| shape torch.Size([1, 8])" in verbose.stdout
    assert f'File "models.py", line {number}, in forward_with_embedding_sharing' in verbose.stdout
    assert "worker.py" not in verbose.stdout


def test_a_file_of_any_name_and_a_zip_can_be_graded(tmp_path):
    (tmp_path / "my model.py").write_text(MODELS)
    with zipfile.ZipFile(tmp_path / "homework.zip", "w") as archive:
        archive.write(tmp_path / "my model.py", "homework/models.py")
    for name in ("my model.py", "homework.zip"):
        assert "1 / 1" in command("1c", "--path", tmp_path / name).stdout


def test_an_import_that_fails_is_told_once_and_ends_the_grading(tmp_path):
    done = command(
        "--path", solution(tmp_path / "s", "import nothing_like_this\n"), "--gradescope", tmp_path / "r.json"
    )
    reason = (
        "models.py cannot be imported: ModuleNotFoundError: No module named 'nothing_like_this' (models.py, line 1)"
    )
    assert done.stdout.count("nothing_like_this") == 1
    assert reason in done.stdout
    assert done.stdout.count("ERROR") == 14
    results = json.loads((tmp_path / "r.json").read_text())
    assert results["output"] == reason
    assert {test["output"] for test in results["tests"]} == {"ERROR"}


def test_every_wrong_output_is_told(tmp_path):
    changes = WRONG["bias missing"][1] + WRONG["concatenation in another order"][1]
    done = command("3a-1-basic", "--path", solution(tmp_path / "s", changed(changes)))
    assert "(predictions of forward in training mode" in done.stdout
    assert "(score of forward in training mode" in done.stdout
    assert done.stdout.count("expected:") == 2


@pytest.mark.parametrize(
    ("name", "check", "message"),
    [
        ("outputs swapped", "3a-1-basic", "got:      (score, predictions)"),
        ("forward swaps, separate", "3b-1-basic", "expected: (predictions, score) from forward"),
        ("missing ReLU", "3a-1-basic", "the layers are not those of question 2: correct init_mlp_layers first"),
        ("last layer forgotten", "3b-0-basic", "the layers are not those of question 2: correct init_mlp_layers first"),
    ],
)
def test_the_cause_is_named(tmp_path, name, check, message):
    assert message in command(check, "--path", solution(tmp_path / "s", changed(WRONG[name][1]))).stdout


def test_pandas_can_be_imported(tmp_path):
    """It is among the requirements, which Gradescope installs too."""
    assert "1 / 1" in command("1c", "--path", solution(tmp_path / "s", f"import pandas\n{MODELS}")).stdout
