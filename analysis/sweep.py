"""Many weights and weighting methods, in the plane of both metrics: how much of one task the other costs."""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis import metadata
from analysis.configuration import Configuration
from analysis.figures.sweep import References, draw_plane
from analysis.peers import CHAMPION, IN_FIGURE, MEASURED_ON, PROTOCOL, PROVENANCE
from analysis.results import METRICS, read_curves, read_runs
from analysis.runner import Log, run_all
from analysis.statistics import SAME, UNTESTED, Comparison, compare, correct, in_words
from analysis.tables import box, markdown_rows, means_and_deviations, row_cell
from registry import recipe_for

FIXED_SHARED = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.9, 0.99)
# Separate tables share no parameters: GradNorm has nothing to balance there, and PCGrad would change nothing.
CONFIGURATIONS = (
    *(Configuration(True, weight) for weight in FIXED_SHARED),
    *(Configuration(False, weight) for weight in (0.01, 0.5, 0.99)),
    *(Configuration(True, weight, "uncertainty") for weight in (0.01, 0.5)),
    Configuration(False, 0.5, "uncertainty"),
    *(Configuration(True, weight, "gradnorm") for weight in (0.01, 0.5)),
    *(Configuration(True, weight, "dwa") for weight in (0.01, 0.1, 0.5)),
    Configuration(False, 0.5, "dwa"),
    *(Configuration(True, weight, "pcgrad") for weight in (0.01, 0.1, 0.5)),
)
QUICK = tuple(
    one for one in CONFIGURATIONS if one.regression_weight in ((0.01, 0.1, 0.5) if one.weighting == "fixed" else (0.5,))
)
ALONE = Configuration(False, 0.5)  # its tasks share no parameter: each is learned alone
METADATA, RUNS, PICTURE, TABLE, NUMBERS = "sweep.json", "sweep_runs.csv", "sweep.png", "sweep.md", "sweep.csv"


def run(folder: Path, common: dict, seeds: int, jobs: int, log: Log, is_quick: bool) -> list[Path]:
    """Run what is not finished, then write all files; returns their paths. Shares runs with the four experiments."""
    chosen = QUICK if is_quick else CONFIGURATIONS
    runs = [one.run(seed, common) for seed in range(seeds) for one in chosen]
    results = run_all(runs, folder / "runs", jobs, log)
    data = recipe_for(runs[0].config).load_data(runs[0].config)
    described = metadata.collect(runs, results, data, is_quick)
    numbers = read_runs(read_curves(results))
    numbers.to_csv(folder / RUNS)
    table = tabulate(numbers)
    table.to_csv(folder / NUMBERS, index_label="configuration")
    (folder / TABLE).write_text(as_markdown(table, numbers, described), encoding="utf-8")
    draw(numbers, table, described, folder / PICTURE)
    metadata.write(folder / METADATA, described)
    return [folder / name for name in (TABLE, NUMBERS, RUNS, PICTURE, METADATA)]


def tabulate(numbers: pd.DataFrame) -> pd.DataFrame:
    """A row for every configuration: its settings, mean and sd of each number, and True where it is "on front".

    numbers: of `results.read_runs`.
    """
    measured = means_and_deviations(numbers)
    known = {one.name: one for one in CONFIGURATIONS}
    varied = ("tables", "weighting", "factorization_weight", "regression_weight")
    settings = {field: [getattr(known[name], field) for name in measured.index] for field in varied}
    table = pd.concat([pd.DataFrame(settings, index=measured.index), measured], axis=1)
    table["on front"] = pareto_front(measured["both_mrr mean"].to_numpy(), measured["both_mse mean"].to_numpy())
    return table


def pareto_front(mrr: np.ndarray, mse: np.ndarray) -> np.ndarray:
    """(n,) bool: True where no other point is better in one number and no worse in the other; False for nan."""
    order = np.lexsort((-mrr, mse))  # by MSE; of equal ones the highest MRR first
    on_front = np.zeros(len(mrr), dtype=bool)
    highest, its_mse = -np.inf, np.nan
    for place in order:
        is_twin = mrr[place] == highest and mse[place] == its_mse
        if not np.isnan(mse[place]) and (mrr[place] > highest or is_twin):
            on_front[place] = True
            highest, its_mse = mrr[place], mse[place]
    return on_front


def ends(numbers: pd.DataFrame) -> pd.DataFrame:
    """The two tasks learned alone, by seed: "mrr" and "mse", each at its own best epoch by validation."""
    return numbers.loc[ALONE.name][["best_mrr", "best_mse"]].set_axis(list(METRICS), axis=1)


