"""Grading a whole class: equal to grading each hand-in alone, interrupted and taken up, and the summary."""

import csv
import json
import shutil
import zipfile

import pytest
from solutions import CORRECT, MODELS, WRONG, changed

import grader
from grading.checks import all_checks
from grading.classroom import cell, failure_of

ENDLESS = MODELS.replace("return ZeroEmbedding(num_items, 1)", "while True:\n            pass")
HAND_INS = {
    "Ada Lovelace/models.py": MODELS,
    "right.py": changed(CORRECT["einsum"]),
    "windows.py": MODELS.replace("\n", "\r\n"),
    "wrong/models.py": changed(WRONG["missing ReLU"][1]),
    "name/model_final.py": MODELS,
    "syntax.py": "def (",
    "=2+3.py": "import nothing_like_this",
    "exits.py": "import os\nos._exit(3)\n",
    "nothing/report.txt": "see the other folder",
}


@pytest.fixture(scope="module")
def classroom(tmp_path_factory):
    """A class with its grades: the folder of hand-ins, the CSV file, and what was printed."""
    root = tmp_path_factory.mktemp("class")
    folder = root / "hand-ins"
    for name, source in HAND_INS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(source.encode())
    (folder / "utf16.py").write_text(MODELS, encoding="utf-16")
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        archive.writestr("homework/models.py", MODELS)
    return folder, root / "grades.csv", root / "json"


def grade(classroom, *arguments) -> int:
    folder, table, details = classroom
    return grader.main(["--class", str(folder), "--csv", str(table), "--json", str(details), "--fast", *arguments])


def rows(table) -> dict[str, dict]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        return {row["hand_in"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_a_class_is_graded_as_each_hand_in_alone(classroom, capsys, tmp_path):
    folder, table, details = classroom
    assert grade(classroom) == 0
    printed = capsys.readouterr().out
    found = rows(table)
    assert set(found) == {cell(path.name) for path in folder.iterdir()}
    for path in folder.iterdir():
        code = grader.main(["--path", str(path), "--fast", "--gradescope", str(tmp_path / "alone.json")])
        row = found[cell(path.name)]
        if row["1a-0-basic"] == "NOT GRADED":
            assert code == 2
            assert row["note"] in capsys.readouterr().err
            assert row["points"] == "0"
            continue
        alone = json.loads((tmp_path / "alone.json").read_text())["tests"]
        assert [row[test["number"]] for test in alone] == [test["output"].split("\n")[0] for test in alone]
        assert int(row["points"]) == sum(test["score"] for test in alone)
        in_class = json.loads((details / f"{path.name}.json").read_text())["tests"]
        assert in_class == alone
    assert {name: row["points"] for name, row in found.items() if row["points"] == "12"}.keys() == {
        "Ada Lovelace", "right.py", "windows.py", "name", "zipped.zip",
    }  # fmt: skip
    assert found["name"]["note"] == "graded model_final.py: its name should be models.py"
    assert "[11/11]" in printed
    assert "commonest failure" in printed
    assert "1 x FAIL expected: for layer_sizes=[96]: Linear(96, 1)" not in printed  # the other failures are commoner


@pytest.mark.slow
def test_the_same_command_grades_only_what_has_changed(classroom, capsys):
    folder, table, details = classroom
    grade(classroom)
    before = rows(table)
    capsys.readouterr()
    grade(classroom)
    assert rows(table) == before
    assert "11 of them kept" in capsys.readouterr().out

    (folder / "syntax.py").write_text(MODELS)
    (details / "right.py.json").unlink()
    shutil.rmtree(folder / "nothing")
    grade(classroom)
    assert "8 of them kept" in capsys.readouterr().out
    after = rows(table)
    assert after["syntax.py"]["points"] == "12"
    assert "nothing" not in after
    assert after["wrong"] == before["wrong"]
    (folder / "syntax.py").write_text(HAND_INS["syntax.py"])
    (folder / "nothing").mkdir()
    (folder / "nothing" / "report.txt").write_text(HAND_INS["nothing/report.txt"])


def test_a_table_of_something_else_is_not_overwritten(classroom, capsys, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    assert grader.main(["--class", str(classroom[0]), "--csv", str(other)]) == 2
    assert "give --csv another file" in capsys.readouterr().err
    assert other.read_text() == "a,b\n1,2\n"


def test_an_empty_class_is_one_sentence(capsys, tmp_path):
    assert grader.main(["--class", str(tmp_path), "--csv", str(tmp_path / "grades.csv")]) == 2
    assert "there is no hand-in in" in capsys.readouterr().err


def test_a_spreadsheet_computes_no_cell():
    assert cell("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert cell("Ada") == "Ada"


def test_equal_failures_are_counted_together():
    row = {"1a": "FAIL", "2": "ERROR", "3a": "PASS", "note": "", "problems": "1a: expected: 3; got:      4\n2: exit 3"}
    assert failure_of(row, "1a") == "FAIL expected: 3"
    assert failure_of(row, "2") == "ERROR exit 3"
    assert failure_of(row | {"problems": "models.py: SyntaxError"}, "2") == "ERROR SyntaxError"


@pytest.mark.slow
def test_the_budget_of_a_hand_in_bounds_its_time(tmp_path, monkeypatch):
    """A hand-in that hangs in many checks: once the budget is used up, the others are not run."""
    monkeypatch.setattr("grading.results.BUDGET_SECONDS", 4.0)
    (tmp_path / "hand-ins").mkdir()
    slow = MODELS.replace("super().__init__()\n", "super().__init__()\n        import time; time.sleep(60)\n", 1)
    (tmp_path / "hand-ins" / "slow.py").write_text(slow)
    assert grader.main(["--class", str(tmp_path / "hand-ins"), "--csv", str(tmp_path / "grades.csv")]) == 0
    row = rows(tmp_path / "grades.csv")["slow.py"]
    assert float(row["seconds"]) < 10
    assert [row[check.id] for check in all_checks() if check.question == "2"] == ["PASS", "PASS"]
    assert sum(row[check.id] == "TIMEOUT" for check in all_checks()) == 9
    assert "not run" in row["problems"]
