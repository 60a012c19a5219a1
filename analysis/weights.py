"""The four experiments of the homework: shared and separate tables at two pairs of weights, over several seeds."""

from pathlib import Path

import pandas as pd

from analysis import metadata, user_bias
from analysis.configuration import VAL_FRACTION, Configuration
from analysis.figures.weights import draw_curves
from analysis.results import METRICS, read_curves, read_runs
from analysis.runner import Log, run_all
from analysis.tables import box, markdown_rows, means_and_deviations, percent, row_cell
from registry import recipe_for

CONFIGURATIONS = (
    Configuration(shared=True, regression_weight=0.01),
    Configuration(shared=True, regression_weight=0.5),
    Configuration(shared=False, regression_weight=0.5),
    Configuration(shared=False, regression_weight=0.01),
)
NOTE = (
    f"Mean ± standard deviation over seeds, on the test part. All runs hold {percent(VAL_FRACTION)} of the training "
    "ratings out as a validation part. It chooses the epochs of the columns *best by validation*, one for MRR and one "
    "for MSE; the last epoch is not chosen. The homework's own runs hold nothing out and so train on "
    f"{percent(1 / (1 - VAL_FRACTION) - 1, 1)} more ratings. MRR: mean of 1 / rank over all test items of a user, then "
    "over users; more is better. MSE: in squared rating points; less is better."
)
METADATA, CURVES, PICTURE, TABLE, NUMBERS, BIAS = (
    "weights.json", "curves.csv", "weights.png", "weights.md", "weights.csv", "user_bias.csv",
)  # fmt: skip


def run(folder: Path, common: dict, seeds: int, jobs: int, log: Log, is_quick: bool) -> list[Path]:
    """Run what is not finished, then write all files; returns their paths.

    common: settings of main.py that all runs share.
    """
    runs = [one.run(seed, common) for seed in range(seeds) for one in CONFIGURATIONS]
    results = run_all(runs, folder / "runs", jobs, log)
    data = recipe_for(runs[0].config).load_data(runs[0].config)
    described = metadata.collect(runs, results, data, is_quick)
    curves = read_curves(results)
    curves.to_csv(folder / CURVES, index=False)
    user_bias.measure_all(runs, results).to_csv(folder / BIAS, index=False)
    table = tabulate(curves)
    table.to_csv(folder / NUMBERS, index_label="configuration")
    (folder / TABLE).write_text(as_markdown(table, described), encoding="utf-8")
    caption = metadata.describe(described)
    draw_curves(curves, CONFIGURATIONS, caption, described["simulated"], folder / PICTURE)
    metadata.write(folder / METADATA, described)
    return [folder / name for name in (TABLE, NUMBERS, CURVES, BIAS, PICTURE, METADATA)]


def tabulate(curves: pd.DataFrame) -> pd.DataFrame:
    """A row for every configuration: "<name> mean" and "<name> sd" of every number of `results.read_runs`."""
    return means_and_deviations(read_runs(curves))


def as_markdown(table: pd.DataFrame, described: dict) -> str:
    """The table with its caption. described: of `metadata.collect`."""
    titles = ["tables (λ_F, λ_R)"]
    for metric in METRICS:
        titles += [f"test {metric.upper()}, last epoch", f"best by validation {metric.upper()}", "at epoch"]
    titles.append("train squared error, last epoch")
    rows = []
    for name, row in table.iterrows():
        cells = [str(name)]
        for metric in METRICS:
            cells += [row_cell(row, f"last_{metric}"), row_cell(row, f"best_{metric}")]
            cells.append(row_cell(row, f"best_{metric}_epoch", ".0f"))
        rows.append([*cells, row_cell(row, "last_regression", ".3f")])
    head = [*box(described["simulated"]), f"{metadata.describe(described)}.", ""]
    return "\n".join([*head, *markdown_rows(titles, rows), "", NOTE]) + "\n"
