"""Tables and a picture of the results of many units, in the layout of the paper's results table.

Arms are compared within a seed: its users are the sample, as in the paper. How many seeds say the same is counted and
not tested; users pooled over seeds would enter several times, and are not independent.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from config.dyadic import LearnerOptions
from dyadic.data import DyadicData

ARMS = {
    "MTL": "one network, all losses, gradients of all tasks into the embeddings",
    "MTL, emb_only": "one network, but only the loss of the embedding task reaches the embeddings",
    "STL, features": "a network a task; clicks, bookmarks and replies do without embeddings",
    "STL, private": "a network a task, each with embeddings of its own",
}
REFERENCE = "MTL"
COLOURS = dict(zip(ARMS, ("#0072B2", "#56B4E9", "#D55E00", "#E69F00"), strict=True))
TASK_ROWS = ("click", "embedding", "bookmark", "reply")  # the paper's order
METRIC_COLUMNS = {"f1": "F1", "auc": "AUC", "map@1": "MAP@1", "map@5": "MAP@5"}
PANELS = ("auc", "map@5")
# Moura et al., Table 1, their filtered data; the number of dyads is in the report the paper grew out of.
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
**What these tables can and cannot show.** They compare ways of learning under one fixed setting, the same for all arms
and tuned for none; another setting may order the arms otherwise. MovieLens 100K has one behaviour: all three labels
are functions of one rating (and of a user's mean), so that relatedness of the tasks is built in, and no result on it
confirms or refutes the paper. Simulated data are invented; what they show is how the program behaves. The paper's own
values are not reproduced: its data were never published."""


def statistics(data: DyadicData) -> dict[str, float | None]:
    """The quantities of the paper's Table 1, by the keys of PUBLISHED; a rated item counts as displayed.

    None for what was displayed where nobody knows.
    """
    per_user = np.bincount(data.user_ids, minlength=data.num_users)
    per_item = np.bincount(data.item_ids, minlength=data.num_items)
    displayed = len(data) if data.ratings is not None else None
    if data.displayed is not None:
        displayed = np.count_nonzero(data.displayed)
    labelled = data.labels.sum(0, dtype=np.int64) / data.num_users
    values = [
        data.num_users,
        data.num_items,
        len(data),
        per_user.mean(),
        np.median(per_user),
        per_item.mean(),
        np.median(per_item),
        None if displayed is None else displayed / data.num_users,
        *labelled,
        1 - len(data) / (data.num_users * data.num_items),
    ]
    return {name: None if v is None else float(v) for name, v in zip(PUBLISHED, values, strict=True)}


def write(results: Sequence[dict], folder: Path, options: LearnerOptions) -> list[Path]:
    """table.md, table.csv, statistics.csv, units.csv and table.png; returns their paths."""
    paths = [folder / name for name in ("table.md", "table.csv", "statistics.csv", "units.csv", "table.png")]
    units, counts = unit_rows(results), statistics_table(results)
    summary = summarise(units)
    paths[0].write_text(as_markdown(results, summary, counts, options), encoding="utf-8")
    summary.to_csv(paths[1], index=False)
    counts.to_csv(paths[2], index_label="quantity")
    units.to_csv(paths[3], index=False)
    draw(summary, paths[4])
    return paths


def unit_rows(results: Sequence[dict]) -> pd.DataFrame:
    """A row for every unit, task, arm and metric."""
    about = ("world", "simulated", "seed")
    rows = [{name: result[name] for name in about} | record for result in results for record in result["records"]]
    numbers = ["value", "ranksum_p", "signed_rank_p"]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def summarise(units: pd.DataFrame) -> pd.DataFrame:
    """A row for every world, task, arm and metric, over seeds.

    mean, sd (n - 1); ranksum_p, signed_rank_p: medians over seeds, of the comparison with MTL; ranksum_worse,
    signed_rank_worse: in how many seeds the test calls this arm worse, ranksum_better, signed_rank_better: in how many
    it calls MTL worse; marked: the arm, or "MTL", that the rank-sum test calls worse in more than half of the seeds.
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
    """A row a quantity, a column a world (means over seeds) and first the paper's."""
    columns = {"paper": pd.Series(PUBLISHED, dtype=float)}
    for world, group in _by_world(results).items():
        simulated = " (SIMULATED)" if group[0]["simulated"] else ""
        columns[world + simulated] = pd.DataFrame([unit["statistics"] for unit in group]).astype(float).mean()
    return pd.DataFrame(columns).loc[list(PUBLISHED)]


def as_markdown(results: Sequence[dict], summary: pd.DataFrame, counts: pd.DataFrame, options: LearnerOptions) -> str:
    lines = ["# Four tasks learnt together and apart", "", setting(options), ""]
    lines += [f"- **{arm}**: {meaning}" for arm, meaning in ARMS.items()]
    for world, group in _by_world(results).items():
        lines += ["", f"## {_title(world, group[0]['simulated'])}", "", *_results_table(summary, world)]
        lines += ["", caption(world, group), "", *_notes(group)]
    lines += ["", "## The data", "", *_counts_table(counts), ""]
    lines += [
        "Means over seeds, beside Table 1 of the paper. Where dyads are made from ratings, a rated film is an offer "
        "and counts as displayed. A column marked SIMULATED is invented and no evidence: simulated-xing was "
        "made to match the paper's counts a user, and is denser than the paper's data where it is smaller.",
        "",
        LIMITS,
    ]
    return "\n".join(lines) + "\n"


