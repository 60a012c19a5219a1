"""Many runs, and what is made of their results."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from config.defaults import DEFAULTS
from config.settings import Settings
from conftest import ROOT
from scipy import stats

import experiments
from analysis import runner as grid
from analysis import zoo as comparison
from analysis.runner import Run, run_all
from config.errors import UserError

TINY = {
    "model": "shared_bottom", "dataset": "simulated", "simulated_size": [60, 80, 2400], "epochs": 1,
    "embedding_dim": 4, "expert_units": [4], "tower_units": [4],
}  # fmt: skip


STAND_IN = """
import json, pathlib, sys
settings = json.loads(pathlib.Path(sys.argv[2]).read_text())
if settings["ratings"]:
    sys.exit("there is no file")
folder = pathlib.Path(settings["logdir"])
folder.mkdir(parents=True)
(folder / "result.json").write_text(json.dumps({"ending": "finished", "metrics": {}}))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A program in the place of main.py that ends at once: bad where ratings are asked for, else well."""
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    monkeypatch.setattr(grid, "MAIN", path)


def silence(line: str) -> None:
    pass


def result(row: str, seed: int, view_auc: float, **about) -> dict:
    return {"row": row, "seed": seed, "metrics": {"test_view_auc": view_auc}} | about


# many runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two finished runs: (their definitions, their folder, their results)."""
    root = tmp_path_factory.mktemp("grid")
    runs = [Run("ours", Settings(**TINY, seed=seed)) for seed in range(2)]
    return runs, root, run_all(runs, root, 2, silence)


def test_results_come_back_in_order_with_row_and_seed(finished):
    runs, root, results = finished
    assert [(found["row"], found["seed"]) for found in results] == [("ours", 0), ("ours", 1)]
    for run, found in zip(runs, results, strict=True):
        assert found["ending"] == "finished"
        assert found == found | json.loads((run.folder(root) / "result.json").read_text())
        config = json.loads((run.folder(root) / "config.json").read_text())
        assert config["settings"]["seed"] == run.settings.seed
    assert not list(root.glob(".*"))  # no settings files are left behind


def test_a_finished_run_is_not_run_again(finished, monkeypatch):
    runs, root, results = finished
    monkeypatch.setattr(grid, "_start", lambda *_: pytest.fail("it was run again"))
    said = []
    assert run_all(runs, root, 2, said.append) == results
    assert "2 of 2 runs are finished already" in said[0]


def test_another_setting_is_another_run_and_where_it_runs_is_not(finished):
    runs, root, _ = finished
    settings = runs[0].settings
    same = [replace(settings, threads=2), replace(settings, device="cpu"), replace(settings, data_dir="elsewhere")]
    assert {Run("x", other).folder(root) for other in same} == {runs[0].folder(root)}
    others = [replace(settings, lr=0.1), replace(settings, epochs=2), replace(settings, seed=5)]
    assert len({Run("x", other).folder(root) for other in [settings, *others]}) == 4


def test_a_run_that_was_cut_off_begins_anew(stand_in, tmp_path):
    run = Run("ours", Settings(**TINY))
    folder = run.folder(tmp_path / "runs")
    folder.mkdir(parents=True)
    (folder / "last.pt").write_text("of the run that was cut off")
    (folder / "result.json").write_text(json.dumps({"ending": "interrupted"}))
    assert run_all([run], tmp_path / "runs", 1, silence)[0]["ending"] == "finished"
    assert [path.name for path in folder.iterdir()] == ["result.json"]


def test_a_run_that_fails_is_said_and_the_others_stay(stand_in, tmp_path):
    good, broken = Run("good", Settings(**TINY)), Run("broken", Settings(ratings="nowhere.csv", model="esmm"))
    with pytest.raises(UserError, match=r"ended with code 1: there is no file"):
        run_all([good, broken], tmp_path / "runs", 1, silence)
    assert grid._result(good, tmp_path / "runs") is not None
    assert not list((tmp_path / "runs").glob(".*"))


# tables


