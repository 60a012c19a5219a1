"""The networks of the zoo side by side: means, standard deviations and tests against a reference row.

Seeds are paired: seed s is one split, on which every row is trained and measured. A star means p < LEVEL after Holm's
correction over the whole table, from TEST_SEEDS seeds on.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from analysis import metadata
from analysis.figures.zoo import draw_table
from analysis.runner import Log, Run, run_all
from analysis.statistics import LEVEL, Comparison, compare, correct
from analysis.tables import box, cell, markdown_rows, marked, percent
from config.errors import UserError
from config.zoo import RATING_LABELS, ZooConfig
from registry import make_config
from zoo.recipe import RECIPE, make_task

# One setting for all rows, chosen on the validation part for MMoE alone.
SETTINGS = {"epochs": 20, "patience": 3, "lr": 5e-3}
QUICK = SETTINGS | {"epochs": 4, "dataset": "simulated", "simulated_size": (300, 400, 12_000)}
# The eight rows that published comparisons of this kind show, then further networks.
ROWS = {
    "MMoE, view only": {"model": "mmoe", "labels": "view"},
    "MMoE, like only": {"model": "mmoe", "labels": "like"},
    "MMoE": {"model": "mmoe"},
    "ESMM": {"model": "esmm"},
    "AITM": {"model": "aitm"},
    "PLE": {"model": "ple"},
    "OMoE": {"model": "omoe"},
    "STEM": {"model": "stem"},
    "single task": {"model": "single"},
    "shared-bottom": {"model": "shared_bottom"},
    "CGC": {"model": "cgc"},
    "ME-MMoE": {"model": "me_mmoe"},
    "ME-PLE": {"model": "me_ple"},
    "AdaTT": {"model": "adatt"},
}
REFERENCE = "single task"
TEST_SEEDS = 5  # a spread that is estimated from fewer differences says little
METADATA = "zoo.json"
FILES = ("table.csv", "table.md", "table.png", "runs.csv")


@dataclass(frozen=True)
class Column:
    """A column of the table: the key of its number, its direction (+1, -1; 0: neither is better) and its format."""

    title: str
    key: str
    direction: int
    form: str = ".4f"

    @property
    def is_metric(self) -> bool:
        """True for a figure of the predictions, not of the machine."""
        return self.key.startswith("test_")


COLUMNS = (
    Column("view AUC", "test_view_auc", +1),
    Column("like AUC", "test_like_auc", +1),
    Column("like given view AUC", "test_like_given_view_auc", +1),
    Column("log loss", "test_log_loss", -1),
    Column("of view", "test_view_log_loss", -1),
    Column("of like", "test_like_log_loss", -1),
    Column("seconds", "seconds", -1, ".0f"),
    Column("peak device memory, MB", "peak_device_memory_mb", -1, ".0f"),
    Column("parameters", "parameters", 0, ",.0f"),
)


def run(folder: Path, common: dict, seeds: int, jobs: int, log: Log, is_quick: bool) -> list[Path]:
    """Run ROWS and the baselines on the same splits, then write all files; returns their paths.

    common: settings of main.py that all runs share.

    Raises:
        UserError: a setting is out of range, the ratings do not divide into likes and others, or a run failed.
    """
    runs = [Run(row, make_config(**common | own, seed=seed)) for seed in range(seeds) for row, own in ROWS.items()]
    require_likes(runs[0].config)
    results = run_all(runs, folder / "runs", jobs, log)
    described = describe_data(runs, results, is_quick)
    results += measure_baselines([run.config for run in runs if run.row == REFERENCE])
    paths = write(tabulate(results, REFERENCE), results, folder, runs[0].config, seeds)
    metadata.write(folder / METADATA, described)
    return [*paths, folder / METADATA]


def describe_data(runs: Sequence[Run], results: Sequence[dict], is_quick: bool) -> dict:
    """The metadata of the runs; the statistics of the ratings include the fraction of likes."""
    config = runs[0].config
    data = RECIPE.load_data(config)
    described = metadata.collect(runs, results, data, is_quick)
    likes = ((data.seen + data.test).ratings >= config.like_from).float().mean().item()
    described["statistics"][f"fraction of likes (from {config.like_from:g})"] = percent(likes, 1)
    return described


def require_likes(config: ZooConfig) -> None:
    """Raises UserError where all ratings are likes or none is, as with a limit for another rating scale."""
    data = RECIPE.load_data(config)
    ratings = (data.seen + data.test).ratings
    likes = int((ratings >= config.like_from).sum())
    if likes in (0, len(ratings)):
        raise UserError(
            f"{data.name}: {'all' if likes else 'none'} of the ratings, from {ratings.min():g} to {ratings.max():g}, "
            f"are likes, which begin at {config.like_from:g}: choose another --like_from"
        )


def measure_baselines(configs: Iterable[ZooConfig]) -> list[dict]:
    """The baselines on the splits of these configs, in the form of results of runs; they have only metrics."""
    results = []
    for config in configs:
        task = make_task(replace(config, chain="joint"), RECIPE.load_data(config))
        for name, baseline in task.baselines().items():
            metrics = {f"test_{metric}": value for metric, value in task.metrics(baseline, "test").items()}
            results.append({"row": name, "seed": config.seed, "is_baseline": True, "metrics": metrics})
    return results


def tabulate(results: Sequence[dict], reference: str) -> pd.DataFrame:
    """A line per row, in the order of the results: for each column its mean, sd (n - 1) and p against `reference`.

    "adjusted" is p after Holm's correction over all metrics of all rows; nan below TEST_SEEDS seeds. "difference" is
    the row minus `reference` on the same splits, "low" and "high" its 95 % t interval, not corrected. Numbers that a
    row does not have are nan. The columns are pairs (title, "mean" | "sd" | "p" | "adjusted" | "difference" | ...).
    """
    numbers = pd.DataFrame([{"row": result["row"], "seed": result["seed"]} | _numbers(result) for result in results])
    numbers = numbers.set_index(["row", "seed"])
    rows = list(dict.fromkeys(result["row"] for result in results))
    compared = _compare(numbers, [row for row in rows if row != reference], reference)
    table = {
        row: {
            (column.title, kind): value
            for column in COLUMNS
            for kind, value in _summarize(numbers[column.title].loc[row], compared.get((row, column))).items()
        }
        for row in rows
    }
    return pd.DataFrame.from_dict(table, orient="index")


def _compare(numbers: pd.DataFrame, rows: Sequence[str], reference: str) -> dict[tuple[str, Column], Comparison]:
    """Every cell of these rows against the reference; corrected together are metrics over TEST_SEEDS seeds or more."""
    found = {
        (row, column): compare(numbers[column.title].loc[row], numbers[column.title].loc[reference], column.direction)
        for row in rows
        for column in COLUMNS
    }
    tested = {key: one for key, one in found.items() if key[1].is_metric and one.seeds >= TEST_SEEDS}
    return found | dict(zip(tested, correct(list(tested.values())), strict=True))


def write(table: pd.DataFrame, results: Sequence[dict], folder: Path, config: ZooConfig, seeds: int) -> list[Path]:
    """Write FILES; returns their paths. config: of one of the runs."""
    baselines = {result["row"] for result in results if result.get("is_baseline")}
    flat_path, text_path, picture_path, runs_path = paths = [folder / name for name in FILES]
    flat = table.set_axis([f"{title} {kind}" for title, kind in table.columns], axis=1)
    flat.to_csv(flat_path, index_label="row")
    text_path.write_text(as_markdown(table, baselines, config, seeds), encoding="utf-8")
    draw_table(table, baselines, REFERENCE, describe(config, seeds), config.dataset == "simulated", picture_path)
    lines = [
        {"row": result["row"], "seed": result["seed"]} | result["metrics"] | _numbers(result) for result in results
    ]
    pd.DataFrame(lines).to_csv(runs_path, index=False)
    return paths


def as_markdown(table: pd.DataFrame, baselines: set[str], config: ZooConfig, seeds: int) -> str:
    """The table with its explanation; `baselines` are the names of the rows in italics."""
    rows = [
        [f"*{row}*" if row in baselines else row] + [_cell(column, table.loc[row, column.title]) for column in COLUMNS]
        for row in table.index
    ]
    note = (
        f"Mean ± standard deviation over {seeds} seeds, test part. In italics: predictions from counts alone. "
        f"{_describe_tests(table, seeds)} Log loss is the sum of its two terms and depends on the number of negatives. "
        "Seconds are those of training and of evaluating the validation and test parts after every epoch, "
        f"{config.threads} thread a run; n/a: not on this device, or not learned."
    )
    head = [*box(config.dataset == "simulated"), describe(config, seeds), ""]
    return "\n".join([*head, *markdown_rows(["", *(column.title for column in COLUMNS)], rows), "", note]) + "\n"


def _describe_tests(table: pd.DataFrame, seeds: int) -> str:
    """What the stars mean; why there are none where the seeds are too few."""
    count = int(table.xs("adjusted", axis=1, level=1).count().sum())
    if not count:
        return (
            f"No differences are tested, and the order of the rows may be chance: a test takes {TEST_SEEDS} seeds "
            f"(--seeds {TEST_SEEDS}), and this table has {seeds}."
        )
    return (
        f"\\* differs from the single-task networks on the same splits (paired t-test, p < {LEVEL} after Holm's "
        f"correction over the {count} comparisons in this table)."
    )


def describe(config: ZooConfig, seeds: int) -> str:
    """Data, labels, seeds and settings in one line, for captions."""
    data = marked(config.data_name, config.dataset == "simulated")
    return (
        f"{data}: view = rated, like = rated {config.like_from:g} or higher; {config.negatives} negatives per "
        f"positive; {seeds} seeds; d = {config.embedding_dim}, batch {config.batch_size}, lr {config.lr:g}, "
        f"at most {config.epochs} epochs, the best by validation AUC"
    )


def _numbers(result: dict) -> dict[str, float]:
    """The numbers of one run by the titles of their columns; nan where it has none."""
    seconds = result.get("seconds", {})
    flat = result["metrics"] | {
        "test_log_loss": _sum_of_terms(result["metrics"]),
        "seconds": seconds["training"] + seconds["evaluation"] if seconds else None,
        "peak_device_memory_mb": result.get("peak_device_memory_mb"),
        "parameters": result.get("parameters"),
    }
    return {column.title: math.nan if flat.get(column.key) is None else flat[column.key] for column in COLUMNS}


def _sum_of_terms(metrics: dict[str, float]) -> float:
    """The log loss of both labels; nan for a network of one label, which no other sum compares with."""
    return sum(metrics.get(f"test_{label}_log_loss", math.nan) for label in RATING_LABELS)


def _summarize(own: pd.Series, against: Comparison | None) -> dict[str, float]:
    """against: the comparison with the reference; None of the reference itself, which differs by 0 from itself."""
    found = {"mean": own.mean(), "sd": own.std(ddof=1) if len(own) > 1 else math.nan}
    if against is None:
        return found | {"p": math.nan, "adjusted": math.nan} | dict.fromkeys(("difference", "low", "high"), 0.0)
    return found | {name: getattr(against, name) for name in ("p", "adjusted", "difference", "low", "high")}


def _cell(column: Column, values: pd.Series) -> str:
    text = cell(values["mean"], values["sd"] if column.direction else math.nan, column.form)
    return text + (" \\*" if values["adjusted"] < LEVEL else "")
