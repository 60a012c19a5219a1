"""Texts beside points, placed where they cover no marker and no other text.

Places are boxes in pixels: left, bottom, right, top.
"""

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from analysis.figures.style import GRAY, SMALLEST

Point = tuple[float, float]  # in the units of the axes
DISTANCES = (2, 5, 9, 14, 20, 27, 35, 45, 57, 71)  # points from the edge of a marker to that of its text
ANGLES = 24  # directions around a marker
ROUNDS = 3
LEADER = 8  # points from which on a line joins text and point; less where another point is as near
SHORTEST = 5  # points that a line needs to be seen
LOOK = {"fontsize": SMALLEST, "path_effects": [withStroke(linewidth=2.5, foreground="white")]}
# The cost of a place, beside its distance in points: of a marker, a text or the edge that it covers; of a marker or a
# text that its leader runs over; of a line that it crosses.
COVERED, RUN_OVER, CROSSED = 1000, 250, 25


class Occupied:
    """What a panel already holds: markers and texts, and lines, which a text may cross where it must."""

    def __init__(self, axis: Axes) -> None:
        """axis: of a figure that is frozen (see `freeze`)."""
        self.axis, self.pixels = axis, axis.figure.dpi / 72  # pixels in a point
        self.solid, self.thin, self.named = np.empty((0, 4)), np.empty((0, 4)), np.empty((0, 4))

    def add_marker(self, point: Point, size: float, named: bool = True) -> None:
        """size: points, its width and height. named: True for a marker that gets a text."""
        center, half = self.axis.transData.transform(point), size * self.pixels / 2
        box = np.concatenate([center - half, center + half])
        self.solid = np.vstack([self.solid, box])
        if named:
            self.named = np.vstack([self.named, box])

    def add_line(self, start: Point, end: Point) -> None:
        """A line; one that is neither horizontal nor vertical takes all of its box."""
        corners = self.axis.transData.transform([start, end])
        self.thin = np.vstack([self.thin, [*(corners.min(0) - 1), *(corners.max(0) + 1)]])

    def add_text(self, text: Text) -> None:
        self.solid = np.vstack([self.solid, text.get_window_extent().extents])

    def is_free(self, text: Text) -> bool:
        """True where the text covers no marker and no other text."""
        return not _overlap(text.get_window_extent().extents[None], self.solid).any()

    def are_ambiguous(self, boxes: np.ndarray, distances: np.ndarray, start: np.ndarray) -> np.ndarray:
        """(P,) bool: True where another marker is about as near to the text as its own."""
        others = self.named[~_contain(self.named, start)]
        gaps = np.maximum(boxes[:, None, :2] - others[:, 2:], others[:, :2] - boxes[:, None, 2:]).clip(min=0)
        return (np.hypot(gaps[..., 0], gaps[..., 1]) < 2 * distances[:, None] * self.pixels).any(1)

    def costs(self, places: "Places") -> np.ndarray:
        """(P,) of the places of a text."""
        boxes, inside = places.boxes, self.axis.bbox.extents
        is_cut = (boxes[:, :2] < inside[:2]).any(1) | (boxes[:, 2:] > inside[2:]).any(1)
        others = self.solid[~_contain(self.solid, places.start)]
        dots = places.dots[:, None]
        is_run_over = _contain(others[None, :, None], dots) & ~_contain(boxes[:, None, None], dots)
        run_over = np.where(places.has_leader, is_run_over.any(2).sum(1), 0)
        unclear = places.has_leader & (places.distances < SHORTEST)
        covered, crossed = _overlap(boxes, self.solid).sum(1) + is_cut, _overlap(boxes, self.thin).sum(1)
        return places.distances + COVERED * covered + RUN_OVER * run_over + CROSSED * (crossed + unclear)


