"""One model on splits that papers print results for, beside what they print and beside user and item biases.

Every figure of ours is of the last epoch of a run that decides on its training part alone. The Douban split has to be
given as files: it may not be passed on with the program.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis.folds import PUBLISHED, make_published_configs, measure, parse_config
from analysis.runner import Log, Run, run_all
from analysis.tables import box, cell, markdown_rows, marked
from config.base import SplitConfig
from config.errors import UserError
from config.multitask import ClosedFormConfig, MultiTaskConfig
from dataset import data_folder, load
from sources import download
from sources.catalog import WHOLE_STARS
from training.run_folder import RunFolder

SEEDS = (0, 1, 2)  # of the random splits of RANDOM
RANDOM = "ml-latest-small"
BIASES = "user + item biases"
METRICS = ("RMSE", "clipped RMSE", "MRR", "RMSE of biases")
FILES = ("table.md", "table.csv")


class Figure(NamedTuple):
    """An RMSE as a paper prints it.

    source: authors and year.
    best_test_epoch: the epoch was chosen by the test part.
    """

    method: str
    rmse: float
    source: str
    best_test_epoch: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.rmse:.3f}" + (", best test epoch" if self.best_test_epoch else "")


# GC-MC prints the figures of sRGCNN, too: Monti et al. state 0.929 and 0.801 for their own splits.
FIGURES_U1 = (
    Figure("sRGCNN", 0.929, "Monti, Bronstein and Bresson 2017"),
    Figure("GC-MC", 0.910, "van den Berg, Kipf and Welling 2017"),
    Figure("GC-MC with features", 0.905, "van den Berg, Kipf and Welling 2017"),
    Figure("IGMC", 0.905, "Zhang and Chen 2020"),
    Figure("GLocal-K", 0.889, "Han et al. 2021", best_test_epoch=True),
)
FIGURES_DOUBAN = (
    Figure("sRGCNN", 0.801, "Monti, Bronstein and Bresson 2017"),
    Figure("GC-MC", 0.734, "van den Berg, Kipf and Welling 2017"),
    Figure("IGMC", 0.721, "Zhang and Chen 2020"),
    Figure("GLocal-K", 0.721, "Han et al. 2021", best_test_epoch=True),
)
NOTES = (
    "All runs: last epoch, test part; mean ± standard deviation over the runs of a row. Clipped: to the rating scale.",
    "u1 is also the split of MovieLens 100K of Monti et al. 2017 and of the papers that follow them.",
    "Papers print the RMSE alone. No paper is known to us that prints it for u1 to u5 together, or for the random "
    f"splits of {RANDOM}.",
    "Flixster and YahooMusic, the other splits of Monti et al. 2017, are not measured: their files were not at hand.",
)


@dataclass(frozen=True)
class Protocol:
    """A row of the table.

    configs: of its runs; none where its data are not given.
    missing: then how to give them.
    """

    name: str
    configs: tuple[SplitConfig, ...]
    figures: tuple[Figure, ...] = ()
    missing: str = ""


def make_protocols(flags: Sequence[str], data_dir: str | None, douban: Sequence[str] | None) -> list[Protocol]:
    """The protocols of the table. flags: of main.py, without those of data. douban: train and test file, if at hand.

    Raises:
        UserError: a flag is wrong, the model predicts no ratings, or a data set cannot be had.
    """
    config = parse_config(flags)
    if not isinstance(config, (MultiTaskConfig, ClosedFormConfig)):
        raise UserError(f"--model {config.model} has no RMSE: choose multitask or closed_form")
    folds = make_published_configs(flags, data_dir)
    download.fetch(RANDOM, data_folder(data_dir))
    random = tuple(replace(config, dataset=RANDOM, data_dir=data_dir, seed=seed) for seed in SEEDS)
    return [
        Protocol(f"{PUBLISHED}, u1", (folds[0],), FIGURES_U1),
        Protocol(f"{PUBLISHED}, u1 to u5", tuple(folds)),
        _make_douban(config, douban),
        Protocol(f"{RANDOM}, 95/5, seeds {SEEDS[0]} to {SEEDS[-1]}", random),
    ]


def _make_douban(config: SplitConfig, files: Sequence[str] | None) -> Protocol:
    name = "Douban, split of Monti et al. 2017"
    if files is None:
        return Protocol(name, (), FIGURES_DOUBAN, "give its files by --douban TRAIN TEST")
    train, test = (str(Path(file).resolve()) for file in files)
    config = replace(config, train_ratings=train, test_ratings=test, rating_scale=WHOLE_STARS)
    load(**config.data_options)  # finds errors in the files before any run
    return Protocol(name, (config,), FIGURES_DOUBAN)


def run(folder: Path, protocols: Sequence[Protocol], jobs: int, log: Log) -> list[Path]:
    """Run what is not finished, a run that several rows share once; then write FILES and return their paths."""
    root = folder / "runs"
    runs = {one.folder(root): one for protocol in protocols for one in _runs_of(protocol)}
    results = run_all(list(runs.values()), root, jobs, log)
    measured = {
        path: measure_with_biases(one.config, result) for (path, one), result in zip(runs.items(), results, strict=True)
    }
    tables = {
        protocol.name: pd.DataFrame([measured[one.folder(root)] for one in _runs_of(protocol)])
        for protocol in protocols
        if protocol.configs
    }
    paths = [folder / name for name in FILES]
    records = [RunFolder.open(path).read_config()["data"] for path in runs]
    paths[0].write_text(as_markdown(protocols, tables, records), encoding="utf-8")
    pd.concat(tables, names=["protocol", "run"]).to_csv(paths[1])
    return paths


def _runs_of(protocol: Protocol) -> list[Run]:
    return [Run(protocol.name, config) for config in protocol.configs]


def measure_with_biases(config: SplitConfig, result: dict) -> dict[str, float]:
    """METRICS of a finished run. result: as `run_all` returns it."""
    found = measure(config, Path(result["folder"]))
    return found | {"RMSE of biases": result["baselines"][BIASES]["mse"] ** 0.5}


def as_markdown(protocols: Sequence[Protocol], tables: dict[str, pd.DataFrame], records: Sequence[dict]) -> str:
    """The table with its notes. tables: a row per run, by protocol. records: what config.json says of the data."""
    simulated = any(record["simulated"] for record in records)
    rows = [
        [protocol.name, *_cells(tables.get(protocol.name), protocol.missing), _print_figures(protocol)]
        for protocol in protocols
    ]
    config = next(protocol.configs[0] for protocol in protocols if protocol.configs)
    caption = f"{marked('Published protocols', simulated)}: --model {config.model}, {config.epochs} epochs."
    sources = {figure.method: figure.source for protocol in protocols for figure in protocol.figures}
    notes = [*NOTES, "Sources: " + "; ".join(f"{method}: {source}" for method, source in sources.items()) + "."]
    notes += [f"{note}." for note in dict.fromkeys(note for record in records for note in record["notes"])]
    lines = markdown_rows(["protocol", "runs", *METRICS, "printed by papers (RMSE)"], rows)
    return "\n".join([*box(simulated), caption, "", *lines, "", *(f"- {note}" for note in notes)]) + "\n"


def _cells(table: pd.DataFrame | None, missing: str) -> list[str]:
    """The number of runs, and mean and standard deviation of METRICS."""
    if table is None:
        return ["0", missing, *["n/a"] * (len(METRICS) - 1)]
    return [str(len(table)), *(cell(table[name].mean(), table[name].std(ddof=1)) for name in METRICS)]


def _print_figures(protocol: Protocol) -> str:
    return "; ".join(map(str, protocol.figures)) or "none"
