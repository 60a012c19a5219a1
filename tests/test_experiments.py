"""The command line of the experiments."""

import subprocess
import sys

import pytest
from conftest import ROOT

import experiments
from analysis import zoo

SMALL = {
    "dataset": "simulated", "simulated_size": (60, 80, 2400), "epochs": 1, "embedding_dim": 4,
    "expert_units": (4,), "tower_units": (4,),
}  # fmt: skip


def test_the_table_of_the_zoo_from_the_command_line(tmp_path, monkeypatch, capsys):
    rows = {"MMoE, view only": {"model": "mmoe", "labels": "view"}, "single task": {"model": "single"}}
    monkeypatch.setattr(zoo, "ROWS", rows)
    monkeypatch.setattr(zoo, "QUICK", SMALL)
    monkeypatch.chdir(tmp_path)
    assert experiments.main(["zoo", "--quick", "--seeds", "1", "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert "2/2" in out
    assert "SIMULATED DATA" in out
    for row in ("MMoE, view only", "single task", "*popularity*", "*user + item mean*"):
        assert f"| {row} |" in out
    assert {path.name for path in (tmp_path / "results" / "zoo-quick").iterdir()} == {
        "runs", "table.csv", "table.md", "table.png", "runs.csv",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["zoo", "--seeds", "0"], "--seeds must be at least 1"),
        (["zoo", "--jobs", "0"], "--jobs must be at least 1"),
        (["zoo", "--dataset", "ml-1m", "--data_dir", "nowhere"], "cannot be reached"),
    ],
)
def test_bad_input_gets_one_sentence_and_code_2(arguments, complaint, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sources.download.ADDRESS", "http://127.0.0.1:9")
    assert experiments.main(arguments) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", ROOT / "experiments.py", "zoo", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--quick" in done.stdout
    assert " torch" not in done.stderr
