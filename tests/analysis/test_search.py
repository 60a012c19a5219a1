"""The search for the settings of the ensemble: its draws, its log and its choice."""

import csv
import json

import pandas as pd
import pytest

import experiments
from analysis import configuration, search
from analysis.results import CURVES
from config.cli import config_of
from config.multitask import MultiTaskConfig
from registry import CHOICES, MODELS, make_config


def test_draws_are_distinct_reproducible_and_valid():
    drawn = search.draw(20)
    assert drawn == search.draw(20)
    assert search.draw(7) == drawn[:7]
    assert len({json.dumps(trial) for trial in drawn}) == 20
    for trial in drawn:
        make_config("multitask", **search.COMMON | trial)


def test_draws_cover_the_space():
    drawn = search.draw(200)[len(search.STARTS) :]
    for name, values in search.SPACE.items():
        if name != "network_dim":
            assert {trial[name] for trial in drawn} == set(values)
    assert all(trial["layer_sizes"] == (3 * trial["embedding_dim"],) for trial in drawn)


def test_the_log_holds_means_of_the_last_epochs_on_validation(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "MRR_TO_BEAT", 0.10)
    monkeypatch.setattr(search, "MSE_TO_BEAT", 0.61)
    results = []
    for row, seed, mrr, mse in [("1", 0, 0.10, 1.0), ("1", 1, 0.20, 1.0), ("2", 0, 0.11, 0.5), ("2", 1, 0.13, 0.7)]:
        folder = tmp_path / f"{row}-{seed}"
        folder.mkdir()
        columns = {key: [0.5, 0.5] for key in CURVES} | {"val_mrr": [0.9, mrr], "val_mse": [0.1, mse]}
        columns |= {"epoch": [1, 2], "test_mrr": [0.9, 1 - mrr]}
        pd.DataFrame(columns).to_csv(folder / "metrics.csv", index=False)
        results.append({"row": row, "seed": seed, "folder": str(folder)})
    first, second = search.summarize(search.draw(2), results)
    assert (first["trial"], first["val_mrr"], first["lead"], first["seeds"]) == (1, 0.15, -0.39, 2)
    assert (second["trial"], second["val_mrr"], second["val_mse"], second["lead"]) == (2, 0.12, 0.6, 0.01)
    assert not any("test" in name for name in first)


def test_each_option_is_left_out_alone():
    chosen = search.COMMON | search.STARTS[0] | {"user_weight_exponent": 0.0}
    effects = search.leave_out(chosen)
    assert effects.pop("nothing") == chosen
    one = {"ensemble_size": 1, "num_item_based": 0, "embedding_dim": 256, "layer_sizes": (768,)}
    assert effects.pop("ensemble_size") == chosen | one
    assert effects.pop("shared_embeddings") == chosen | {"shared_embeddings": False, "num_item_based": 0}
    assert list(effects) == ["schedule", "init_rating_bias", "embedding_decay", "num_item_based"]
    for name, settings in effects.items():
        assert settings == chosen | {name: getattr(MultiTaskConfig, name)}


@pytest.mark.slow
def test_a_search_writes_its_log_and_a_preset_that_main_reads(elsewhere, monkeypatch):
    monkeypatch.setitem(configuration.QUICK, "epochs", 1)
    monkeypatch.setitem(configuration.QUICK, "simulated_size", (60, 80, 2400))
    arguments = ["search", "--quick", "--trials", "1", "--seeds", "1", "--folder", "found"]
    assert experiments.main(arguments) == 0
    with (elsewhere / "found" / "trials.csv").open() as file:
        (line,) = csv.DictReader(file)
    with (elsewhere / "found" / "effects.csv").open() as file:
        nothing, *others = csv.DictReader(file)
    assert nothing["without"] == "nothing"
    assert nothing["val_mrr"] == line["val_mrr"]
    assert len(others) >= 4
    chosen = json.loads((elsewhere / "found" / "ensemble.json").read_text())
    config = config_of(chosen, "ensemble.json", MODELS, CHOICES)
    assert config.embedding_dim == int(line["embedding_dim"])
    assert config.ranking_loss == "softmax"
