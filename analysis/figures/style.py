"""One style for all pictures: width, sizes of text, colors, the head with its caption, the mark of simulated data.

A picture is as wide as it is shown: SHOWN_WIDTH pixels of a page, in the report and on GitHub. A CSS pixel is 1/96
inch, so that a size in points is the size that a reader sees, and no text is below SMALLEST. The file has two pixels
for one of the page, for screens with a high resolution.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis, Tick
from matplotlib.figure import Figure
from matplotlib.text import Text

SHOWN_WIDTH = 900  # CSS pixels
CSS_PIXELS = 96  # per inch
WIDTH = SHOWN_WIDTH / CSS_PIXELS  # inches, of every picture
SMALLEST = 9.0  # points, at the shown width

# The palette of Okabe and Ito (2008), which color-blind readers can distinguish; GRAY and INK are for text, too.
BLUE, SKY, ORANGE, VERMILION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
GREEN, PURPLE, GRAY, INK = "#009E73", "#CC79A7", "#595959", "#1a1a1a"
NETWORK, BASELINE = BLUE, "#8c8c8c"
RANKING, RATING = GREEN, VERMILION  # methods that do one task

SIMULATED = "SIMULATED DATA"
WARNING = f"{SIMULATED}: made by the program, not evidence about real users"
SIMULATED_MARK = {"color": "#b00020", "fontsize": 11, "fontweight": "bold"}  # wherever either of the two texts appears

SETTINGS = {
    "font.family": "DejaVu Sans",  # matplotlib brings it along: a picture looks the same everywhere
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9.5,
    "legend.title_fontsize": 9.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRAY,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 2.0,
}
BETTER = {1: "higher is better", -1: "lower is better", 0: ""}
_LINE = 1.45 / 72  # inches between lines of text, per point of its size
_MARGIN = 0.08  # inches


@contextmanager
def picture(
    path: Path, height: float, *, title: str = "", caption: str = "", simulated: bool = False
) -> Iterator[Figure]:
    """Draw in this style, then write the PNG file; nothing is written where drawing fails.

    Args:
        height: of the panels, in inches; the head with mark, title and caption adds its own.
        simulated: True puts WARNING above everything. Where some panels alone are simulated: `mark_simulated`.

    Yields the empty figure, with constrained layout below its head. `figure.legend(loc="outside lower center")` puts a
    legend below the panels.
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        _add_head(figure, title, caption, simulated)
        yield figure
        figure.savefig(path, dpi=2 * CSS_PIXELS)


def axis_label(name: str, direction: int = 0, detail: str = "") -> str:
    """The label of an axis: name, unit or range, and which way is better.

    direction: +1 where higher is better, -1 where lower is, 0 where neither is.
    """
    notes = "; ".join(part for part in (detail, BETTER[direction]) if part)
    return f"{name}\n({notes})" if notes else name


def label_above(axis: Axes, name: str, direction: int = 0, detail: str = "") -> None:
    """Label the y-axis above its panel, where the text is horizontal: a line each for name, detail and direction."""
    lines = (part for part in (name, detail, BETTER[direction]) if part)
    axis.set_title("\n".join(lines), loc="left", fontsize=SETTINGS["axes.labelsize"])


def mark_simulated(axis: Axes) -> None:
    """Mark one panel as simulated, above its title, which is set before, where not all of the picture is."""
    title = axis.get_title(loc="left")
    axis.set_title(SIMULATED + "\n" * (title.count("\n") + bool(title)), loc="right", **SIMULATED_MARK)


def shown_texts(figure: Figure) -> Iterator[tuple[str, float]]:
    """(text, points at the shown width) of every visible text; of mathematics that of its sub- and superscripts."""
    figure.draw_without_rendering()  # makes the labels of the ticks
    scale = WIDTH / figure.get_figwidth()
    for text in visible_texts(figure):
        words = text.get_text()
        has_scripts = words.count("$") > 1 and ("_" in words or "^" in words)
        yield words, text.get_fontsize() * scale * (0.7 if has_scripts else 1)


def visible_texts(artist: Artist) -> Iterator[Text]:
    """The texts that are drawn in a figure or another artist, in the order of drawing."""
    if not artist.get_visible():
        return
    if isinstance(artist, Text):
        if artist.get_text().strip():
            yield artist
        return
    for child in artist.get_children():
        if not _is_left_out(child, artist):
            yield from visible_texts(child)


def _is_left_out(child: Artist, parent: Artist) -> bool:
    """True for the axes of a panel without them, and for ticks beyond the limits of an axis: neither is drawn."""
    if isinstance(child, Axis):
        return isinstance(parent, Axes) and not parent.axison
    if isinstance(child, Tick) and isinstance(parent, Axis):
        low, high = sorted(parent.get_view_interval())
        slack = 1e-9 * (high - low)
        return not low - slack <= child.get_loc() <= high + slack
    return False


def _add_head(figure: Figure, title: str, caption: str, simulated: bool) -> None:
    """Mark, title and caption above the panels; the figure grows by their height."""
    parts = [(WARNING, SIMULATED_MARK)] if simulated else []
    parts += [(title, {"fontsize": 11.5, "fontweight": "bold"})] if title else []
    look = {"fontsize": 9.5, "color": GRAY}
    parts += [("\n".join(_wrap(figure, caption, look)), look)] if caption else []
    heights = [look["fontsize"] * _LINE * (words.count("\n") + 1) for words, look in parts]
    total = figure.get_figheight() + sum(heights) + _MARGIN
    figure.set_figheight(total)
    top = total - _MARGIN
    for (words, look), height in zip(parts, heights, strict=True):
        figure.text(_MARGIN / WIDTH, top / total, words, va="top", ha="left", **look)
        top -= height
    figure.get_layout_engine().set(rect=(0, 0, 1, top / total))


def _wrap(figure: Figure, words: str, look: dict) -> list[str]:
    """The lines of a text that is at most as wide as the figure without its margins."""
    probe, lines = figure.text(0, 0, "", **look), [""]
    for word in words.split():
        probe.set_text(f"{lines[-1]} {word}".strip())
        if lines[-1] and probe.get_window_extent().width > figure.bbox.width * (1 - 2 * _MARGIN / WIDTH):
            lines.append(word)
        else:
            lines[-1] = probe.get_text()
    probe.remove()
    return lines
