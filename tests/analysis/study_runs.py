"""Made-up results of the experiments with the multi-task net: curves, and a program instead of main.py."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from analysis import runner, sweep
from analysis.configuration import VAL_FRACTION
from analysis.weights import CONFIGURATIONS
from registry import recipe_for
from training.loop import fit
from training.run_folder import RunFolder

# What captions and tables tell of the settings.
SETTINGS = {
    "epochs": 30, "test_fraction": 0.05, "val_fraction": VAL_FRACTION, "embedding_dim": 32, "batch_size": 256,
    "lr": 0.005,
}  # fmt: skip
# A run without training: its metrics are a formula of the settings. It writes the files of a run and records its start.
# With a file "crash" beside the runs, seed 1 is killed half-way.
STAND_IN = """
import json, os, pathlib, sys
settings = json.loads(pathlib.Path(sys.argv[2]).read_text())
folder = pathlib.Path(settings["logdir"])
with open(folder.parent / "starts", "a") as file:
    file.write(folder.name + "\\n")
folder.mkdir()
data = {"name": settings["dataset"], "simulated": settings["dataset"] == "simulated"}
config = {"settings": settings | {"device": "cpu"}, "data": data, "versions": {"python": "3", "torch": "2"}}
(folder / "config.json").write_text(json.dumps(config))
if (folder.parent / "crash").exists() and settings["seed"] == 1:
    os.kill(os.getpid(), 9)
columns = ["epoch", "train_factorization", "train_regression", "train_joint"]
columns += [f"{part}_{metric}" for part in ("val", "test") for metric in ("mrr", "mse")]
lines = [",".join(columns)]
for epoch in range(1, settings["epochs"] + 1):
    mrr = 0.1 + 0.01 * epoch + 0.001 * settings["seed"] - 0.05 * settings["regression_weight"]
    mse = 1.0 - 0.02 * epoch + 0.01 * settings["seed"] + 0.1 * settings["shared_embeddings"]
    lines.append(",".join(map(str, [epoch, 0.5 / epoch, 2.0 / epoch, 1.0, mrr, mse, mrr, mse])))
(folder / "metrics.csv").write_text("\\n".join(lines) + "\\n")
(folder / "result.json").write_text(json.dumps({"ending": "finished", "metrics": {}}))
"""


def stand_in_for_main(path: Path, monkeypatch) -> None:
    """Let the runner start the stand-in."""
    path.write_text(STAND_IN)
    monkeypatch.setattr(runner, "MAIN", path)


def starts(root: Path) -> list[str]:
    """The folders of all runs started under `root`, in order."""
    return (root / "starts").read_text().split()


def curves(effects: dict[tuple[str, str], float], seeds: int = 5, noise: float = 1e-3) -> pd.DataFrame:
    """Two epochs of the four experiments: the last is the best one by validation, and equal for all but the effects.

    effects: {(configuration, "mrr" or "mse"): what is added to its values}. noise: sd of a run's own part; the splits
    add ten times as much, to all configurations alike.
    """
    random = np.random.default_rng(0)
    split = random.normal(size=(seeds, 2)) * 10 * noise
    rows = []
    for one in CONFIGURATIONS:
        for seed in range(seeds):
            own = split[seed] + noise * random.normal(size=2)
            mrr = 0.1 + effects.get((one.name, "mrr"), 0.0) + own[0]
            mse = 0.9 + effects.get((one.name, "mse"), 0.0) + own[1]
            for epoch in (1, 2):
                worse = 2 - epoch
                values = {"mrr": mrr - 0.01 * worse, "mse": mse + 0.1 * worse}
                measured = {f"{part}_{name}": value for part in ("val", "test") for name, value in values.items()}
                losses = {"train_factorization": 0.4, "train_regression": 0.8, "train_joint": 1.0}
                rows.append({"row": one.name, "seed": seed, "epoch": epoch} | losses | measured)
    return pd.DataFrame(rows)


def sweep_numbers(seeds: int = 5) -> pd.DataFrame:
    """Made-up runs of the sweep: ranking falls and rating gains with lambda_R; separate tables are the ends."""
    random = np.random.default_rng(1)
    rows = {}
    for one in sweep.CONFIGURATIONS:
        for seed in range(seeds):
            mrr = 0.12 - 0.05 * one.regression_weight * one.shared + 0.001 * random.normal()
            mse = 0.90 - 0.05 * one.regression_weight * one.shared + 0.002 * random.normal()
            values = {f"{reading}_mrr": mrr for reading in ("last", "best", "both")}
            values |= {f"{reading}_mse": mse for reading in ("last", "best", "both")}
            rows[one.name, seed] = values | {"both_epoch": 7, "best_mrr_epoch": 8, "best_mse_epoch": 3}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["row", "seed"])
    return table


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value))


def train_here(runs, root: Path, jobs: int, log) -> list[dict]:
    """analysis.runner.run_all in this process, which saves the start of main.py for every run."""
    results, device = [], torch.device("cpu")
    for one in runs:
        folder, recipe = one.folder(root), recipe_for(one.config)
        if not folder.exists():
            data = recipe.load_data(one.config)
            config = recipe.resolve(one.config, data, log)
            run = RunFolder.new(folder)
            run.write_config({"settings": {}, "data": {}})
            fit(recipe.build(config, data, device), config, run, device, log)
        results.append({"row": one.row, "seed": one.config.seed, "folder": str(folder)})
    return results
