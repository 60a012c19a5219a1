"""The picture of the sweep: MRR against MSE, a panel per weighting method."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.labels import Label, Occupied, Point, freeze, place_labels
from analysis.figures.style import BLUE, GRAY, INK, PURPLE, SMALLEST, VERMILION, axis_label, picture
from analysis.peers import BothTasks, Peer
from analysis.statistics import Comparison

COLORS = {"shared": BLUE, "separate": VERMILION}
SHAPES = {"shared": "o", "separate": "D"}
SIZE = 8.0  # points, of the markers of means
PALE = "#c4c4c4"  # of the means of the other panels
DASHED, DOTTED = (5, 2), (1, 1.5)
NOTE = "Large: means over seeds, with their λ_R"
BARS = (
    "bars: 95 % interval of the difference from each task alone, paired by seed, drawn at the mean and not corrected "
    "for the number of comparisons"
)
Compared = Mapping[tuple[str, str], Comparison]  # {(configuration, "mrr" or "mse"): against the task alone}


@dataclass(frozen=True)
class References:
    """What the runs of the sweep are drawn beside.

    alone: "mrr" and "mse" of the tasks learned alone, by two networks. peers: methods for one task. champion: None
    where it was not measured on these data.
    """

    alone: pd.Series
    peers: Sequence[Peer] = ()
    champion: BothTasks | None = None

    @property
    def points(self) -> list[tuple[str, Point, dict]]:
        """(name, (MSE, MRR), look) of the marks; those that are nan are left out."""
        star = {"marker": "*", "markersize": 1.5 * SIZE, "color": INK}
        found = [("each task alone,\ntwo networks", (self.alone["mse"], self.alone["mrr"]), star)]
        if self.champion:
            look = {"marker": "P", "markersize": 1.2 * SIZE, "color": PURPLE, "markeredgecolor": INK}
            found.append((self.champion.name, (self.champion.mse, self.champion.mrr), look))
        return [mark for mark in found if not any(map(math.isnan, mark[1]))]


def draw_plane(
    table: pd.DataFrame, compared: Compared, references: References, caption: str, simulated: bool, path: Path
) -> None:
    """A panel per weighting method: means of its configurations with paired intervals; a last panel of references.

    All panels have the same axes. Gray dots are the means of the other methods, the line is the Pareto front of all.

    Args:
        table: by row, with "tables", "weighting", "regression_weight", "both_mrr mean", "both_mse mean", "on front".
        compared: of `sweep.against_ends`.
    """
    methods = list(dict.fromkeys(table["weighting"]))
    lines = -(-(len(methods) + 1) // 2)
    note = f"{NOTE}; {BARS}" if any(one.high > one.low for one in compared.values()) else NOTE
    with picture(path, 0.9 + 2.5 * lines, caption=f"{caption}. {note}.", simulated=simulated) as figure:
        panels = figure.subplots(lines, 2, sharex=True, sharey=True, squeeze=False)
        _set_limits(panels[0, 0], table, references)
        for axis, method in zip(panels.flat, methods, strict=False):
            _draw_method(axis, table, method, compared, references)
        last = panels.flat[len(methods)]
        _draw_references(last, references)
        for axis in panels.flat[len(methods) + 1 :]:
            axis.set_axis_off()
        for axis in panels[:, 0]:
            axis.set_ylabel(axis_label("MRR, test", +1))
        for axis in panels.flat[len(methods) - 1 : len(methods) + 1]:  # the lowest of each column
            axis.tick_params(labelbottom=True)
            axis.set_xlabel(axis_label("MSE, test", -1, "squared rating points"))
        _draw_key(figure)
        freeze(figure)
        for axis, method in zip(panels.flat, methods, strict=False):
            _label_method(axis, table, method, compared, references)
        _label_references(last, references)


def _means(table: pd.DataFrame) -> list[Point]:
    return list(zip(table["both_mse mean"], table["both_mrr mean"], strict=True))


def _set_limits(axis: Axes, table: pd.DataFrame, references: References) -> None:
    """Room for every mean, mark and line; bars may be longer and are cut."""
    points = [*_means(table.dropna(subset=["both_mse mean"])), *(point for _, point, _ in references.points)]
    for place, metric, set_limits in ((0, "mse", axis.set_xlim), (1, "mrr", axis.set_ylim)):
        values = [point[place] for point in points]
        values += [value for own, value, _, _ in _lines(references) if own == metric]
        if values:
            margin = 0.08 * (max(values) - min(values)) or 0.01
            set_limits(min(values) - margin, max(values) + margin)


def _draw_method(axis: Axes, table: pd.DataFrame, method: str, compared: Compared, references: References) -> None:
    """The configurations of one method before those of all others, the front, and the references without names."""
    others = table[table["weighting"] != method]
    axis.plot(others["both_mse mean"], others["both_mrr mean"], "o", color=PALE, markersize=SIZE / 2, zorder=1.5)
    front = table[table["on front"]].sort_values("both_mse mean")
    axis.plot(
        front["both_mse mean"], front["both_mrr mean"], color=GRAY, linewidth=1.2, drawstyle="steps-post", zorder=2
    )
    for name, row in table[table["weighting"] == method].iterrows():
        look = {"color": COLORS[row["tables"]]}
        for start, end in _bars(name, row, compared):
            axis.plot(*zip(start, end, strict=True), linewidth=1.2, alpha=0.6, zorder=3, **look)
        edge = {"markeredgecolor": INK, "markeredgewidth": 2.0} if row["on front"] else {"markeredgecolor": "white"}
        (point,) = _means(table.loc[[name]])
        axis.plot(*point, SHAPES[row["tables"]], markersize=SIZE, zorder=4, **look, **edge)
    _draw_lines(axis, references)
    axis.grid(False)
    axis.set_title(f"{method} weights" if method == "fixed" else method, loc="left")


def _bars(name: str, row: pd.Series, compared: Compared) -> Iterable[tuple[Point, Point]]:
    """(start, end) of the intervals at one mean; none where there are too few seeds."""
    x, y = row["both_mse mean"], row["both_mrr mean"]
    for metric in ("mse", "mrr"):
        one = compared[name, metric]
        low, high = one.low - one.difference, one.high - one.difference
        if high > low:
            yield ((x + low, y), (x + high, y)) if metric == "mse" else ((x, y + low), (x, y + high))


def _draw_lines(axis: Axes, references: References) -> None:
    """A line across the plane for each reference, and the marks."""
    for metric, value, _, is_peer in _lines(references):
        style = {"color": GRAY if is_peer else INK, "dashes": DOTTED if is_peer else DASHED, "linewidth": 0.8}
        (axis.axhline if metric == "mrr" else axis.axvline)(value, zorder=1, **style)
    for _, point, look in references.points:
        axis.plot(*point, linestyle="none", zorder=3.5, **look)


def _lines(references: References) -> list[tuple[str, float, str, bool]]:
    """(metric, value, name, whether it is a peer)."""
    tasks = {"mrr": "ranking alone", "mse": "rating alone"}
    found = [(metric, references.alone[metric], name, False) for metric, name in tasks.items()]
    found = [line for line in found if not math.isnan(line[1])]
    return found + [(peer.metric, peer.value, peer.name, True) for peer in references.peers]


def _draw_references(axis: Axes, references: References) -> None:
    _draw_lines(axis, references)
    axis.grid(False)
    axis.set_title("each task alone, and other methods" if references.peers else "each task alone", loc="left")


def _label_method(axis: Axes, table: pd.DataFrame, method: str, compared: Compared, references: References) -> None:
    """lambda_R beside every mean."""
    own = table[table["weighting"] == method].dropna(subset=["both_mse mean"])
    occupied = _with_marks(axis, references)
    for point in _means(own):
        occupied.add_marker(point, SIZE + 2)
    for point in _means(table[table["weighting"] != method].dropna(subset=["both_mse mean"])):
        occupied.add_marker(point, SIZE / 2, named=False)
    for name, row in own.iterrows():
        for bar in _bars(name, row, compared):
            occupied.add_line(*bar)
    looks = ({"color": COLORS[tables]} for tables in own["tables"])
    words = (f"{weight:g}" for weight in own["regression_weight"])
    place_labels(occupied, [Label(*label) for label in zip(words, _means(own), repeat(SIZE), looks)])


def _with_marks(axis: Axes, references: References) -> Occupied:
    occupied = Occupied(axis)
    for _, point, look in references.points:
        occupied.add_marker(point, look["markersize"], named=False)
    return occupied


def _label_references(axis: Axes, references: References) -> None:
    """The names of the marks and of the lines."""
    occupied = _with_marks(axis, references)
    for metric, value, name, is_peer in _lines(references):
        _name_line(occupied, metric, value, name, GRAY if is_peer else INK)
    place_labels(occupied, [Label(name, point, mark["markersize"]) for name, point, mark in references.points])


def _name_line(occupied: Occupied, metric: str, value: float, name: str, color: str) -> None:
    """Write the name on a line, at its right end or its foot where that is free, else at the other end."""
    axis = occupied.axis
    look = {"fontsize": SMALLEST, "zorder": 5, "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5}}
    if metric == "mrr":
        ends = [{"x": 0.995, "ha": "right"}, {"x": 0.005, "ha": "left"}]
        look |= {"y": value, "va": "center", "transform": axis.get_yaxis_transform()}
    else:
        ends = [{"y": 0.02, "va": "bottom"}, {"y": 0.98, "va": "top"}]
        look |= {"x": value, "ha": "center", "rotation": 90, "transform": axis.get_xaxis_transform()}
    texts = [axis.text(s=name, color=color, **end, **look) for end in ends]
    kept = next((text for text in texts if occupied.is_free(text)), texts[0])
    for text in texts:
        if text is not kept:
            text.remove()
    occupied.add_text(kept)


def _draw_key(figure: Figure) -> None:
    """The legend of colors, shapes and the front."""
    key = [
        Line2D([], [], color=COLORS[tables], marker=SHAPES[tables], markersize=SIZE, label=f"{tables} tables")
        for tables in COLORS
    ]
    front = {"color": GRAY, "linewidth": 1.2, "marker": "o", "markersize": SIZE, "markerfacecolor": "white"}
    key.append(Line2D([], [], markeredgecolor=INK, markeredgewidth=2, label="Pareto front of all means", **front))
    key.append(
        Line2D([], [], color=PALE, marker="o", markersize=SIZE / 2, linewidth=0, label="means of the other panels")
    )
    figure.legend(handles=key, loc="outside lower center", ncols=len(key))
