"""Many weights and ways to weigh, in the plane of both metrics: what is to be had, and at what price."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import figures
from analysis import metadata as about_file
from analysis.configuration import Configuration
from analysis.peers import MEASURED_ON, PEERS, PROTOCOL
from analysis.results import METRICS, read_curves, read_runs
from analysis.runner import run_all
from analysis.statistics import SAME, UNTESTED, Comparison, compare, correct, in_words
from analysis.weights import spread
from registry import recipe_for

FIXED_SHARED = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.9, 0.99)
# Separate tables: GradNorm balances what both tasks reach, which is nothing there; PCGrad would change nothing.
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
ALONE = Configuration(False, 0.5)  # whose tasks do not touch: each is learnt alone
ABOUT, RUNS, PICTURE, TABLE, NUMBERS = "sweep.json", "sweep_runs.csv", "sweep.png", "sweep.md", "sweep.csv"


def run(folder: Path, common: dict, seeds: int, jobs: int, say: Callable[[str], None], is_quick: bool) -> list[Path]:
    """Run what is not run yet, then write all files; returns their paths. Runs are shared with the four experiments."""
    chosen = QUICK if is_quick else CONFIGURATIONS
    runs = [one.run(seed, common) for seed in range(seeds) for one in chosen]
    results = run_all(runs, folder / "runs", jobs, say)
    about = about_file.collect(runs, results, recipe_for(runs[0].config).load_data(runs[0].config), is_quick)
    numbers = read_runs(read_curves(results))
    numbers.to_csv(folder / RUNS)
    table = tabulate(numbers)
    table.to_csv(folder / NUMBERS, index_label="configuration")
    (folder / TABLE).write_text(as_markdown(table, numbers, about), encoding="utf-8")
    draw(numbers, table, about, folder / PICTURE)
    about_file.write(folder / ABOUT, about)
    return [folder / name for name in (TABLE, NUMBERS, RUNS, PICTURE, ABOUT)]


def tabulate(numbers: pd.DataFrame) -> pd.DataFrame:
    """A row for every configuration: its settings, mean and sd of each number, and whether it is "on front".

    numbers: of `readings.read_runs`.
    """
    by_row = numbers.groupby("row", sort=False)
    means, deviations = by_row.mean(), by_row.std(ddof=1)
    ours = {one.name: one for one in CONFIGURATIONS}
    table = pd.DataFrame(
        {
            "tables": [ours[name].tables for name in means.index],
            "weighting": [ours[name].weighting for name in means.index],
            "factorization_weight": [ours[name].factorization_weight for name in means.index],
            "regression_weight": [ours[name].regression_weight for name in means.index],
        },
        index=means.index,
    )
    for name in means:
        table[f"{name} mean"], table[f"{name} sd"] = means[name], deviations[name]
    table["on front"] = pareto_front(means["both_mrr"].to_numpy(), means["both_mse"].to_numpy())
    return table


def pareto_front(mrr: np.ndarray, mse: np.ndarray) -> np.ndarray:
    """(n,) bool: which points no other one beats, by being better in one number and no worse in the other.

    A point with a nan is never on the front.
    """
    order = np.lexsort((-mrr, mse))  # by MSE, and of equals the highest MRR first
    on_front = np.zeros(len(mrr), dtype=bool)
    highest, its_mse = -np.inf, np.nan
    for place in order:
        is_twin = mrr[place] == highest and mse[place] == its_mse
        if not np.isnan(mse[place]) and (mrr[place] > highest or is_twin):
            on_front[place] = True
            highest, its_mse = mrr[place], mse[place]
    return on_front


def ends(numbers: pd.DataFrame) -> pd.DataFrame:
    """The two tasks learnt alone, by seed: "mrr" and "mse", each at its own best epoch by validation."""
    return numbers.loc[ALONE.name][["best_mrr", "best_mse"]].set_axis(list(METRICS), axis=1)


def against_ends(numbers: pd.DataFrame) -> dict[tuple[str, str], Comparison]:
    """{(configuration, metric): one network for both tasks against the task learnt alone}, all corrected together."""
    alone = ends(numbers)
    keys = [(name, metric) for name in numbers.index.unique("row") for metric in METRICS]
    found = [compare(numbers.loc[name, f"both_{metric}"], alone[metric], METRICS[metric]) for name, metric in keys]
    return dict(zip(keys, correct(found), strict=True))


def as_markdown(table: pd.DataFrame, numbers: pd.DataFrame, about: dict) -> str:
    titles = (
        "tables", "weighting", "λ_F, λ_R", "epoch", "test MRR", "against ranking alone", "test MSE",
        "against rating alone", "on the front",
    )  # fmt: skip
    compared, alone = against_ends(numbers), ends(numbers).mean()
    lines = [*about_file.mark(about), f"{about_file.describe(about)}.", ""]
    lines += [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, row in table.iterrows():
        weights = f"{row['factorization_weight']:g}, {row['regression_weight']:g}"
        cells = [row["tables"], row["weighting"], weights, spread(row, "both_epoch", ".0f")]
        for metric in METRICS:
            cells += [spread(row, f"both_{metric}"), _against(compared[name, metric])]
        lines.append(f"| {' | '.join([*cells, '●' if row['on front'] else ''])} |")
    return "\n".join([*lines, "", *explain(alone, about)]) + "\n"


def explain(alone: pd.Series, about: dict) -> list[str]:
    """What table and picture show, in paragraphs."""
    text = (
        "Mean ± standard deviation over seeds, on the test part. One network serves both tasks, so that one epoch "
        "counts for both: the one with the highest MRR / MSE on the validation part. *On the front* are the "
        "configurations whose mean no other one's beats in one metric without losing in the other; the front "
        "describes these test figures, and nothing was chosen by it.",
        f"*Alone*: ranking alone reaches MRR {alone['mrr']:.4f}, rating alone MSE {alone['mse']:.4f}, each at its own "
        "best epoch by validation. These are the ends of the sweep, λ_R = 0 and λ_R = 1. A weight of exactly zero is "
        f"refused by main.py, as half the network would stay untrained; the figures come from {ALONE.name}, where the "
        "tasks share no parameter, so that each is learnt as if alone (Adam cancels the scale of a gradient, and with "
        "it the weight). Both together take two networks. *better*, *worse*: paired t-test over seeds, p < 0.05 after "
        "Holm's correction over all comparisons of the table; =: no difference that these seeds can show.",
        "Left out, with separate tables: GradNorm, which balances gradients in parameters that all tasks share and is "
        "refused where there are none, and PCGrad, which has no conflict to take out there. Uncertainty and GradNorm "
        "largely undo the given weights; their rows at two weights show how far.",
    )
    peers = f"Lines of other methods are {PROTOCOL} ({', '.join(f'{p.name} {p.value:.4f}' for p in PEERS)}). "
    peers += "The runs here train on less, as they hold a validation part out."
    paragraphs = [*text, *([peers] if about["data"] == MEASURED_ON else [])]
    return "\n\n".join(paragraphs).split("\n")


def draw(numbers: pd.DataFrame, table: pd.DataFrame, about: dict, path: Path) -> None:
    peers = PEERS if about["data"] == MEASURED_ON else ()
    figures.draw_plane(
        numbers, table, ends(numbers).mean(), peers, about_file.describe(about), about["simulated"], path
    )


def front_in_words(table: pd.DataFrame) -> str:
    """The configurations on the front, from the lowest MSE to the highest MRR."""
    front = table[table["on front"]].sort_values("both_mse mean")
    return "; ".join(
        f"{name}: MRR {row['both_mrr mean']:.4f}, MSE {row['both_mse mean']:.4f}" for name, row in front.iterrows()
    )


def _against(comparison: Comparison) -> str:
    if comparison.verdict == UNTESTED:
        return "n/a"
    sign = "=" if comparison.verdict == SAME else comparison.verdict
    return f"{sign} ({comparison.difference:+.4f}, {in_words(comparison.adjusted)})"
