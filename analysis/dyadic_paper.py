"""What Moura et al. print about their data and results, and their results beside ours.

No value here comes from a run of this program. The paper's Figure 1 prints no numbers; what is known of it was read off
the figures of the technical report behind the paper.
"""

from collections.abc import Mapping

import pandas as pd

from analysis.tables import markdown_rows, marked

# Quantity: (RecSys Challenge 2016 as it is, the paper's data after its filter). The numbers of dyads are from the
# technical report.
DATA = {
    "users": (770_859, 5_949),
    "offers": (1_002_161, 25_184),
    "dyads": (10_378_780, 819_226),
    "dyads a user, mean": (7, 137.71),
    "dyads a user, median": (3, 120),
    "dyads an offer, mean": (5, 32.53),
    "dyads an offer, median": (2, 12),
    "displayed a user": (76, 115.04),
    "clicked a user": (7, 42.19),
    "bookmarked a user": (0.27, 1.38),
    "replied a user": (0.42, 3.40),
    "sparsity": (0.99991, 0.9945),
}
FIGURE_1 = (
    "The paper's Figure 1 has no printed values. Read off the technical report, after the filter: users have about 20 "
    "clicks or more, most often about 30; of 5,949 users about 4,600 are in the lowest bin of bookmarks and about "
    "4,000 in the lowest bin of replies. The limits of these bins are not known."
)
WAYS = ("alone", "together")
METRICS = ("f1", "auc", "map@1", "map@5")
# Figure 2 as it is printed, in the order of METRICS; ↓: significantly worse than the other way, p < 0.01.
FIGURE_2 = {
    "click": {"alone": ".51↓ .62↓ .659↓ .537↓", "together": ".54 .65 .708 .584"},
    "embedding": {"alone": ".42 .52↓ .427 .318", "together": ".46 .54 .421 .314"},
    "bookmark": {"alone": ".03↓ .51↓ .008↓ .005↓", "together": ".06 .54 .026 .015"},
    "reply": {"alone": ".17 .55↓ .062↓ .038↓", "together": ".16 .58 .083 .05"},
}
PAPER = "paper"
OTHER_DATA, SIMULATED = "no: other data", "no: simulated data"
CAPTION = """\
Each cell is *alone → together*; ↓ marks the way that is worse, by the paper's rank-sum test (p < 0.01) and, of ours, by
the same test in more than half of the seeds. Ours are means over seeds, alone on the features, which is how the
authors' code learns a task alone. **No value of ours is comparable with the paper's**: its data were never published;
ours are other or invented; the fractions of clicks, bookmarks and replies differ, and F1 and MAP depend on them; and
how the paper computes AUC is not known (the authors' code takes it from predictions of 0 and 1). What can be compared
is which way is better in a row."""


def printed_figure() -> pd.DataFrame:
    """FIGURE_2 as rows: "task", "data", "comparable", "metric", "alone", "together", "worse" (a way, or "")."""
    rows = []
    for task, ways in FIGURE_2.items():
        for metric, *texts in zip(METRICS, *(ways[way].split() for way in WAYS), strict=True):
            worse = [way for way, text in zip(WAYS, texts, strict=True) if text.endswith("↓")]
            values = dict(zip(WAYS, (float(text.rstrip("↓")) for text in texts), strict=True))
            rows.append(
                {"task": task, "data": PAPER, "comparable": "", "metric": metric, **values, "worse": "".join(worse)}
            )
    return pd.DataFrame(rows)


def beside_ours(summary: pd.DataFrame, arms: Mapping[str, str]) -> pd.DataFrame:
    """`printed_figure`, and the same rows for every world.

    Args:
        summary: of dyadic_tables.summarize.
        arms: the arm that stands for each of WAYS.
    """
    ours = summary.set_index(["world", "task", "metric", "arm"]).sort_index()
    frames = [printed_figure()]
    for world, simulated in summary[["world", "simulated"]].drop_duplicates().itertuples(index=False):
        frame = frames[0][["task", "metric"]].assign(data=world, comparable=SIMULATED if simulated else OTHER_DATA)
        for way in WAYS:
            frame[way] = [ours.loc[world, task, metric, arms[way]]["mean"] for task, metric in _keys(frame)]
        frame["worse"] = [_worse_way(ours.loc[world, task, metric], arms) for task, metric in _keys(frame)]
        frames.append(frame[frames[0].columns])
    return pd.concat(frames, ignore_index=True)


def _keys(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(frame["task"], frame["metric"], strict=True))


def _worse_way(rows: pd.DataFrame, arms: Mapping[str, str]) -> str:
    """The way that is worse by the rank-sum test in more than half of the seeds, "" for neither; rows: by arm."""
    alone = rows.loc[arms["alone"]]
    half = alone["seeds"] / 2
    return "alone" if alone["ranksum_worse"] > half else "together" if alone["ranksum_better"] > half else ""


def as_markdown(table: pd.DataFrame, titles: Mapping[str, str]) -> list[str]:
    """The lines of the table and its caption.

    Args:
        table: of `beside_ours`.
        titles: of METRICS.
    """
    lines = []
    for task in FIGURE_2:
        for data, rows in table[table["task"] == task].groupby("data", sort=False):
            first, by_metric = rows.iloc[0], rows.set_index("metric")
            name = marked(str(data), first["comparable"] == SIMULATED)
            head = [task if data == PAPER else "", name, first["comparable"]]
            lines.append([*head, *(_cell(task, by_metric.loc[metric], metric) for metric in METRICS)])
    return [*markdown_rows(["task", "data", "comparable", *(titles[metric] for metric in METRICS)], lines), "", CAPTION]


def _cell(task: str, row: pd.Series, metric: str) -> str:
    """ "alone → together": of the paper with the digits that it prints, of ours with three."""
    if row["data"] == PAPER:
        place = METRICS.index(metric)
        return " → ".join(f"0{FIGURE_2[task][way].split()[place]}".replace("↓", " ↓") for way in WAYS)
    return " → ".join(_number(row[way]) + (" ↓" if row["worse"] == way else "") for way in WAYS)


def _number(value: float) -> str:
    return "n/a" if pd.isna(value) else f"{value:.3f}"
