"""Tables of the results of many units, in the layout of the paper's results table.

Arms are compared within a seed; its users are the sample, as in the paper. Seeds with the same result are counted, not
tested: users pooled over seeds would enter several times and would not be independent.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis import dyadic_data, dyadic_paper
from analysis.dyadic_data import by_world
from analysis.figures import dyadic as figures
from analysis.statistics import compare
from analysis.tables import cell, markdown_rows, marked
from config.dyadic import LearnerOptions

ARMS = {
    "together": "one network, all losses, gradients of all tasks into the embeddings",
    "together, emb_only": "one network, but only the loss of the embedding task reaches the embeddings",
    "alone, features": "a network per task; those of clicks, bookmarks and replies have no embeddings",
    "alone, embeddings of its own": "a network per task, each with embeddings that no other task reaches",
}
REFERENCE = "together"
WAYS = {"alone": "alone, features", "together": REFERENCE}  # the arms that stand beside the paper's results
TASK_ROWS = ("click", "embedding", "bookmark", "reply")  # the paper's order
METRIC_COLUMNS = {"f1": "F1", "auc": "AUC", "map@1": "MAP@1", "map@5": "MAP@5"}
PANELS = ("auc", "map@5")
FILES = ("table.md", "table.csv", "units.csv", "differences.csv", "statistics.csv", "users.csv", "published.csv")
PICTURES = ("table.png", "users.png")
LIMITS = """\
**Limits of these tables.** They compare ways of learning under one fixed setting, the same for all arms and tuned for
none; another setting may order the arms otherwise. In MovieLens 100K all three labels are functions of one rating (and
of a user's mean), so that the tasks are related by construction, and no result on it confirms or refutes the paper.
Simulated data are invented and show how the program behaves. The paper's own values are not reproduced:
its data were never published."""


def write(results: Sequence[dict], folder: Path, options: LearnerOptions) -> list[Path]:
    """Write FILES and PICTURES; returns their paths."""
    paths = {name: folder / name for name in (*FILES, *PICTURES)}
    units, counts, users = unit_rows(results), dyadic_data.statistics_table(results), dyadic_data.users_table(results)
    summary, gaps = summarize(units), differences(units)
    printed = dyadic_paper.beside_ours(summary, WAYS)
    paths["table.md"].write_text(as_markdown(results, summary, counts, printed, options), encoding="utf-8")
    for name, table in zip(FILES[1:], (summary, units, gaps, counts, users, printed), strict=True):
        table.to_csv(paths[name], index=table is counts, index_label="quantity" if table is counts else None)
    panels = {metric: METRIC_COLUMNS[metric] for metric in PANELS}
    figures.draw_differences(gaps, REFERENCE, TASK_ROWS, panels, paths["table.png"])
    figures.draw_users(users, paths["users.png"])
    return list(paths.values())


def unit_rows(results: Sequence[dict]) -> pd.DataFrame:
    """A row for every unit, task, arm and metric."""
    shared = ("world", "simulated", "seed")
    rows = [{name: result[name] for name in shared} | record for result in results for record in result["records"]]
    numbers = ["value", "ranksum_p", "signed_rank_p"]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def summarize(units: pd.DataFrame) -> pd.DataFrame:
    """A row for every world, task, arm and metric, over seeds.

    mean, sd (n - 1)
    ranksum_p, signed_rank_p             comparison with REFERENCE, medians over seeds
    ranksum_worse, signed_rank_worse     number of seeds in which this arm is worse by the test
    ranksum_better, signed_rank_better   number of seeds in which REFERENCE is worse by it
    marked                               the arm, or REFERENCE, that is worse by the rank-sum test in more than half of
                                         the seeds; "" for neither
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


def differences(units: pd.DataFrame) -> pd.DataFrame:
    """A row for every world, task, metric and arm but REFERENCE: the arm minus REFERENCE, paired by seed.

    "difference" is the mean over "seeds", "low" and "high" its 95 % t interval, not corrected; nan with one seed.
    """
    keys, rows = ["world", "simulated", "task", "metric"], []
    for key, group in units.groupby(keys, sort=False):
        by_arm = {arm: own.set_index("seed")["value"] for arm, own in group.groupby("arm", sort=False)}
        reference = by_arm.pop(REFERENCE)
        for arm, values in by_arm.items():
            found = compare(values, reference, +1)
            numbers = {name: getattr(found, name) for name in ("seeds", "difference", "low", "high")}
            rows.append(dict(zip(keys, key, strict=True)) | {"arm": arm} | numbers)
    return pd.DataFrame(rows)


def as_markdown(
    results: Sequence[dict],
    summary: pd.DataFrame,
    counts: pd.DataFrame,
    printed: pd.DataFrame,
    options: LearnerOptions,
) -> str:
    """All tables. counts: of dyadic_data.statistics_table. printed: of dyadic_paper.beside_ours."""
    lines = ["# Four tasks learned together and apart", "", setting(options), ""]
    lines += [f"- **{arm}**: {meaning}" for arm, meaning in ARMS.items()]
    for world, group in by_world(results).items():
        lines += ["", f"## {marked(world, group[0]['simulated'])}", "", *_results_table(summary, world)]
        lines += ["", caption(world, group), "", *_notes(group)]
    lines += ["", "## The data", "", *dyadic_data.as_markdown(counts), "", dyadic_paper.FIGURE_1]
    lines += ["", "## The paper's Figure 2 beside these results", ""]
    lines += [*dyadic_paper.as_markdown(printed, METRIC_COLUMNS), "", LIMITS]
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


def _notes(group: Sequence[dict]) -> list[str]:
    return [f"- {note}" for note in dict.fromkeys(note for unit in group for note in unit["notes"])]
