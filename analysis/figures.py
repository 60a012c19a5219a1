"""The figures of the experiments, drawn with matplotlib into files."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patheffects import withStroke

mpl.use("Agg")  # figures are written to files, without a window
import matplotlib.pyplot as plt

PANELS = ("view AUC", "like AUC", "like given view AUC", "log loss", "seconds")
NETWORK, BASELINE = "#1f5fa8", "#9a9a9a"
# Blue: shared tables; orange: separate tables; lighter: a larger weight of the rating task. A configuration has one
# color in every figure. The hues are Okabe and Ito's (2008), which color-blind readers can distinguish.
SHADES = {
    True: LinearSegmentedColormap.from_list("shared", ["#00609c", "#56b4e9", "#d4edfa"]),
    False: LinearSegmentedColormap.from_list("separate", ["#c04f00", "#f0a531", "#fbe7c4"]),
}
MARKERS = {"fixed": "o", "uncertainty": "s", "gradnorm": "^", "dwa": "D", "pcgrad": "P"}
HALO = withStroke(linewidth=2.5, foreground="white")
WARNING = "SIMULATED DATA: made up by the program, not evidence about MovieLens"
CURVES = {
    "train_factorization": "ranking loss, train\n(mean of 1 - sigmoid, 0 to 1)",
    "test_mrr": "MRR, test\n(mean reciprocal rank, 0 to 1)",
    "train_regression": "squared error, train\n(squared rating points)",
    "test_mse": "MSE, test\n(squared rating points)",
}


def draw_table(table: pd.DataFrame, baselines: set[str], caption: str, simulated: bool, path: Path) -> None:
    """A panel per column, a line per row: means as dots, standard deviations as whiskers, baselines in gray.

    An AUC of one half and the constant prediction are left out: they would squeeze all other values together.
    """
    table = table.drop(index="constant", errors="ignore")
    rows = list(table.index)
    figure, axes = plt.subplots(1, len(PANELS), figsize=(15, 1.8 + 0.3 * len(rows)), sharey=True, layout="constrained")
    colors = [BASELINE if row in baselines else NETWORK for row in rows]
    for axis, title in zip(axes, PANELS, strict=True):
        means, spread = table[title, "mean"], table[title, "sd"].fillna(0)
        if "AUC" in title:
            means = means.where(means != 0.5)
        axis.hlines(range(len(rows)), means - spread, means + spread, colors=colors, linewidth=2, alpha=0.6)
        axis.scatter(means, range(len(rows)), c=colors, s=28, zorder=3)
        axis.set_xlabel(title)
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].invert_yaxis()
    _finish(figure, caption, simulated, path)


def color_of(shared: bool, regression_weight: float) -> tuple[float, float, float, float]:
    """RGBA of a network with shared or separate tables at lambda_R, 0 to 1; see SHADES."""
    return SHADES[shared](regression_weight)


def draw_curves(curves: pd.DataFrame, configurations: Sequence, caption: str, simulated: bool, path: Path) -> None:
    """The homework's curves, a panel per quantity: means over seeds as lines, standard deviations as bands.

    Args:
        curves: "row", "seed", "epoch" and the columns of CURVES.
        configurations: of analysis.configuration, with the rows as names.
    """
    figure, axes = plt.subplots(2, 2, figsize=(10.5, 7.6), sharex=True, layout="constrained")
    for axis, (column, title) in zip(axes.flat, CURVES.items(), strict=True):
        for one in configurations:
            by_epoch = curves[curves["row"] == one.name].groupby("epoch")[column]
            mean, spread = by_epoch.mean(), by_epoch.std(ddof=1).fillna(0)
            shade, dashes = color_of(one.shared, one.regression_weight), (3, 2) if one.regression_weight > 0.1 else ()
            order = 3 if dashes else 2  # a line below shows through the gaps of a dashed one
            axis.fill_between(mean.index, mean - spread, mean + spread, alpha=0.2, linewidth=0, color=shade, zorder=1)
            axis.plot(mean.index, mean, color=shade, dashes=dashes, linewidth=2.2, label=one.name, zorder=order)
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False,
        title=r"embedding tables ($\lambda_F$, $\lambda_R$); lines: mean over seeds, bands: ± standard deviation",
    )  # fmt: skip
    _finish(figure, caption, simulated, path)


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
    figure, axis = plt.subplots(figsize=(10.5, 7.6), layout="constrained")
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
    _finish(figure, caption, simulated, path)


def _draw_configuration(axis, row: pd.Series, own: pd.DataFrame) -> None:
    """The runs of one configuration and their mean; on shared tables and fixed weights with lambda_R beside it."""
    look = {"color": color_of(row["tables"] == "shared", row["regression_weight"]), "edgecolors": "black"}
    marker, mean = MARKERS[row["weighting"]], (row["both_mse mean"], row["both_mrr mean"])
    axis.scatter(own["both_mse"], own["both_mrr"], marker=marker, s=18, linewidths=0.3, alpha=0.6, **look)
    axis.scatter(*mean, marker=marker, s=110, linewidths=2.4 if row["on front"] else 0.9, zorder=4, **look)
    if row["weighting"] == "fixed" and row["tables"] == "shared":
        style = {"textcoords": "offset points", "fontsize": 8, "zorder": 5, "path_effects": [HALO]}
        axis.annotate(f"{row['regression_weight']:g}", mean, xytext=(6, 6), **style)


def _draw_lines(axis, values: Sequence[tuple[str, str, float]], shade: str, dashes: tuple[float, float]) -> None:
    """A line across the plane for each (name, metric, value), with its name at the end."""
    for name, metric, value in values:
        style = {"color": shade, "linewidth": 0.9, "dashes": dashes, "zorder": 1}
        text = {"color": shade, "fontsize": 8}
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

    def dot(label: str, marker: str, face) -> plt.Line2D:
        look = {"color": "none", "markerfacecolor": face, "markeredgecolor": "black", "markersize": 8}
        return plt.Line2D([], [], label=label, marker=marker, **look)

    methods = [name for name in MARKERS if name in set(table["weighting"])]
    key = [dot("shared tables", "o", color_of(True, 0.2)), dot("separate tables", "o", color_of(False, 0.2))]
    key += [dot(name, MARKERS[name], "white") for name in methods]
    key.append(plt.Line2D([], [], label="Pareto front of the means", color="black", linewidth=1.8))
    axis.figure.legend(
        handles=key, loc="outside lower center", ncols=4, frameon=False,
        title="large: mean over seeds; small: a run (the runs of one seed share its split)\n"
        r"lighter: larger $\lambda_R$, printed beside shared tables with fixed weights",
    )  # fmt: skip


def _finish(figure, caption: str, simulated: bool, path: Path) -> None:
    """Add the caption, with a warning on simulated data, and write the file."""
    caption = fill(caption, 140)
    if simulated:
        figure.suptitle(f"{WARNING}\n{caption}", fontsize=9, color="#a01010")
    else:
        figure.suptitle(caption, fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)
