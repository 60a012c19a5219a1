"""The picture of the sweep: MRR against MSE."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.lines import Line2D

from analysis.figures.style import picture
from analysis.figures.weights import color_of

MARKERS = {"fixed": "o", "uncertainty": "s", "gradnorm": "^", "dwa": "D", "pcgrad": "P"}


def draw_plane(
    runs: pd.DataFrame,
    table: pd.DataFrame,
    alone: pd.Series,
    peers: Sequence,
    caption: str,
    simulated: bool,
    path: Path,
) -> None:
    """MRR against MSE: runs as small markers, means of configurations as large ones, their Pareto front as a line.

    Args:
        runs: indexed by (row, seed), with "both_mrr" and "both_mse".
        table: by row, with "tables", "weighting", "regression_weight", "both_mrr mean", "both_mse mean", "on front".
        alone: "mrr" and "mse" of the tasks learned alone.
        peers: of analysis.peers.
    """
    with picture(path, 6.6, caption=caption, simulated=simulated) as figure:
        _draw(figure.subplots(), runs, table, alone, peers)


def _draw(axis, runs, table, alone, peers) -> None:
    for name, row in table.iterrows():
        _draw_configuration(axis, row, runs.loc[name])
    front = table[table["on front"]].sort_values("both_mse mean")
    axis.plot(
        front["both_mse mean"], front["both_mrr mean"], color="black", linewidth=1.8, drawstyle="steps-post", zorder=2
    )
    _draw_lines(axis, [("alone", "mrr", alone["mrr"]), ("alone", "mse", alone["mse"])], "black", (5, 2))
    _draw_lines(axis, [(peer.name, peer.metric, peer.value) for peer in peers], "#6b6b6b", (1, 1.5))
    axis.set_xlabel("MSE, test (squared rating points; less is better)")
    axis.set_ylabel("MRR, test (mean reciprocal rank, 0 to 1; more is better)")
    axis.spines[["top", "right"]].set_visible(False)
    _draw_key(axis, table)


def _draw_configuration(axis, row: pd.Series, own: pd.DataFrame) -> None:
    """The runs of one configuration and their mean; on shared tables and fixed weights with lambda_R beside it."""
    look = {"color": color_of(row["tables"] == "shared", row["regression_weight"]), "edgecolors": "black"}
    marker, mean = MARKERS[row["weighting"]], (row["both_mse mean"], row["both_mrr mean"])
    axis.scatter(own["both_mse"], own["both_mrr"], marker=marker, s=18, linewidths=0.3, alpha=0.6, **look)
    axis.scatter(*mean, marker=marker, s=110, linewidths=2.4 if row["on front"] else 0.9, zorder=4, **look)
    if row["weighting"] == "fixed" and row["tables"] == "shared":
        style = {"textcoords": "offset points", "fontsize": 9, "zorder": 5}
        axis.annotate(f"{row['regression_weight']:g}", mean, xytext=(6, 6), **style)


def _draw_lines(axis, values: Sequence[tuple[str, str, float]], shade: str, dashes: tuple[float, float]) -> None:
    """A line across the plane for each (name, metric, value), with its name at the end."""
    for name, metric, value in values:
        style = {"color": shade, "linewidth": 0.9, "dashes": dashes, "zorder": 1}
        text = {"color": shade, "fontsize": 9}
        if metric == "mrr":
            label = f"ranking {name}" if name == "alone" else name
            axis.axhline(value, **style)
            axis.text(1.005, value, label, transform=axis.get_yaxis_transform(), va="center", **text)
        else:
            label = f"rating {name}" if name == "alone" else name
            axis.axvline(value, **style)
            axis.text(value, 1.005, label, transform=axis.get_xaxis_transform(), ha="left", rotation=40, **text)


def _draw_key(axis, table: pd.DataFrame) -> None:
    """The legend of colors, markers and lines."""

    def dot(label: str, marker: str, face) -> Line2D:
        look = {"color": "none", "markerfacecolor": face, "markeredgecolor": "black", "markersize": 8}
        return Line2D([], [], label=label, marker=marker, **look)

    methods = [name for name in MARKERS if name in set(table["weighting"])]
    key = [dot("shared tables", "o", color_of(True, 0.2)), dot("separate tables", "o", color_of(False, 0.2))]
    key += [dot(name, MARKERS[name], "white") for name in methods]
    key.append(Line2D([], [], label="Pareto front of the means", color="black", linewidth=1.8))
    axis.figure.legend(
        handles=key, loc="outside lower center", ncols=4, frameon=False,
        title="large: mean over seeds; small: a run (the runs of one seed share its split)\n"
        r"lighter: larger λ_R, printed beside shared tables with fixed weights",
    )  # fmt: skip
