"""The pictures of the dyadic experiment: paired differences between ways of learning, and users by their actions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import (
    BASELINE,
    BLUE,
    GRAY,
    INK,
    ORANGE,
    SKY,
    VERMILION,
    axis_label,
    mark_simulated,
    picture,
)

LOOKS = ((SKY, "s"), (VERMILION, "D"), (ORANGE, "^"))  # of the arms, in their order
STAGES = {"before": (BASELINE, 0.9, 0.45), "after": (BLUE, 0.5, 1.0)}  # color, width of a bar, opacity
MAX_LABELS = 9  # of bins, below a panel
_LONGEST = 26  # characters of a name above a panel


def draw_differences(
    gaps: pd.DataFrame, reference: str, tasks: Sequence[str], metrics: Mapping[str, str], path: Path
) -> None:
    """A panel per world and metric: each arm minus the reference, means as markers, paired intervals as whiskers.

    Args:
        gaps: "world", "simulated", "task", "metric", "arm", "seeds", "difference", "low", "high".
        reference: the name of the arm that the others are compared with.
        tasks: in the order of the lines.
        metrics: {metric: its title}; more is better in all of them.
    """
    worlds = _worlds(gaps)
    caption = (
        f"Each arm minus '{reference}' on the same split: mean over {_seeds(gaps)} and its 95 % t interval over the "
        "paired differences, not corrected for the number of comparisons. Scales differ between panels."
    )
    height = 2.05 * len(worlds) + 0.5
    title = "Four tasks learned together and apart"
    with picture(path, height, title=title, caption=caption, simulated=all(worlds.values())) as figure:
        axes = figure.subplots(len(worlds), len(metrics), squeeze=False, sharey=True)
        for line, (world, simulated) in zip(axes, worlds.items(), strict=True):
            for axis, (metric, name) in zip(line, metrics.items(), strict=True):
                rows = gaps[(gaps["world"] == world) & (gaps["metric"] == metric)]
                _draw_gaps(axis, rows, tasks)
                axis.set_xlabel(axis_label(f"{name} minus that of '{reference}'", +1))
                axis.set_title(_shorten(world), loc="left", parse_math=False)
                if simulated and not all(worlds.values()):
                    mark_simulated(axis)
        axes[0, 0].set_ylim(len(tasks) - 0.5, -0.5)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(LOOKS))


def _draw_gaps(axis: Axes, rows: pd.DataFrame, tasks: Sequence[str]) -> None:
    axis.axvline(0, color=INK, linewidth=1.2)
    for place, ((arm, own), (color, marker)) in enumerate(zip(rows.groupby("arm", sort=False), LOOKS, strict=True)):
        own = own.set_index("task").loc[list(tasks)]
        height = np.arange(len(tasks)) + 0.24 * (place - 1)
        axis.hlines(height, own["low"], own["high"], color=color)
        axis.plot(own["difference"], height, marker, color=color, markersize=6, label=arm)
    axis.set_yticks(range(len(tasks)), tasks)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.grid(axis="y", visible=False)


def draw_users(users: pd.DataFrame, path: Path) -> None:
    """The paper's Figure 1: a line of panels per world, a panel per action, a bar per bin of the number of actions.

    users: "world", "simulated", "stage", "action", "label", "actions", "users".
    """
    worlds = _worlds(users)
    caption = (
        "Users by their number of dyads with an action; bins end at 0, 1, 2, 4, 8 and so on. Gray: before rare users "
        "and items are left out; blue: after. 'none': users without any, after. The split of the first seed."
    )
    title, height = "Users by their numbers of clicks, bookmarks and replies", 1.9 * len(worlds)
    with picture(path, height, title=title, caption=caption, simulated=all(worlds.values())) as figure:
        axes = figure.subplots(len(worlds), users["action"].nunique(), squeeze=False)
        for line, (world, simulated) in zip(axes, worlds.items(), strict=True):
            own = users[users["world"] == world]
            for axis, (_, rows) in zip(line, own.groupby("action", sort=False), strict=True):
                _draw_bars(axis, rows)
            line[0].set_ylabel("users")
            line[0].set_title(_shorten(world), loc="left", parse_math=False)
            for axis in line if simulated and not all(worlds.values()) else ():
                mark_simulated(axis)


def _draw_bars(axis: Axes, rows: pd.DataFrame) -> None:
    """One action of one world, both stages; how many users never act stands in the corner."""
    top = int(bin_of(rows["actions"].to_numpy()).max())
    for stage, own in rows.groupby("stage", sort=False):
        color, width, alpha = STAGES[str(stage)]
        counts = bin_users(own, top + 1)
        axis.bar(range(top + 1), counts, width=width, color=color, alpha=alpha)
        without, total = counts[0], counts.sum()
    axis.text(
        0.98, 0.97, f"none: {without:,.0f} of {total:,.0f}", transform=axis.transAxes, ha="right", va="top", color=GRAY
    )
    step = 1 + top // MAX_LABELS
    ends = [str(end) for end in bin_ends(top)]
    axis.set_xticks(range(0, top + 1, step), ends[::step])
    axis.set_ylim(top=axis.get_ylim()[1] * 1.15)  # room for the text
    axis.set_xlabel(f"{rows['label'].iloc[0]}: dyads of a user, at most", parse_math=False)
    axis.grid(axis="x", visible=False)


def bin_of(actions: np.ndarray) -> np.ndarray:
    """The bin of each number of actions: 0, 1, 2, 3 to 4, 5 to 8, ... are 0, 1, 2, 3, 4, ..."""
    return np.where(actions > 0, np.ceil(np.log2(np.maximum(actions, 1))) + 1, 0).astype(np.int64)


def bin_ends(top: int) -> list[int]:
    """The largest number in each bin from 0 to `top`."""
    return [0, *(2**power for power in range(top))]


def bin_users(rows: pd.DataFrame, bins: int) -> np.ndarray:
    """Users in each bin: (bins,). rows: "actions" and "users"."""
    return np.bincount(bin_of(rows["actions"].to_numpy()), weights=rows["users"], minlength=bins)


def _worlds(rows: pd.DataFrame) -> dict[str, bool]:
    """{world: is simulated}, in their order."""
    return dict(rows[["world", "simulated"]].drop_duplicates().itertuples(index=False))


def _shorten(name: str) -> str:
    """A name that fits above a panel: of a long one, such as a path, its end."""
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"


def _seeds(gaps: pd.DataFrame) -> str:
    number = gaps["seeds"].max()
    return f"{number} seed{'' if number == 1 else 's'}"
