"""The notebook docs/tour.ipynb: it runs from top to bottom, on simulated and on real data, and holds no outputs."""

import json
import os
import shutil
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
from answers import answers_in
from conftest import ROOT

from grading.student_package import FOLDER, make_package

PAGE = ROOT / "docs" / "tour.ipynb"
CELLS = json.loads(PAGE.read_text(encoding="utf-8"))["cells"]
SETTINGS = {"(943, 1682, 100_000)": "(60, 80, 2400)", "EPOCHS = 5": "EPOCHS = 1", "(0, 1, 2)": "(0, 1)"}


def source(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == kind]


def test_it_is_committed_without_outputs():
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_it_has_ten_cells_each_with_a_text_before_it():
    kinds = [cell["cell_type"] for cell in CELLS]
    assert kinds.count("code") == 10
    assert all(before == "markdown" for before, kind in pairwise(kinds) if kind == "code")


def test_it_holds_no_answer_to_the_homework():
    """A teacher may show it to students: it has the method, and leaves the conclusions to them."""
    assert answers_in("tour.py", "\n".join(source("code"))) == []
    assert answers_in("tour.md", "\n".join(source("markdown"))) == []


def run(folder: Path) -> list:
    """Run the notebook from this folder, with small settings; the outputs of every code cell."""
    nbformat = pytest.importorskip("nbformat", reason="see requirements-dev.txt")
    nbclient = pytest.importorskip("nbclient", reason="see requirements-dev.txt")
    pytest.importorskip("ipykernel", reason="see requirements-dev.txt")
    notebook = nbformat.read(PAGE, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for normal, small in SETTINGS.items():
        assert normal in cells[0].source
        cells[0].source = cells[0].source.replace(normal, small)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell.outputs for cell in cells]


def text_of(outputs: list) -> str:
    parts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join(parts)


@pytest.mark.slow
def test_it_runs_on_simulated_data_and_says_so(monkeypatch):
    monkeypatch.delenv("MOVIELENS_DIR", raising=False)
    outputs = run(PAGE.parent)
    texts = list(map(text_of, outputs))
    for number in (1, 4, 6, 8, 9):  # the data, and every table of metrics
        assert "SIMULATED DATA" in texts[number], number
    (drawn,) = [output for output in outputs[7] if "image/png" in output.get("data", {})]
    assert len(drawn.data["image/png"]) > 10_000
    assert not [output for cell in outputs for output in cell if output.get("name") == "stderr"]
    without, biased = (line.split()[-1] for line in texts[9].splitlines()[-2:])
    assert without == biased


@pytest.mark.slow
def test_it_runs_in_a_students_folder(tmp_path, monkeypatch):
    """Which lacks much of the project, and has the student's own models.py."""
    make_package(tmp_path / "homework.zip")
    with zipfile.ZipFile(tmp_path / "homework.zip") as archive:
        archive.extractall(tmp_path)
    shutil.copy(ROOT / "models.py", tmp_path / FOLDER)
    others = [
        place for place in sys.path if place and ROOT not in (Path(place).resolve(), *Path(place).resolve().parents)
    ]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(others))
    monkeypatch.delenv("MOVIELENS_DIR", raising=False)
    texts = list(map(text_of, run(tmp_path / FOLDER)))
    assert len(texts[8].splitlines()) == 8  # a head of two lines, then three questions for two metrics


@pytest.mark.parametrize(("folder", "dataset"), [("/data", "ml-100k"), (None, "simulated")])
def test_it_takes_movielens_where_its_folder_is_named(folder, dataset, monkeypatch):
    monkeypatch.setenv("MOVIELENS_DIR", folder) if folder else monkeypatch.delenv("MOVIELENS_DIR", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(PAGE.parent)
    names: dict = {}
    exec(source("code")[0], names)
    assert names["DATASET"] == dataset
    assert names["ROOT"] == ROOT