def against_ends(numbers: pd.DataFrame) -> dict[tuple[str, str], Comparison]:
    """{(configuration, metric): one network for both tasks against the task learned alone}, corrected together."""
    alone = ends(numbers)
    keys = [(name, metric) for name in numbers.index.unique("row") for metric in METRICS]
    found = [compare(numbers.loc[name, f"both_{metric}"], alone[metric], METRICS[metric]) for name, metric in keys]
    return dict(zip(keys, correct(found), strict=True))


def as_markdown(table: pd.DataFrame, numbers: pd.DataFrame, described: dict) -> str:
    """The table with its explanation. described: of `metadata.collect`."""
    titles = (
        "tables (λ_F, λ_R), weighting", "epoch", "test MRR", "against ranking alone", "test MSE",
        "against rating alone", "on the front",
    )  # fmt: skip
    compared, rows = against_ends(numbers), []
    for name, row in table.iterrows():
        cells = [str(name), row_cell(row, "both_epoch", ".0f")]
        for metric in METRICS:
            cells += [row_cell(row, f"both_{metric}"), _against(compared[name, metric])]
        rows.append([*cells, "●" if row["on front"] else ""])
    head = [*box(described["simulated"]), f"{metadata.describe(described)}.", ""]
    return "\n".join([*head, *markdown_rows(titles, rows), "", *explain(ends(numbers).mean(), described)]) + "\n"


def explain(alone: pd.Series, described: dict) -> list[str]:
    """How to read the table and the figure, in paragraphs."""
    paragraphs = [
        "Mean ± standard deviation over seeds, on the test part. One network serves both tasks, so one epoch counts "
        "for both: the one with the highest MRR / MSE on the validation part. A configuration is *on the front* if no "
        "other mean is better in one metric and no worse in the other. The front describes these test figures; nothing "
        "was chosen by it.",
        f"*Alone*: ranking alone reaches MRR {alone['mrr']:.4f}, rating alone MSE {alone['mse']:.4f}, each at its own "
        "best epoch by validation. These are the ends of the sweep, λ_R = 0 and λ_R = 1. main.py refuses a weight of "
        "exactly zero, as half the network would stay untrained. The figures therefore come from "
        f"{ALONE.name}, where the tasks share no parameter, so that each is learned as if alone (Adam cancels the "
        "scale of a gradient, and with it the weight). Both together take two networks. *better*, *worse*: paired "
        "t-test over seeds, p < 0.05 after Holm's correction over all comparisons of the table; =: no difference that "
        "these seeds can show.",
        "Left out with separate tables: GradNorm, which balances gradients in shared parameters and is refused where "
        "there are none, and PCGrad, which finds no conflicts there. Uncertainty and GradNorm largely undo the given "
        "weights; their rows at two weights show how far.",
    ]
    if described["data"] == MEASURED_ON:
        peers = ", ".join(f"{peer.name} {peer.value:.4f}" for peer in IN_FIGURE)
        paragraphs.append(
            f"Lines of other methods: {PROTOCOL} ({peers}). {CHAMPION.name.capitalize()}: one network for both tasks "
            f"(main.py --preset champion), on the same splits (MRR {CHAMPION.mrr:.4f}, MSE {CHAMPION.mse:.4f}). The "
            "runs here train on less, as they hold a validation part out."
        )
    return "\n\n".join(paragraphs).split("\n")


def draw(numbers: pd.DataFrame, table: pd.DataFrame, described: dict, path: Path) -> None:
    """The picture, with other methods and the champion where the data are those that these were measured on."""
    alone, caption = ends(numbers).mean(), metadata.describe(described)
    references = References(alone)
    if described["data"] == MEASURED_ON:
        references, caption = References(alone, IN_FIGURE, CHAMPION), f"{caption}. {PROVENANCE}"
    draw_plane(table, against_ends(numbers), references, caption, described["simulated"], path)


def front_in_words(table: pd.DataFrame) -> str:
    """The configurations on the front, from the lowest MSE to the highest MRR."""
    front = table[table["on front"]].sort_values("both_mse mean")
    return "; ".join(
        f"{name}: MRR {row['both_mrr mean']:.4f}, MSE {row['both_mse mean']:.4f}" for name, row in front.iterrows()
    )


def _against(comparison: Comparison) -> str:
    if comparison.outcome == UNTESTED:
        return "n/a"
    sign = "=" if comparison.outcome == SAME else comparison.outcome
    return f"{sign} ({comparison.difference:+.4f}, {in_words(comparison.adjusted)})"