def test_means_spread_and_paired_p_by_hand():
    ours, theirs = [0.9, 0.8, 0.85], [0.88, 0.79, 0.83]
    results = [result("ours", s, v) for s, v in enumerate(ours)] + [result("ref", s, v) for s, v in enumerate(theirs)]
    table = comparison.tabulate(results, "ref")
    assert table.loc["ours", ("view AUC", "mean")] == pytest.approx(0.85)
    assert table.loc["ours", ("view AUC", "sd")] == pytest.approx(0.05)
    assert table.loc["ours", ("view AUC", "p")] == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert math.isnan(table.loc["ref", ("view AUC", "p")])
    assert math.isnan(table.loc["ours", ("log loss", "mean")])
    assert list(table.index) == ["ours", "ref"]


def test_seeds_are_paired_by_their_number_and_not_by_their_place():
    ours = [result("ours", seed, 0.5 + seed / 10 + 0.01) for seed in (2, 0, 1)]
    theirs = [result("ref", seed, 0.5 + seed / 10) for seed in (0, 1, 2)]
    differences = [0.01, 0.01, 0.01 + 1e-9]
    assert comparison.tabulate(ours + theirs, "ref").loc["ours", ("view AUC", "p")] < 0.001
    assert stats.ttest_1samp(differences, 0).pvalue < 0.001


@pytest.mark.parametrize(("differences", "p"), [([0.0, 0.0, 0.0], 1.0), ([0.1], math.nan), ([0.5, 0.5], 0.0)])
def test_degenerate_pairs(differences, p):
    zeros = pd.Series([0.0] * len(differences))
    assert comparison.paired_p(pd.Series(differences), zeros) == pytest.approx(p, nan_ok=True)


def test_a_sum_of_log_losses_needs_both_terms():
    both = {"test_view_log_loss": 0.3, "test_like_log_loss": 0.2, "test_log_loss": 0.5}
    results = [
        {"row": "ref", "seed": 0, "metrics": both},
        {"row": "view", "seed": 0, "metrics": {"test_view_log_loss": 0.3, "test_log_loss": 0.3}},
    ]
    table = comparison.tabulate(results, "ref")
    assert table.loc["ref", ("log loss", "mean")] == 0.5
    assert math.isnan(table.loc["view", ("log loss", "mean")])
    assert table.loc["view", ("of view", "mean")] == 0.3


def test_the_table_in_words(tmp_path):
    results = [result("ref", s, 0.80 + s / 100, parameters=1234) for s in range(3)]
    results += [result("ours", s, 0.90 + s / 100 + s * s / 1e4, parameters=99) for s in range(3)]
    results += [result("popularity", s, 0.70, is_baseline=True) for s in range(3)]
    table = comparison.tabulate(results, "ref")
    settings = Settings(model="mmoe", dataset="simulated")
    text = comparison.as_markdown(table, {"popularity"}, settings, 3)
    assert "SIMULATED" in text
    assert "| ours | 0.9102 ± 0.0102 \\* | n/a |" in text
    assert "| *popularity* | 0.7000 ± 0.0000 \\* |" in text
    assert "| 1,234 |" in text
    assert "SIMULATED" not in comparison.as_markdown(table, set(), replace(settings, dataset="ml-100k"), 3)
    paths = comparison.write(table, results, tmp_path, settings, 3)
    assert [path.name for path in paths] == ["table.csv", "table.md", "table.png", "runs.csv"]
    assert (tmp_path / "table.png").read_bytes()[:4] == b"\x89PNG"
    assert pd.read_csv(tmp_path / "table.csv").shape[0] == 3
    assert pd.read_csv(tmp_path / "runs.csv").shape[0] == 9


# the command line


def test_every_network_has_a_row():
    assert {about["model"] for about in experiments.ZOO_ROWS.values()} == set(DEFAULTS) - {"multitask", "dyadic"}
    assert experiments.REFERENCE in experiments.ZOO_ROWS


def test_the_table_of_the_zoo_from_the_command_line(tmp_path, monkeypatch, capsys):
    rows = {"MMoE, view only": {"model": "mmoe", "labels": "view"}, "single task": {"model": "single"}}
    small = {name: value for name, value in TINY.items() if name != "model"}
    monkeypatch.setattr(experiments, "ZOO_ROWS", rows)
    monkeypatch.setattr(experiments, "ZOO_QUICK", small)
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
