"""benchmark.png: a panel per part, drawn from benchmark.csv."""

import math
from pathlib import Path

from matplotlib.figure import Figure

from analysis.figures.style import BASELINE, NETWORK
from benchmarks.quality import HIGHEST_MSE, LOWEST_MRR
from benchmarks.results import Results

RATING, RANKING = "#b5651d", "#3b7d4f"  # peers by their task


def draw(results: Results, path: Path) -> None:
    """Draw every part that has been measured and has a panel, in the order of PANELS; no file where there is none."""
    measured = {row["part"] for row in results.rows}
    panels = [(part, panel) for part, panel in PANELS if part in measured]
    if not panels:
        return
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(6.2 * columns, 5.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (_, panel) in zip(axes.flat, panels, strict=False):
        panel(axis, results)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def draw_plane(axis, results: Results) -> None:
    """The network's mean curve, a dot per epoch, and lines of peers that do one task each."""
    mrr, mse = results.of("quality", "MRR"), results.of("quality", "MSE")
    epochs = [name for name in mrr if name.startswith("ours, epoch")]
    raters = {name: value for name, value in mse.items() if not name.startswith("ours") and value < 0.9}
    rankers = {name: value for name, value in mrr.items() if not name.startswith("ours") and value > 0.1}
    axis.plot([mse[name] for name in epochs], [mrr[name] for name in epochs], ".-", color=NETWORK, alpha=0.5, zorder=3)
    axis.plot(mse["ours"], mrr["ours"], "o", color=NETWORK, markersize=9, zorder=4)
    axis.annotate("ours, last epoch", (mse["ours"], mrr["ours"]), (6, -12), textcoords="offset points", color=NETWORK)
    axis.set_xlim(min([mse["ours"], *raters.values()]) - 0.006, max([mse["ours"], *raters.values()]) + 0.012)
    axis.set_ylim(0.02, 1.05 * max([mrr["ours"], *rankers.values(), LOWEST_MRR]))
    _label_lines(axis, raters, RATING, vertical=True)
    _label_lines(axis, rankers, RANKING, vertical=False)
    axis.fill_between([0, HIGHEST_MSE], LOWEST_MRR, 1, color=NETWORK, alpha=0.08, linewidth=0)
    axis.set_xlabel("MSE of ratings, squared rating points (lower is better)")
    axis.set_ylabel("MRR over all items (higher is better)")
    axis.set_title("Both tasks at once: mean over three splits; shaded: both bounds met", fontsize=10)


def _label_lines(axis, values: dict[str, float], color: str, vertical: bool) -> None:
    """A thin line per peer; names of close values are moved apart."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    low, high = (left, right) if vertical else (bottom, top)
    last = low - high
    for name, value in sorted(values.items(), key=lambda pair: pair[1]):
        last = max(value, last + (high - low) / 26)
        if vertical:
            axis.axvline(value, color=color, linewidth=0.7, alpha=0.6)
            place = {"x": last, "y": bottom, "rotation": 90, "ha": "center", "va": "bottom"}
        else:
            axis.axhline(value, color=color, linewidth=0.7, alpha=0.6)
            place = {"x": right, "y": last, "ha": "left", "va": "center"}
        axis.text(s=f" {name}", color=color, fontsize=7, backgroundcolor="#ffffffb0", **place)


def draw_fits(axis, results: Results) -> None:
    """CPU seconds of a fit, logarithmic; of the network until its last epoch and until both bounds are met."""
    seconds = dict(results.of("quality", "fit"))
    seconds.pop("ours, further splits", None)
    raters = results.of("quality", "MSE")
    colors = {name: RATING if name in raters else RANKING for name in seconds} | {"ours": NETWORK}
    until_bounds = results.of("quality", "time to quality, mean").get("ours")
    if until_bounds is not None and not math.isnan(until_bounds):
        seconds["ours, until both bounds"], colors["ours, until both bounds"] = until_bounds, NETWORK
    _bars(
        axis, seconds, [colors[name] for name in seconds], "CPU seconds of one fit, one thread (logarithmic)", "{:.2g}"
    )
    axis.set_xscale("log")
    axis.set_title("Time to fit: rating, ranking, both", fontsize=10)


def draw_epoch(axis, results: Results) -> None:
    seconds = results.of("epoch", "median")
    _bars(axis, seconds, _own_colors(seconds), "CPU seconds of an epoch of both tasks, median", "{:.3f}")
    axis.set_title("An epoch at batch 256, d = 32", fontsize=10)


def draw_evaluation(axis, results: Results) -> None:
    seconds = results.of("evaluation", "median")
    _bars(axis, seconds, _own_colors(seconds), "CPU seconds of six metrics on all test users, median", "{:.3f}")
    axis.set_title("A full evaluation", fontsize=10)


def draw_growth(axis, results: Results) -> None:
    """Rows per second at every size, ours and the plain loop's."""
    for name, color in (("ours", NETWORK), ("plain", BASELINE)):
        speeds = results.of("growth", name)
        axis.plot(list(speeds), [value / 1e6 for value in speeds.values()], "o-", color=color, label=name)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("simulated ratings")
    axis.set_ylabel("training, million rows per CPU second")
    axis.legend(frameon=False)
    axis.set_title("Growth: speed, one thread", fontsize=10)


def draw_memory(axis, results: Results) -> None:
    """Peak memory of the process beside the size of the raw arrays."""
    for name, color in (("peak memory", NETWORK), ("peak memory, data made", RANKING), ("raw arrays", BASELINE)):
        sizes = results.of("growth", name)
        axis.plot(list(sizes), [value / 2**10 for value in sizes.values()], "o-", color=color, label=name)
    axis.set_yscale("log")
    axis.set_xlabel("simulated ratings")
    axis.set_ylabel("GB (logarithmic)")
    axis.legend(frameon=False)
    axis.set_title("Growth: memory", fontsize=10)


def draw_processes(axis, results: Results) -> None:
    speeds = {name: value / 1e6 for name, value in results.of("processes", "rows").items()}
    _bars(axis, speeds, [NETWORK] * len(speeds), "training, million rows per second", "{:.2f}")
    axis.set_title("Processes under torchrun, the same batches", fontsize=10)


def draw_any(axis, results: Results) -> None:
    """The lead of the network over the best tuned peer on each data set, in both metrics."""
    rows = {
        f"{metric}, {name}": (value, color)
        for metric, color in (("MRR", RANKING), ("MSE", RATING))
        for name, value in results.of("any", f"lead in {metric}").items()
    }
    values = {name: value for name, (value, _) in rows.items()}
    _bars(axis, values, [color for _, color in rows.values()], "better than the best tuned peer by, %", "{:+.1f}")
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_title("Any ratings: lead over the best tuned peer", fontsize=10)


def _bars(axis, values: dict[str, float], colors: list[str], label: str, form: str) -> None:
    bars = axis.barh(list(values), list(values.values()), color=colors, height=0.65)
    axis.bar_label(bars, [form.format(value) for value in values.values()], padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set_xlabel(label)
    axis.tick_params(axis="y", length=0, labelsize=8)


def _own_colors(values: dict[str, float]) -> list[str]:
    return [NETWORK if name == "ours" else BASELINE for name in values]


PANELS = (
    ("quality", draw_plane),
    ("quality", draw_fits),
    ("epoch", draw_epoch),
    ("evaluation", draw_evaluation),
    ("growth", draw_growth),
    ("growth", draw_memory),
    ("processes", draw_processes),
    ("any", draw_any),
)
