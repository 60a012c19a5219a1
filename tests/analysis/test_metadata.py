"""What is recorded beside a table: settings that all runs share, versions, and the data."""

import json
from dataclasses import replace

import pytest

from analysis import metadata, zoo
from analysis.runner import Run
from registry import make_config
from training.run_folder import RunFolder
from training.session import versions
from zoo.recipe import ZooRecipe


def test_settings_are_those_that_no_run_changes():
    base = make_config("multitask", dataset="simulated", epochs=3)
    found = metadata.shared_settings([base, replace(base, seed=1, regression_weight=0.25, factorization_weight=0.75)])
    assert found["epochs"] == 3
    assert found["layer_sizes"] == (96, 64)  # the default, resolved
    assert not {"seed", "regression_weight", "factorization_weight", "quiet", "logdir"} & set(found)


def test_settings_of_different_networks():
    """What one of them alone has is a setting; what has two values is none."""
    configs = [make_config(**own, dataset="simulated") for own in ({"model": "mmoe"}, {"model": "shared_bottom"})]
    found = metadata.shared_settings(configs)
    assert found["experts"] == configs[0].experts
    assert found["labels"] == "view,like"
    found = metadata.shared_settings([*configs, replace(configs[0], labels="view", experts=configs[0].experts + 1)])
    assert not {"experts", "labels"} & set(found)


def test_versions_that_differ_are_all_told():
    made = metadata.assemble(
        data="x", simulated=False, is_quick=False, seeds=[2, 0, 2], runs=3, statistics={}, settings={},
        versions=[{"torch": "1"}, {"torch": "2"}, {"torch": "1"}],
    )  # fmt: skip
    assert made["versions"] == {"torch": "1, 2"}
    assert made["seeds"] == [0, 2]
    assert set(metadata.NEEDED) <= set(made)


def test_the_zoo_describes_its_runs(tmp_path, monkeypatch, tiny):
    monkeypatch.setattr(ZooRecipe, "load_data", lambda self, config: tiny)
    rows = [("MMoE", {"model": "mmoe"}), ("ESMM", {"model": "esmm"})]
    common = {"dataset": "simulated", "like_from": 3.5}
    runs = [Run(row, make_config(**own, **common, seed=seed)) for seed in (0, 1) for row, own in rows]
    results = []
    for run in runs:
        folder = RunFolder.new(run.folder(tmp_path))
        folder.write_config({"settings": {"device": "cpu"}, "data": {}, "versions": versions()})
        results.append({"folder": str(folder.path)})
    found = json.loads(json.dumps(zoo.describe_data(runs, results, True)))
    ratings = (tiny.seen + tiny.test).ratings
    assert found["simulated"] is found["quick"] is True
    assert (found["seeds"], found["runs"], found["versions"]) == ([0, 1], 4, versions())
    likes = float(found["statistics"]["fraction of likes (from 3.5)"].removesuffix(" %"))
    assert likes == pytest.approx(100 * (ratings >= 3.5).float().mean().item(), abs=0.05)
    assert found["statistics"]["users"] == "60"
    assert found["settings"]["device"] == "cpu"
    assert found["settings"]["like_from"] == 3.5
    assert found["settings"]["simulated_size"] == [943, 1682, 100_000]
    assert "rating_scale" not in found["settings"]  # of a file of one's own
