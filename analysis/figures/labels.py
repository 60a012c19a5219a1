"""Texts beside points, placed where they cover no marker and no other text."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from analysis.figures.style import GRAY, SMALLEST

Point = tuple[float, float]  # in the units of the axes
DISTANCES = (2, 5, 9, 14, 20, 27, 35, 45, 57, 71)  # points from the edge of a marker to that of its text
ANGLES = tuple(math.tau * step / 16 for step in (2, 0, 14, 6, 8, 10, 4, 12, 1, 15, 7, 9, 3, 5, 13, 11))
COVERED, CROSSED = 1000.0, 25.0  # the cost of covering a marker, a text or the edge; of crossing a line
LEADER = 8  # points from which on a line joins text and point


@dataclass
class Occupied:
    """What a panel already holds, in pixels. solid: markers and texts. thin: lines, which a text may cross."""

    solid: list[Bbox] = field(default_factory=list)
    thin: list[Bbox] = field(default_factory=list)

    def cost(self, box: Bbox, inside: Bbox) -> float:
        covered = sum(box.overlaps(other) for other in self.solid)
        is_cut = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
        return COVERED * (covered + is_cut) + CROSSED * sum(box.overlaps(other) for other in self.thin)


def freeze(figure: Figure) -> None:
    """Lay the figure out now and for good: places in pixels are valid from here on."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def marker_box(axis: Axes, point: Point, size: float) -> Bbox:
    """The box of a marker in pixels. size: points, its width and height."""
    x, y = axis.transData.transform(point)
    half = size * _pixels(axis) / 2
    return Bbox([[x - half, y - half], [x + half, y + half]])


def line_box(axis: Axes, start: Point, end: Point) -> Bbox:
    """The box of a horizontal or vertical line in pixels, a pixel more to all sides; `start` is left or below."""
    return Bbox(axis.transData.transform([start, end])).padded(1)


def place_labels(
    axis: Axes, labels: Sequence[tuple[str, Point]], size: float, occupied: Occupied, **look
) -> list[Annotation]:
    """Write each text near its point, joined to it by a thin line where it is further away.

    Args:
        axis: of a figure that is frozen (see `freeze`).
        labels: (text, its point).
        size: points, that of the points' markers.
        occupied: what else is in the panel; the markers of all points belong to it. The texts are added to it.
        look: of the texts.
    """
    return [_place(axis, words, point, size, occupied, {"fontsize": SMALLEST} | look) for words, point in labels]


def _place(axis: Axes, words: str, point: Point, size: float, occupied: Occupied, look: dict) -> Annotation:
    """One of the labels: of all places around its point the one that costs least, the nearest of equal ones."""
    probe = axis.text(0, 0, words, **look)
    extent = probe.get_window_extent().padded(1)
    probe.remove()
    places = list(_places(marker_box(axis, point, size), extent.width, extent.height, _pixels(axis)))
    distance, box = min(places, key=lambda place: place[0] + occupied.cost(place[1], axis.bbox))
    occupied.solid.append(box)
    center = (box.p0 + box.p1) / 2
    offset = (center - axis.transData.transform(point)) / _pixels(axis)
    leader = {"arrowstyle": "-", "color": GRAY, "linewidth": 0.7, "shrinkA": 0, "shrinkB": size / 2}
    return axis.annotate(
        words, point, offset, textcoords="offset points", ha="center", va="center", zorder=6,
        arrowprops=leader if distance > LEADER else None, **look,
    )  # fmt: skip


def _places(marker: Bbox, width: float, height: float, pixels: float) -> Iterator[tuple[float, Bbox]]:
    """(points between marker and text, box of the text in pixels), the nearest first."""
    x, y = (marker.p0 + marker.p1) / 2
    for distance in DISTANCES:
        reach = distance * pixels
        for angle in ANGLES:
            cosine, sine = math.cos(angle), math.sin(angle)
            left = x + cosine * (marker.width / 2 + reach + width / 2) - width / 2
            low = y + sine * (marker.height / 2 + reach + height / 2) - height / 2
            yield distance, Bbox.from_bounds(left, low, width, height)


def _pixels(axis: Axes) -> float:
    """Pixels in a point."""
    return axis.figure.dpi / 72
