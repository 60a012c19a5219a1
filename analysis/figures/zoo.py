"""The picture of the zoo: how its networks differ from the one that all rows are compared with."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import BASELINE, INK, NETWORK, SETTINGS, axis_label, picture

PANELS = {"view AUC": 1, "like AUC": 1, "like given view AUC": 1, "log loss": -1}
SECONDS = "seconds"


def draw_table(
    table: pd.DataFrame, baselines: set[str], reference: str, caption: str, simulated: bool, path: Path
) -> None:
    """A line per row: its differences to `reference` in PANELS with paired intervals, and its seconds.

    table: by row, with the columns (title, "mean" | "difference" | "low" | "high"), as analysis.zoo.tabulate makes it.
    Scales are those of the networks; values of baselines that lie outside are printed at the edge.
    """
    rows = list(table.index)
    is_baseline = np.array([row in baselines for row in rows])
    caption = (
        f"{caption}. Difference to '{reference}' on the same splits: mean and 95 % t interval of the pairs, "
        "not corrected for the number of comparisons. Gray: baselines; ◂ and ▸: further away."
    )
    title = f"The networks beside '{reference}'"
    with picture(path, 1.4 + 0.27 * len(rows), title=title, caption=caption, simulated=simulated) as figure:
        axes = figure.subplots(1, len(PANELS) + 1, sharey=True, width_ratios=[1] * len(PANELS) + [0.65])
        for axis, (name, direction) in zip(axes, PANELS.items(), strict=False):
            _draw_differences(axis, table[name], is_baseline)
            axis.set_title(f"{reference}: {table[name].loc[reference, 'mean']:.4f}", fontsize=SETTINGS["font.size"])
            axis.set_xlabel(axis_label(name, direction))
        axes[-1].barh(range(len(rows)), table[SECONDS, "mean"], height=0.5, color=NETWORK)
        axes[-1].set_xlabel(axis_label(SECONDS, -1))
        for axis in axes:
            _strip(axis)
        axes[0].set_yticks(range(len(rows)), rows)
        axes[0].set_ylim(len(rows) - 0.5, -0.5)


def _draw_differences(axis: Axes, columns: pd.DataFrame, is_baseline: np.ndarray) -> None:
    """Markers and whiskers of one column of the table; columns: "difference", "low", "high" by row."""
    low, high = _limits(columns[~is_baseline])
    axis.set_xlim(low, high)
    axis.xaxis.set_major_formatter(lambda value, _: _signed(f"{value:+g}") if value else "0")
    axis.axvline(0, color=INK, linewidth=1.2)
    colors = np.where(is_baseline, BASELINE, NETWORK)
    inside = columns["difference"].between(low, high).to_numpy()
    places = np.arange(len(columns))
    axis.hlines(places[inside], columns["low"][inside], columns["high"][inside], colors=colors[inside])
    axis.scatter(columns["difference"][inside], places[inside], c=colors[inside], s=28, zorder=3)
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # keeps the line at 0 out of a text
    look = {"va": "center", "fontsize": SETTINGS["ytick.labelsize"], "bbox": behind}
    for place, value in zip(places, columns["difference"], strict=True):
        if value < low:
            axis.text(low, place, _signed(f"◂ {value:+.3f}"), **look)
        elif value > high:
            axis.text(high, place, f"{value:+.3f} ▸", ha="right", **look)


def _signed(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _limits(columns: pd.DataFrame) -> tuple[float, float]:
    """Of a panel: all values and intervals, zero, and a margin."""
    values = np.append(columns[["difference", "low", "high"]].to_numpy().ravel(), 0.0)
    low, high = np.nanmin(values), np.nanmax(values)
    margin = 0.06 * (high - low) or 1e-3
    return float(low - margin), float(high + margin)


def _strip(axis: Axes) -> None:
    """Lines of the grid for values alone."""
    axis.grid(False, axis="y")
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.xaxis.set_major_locator(MaxNLocator(3))
