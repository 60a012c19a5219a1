"""Cross-validation of one model: a run per fold, and the mean and standard deviation of its last epochs.

The published folds are u1 to u5 of MovieLens 100K, disjoint test parts of 20,000 ratings each.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from analysis.results import read_metrics
from analysis.runner import Log, Run, run_all
from analysis.tables import box, cell, markdown_rows, marked
from config import cli
from config.base import SplitConfig
from config.errors import UserError
from dataset import Data, data_folder
from evaluation import mse_score
from registry import CHOICES, MODELS, recipe_for
from sources import download
from sources.catalog import MOVIELENS
from training.run_folder import RunFolder

PUBLISHED = "ml-100k"
PUBLISHED_FOLDS = 5
QUICK = ("--dataset", "simulated", "--simulated_size", "300", "400", "12000", "--epochs", "3")
FILES = ("table.md", "table.csv")


def run(folder: Path, configs: Sequence[SplitConfig], jobs: int, log: Log) -> list[Path]:
    """Run the folds that are not finished, then write FILES; returns their paths. configs: one per fold."""
    runs = [Run(config.model, config) for config in configs]
    results = run_all(runs, folder / "runs", jobs, log)
    paths = [folder / name for name in FILES]
    records = [RunFolder.open(Path(result["folder"])).read_config() for result in results]
    table = pd.DataFrame(
        [measure(one.config, Path(result["folder"])) for one, result in zip(runs, results, strict=True)]
    )
    table.index = pd.RangeIndex(1, len(table) + 1, name="fold")
    paths[0].write_text(as_markdown(table, configs[0], [record["data"] for record in records]), encoding="utf-8")
    table.to_csv(paths[1])
    return paths


def make_configs(flags: Sequence[str], folds: int) -> list[SplitConfig]:
    """A config for every fold of random parts. flags: of main.py.

    Raises:
        UserError: a flag is wrong, or contradicts the folds.
    """
    return [replace(parse_config(flags), fold=(number, folds)) for number in range(1, folds + 1)]


def make_published_configs(flags: Sequence[str], data_dir: str | None) -> list[SplitConfig]:
    """A config for each of the five published folds. flags: of main.py, without those of data.

    Raises:
        UserError: as `make_configs`; or MovieLens 100K cannot be had.
    """
    root = data_folder(data_dir)
    download.fetch(PUBLISHED, root)
    source = MOVIELENS[PUBLISHED]
    stems = [(root / source.folder / f"u{number}").resolve() for number in range(1, PUBLISHED_FOLDS + 1)]
    config = parse_config(flags)
    return [
        replace(config, train_ratings=f"{stem}.base", test_ratings=f"{stem}.test", rating_scale=source.scale)
        for stem in stems
    ]


def parse_config(flags: Sequence[str]) -> SplitConfig:
    """The config of one run. flags: of main.py.

    Raises:
        UserError: a flag is wrong, or the model has splits of its own.
    """
    config = cli.parse(flags, MODELS, CHOICES).config
    if not isinstance(config, SplitConfig):
        raise UserError(f"--model {config.model} has splits of its own and no folds: choose another model")
    return config


class Clipped(nn.Module):
    """A network whose predicted ratings are clipped to the scale of the data."""

    def __init__(self, model: nn.Module, rating_scale: tuple[float, float]) -> None:
        super().__init__()
        self.model, self.rating_scale = model, rating_scale

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        predictions, score = self.model(user_ids, item_ids)
        return predictions, score.clamp(*self.rating_scale)


def measure(config: SplitConfig, folder: Path) -> dict[str, float]:
    """Test metrics of the last epoch of a run: RMSE, clipped RMSE and MRR, or all metrics of a model without MSE."""
    last = read_metrics(folder).iloc[-1]
    found = {name.removeprefix("test_"): float(value) for name, value in last.items() if name.startswith("test_")}
    if "mse" not in found:
        return found
    device, recipe, run = torch.device("cpu"), recipe_for(config), RunFolder.open(folder)
    data: Data = recipe.load_data(config)
    decided = cli.config_of(run.read_config()["settings"], str(folder), MODELS, CHOICES)
    model = recipe.build(decided, data, device).model
    run.restore("last", device, {"model": model})
    clipped = mse_score(Clipped(model, data.rating_scale), data.test)
    return {"RMSE": found["mse"] ** 0.5, "clipped RMSE": clipped**0.5, "MRR": found["mrr"]}


def as_markdown(table: pd.DataFrame, config: SplitConfig, datas: Sequence[dict]) -> str:
    """The table with its caption. table: a row per fold; datas: what config.json says of the data of each fold."""
    simulated = datas[0]["simulated"]
    name = PUBLISHED + ", published folds" if config.train_ratings is not None else datas[0]["name"]
    rows = [
        [str(fold), *(cell(value) for value in row)] for fold, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    rows.append(["mean ± sd", *(cell(table[column].mean(), table[column].std(ddof=1)) for column in table)])
    settings = f"--model {config.model}, {len(table)} folds, test part, last of {config.epochs} epochs"
    caption = f"{marked(name, simulated)}: {settings}."
    notes = [f"Fold {fold}: {note}." for fold, data in zip(table.index, datas, strict=True) for note in data["notes"]]
    lines = [*box(simulated), caption, "", *markdown_rows(["fold", *table], rows), ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes)]).rstrip() + "\n"
