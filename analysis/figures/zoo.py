"""The picture of the zoo: its networks side by side."""

from pathlib import Path

import pandas as pd

from analysis.figures.style import BASELINE, NETWORK, axis_label, picture

PANELS = {"view AUC": 1, "like AUC": 1, "like given view AUC": 1, "log loss": -1, "seconds": -1}


def draw_table(table: pd.DataFrame, baselines: set[str], caption: str, simulated: bool, path: Path) -> None:
    """A panel per column, a line per row: means as dots, standard deviations as whiskers, baselines in gray.

    An AUC of one half and the constant prediction are left out: they would squeeze all other values together.
    """
    table = table.drop(index="constant", errors="ignore")
    rows = list(table.index)
    colors = [BASELINE if row in baselines else NETWORK for row in rows]
    with picture(path, 1.2 + 0.26 * len(rows), caption=caption, simulated=simulated) as figure:
        axes = figure.subplots(1, len(PANELS), sharey=True)
        for axis, (title, direction) in zip(axes, PANELS.items(), strict=True):
            means, spread = table[title, "mean"], table[title, "sd"].fillna(0)
            if "AUC" in title:
                means = means.where(means != 0.5)
            axis.hlines(range(len(rows)), means - spread, means + spread, colors=colors, linewidth=2, alpha=0.6)
            axis.scatter(means, range(len(rows)), c=colors, s=28, zorder=3)
            axis.set_xlabel(axis_label(title, direction))
            axis.grid(False, axis="y")
            axis.spines["left"].set_visible(False)
            axis.tick_params(axis="y", length=0)
        axes[0].set_yticks(range(len(rows)), rows)
        axes[0].invert_yaxis()
