"""Cross-validation: a run per fold, and a table of their last epochs."""

import math

import pandas as pd
import pytest
import torch
from conftest import Lookup

import experiments
from analysis import folds
from config.errors import UserError
from evaluation import mse_score

TINY = ("--dataset", "simulated", "--simulated_size", "60", "80", "2400", "--epochs", "2")
COLUMNS = ["RMSE", "clipped RMSE", "MRR"]


@pytest.mark.slow
def test_the_table_from_the_command_line(elsewhere, monkeypatch, capsys):
    monkeypatch.setattr(folds, "QUICK", TINY)
    assert experiments.main(["folds", "--quick", "--folds", "3", "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert "SIMULATED DATA" in out
    assert "simulated (SIMULATED DATA): --model multitask, 3 folds, test part, last of 2 epochs." in out
    root = elsewhere / "results" / "folds-quick"
    table = pd.read_csv(root / "table.csv", index_col="fold")
    assert (list(table), list(table.index)) == (COLUMNS, [1, 2, 3])
    row = next(line for line in out.splitlines() if line.startswith("| mean"))
    assert f"{table['RMSE'].mean():.4f} ± {table['RMSE'].std():.4f}" in row
    last = [pd.read_csv(path).iloc[-1] for path in root.glob("runs/*/metrics.csv")]
    assert sorted(row["test_mrr"] for row in last) == pytest.approx(sorted(table["MRR"]))
    assert sorted(math.sqrt(row["test_mse"]) for row in last) == pytest.approx(sorted(table["RMSE"]))
    assert (table["clipped RMSE"] <= table["RMSE"] + 1e-9).all()


@pytest.mark.slow
def test_a_model_without_ratings_has_its_own_metrics(elsewhere, monkeypatch):
    monkeypatch.setattr(folds, "QUICK", TINY)
    assert experiments.main(["folds", "--quick", "--folds", "2", "--model", "shared_bottom"]) == 0
    table = pd.read_csv(elsewhere / "results" / "folds-quick" / "table.csv", index_col="fold")
    assert {"view_auc", "like_auc"} <= set(table)
    assert "RMSE" not in table


def test_a_model_that_decides_for_itself_is_measured_as_decided(elsewhere, monkeypatch):
    monkeypatch.setattr(folds, "QUICK", TINY)
    assert experiments.main(["folds", "--quick", "--folds", "2", "--model", "closed_form"]) == 0
    table = pd.read_csv(elsewhere / "results" / "folds-quick" / "table.csv", index_col="fold")
    assert (table["clipped RMSE"] <= table["RMSE"] + 1e-9).all()
    assert (table["clipped RMSE"] > table["RMSE"] - 0.1).all()


@pytest.mark.slow
def test_the_published_folds_are_ready_splits(elsewhere, capsys):
    folder = elsewhere / "data" / "ml-100k"
    folder.mkdir(parents=True)
    lines = [f"{user}\t{item}\t{1 + (user * item) % 5}\t0" for user in range(8) for item in range(10)]
    (folder / "u.data").write_text("\n".join(lines))
    for number in range(1, 6):
        test = [line for place, line in enumerate(lines) if (place + place // 10) % 5 == number - 1]
        (folder / f"u{number}.test").write_text("\n".join([*test, "99\t1\t3\t0"]))
        (folder / f"u{number}.base").write_text("\n".join(line for line in lines if line not in test))
    assert experiments.main(["folds", "--published", "--epochs", "1", "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert "ml-100k, published folds: --model multitask, 5 folds" in out
    assert "- Fold 5: 1 rows of " in out
    assert len(pd.read_csv(elsewhere / "results" / "folds" / "table.csv")) == 5


def test_clipping_by_hand(tiny):
    model = Lookup(torch.full((60, 80), 9.0))
    expected = (5 - tiny.test.ratings).square().mean().item()
    assert mse_score(folds.Clipped(model, (1.0, 5.0)), tiny.test) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--folds", "1"], "--folds must be at least 2 and at most 1000, not 1"),
        (["--quick", "--model", "dyadic"], "--model dyadic has splits of its own and no folds: choose another model"),
        (["--quick", "--ratings", "a.csv"], "--quick is on simulated data: leave out --ratings"),
        (["--published", "--ratings", "a.csv"], "--published names the data: leave out --dataset, --ratings, "),
        (["--published", "--folds", "3"], "argument --folds: not allowed with argument --published"),
        (["--ratings", "nowhere.csv", "--dataset", "ml-1m"], "exclude each other"),
    ],
)
def test_bad_input_gets_one_sentence(elsewhere, capsys, flags, sentence):
    assert experiments.main(["folds", *flags]) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert message.count("\n") == 1


def test_every_fold_has_a_folder_of_its_own():
    configs = folds.make_configs(TINY, 4)
    assert [config.fold for config in configs] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len({folds.Run("x", config).folder(folds.Path()) for config in configs}) == 4
    with pytest.raises(UserError, match="--test_fraction does not apply to --fold"):
        folds.make_configs([*TINY, "--test_fraction", "0.3"], 4)
