"""Pictures of the experiments, drawn with matplotlib into files."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")  # no window: pictures are written to files
import matplotlib.pyplot as plt

PANELS = ("view AUC", "like AUC", "like given view AUC", "log loss", "seconds")
NETWORK, BASELINE = "#1f5fa8", "#9a9a9a"


def draw_table(table: pd.DataFrame, baselines: set[str], caption: str, path: Path) -> None:
    """A panel a column, a line a row: mean and standard deviation as dots with whiskers, baselines in grey.

    What knows nothing (an AUC of one half, and the constant) is left out: it would squeeze all others together.
    """
    table = table.drop(index="constant", errors="ignore")
    rows = list(table.index)
    figure, axes = plt.subplots(1, len(PANELS), figsize=(15, 1.8 + 0.3 * len(rows)), sharey=True, layout="constrained")
    colours = [BASELINE if row in baselines else NETWORK for row in rows]
    for axis, title in zip(axes, PANELS, strict=True):
        means, spread = table[title, "mean"], table[title, "sd"].fillna(0)
        if "AUC" in title:
            means = means.where(means != 0.5)
        axis.hlines(range(len(rows)), means - spread, means + spread, colors=colours, linewidth=2, alpha=0.6)
        axis.scatter(means, range(len(rows)), c=colours, s=28, zorder=3)
        axis.set_xlabel(title)
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].invert_yaxis()
    figure.suptitle(caption, fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)