def setting(options: LearnerOptions) -> str:
    steps = options.iterations if isinstance(options.iterations, str) else f"{options.iterations:,}"
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
        f"{_title(world, group[0]['simulated'])}: test dyads, mean ± standard deviation over {seeds}. F1 is pooled "
        f"over dyads, at a threshold chosen for F1 on the training dyads alone ({chosen}); AUC and MAP are means over "
        f"users, AP divided by k. Every arm is compared with {REFERENCE}, seed by seed, by its values per user (F1 per "
        "user as well, so that an arrow need not follow the pooled value). In brackets (a, b): in how many seeds the "
        f"arm is worse, with p < {level:g}, by the rank-sum test, as in the paper, and by the signed-rank test, which "
        f"knows that both arms have the same users; {REFERENCE} names the arm that it is worse than. ↓ marks the worse "
        "arm where the rank-sum test says so in more than half of the seeds. Seeds are not pooled: those that split "
        "the same data share users and are not independent; nor are their counts a further test. No p is corrected "
        "for the number of comparisons. Users without an AUC, all of whose test dyads are of one class (mean over "
        f"seeds): {without}."
    )


def draw(summary: pd.DataFrame, path: Path) -> None:
    """A panel a world and metric: dots with whiskers, means and standard deviations; a colour an arm."""
    worlds = summary[["world", "simulated"]].drop_duplicates()
    figure = Figure(figsize=(11, 0.8 + 2.6 * len(worlds)), layout="constrained")
    axes = figure.subplots(len(worlds), len(PANELS), squeeze=False)
    for line, (world, simulated) in zip(axes, worlds.itertuples(index=False), strict=True):
        for axis, metric in zip(line, PANELS, strict=True):
            _draw_panel(axis, summary[(summary["world"] == world) & (summary["metric"] == metric)])
            axis.set_xlabel(f"{METRIC_COLUMNS[metric]}, test dyads")
            axis.set_ylabel("task")
            axis.set_title(_title(world, simulated), fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(ARMS), frameon=False)
    figure.suptitle("Four tasks learnt together and apart: mean ± standard deviation over seeds", fontsize=10)
    figure.savefig(path, dpi=120)


def _draw_panel(axis, rows: pd.DataFrame) -> None:
    for place, (arm, colour) in enumerate(COLOURS.items()):
        own = rows[rows["arm"] == arm].set_index("task").loc[list(TASK_ROWS)]
        height = np.arange(len(TASK_ROWS)) + 0.16 * (place - 1.5)
        axis.errorbar(own["mean"], height, xerr=own["sd"].fillna(0), fmt="o", color=colour, markersize=5, label=arm)
    axis.set_yticks(range(len(TASK_ROWS)), TASK_ROWS)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _results_table(summary: pd.DataFrame, world: str) -> list[str]:
    rows = summary[summary["world"] == world].set_index(["task", "arm", "metric"])
    lines = ["| task | arm | " + " | ".join(METRIC_COLUMNS.values()) + " |", "|---|---" + "|---" * 4 + "|"]
    for task in TASK_ROWS:
        for arm in ARMS:
            cells = [_cell(rows.loc[task].xs(metric, level="metric"), arm) for metric in METRIC_COLUMNS]
            lines.append(f"| {task if arm == REFERENCE else ''} | {arm} | {' | '.join(cells)} |")
    return lines


def _cell(rows: pd.DataFrame, arm: str) -> str:
    """One number of an arm, and who it is worse than. rows: the arms, for one task and metric of a world."""
    own = rows.loc[arm]
    if math.isnan(own["mean"]):
        return "n/a"
    text = f"{own['mean']:.3f}" + ("" if math.isnan(own["sd"]) else f" ± {own['sd']:.3f}")
    if arm != REFERENCE:
        return text + _mark(own["marked"] == arm, own["ranksum_worse"], own["signed_rank_worse"])
    for name, row in rows.drop(index=REFERENCE).iterrows():
        if mark := _mark(row["marked"] == REFERENCE, row["ranksum_better"], row["signed_rank_better"]):
            text += f"{mark} than {name}"
    return text


def _mark(marked: bool, ranksum: int, signed_rank: int) -> str:
    return (" ↓" if marked else "") + (f" ({ranksum}, {signed_rank})" if ranksum or signed_rank else "")


def _counts_table(counts: pd.DataFrame) -> list[str]:
    lines = ["| | " + " | ".join(counts.columns) + " |", "|---" * (len(counts.columns) + 1) + "|"]
    for name, row in counts.iterrows():
        lines.append(f"| {name} | {' | '.join(_count(str(name), value) for value in row)} |")
    return lines


def _count(name: str, value: float) -> str:
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


def _title(world: str, simulated: bool) -> str:
    return f"{world} (SIMULATED)" if simulated else world
