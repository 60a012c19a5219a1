"""benchmark.png, a panel per part, and learning_curve.png, quality against time: drawn from benchmark.csv."""

from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, NullFormatter

from analysis.figures.labels import Label, Occupied, freeze, place_labels
from analysis.figures.style import (
    BASELINE,
    INK,
    NETWORK,
    RANKING,
    RATING,
    SMALLEST,
    axis_label,
    label_above,
    mark_simulated,
    picture,
)
from benchmarks.quality import HIGHEST_MSE, LOWEST_MRR
from benchmarks.results import Results

PICTURE, LEARNING_CURVE = "benchmark.png", "learning_curve.png"
SIZE = 6.0  # points, of a marker
BASELINES = ("popularity", "user + item biases")  # far from all others
# metric: direction, detail, color of the peers that are measured by it, bound of "time to quality"
QUALITY = {
    "MRR": (+1, "mean reciprocal rank over all items, 0 to 1", RANKING, LOWEST_MRR),
    "MSE": (-1, "squared rating points", RATING, HIGHEST_MSE),
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what has been measured: a panel per part in the order of PANELS, and quality against time.

    Returns the paths of the pictures.
    """
    measured = {row["part"] for row in results.rows}
    panels = [(part, panel) for part, panel in PANELS if part in measured]
    found = []
    if panels:
        found.append(folder / PICTURE)
        _draw_panels(panels, results, found[-1])
    if results.of("quality", "CPU"):
        found.append(folder / LEARNING_CURVE)
        draw_learning_curve(results, found[-1])
    return found


def _draw_panels(panels: list, results: Results, path: Path) -> None:
    lines = -(-len(panels) // 2)
    with picture(path, 0.3 + 3.0 * lines) as figure:
        axes = figure.subplots(lines, 2, squeeze=False).flat
        for axis, (part, panel) in zip(axes, panels, strict=False):
            panel(axis, results)
            if results.is_simulated(part):
                mark_simulated(axis)
        for axis in axes[len(panels) :]:
            axis.remove()


def draw_learning_curve(results: Results, path: Path) -> None:
    """Quality on the test part against the CPU seconds of training: our curve and the peers as points."""
    left_out = [
        f"{name} ({metric} {value:.4f})"
        for metric in QUALITY
        for name, value in results.of("quality", metric).items()
        if name in BASELINES
    ]
    caption = (
        "Means over the same splits; all items are ranked. Line: this project's network, which does both tasks, a dot "
        "per epoch. Diamonds: methods for one task, after their fit. Dashed: the bounds of time to quality, the "
        f"figures of WARP and SVD++. Not drawn: {', '.join(left_out)}."
    )
    with picture(path, 4.3, caption=caption, simulated=results.is_simulated("quality")) as figure:
        panels = dict(zip(QUALITY, figure.subplots(1, len(QUALITY), sharex=True), strict=True))
        points = {metric: _draw_quality(axis, results, metric) for metric, axis in panels.items()}
        freeze(figure)
        for metric, axis in panels.items():
            _label_quality(axis, *points[metric])


def _draw_quality(axis: Axes, results: Results, metric: str) -> tuple[list, list]:
    """One metric over time; returns the (CPU seconds, value) of our epochs, and (name, that point) of the peers."""
    direction, detail, color, bound = QUALITY[metric]
    values, seconds = results.of("quality", metric), results.of("quality", "fit")
    curve = [(second, values[name]) for name, second in results.of("quality", "CPU").items()]
    peers = [
        (name, (seconds[name], value))
        for name, value in values.items()
        if not name.startswith("ours") and name not in BASELINES
    ]
    axis.plot(*zip(*curve, strict=True), "o-", color=NETWORK, markersize=SIZE, zorder=4)
    for _, point in peers:
        axis.plot(*point, "D", color=color, markersize=SIZE, zorder=3)
    axis.axhline(bound, color=INK, linewidth=0.8, dashes=(5, 2), zorder=1)
    axis.set_xscale("log")
    axis.margins(0.12)
    _number_plainly(axis.xaxis)
    axis.set_xlabel("CPU seconds of training, one thread (logarithmic)")
    label_above(axis, f"{metric}, test", direction, detail)
    return curve, peers


def _label_quality(axis: Axes, curve: list, peers: list) -> None:
    """The name of every peer beside its point, and of our network beside its last epoch."""
    occupied = Occupied(axis)
    for point in curve:
        occupied.add_marker(point, SIZE + 1, named=False)
    for _, point in peers:
        occupied.add_marker(point, SIZE + 1)
    (left, right), bound = axis.get_xlim(), axis.get_lines()[-1].get_ydata()[0]
    for line in [((left, bound), (right, bound)), *pairwise(curve)]:
        occupied.add_line(*line)
    own = Label("this project", curve[-1], SIZE, {"color": NETWORK, "fontweight": "bold"})
    place_labels(occupied, [own, *(Label(name, point, SIZE) for name, point in peers)])


def draw_epoch(axis: Axes, results: Results) -> None:
    seconds = results.of("epoch", "median")
    _bars(axis, seconds, _own_colors(seconds), "{:.3f}")
    axis.set_xlabel(axis_label("CPU seconds, median", -1))
    axis.set_title("An epoch of both tasks at batch 256, d = 32", loc="left")


def draw_evaluation(axis: Axes, results: Results) -> None:
    seconds = results.of("evaluation", "median")
    _bars(axis, seconds, _own_colors(seconds), "{:.3f}")
    axis.set_xlabel(axis_label("CPU seconds, median", -1))
    axis.set_title("Six metrics on all test users", loc="left")


def draw_growth(axis: Axes, results: Results) -> None:
    """Rows per second at every size, ours and the plain loop's."""
    for name, color, marker in (("ours", NETWORK, "o"), ("plain", BASELINE, "D")):
        speeds = results.of("growth", name)
        values = [value / 1e6 for value in speeds.values()]
        axis.plot(list(speeds), values, color=color, marker=marker, markersize=SIZE, label=name)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("number of ratings")
    axis.set_ylabel(axis_label("million rows per CPU second", +1))
    axis.legend()
    axis.set_title("Speed of training, one thread", loc="left")


def draw_memory(axis: Axes, results: Results) -> None:
    """Peak memory of the process beside the size of the raw arrays."""
    lines = {"peak memory": (NETWORK, "o"), "peak memory, data made": (RANKING, "s"), "raw arrays": (BASELINE, "D")}
    for name, (color, marker) in lines.items():
        sizes = results.of("growth", name)
        values = [value / 2**10 for value in sizes.values()]
        axis.plot(list(sizes), values, color=color, marker=marker, markersize=SIZE, label=name)
    axis.set_yscale("log")
    _number_plainly(axis.yaxis)
    axis.set_xlabel("number of ratings")
    axis.set_ylabel(axis_label("GB, logarithmic", -1))
    axis.legend()
    axis.set_title("Memory", loc="left")


def draw_processes(axis: Axes, results: Results) -> None:
    speeds = {name: value / 1e6 for name, value in results.of("processes", "rows").items()}
    _bars(axis, speeds, [NETWORK] * len(speeds), "{:.2f}")
    axis.set_xlabel(axis_label("million rows per second", +1))
    axis.set_title("Processes under torchrun", loc="left")


def draw_any(axis: Axes, results: Results) -> None:
    """The lead of the network over the best tuned peer on each data set, in both metrics."""
    rows = {
        f"{metric}, {name}": (value, color)
        for metric, (_, _, color, _) in QUALITY.items()
        for name, value in results.of("any", f"lead in {metric}").items()
    }
    values = {name: value for name, (value, _) in rows.items()}
    _bars(axis, values, [color for _, color in rows.values()], "{:+.1f}")
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_xlabel(axis_label("better than the best tuned peer by, %", +1))
    axis.set_title("Any ratings", loc="left")


def _bars(axis: Axes, values: dict[str, float], colors: list[str], form: str) -> None:
    bars = axis.barh(list(values), list(values.values()), color=colors, height=0.65)
    axis.bar_label(bars, [form.format(value) for value in values.values()], padding=3, fontsize=SMALLEST)
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.grid(False, axis="y")
    axis.tick_params(axis="y", length=0)


def _number_plainly(axis: Axis) -> None:
    """Ticks of a logarithmic axis as 0.01 or 100, not as powers, whose exponents are too small to read."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _own_colors(values: dict[str, float]) -> list[str]:
    return [NETWORK if name == "ours" else BASELINE for name in values]


PANELS = (
    ("epoch", draw_epoch),
    ("evaluation", draw_evaluation),
    ("growth", draw_growth),
    ("growth", draw_memory),
    ("processes", draw_processes),
    ("any", draw_any),
)
