"""Which files a program needs, on a small project; and the zip for Gradescope, which is made in this way."""

import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from grading.archive import write_zip
from grading.import_graph import data_files, find_modules, imported_modules, reachable
from grading.make_zip import make_zip

FILES = {
    "start.py": "import json\nfrom room import one\n\ndef later():\n    from room.two import thing\n",
    "room/__init__.py": "",
    "room/one.py": 'TABLE = {"three": "room.three:Class", "none": "room.nothing", "prose": "room.four is not named"}',
    "room/two.py": "thing = 1",
    "room/three.py": "import two\n",
    "room/four.py": 'from pathlib import Path\nDATA = Path(__file__).with_name("data.csv")\nNAME = "secret.txt"\n',
    "room/data.csv": "",
    "room/secret.txt": "",
    "notes/text.py": "",
}


@pytest.fixture
def known(tmp_path) -> dict[str, Path]:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return find_modules(tmp_path)


def test_modules_are_files_at_the_root_and_in_packages(known):
    assert set(known) == {"start", "room", "room.one", "room.two", "room.three", "room.four"}


def test_imports_inside_functions_count(known):
    assert imported_modules("start", known) == {"room.one", "room.two"}


def test_a_script_imports_from_its_own_folder(known):
    assert imported_modules("room.three", known) == {"room.two"}


def test_packages_and_modules_named_in_a_table_are_needed(known):
    assert reachable(["start"], known) == {"start", "room", "room.one", "room.two", "room.three"}


def test_a_module_that_counts_as_not_there_brings_nothing_along(known):
    assert reachable(["start"], known, without=["room.one"]) == {"start", "room.two", "room"}
    assert reachable(["start"], known, without=["room"]) == {"start"}


def test_data_is_what_a_module_names_as_beside_it(known):
    assert {path.name for path in data_files(known["room.four"])} == {"data.csv"}
    assert data_files(known["room.one"]) == set()


def test_a_zip_knows_its_scripts_and_not_its_time(tmp_path):
    for name in ("one.zip", "two.zip"):
        write_zip(tmp_path / name, {"b": b"text", "a/run": b"script"}, executable=["a/run"])
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["a/run", "b"]
        assert [entry.external_attr >> 16 & 0o777 for entry in archive.infolist()] == [0o755, 0o644]


def test_gradescope_gets_the_grader_the_project_s_requirements_and_no_solution(tmp_path):
    make_zip(tmp_path / "autograder.zip")
    with zipfile.ZipFile(tmp_path / "autograder.zip") as archive:
        names = archive.namelist()
        assert archive.read("requirements.txt") == (ROOT / "requirements.txt").read_bytes()
    assert {"grader.py", "grading/worker.py", "grading/reference.py", "setup.sh", "run_autograder"} <= set(names)
    assert [name for name in names if Path(name).name == "models.py" or name.startswith(("tests", "."))] == []