@dataclass(frozen=True)
class Places:
    """Where the text of one point may be.

    start: (2,) the point. boxes: (P, 4). distances: (P,) from the marker, in points. has_leader: (P,) True where a line
    joins text and point.
    """

    start: np.ndarray
    boxes: np.ndarray
    distances: np.ndarray
    has_leader: np.ndarray

    @cached_property
    def dots(self) -> np.ndarray:
        """(P, 12, 2) dots along the lines from the point to the middle of each box."""
        return self.start + np.linspace(0, 1, 12)[:, None] * (_centers(self.boxes) - self.start)[:, None]

    def take(self, place: int, occupied: Occupied) -> None:
        """Add a text at this place, and its line."""
        occupied.solid = np.vstack([occupied.solid, self.boxes[place]])
        if self.has_leader[place]:
            dots = self.dots[place, ::3]  # few, as a text that crosses a line covers several
            occupied.thin = np.vstack([occupied.thin, np.hstack([dots - 1, dots + 1])])


def freeze(figure: Figure) -> None:
    """Lay the figure out now and for good: places in pixels are valid from here on."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


class Label(NamedTuple):
    """A text for a point. size: points, of its marker. look: of the text."""

    words: str
    point: Point
    size: float
    look: Mapping[str, Any] = MappingProxyType({})


def place_labels(occupied: Occupied, labels: Sequence[Label]) -> None:
    """Write each text near its point, joined to it by a thin line where it is further away.

    One after the other takes the place that costs least beside the others, in ROUNDS rounds.

    occupied: it holds the markers of all points; the texts are not added.
    """
    options = [_places(occupied, label) for label in labels]
    taken: list[int | None] = [None] * len(labels)
    for turn in range(ROUNDS * len(labels)):
        own = turn % len(labels)
        others = copy(occupied)
        for other, place in enumerate(taken):
            if place is not None and other != own:
                options[other].take(place, others)
        taken[own] = int(np.argmin(others.costs(options[own])))
    for label, places, place in zip(labels, options, taken, strict=True):
        _write(occupied.axis, label, places, place)


def _places(occupied: Occupied, label: Label) -> "Places":
    """The places around the marker of a label, the nearest first."""
    axis, pixels = occupied.axis, occupied.pixels
    probe = axis.text(0, 0, label.words, **LOOK, **label.look)
    half = probe.get_window_extent().size / 2 + 1
    probe.remove()
    distances, angles = np.repeat(DISTANCES, ANGLES), np.tile(math.tau / ANGLES * np.arange(ANGLES), len(DISTANCES))
    directions = np.column_stack([np.cos(angles), np.sin(angles)])
    start = axis.transData.transform(label.point)
    centers = start + directions * ((label.size / 2 + distances)[:, None] * pixels + half)
    boxes = np.hstack([centers - half, centers + half])
    has_leader = (distances > LEADER) | occupied.are_ambiguous(boxes, distances, start)
    return Places(start, boxes, distances, has_leader)


def _write(axis: Axes, label: Label, places: "Places", place: int) -> None:
    offset = (_centers(places.boxes[place]) - places.start) * 72 / axis.figure.dpi
    leader = {"arrowstyle": "-", "color": GRAY, "linewidth": 0.7, "shrinkA": 0, "shrinkB": label.size / 2}
    axis.annotate(
        label.words, label.point, offset, textcoords="offset points", ha="center", va="center", zorder=6,
        arrowprops=leader if places.has_leader[place] else None, **LOOK, **label.look,
    )  # fmt: skip


def _centers(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(P, 4), (N, 4) -> (P, N) bool."""
    return ((boxes[:, None, :2] <= others[:, 2:]) & (others[:, :2] <= boxes[:, None, 2:])).all(-1)


def _contain(boxes: np.ndarray, dots: np.ndarray) -> np.ndarray:
    """(..., 4), (..., 2) -> (...) bool."""
    return ((boxes[..., :2] <= dots) & (dots <= boxes[..., 2:])).all(-1)
