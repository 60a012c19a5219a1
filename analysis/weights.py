"""The four experiments of the homework: shared and separate tables at two pairs of weights, over several seeds."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from analysis import figures, user_bias
from analysis import metadata as about_file
from analysis.configuration import VAL_FRACTION, Configuration
from analysis.metadata import percent
from analysis.results import METRICS, read_curves, read_runs
from analysis.runner import run_all
from registry import recipe_for

CONFIGURATIONS = (
    Configuration(shared=True, regression_weight=0.01),
    Configuration(shared=True, regression_weight=0.5),
    Configuration(shared=False, regression_weight=0.5),
    Configuration(shared=False, regression_weight=0.01),
)
NOTE = (
    f"Mean ± standard deviation over seeds, on the test part. All runs hold {percent(VAL_FRACTION)} of the training "
    "ratings out as a validation part, which chooses the epochs of the columns *best by validation*, for MRR and for "
    "MSE each its own; the last epoch is chosen by nobody. The course's own runs hold nothing out and so train on "
    f"{percent(1 / (1 - VAL_FRACTION) - 1, 1)} more ratings. MRR: mean of 1 / rank over all test items of a user, then "
    "over users; more is better. MSE: in squared rating points; less is better."
)
ABOUT, CURVES, PICTURE, TABLE, NUMBERS, BIAS = (
    "weights.json", "curves.csv", "weights.png", "weights.md", "weights.csv", "user_bias.csv",
)  # fmt: skip


def run(folder: Path, common: dict, seeds: int, jobs: int, say: Callable[[str], None], is_quick: bool) -> list[Path]:
    """Run what is not run yet, then write all files; returns their paths.

    common: settings of main.py that all runs share.
    """
    runs = [one.run(seed, common) for seed in range(seeds) for one in CONFIGURATIONS]
    results = run_all(runs, folder / "runs", jobs, say)
    data = recipe_for(runs[0].config).load_data(runs[0].config)
    about = about_file.collect(runs, results, data, is_quick)
    curves = read_curves(results)
    curves.to_csv(folder / CURVES, index=False)
    user_bias.measure_all(runs, results).to_csv(folder / BIAS, index=False)
    table = tabulate(curves)
    table.to_csv(folder / NUMBERS, index_label="configuration")
    (folder / TABLE).write_text(as_markdown(table, about), encoding="utf-8")
    figures.draw_curves(curves, CONFIGURATIONS, about_file.describe(about), about["simulated"], folder / PICTURE)
    about_file.write(folder / ABOUT, about)
    return [folder / name for name in (TABLE, NUMBERS, CURVES, BIAS, PICTURE, ABOUT)]


def tabulate(curves: pd.DataFrame) -> pd.DataFrame:
    """A row for every configuration: of each number of `readings.read_runs` "<name> mean" and "<name> sd" (n - 1)."""
    by_row = read_runs(curves).groupby("row", sort=False)
    means, spread = by_row.mean(), by_row.std(ddof=1)
    return pd.DataFrame(
        {f"{name} {kind}": values[name] for name in means for kind, values in (("mean", means), ("sd", spread))}
    )


def as_markdown(table: pd.DataFrame, about: dict) -> str:
    titles = ["tables (λ_F, λ_R)"]
    for metric in METRICS:
        titles += [f"test {metric.upper()}, last epoch", f"best by validation {metric.upper()}", "at epoch"]
    titles.append("train squared error, last epoch")
    lines = [*about_file.mark(about), f"{about_file.describe(about)}.", ""]
    lines += [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, row in table.iterrows():
        cells = []
        for metric in METRICS:
            cells += [spread(row, f"last_{metric}"), spread(row, f"best_{metric}")]
            cells.append(spread(row, f"best_{metric}_epoch", ".0f"))
        lines.append(f"| {' | '.join([name, *cells, spread(row, 'last_regression', '.3f')])} |")
    return "\n".join([*lines, "", NOTE]) + "\n"


def spread(row: pd.Series, name: str, form: str = ".4f") -> str:
    """Mean and standard deviation of one number in a cell."""
    mean, sd = row[f"{name} mean"], row[f"{name} sd"]
    if pd.isna(mean):
        return "n/a"
    return f"{mean:{form}}" + ("" if pd.isna(sd) else f" ± {sd:{form}}")
