"""Tables and a figure of the results of many units, in the layout of the paper's results table.

Arms are compared within a seed; its users are the sample, as in the paper. Seeds with the same result are counted, not
tested: users pooled over seeds would enter several times and would not be independent.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.tables import cell, markdown_rows, marked
from config.dyadic import LearnerOptions
from dyadic.data import DyadicData

ARMS = {
    "MTL": "one network, all losses, gradients of all tasks into the embeddings",
    "MTL, emb_only": "one network, but only the loss of the embedding task reaches the embeddings",
    "STL, features": "a network per task; those of clicks, bookmarks and replies have no embeddings",
    "STL, private": "a network per task, each with embeddings of its own",
}
REFERENCE = "MTL"
COLORS = dict(zip(ARMS, ("#0072B2", "#56B4E9", "#D55E00", "#E69F00"), strict=True))
TASK_ROWS = ("click", "embedding", "bookmark", "reply")  # the paper's order
METRIC_COLUMNS = {"f1": "F1", "auc": "AUC", "map@1": "MAP@1", "map@5": "MAP@5"}
PANELS = ("auc", "map@5")
# Moura et al., Table 1, their filtered data; the number of dyads is from the technical report behind the paper.
PUBLISHED = {
    "users": 5_949,
    "offers": 25_184,
    "dyads": 819_226,
    "dyads a user, mean": 137.71,
    "dyads a user, median": 120,
    "dyads an offer, mean": 32.53,
    "dyads an offer, median": 12,
    "displayed a user": 115.04,
    "clicked a user": 42.19,
    "bookmarked a user": 1.38,
    "replied a user": 3.40,
    "sparsity": 0.9945,
}
LIMITS = """\
**Limits of these tables.** They compare ways of learning under one fixed setting, the same for all arms and tuned for
none; another setting may order the arms otherwise. In MovieLens 100K all three labels are functions of one rating (and
of a user's mean), so that the tasks are related by construction, and no result on it confirms or refutes the paper.
Simulated data are invented and show how the program behaves. The paper's own values are not reproduced:
its data were never published."""


def statistics(data: DyadicData) -> dict[str, float | None]:
    """The quantities of the paper's Table 1, with the keys of PUBLISHED; a rated item counts as displayed.

    "displayed a user" is None where the data do not have it.
    """
    per_user = np.bincount(data.user_ids, minlength=data.num_users)
    per_item = np.bincount(data.item_ids, minlength=data.num_items)
    displayed = len(data) if data.ratings is not None else None
    if data.displayed is not None:
        displayed = np.count_nonzero(data.displayed)
    labeled = data.labels.sum(0, dtype=np.int64) / data.num_users
    values = [
        data.num_users,
        data.num_items,
        len(data),
        per_user.mean(),
        np.median(per_user),
        per_item.mean(),
        np.median(per_item),
        None if displayed is None else displayed / data.num_users,
        *labeled,
        1 - len(data) / (data.num_users * data.num_items),
    ]
    return {name: None if v is None else float(v) for name, v in zip(PUBLISHED, values, strict=True)}


def write(results: Sequence[dict], folder: Path, options: LearnerOptions) -> list[Path]:
    """table.md, table.csv, statistics.csv, units.csv and table.png; returns their paths."""
    paths = [folder / name for name in ("table.md", "table.csv", "statistics.csv", "units.csv", "table.png")]
    units, counts = unit_rows(results), statistics_table(results)
    summary = summarize(units)
    paths[0].write_text(as_markdown(results, summary, counts, options), encoding="utf-8")
    summary.to_csv(paths[1], index=False)
    counts.to_csv(paths[2], index_label="quantity")
    units.to_csv(paths[3], index=False)
    draw(summary, paths[4])
    return paths


def unit_rows(results: Sequence[dict]) -> pd.DataFrame:
    """A row for every unit, task, arm and metric."""
    shared = ("world", "simulated", "seed")
    rows = [{name: result[name] for name in shared} | record for result in results for record in result["records"]]
    numbers = ["value", "ranksum_p", "signed_rank_p"]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def summarize(units: pd.DataFrame) -> pd.DataFrame:
    """A row for every world, task, arm and metric, over seeds.

    mean, sd (n - 1)
    ranksum_p, signed_rank_p             comparison with MTL, medians over seeds
    ranksum_worse, signed_rank_worse     number of seeds in which this arm is worse by the test
    ranksum_better, signed_rank_better   number of seeds in which MTL is worse by the test
    marked                               the arm, or "MTL", that is worse by the rank-sum test in more than half of the
                                         seeds; "" for neither
    """
    rows = []
    for key, group in units.groupby(["world", "simulated", "task", "arm", "metric"], sort=False):
        row = dict(zip(("world", "simulated", "task", "arm", "metric"), key, strict=True))
        row |= {"seeds": len(group), "mean": group["value"].mean(), "sd": group["value"].std(ddof=1)}
        for test in ("ranksum", "signed_rank"):
            worse = group[f"{test}_worse"]
            row[f"{test}_p"] = group[f"{test}_p"].median()
            row[f"{test}_worse"] = int((worse == row["arm"]).sum())
            row[f"{test}_better"] = int((worse == REFERENCE).sum())
        half = len(group) / 2
        row["marked"] = row["arm"] if row["ranksum_worse"] > half else REFERENCE if row["ranksum_better"] > half else ""
        rows.append(row)
    return pd.DataFrame(rows)


def statistics_table(results: Sequence[dict]) -> pd.DataFrame:
    """A row per quantity; the paper's column, then one per world (means over seeds)."""
    columns = {"paper": pd.Series(PUBLISHED, dtype=float)}
    for world, group in _by_world(results).items():
        columns[marked(world, group[0]["simulated"])] = (
            pd.DataFrame([unit["statistics"] for unit in group]).astype(float).mean()
        )
    return pd.DataFrame(columns).loc[list(PUBLISHED)]


def as_markdown(results: Sequence[dict], summary: pd.DataFrame, counts: pd.DataFrame, options: LearnerOptions) -> str:
    lines = ["# Four tasks learned together and apart", "", setting(options), ""]
    lines += [f"- **{arm}**: {meaning}" for arm, meaning in ARMS.items()]
    for world, group in _by_world(results).items():
        lines += ["", f"## {marked(world, group[0]['simulated'])}", "", *_results_table(summary, world)]
        lines += ["", caption(world, group), "", *_notes(group)]
    lines += ["", "## The data", "", *_counts_table(counts), ""]
    lines += [
        "Means over seeds, beside Table 1 of the paper. In dyads made from ratings, a rated movie is an offer and "
        "counts as displayed. Columns marked SIMULATED DATA are invented and not evidence: simulated-xing is made to "
        "match the paper's counts per user, and is denser than the paper's data where it is smaller.",
        "",
        LIMITS,
    ]
    return "\n".join(lines) + "\n"


def setting(options: LearnerOptions) -> str:
    """The settings that all arms share, in one sentence."""
    steps = f"{int(options.iterations):,}" if options.iterations.isdigit() else options.iterations
    lam, weights = (
        ", ".join(f"{v:g}" for v in dict.fromkeys(vs)) for vs in (options.four_lambdas, options.class_weights)
    )
    return (
        f"One fixed setting for all arms, tuned for none: eta {options.lr:g}, lambda {lam}, N {steps}, "
        f"{options.epochs} epochs, class weights {weights}, d {options.embedding_dim}, batch {options.batch_size} "
        f"(eta * batch = {options.lr * options.batch_size:g}), eps {options.eps:g}"
        + (": every run takes the same number of steps." if options.eps == 0 else ".")
    )


def caption(world: str, group: Sequence[dict]) -> str:
    """What the numbers of one world are, and how they were tested."""
    units = unit_rows(group).groupby("task")[["skipped", "users"]].mean()
    without = ", ".join(f"{task} {units.skipped[task]:.0f} of {units.users[task]:.0f}" for task in TASK_ROWS)
    level, seeds = group[0]["settings"]["level"], "1 seed" if len(group) == 1 else f"{len(group)} seeds"
    chosen = "their statistics leave out their own labels, but the networks were fitted to them"
    if group[0]["settings"]["held_out"]:
        chosen = "on a third of them that a second network, with the same options, was not fitted to"
    return (
        f"{marked(world, group[0]['simulated'])}: test dyads, mean ± standard deviation over {seeds}. F1 is pooled "
        f"over dyads, at a threshold chosen for F1 on the training dyads alone ({chosen}); AUC and MAP are means over "
        f"users, AP divided by k. Every arm is compared with {REFERENCE}, seed by seed, by its values per user (F1 per "
        "user as well, so that an arrow need not follow the pooled value). In parentheses (a, b): the number of seeds "
        f"in which the arm is worse, with p < {level:g}, by the rank-sum test, as in the paper, and by the signed-rank "
        f'test, which pairs the users of both arms; in rows of {REFERENCE}, "than" names the better arm. ↓ marks the '
        "worse arm if the rank-sum test finds so in more than half of the seeds. Seeds are not pooled: splits of the "
        "same data share users and are not independent, and counting them is not a further test. No p is corrected "
        "for the number of comparisons. Users without an AUC, all of whose test dyads are of one class (mean over "
        f"seeds): {without}."
    )


def draw(summary: pd.DataFrame, path: Path) -> None:
    """A panel per world and metric: means as dots, standard deviations as whiskers; a color per arm."""
    worlds = summary[["world", "simulated"]].drop_duplicates()
    figure = Figure(figsize=(11, 0.8 + 2.6 * len(worlds)), layout="constrained")
    axes = figure.subplots(len(worlds), len(PANELS), squeeze=False)
    for line, (world, simulated) in zip(axes, worlds.itertuples(index=False), strict=True):
        for axis, metric in zip(line, PANELS, strict=True):
            _draw_panel(axis, summary[(summary["world"] == world) & (summary["metric"] == metric)])
            axis.set_xlabel(f"{METRIC_COLUMNS[metric]}, test dyads")
            axis.set_ylabel("task")
            axis.set_title(marked(world, simulated), fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(ARMS), frameon=False)
    figure.suptitle("Four tasks learned together and apart: mean ± standard deviation over seeds", fontsize=10)
    figure.savefig(path, dpi=120)


def _draw_panel(axis, rows: pd.DataFrame) -> None:
    for place, (arm, color) in enumerate(COLORS.items()):
        own = rows[rows["arm"] == arm].set_index("task").loc[list(TASK_ROWS)]
        height = np.arange(len(TASK_ROWS)) + 0.16 * (place - 1.5)
        axis.errorbar(own["mean"], height, xerr=own["sd"].fillna(0), fmt="o", color=color, markersize=5, label=arm)
    axis.set_yticks(range(len(TASK_ROWS)), TASK_ROWS)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _results_table(summary: pd.DataFrame, world: str) -> list[str]:
    rows = summary[summary["world"] == world].set_index(["task", "arm", "metric"])
    lines = []
    for task in TASK_ROWS:
        for arm in ARMS:
            cells = [_cell(rows.loc[task].xs(metric, level="metric"), arm) for metric in METRIC_COLUMNS]
            lines.append([task if arm == REFERENCE else "", arm, *cells])
    return markdown_rows(["task", "arm", *METRIC_COLUMNS.values()], lines)


def _cell(rows: pd.DataFrame, arm: str) -> str:
    """One number of an arm with the marks of the tests. rows: of all arms, for one task and metric of a world."""
    own = rows.loc[arm]
    text = cell(own["mean"], own["sd"], ".3f")
    if math.isnan(own["mean"]):
        return text
    if arm != REFERENCE:
        return text + _mark(own["marked"] == arm, own["ranksum_worse"], own["signed_rank_worse"])
    for name, row in rows.drop(index=REFERENCE).iterrows():
        if mark := _mark(row["marked"] == REFERENCE, row["ranksum_better"], row["signed_rank_better"]):
            text += f"{mark} than {name}"
    return text


def _mark(marked: bool, ranksum: int, signed_rank: int) -> str:
    return (" ↓" if marked else "") + (f" ({ranksum}, {signed_rank})" if ranksum or signed_rank else "")


def _counts_table(counts: pd.DataFrame) -> list[str]:
    rows = [[name, *(format_count(name, value) for value in row)] for name, row in counts.iterrows()]
    return markdown_rows(["", *counts.columns], rows)


def format_count(name: str, value: float) -> str:
    """The text of a quantity of `statistics`."""
    if math.isnan(value):
        return "n/a"
    if name == "sparsity":
        return f"{value:.2%}"
    return f"{value:,.0f}" if name in ("users", "offers", "dyads") else f"{value:,.2f}"


def _by_world(results: Sequence[dict]) -> dict[str, list[dict]]:
    worlds: dict[str, list[dict]] = {}
    for result in results:
        worlds.setdefault(result["world"], []).append(result)
    return worlds


def _notes(group: Sequence[dict]) -> list[str]:
    return [f"- {note}" for note in dict.fromkeys(note for unit in group for note in unit["notes"])]
