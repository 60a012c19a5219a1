"""From the results of many runs to a table, with means, spread and tests against a reference row.

Seeds are paired: seed s is one split, and every row was trained and measured on it. So rows are compared by the
differences within a seed (paired t-test; with five seeds a rank test could not fall below p = 0.06).
"""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from config.zoo import RATING_LABELS, ZooConfig
from training.report import BOX
from zoo.recipe import RECIPE, make_task

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Column:
    """A column of the table: where its number is, how it is written, and which way is better (0: neither)."""

    title: str
    key: str
    direction: int
    form: str = "{:.4f}"


COLUMNS = (
    Column("view AUC", "test_view_auc", +1),
    Column("like AUC", "test_like_auc", +1),
    Column("like given view AUC", "test_like_given_view_auc", +1),
    Column("log loss", "test_log_loss", -1),
    Column("of view", "test_view_log_loss", -1),
    Column("of like", "test_like_log_loss", -1),
    Column("seconds", "seconds", -1, "{:.0f}"),
    Column("peak device memory, MB", "peak_device_memory_mb", -1, "{:.0f}"),
    Column("parameters", "parameters", 0, "{:,.0f}"),
)


def measure_baselines(config: Iterable[ZooConfig]) -> list[dict]:
    """The baselines on the same splits, as results of runs: they have metrics and nothing else."""
    results = []
    for one in config:
        task = make_task(replace(one, chain="joint"), RECIPE.load_data(one))
        for name, baseline in task.baselines().items():
            metrics = {f"test_{metric}": value for metric, value in task.metrics(baseline, "test").items()}
            results.append({"row": name, "seed": one.seed, "is_baseline": True, "metrics": metrics})
    return results


def tabulate(results: Sequence[dict], reference: str) -> pd.DataFrame:
    """One line a row, in the order of the results; for each column its mean, sd (n - 1) and p against `reference`.

    A number that a row does not have is nan. The columns are pairs (title, "mean" | "sd" | "p").
    """
    numbers = pd.DataFrame([{"row": result["row"], "seed": result["seed"]} | _numbers(result) for result in results])
    numbers = numbers.set_index(["row", "seed"])
    rows = list(dict.fromkeys(result["row"] for result in results))
    table = {
        row: {
            (column.title, kind): value
            for column in COLUMNS
            for kind, value in _summarise(numbers[column.title], row, reference).items()
        }
        for row in rows
    }
    return pd.DataFrame.from_dict(table, orient="index")


def write(table: pd.DataFrame, results: Sequence[dict], folder: Path, config: ZooConfig, seeds: int) -> list[Path]:
    """table.csv, table.md, table.png and runs.csv; returns their paths."""
    from analysis import figures

    baselines = {result["row"] for result in results if result.get("is_baseline")}
    paths = [folder / name for name in ("table.csv", "table.md", "table.png", "runs.csv")]
    flat = table.copy()
    flat.columns = [f"{title} {kind}" for title, kind in table.columns]
    flat.to_csv(paths[0], index_label="row")
    paths[1].write_text(as_markdown(table, baselines, config, seeds), encoding="utf-8")
    figures.draw_table(table, baselines, describe(config, seeds), paths[2])
    with paths[3].open("w", newline="", encoding="utf-8") as file:
        lines = [
            {"row": result["row"], "seed": result["seed"]} | result["metrics"] | _numbers(result) for result in results
        ]
        writer = csv.DictWriter(file, list(dict.fromkeys(key for line in lines for key in line)))
        writer.writeheader()
        writer.writerows(lines)
    return paths


def as_markdown(table: pd.DataFrame, baselines: set[str], config: ZooConfig, seeds: int) -> str:
    lines = [f"```\n{BOX}\n```\n"] if config.dataset == "simulated" else []
    lines += [describe(config, seeds), ""]
    titles = [column.title for column in COLUMNS]
    lines += ["| | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for row in table.index:
        cells = [_cell(column, table.loc[row, column.title]) for column in COLUMNS]
        lines.append(f"| {f'*{row}*' if row in baselines else row} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Mean ± standard deviation over {seeds} seeds, test part. In italics: predictions from counts alone. "
        f"\\* differs from the single-task networks on the same splits (paired t-test, p < {SIGNIFICANT}, not "
        "corrected for the number of comparisons). Log loss is the sum of its two terms and depends on the number of "
        "negatives. Seconds are those of training and validation, "
        f"{config.threads} thread a run; n/a: not on this device, or not learnt.",
    ]
    return "\n".join(lines) + "\n"


def describe(config: ZooConfig, seeds: int) -> str:
    data = f"{config.dataset} (SIMULATED DATA)" if config.dataset == "simulated" else config.dataset
    return (
        f"{data}: view = rated, like = rated {config.like_from:g} or higher; {config.negatives} negatives a "
        f"positive; {seeds} seeds; d = {config.embedding_dim}, batch {config.batch_size}, lr {config.lr:g}, "
        f"at most {config.epochs} epochs, the best by validation AUC"
    )


def _numbers(result: dict) -> dict[str, float]:
    """The numbers of one run by the titles of the columns; nan for what it does not have."""
    seconds = result.get("seconds", {})
    flat = result["metrics"] | {
        "test_log_loss": _sum_of_terms(result["metrics"]),
        "seconds": seconds["training"] + seconds["evaluation"] if seconds else None,
        "peak_device_memory_mb": result.get("peak_device_memory_mb"),
        "parameters": result.get("parameters"),
    }
    return {column.title: math.nan if flat.get(column.key) is None else flat[column.key] for column in COLUMNS}


def _sum_of_terms(metrics: dict[str, float]) -> float:
    """The log loss of both labels; nan for a network that learnt one of them, whose sum would compare with nothing."""
    return sum(metrics.get(f"test_{label}_log_loss", math.nan) for label in RATING_LABELS)


def _summarise(numbers: pd.Series, row: str, reference: str) -> dict[str, float]:
    own, others = numbers.loc[row], numbers.loc[reference]
    sd = own.std(ddof=1) if len(own) > 1 else math.nan
    return {"mean": own.mean(), "sd": sd, "p": paired_p(own, others) if row != reference else math.nan}


def paired_p(own: pd.Series, others: pd.Series) -> float:
    """Two-sided p of a paired t-test over the seeds that both have; nan where there is nothing to test."""
    differences = (own - others).dropna().to_numpy()
    if len(differences) < 2:
        return math.nan
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _cell(column: Column, values: pd.Series) -> str:
    if math.isnan(values["mean"]):
        return "n/a"
    text = column.form.format(values["mean"])
    if column.direction and not math.isnan(values["sd"]):
        text += f" ± {column.form.format(values['sd'])}"
    is_metric = column.key.startswith("test_")
    return text + (" \\*" if is_metric and values["p"] < SIGNIFICANT else "")
