"""Peers that are tuned on each data set: a grid of settings, of which a validation part takes the best.

The network decides on the same validation part.
The grids hold most choices on three data sets inside their bounds; widths end where a fit takes seconds.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from tqdm import tqdm

from benchmarks.biased_als import factorize
from benchmarks.peers import Answer, Peer, fit_als, fit_biases, fit_cornac_mf, fit_popularity
from benchmarks.quality import fit_and_measure
from dataset import Interactions
from multitask.decisions import MAX_CELLS, Parts
from multitask.ease import ease_scores

Settings = Mapping[str, float]


@dataclass(frozen=True)
class TunedPeer(Peer):
    """A peer whose `fit` takes settings as well.

    grid: the settings to choose from, one or more.
    max_cells: the most users x items for which its fit has room.
    """

    grid: Sequence[Settings]
    max_cells: float = math.inf

    def at(self, settings: Settings) -> Peer:
        return Peer(self.name, self.task, self.package, partial(self.fit, **settings))


def choose(peer: TunedPeer, parts: Parts, label: str) -> Settings:
    """The settings with the lowest MSE or the highest MRR on the rows held out; the first of equal ones.

    Settings whose fit diverges are passed over. Where no row is held out, those in the middle of the grid.

    Args:
        label: what the progress bar says.
    """
    if len(peer.grid) == 1 or not len(parts.held_out):
        return peer.grid[len(peer.grid) // 2]
    bar = tqdm(peer.grid, label, leave=False, unit="fit", disable=not sys.stderr.isatty())
    losses = [_loss(peer.at(settings), parts) for settings in bar]
    return peer.grid[losses.index(min(losses))]


def _loss(peer: Peer, parts: Parts) -> float:
    """What is to be low: the MSE, or minus the MRR."""
    try:
        value, _ = fit_and_measure(peer, parts.fitted, parts.held_out)
    except FloatingPointError:
        return math.inf
    return value if peer.task == "rating" else -value


def grid(**values: Sequence[float]) -> list[Settings]:
    """Every combination of the values: grid(a=(1, 2), b=(3,)) is [{"a": 1, "b": 3}, {"a": 2, "b": 3}]."""
    return [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]


def fit_ease(train: Interactions, ridge: float) -> Answer:
    """EASE as Steck 2019 has it: every rating counts the same, nothing is dropped, no table is cut."""
    scores = ease_scores(train, ridge, user_exponent=0.0, dropout=0.0).numpy()
    return lambda rows: scores[rows]


def fit_biased_als(train: Interactions, factors: int, ridge: float, bias_ridge: float) -> Answer:
    return factorize(train, factors, ridge, bias_ridge).predict


TUNED = [
    TunedPeer(
        "EASE", "ranking", None, fit_ease, grid(ridge=(30, 60, 100, 150, 200, 300, 500, 1000, 2000)), MAX_CELLS
    ),
    TunedPeer(
        "iALS (implicit)", "ranking", "implicit", fit_als,
        grid(factors=(32, 64, 128, 256, 512), ridge=(2, 5, 10, 20), alpha=(0.5, 1, 2, 4)),
    ),
    TunedPeer("popularity", "ranking", None, fit_popularity, [{}]),
    TunedPeer(
        "MF by SGD (cornac)", "rating", "cornac", fit_cornac_mf,
        grid(factors=(32, 200), ridge=(0.02, 0.04, 0.07, 0.1, 0.13), epochs=(40, 80, 160, 320)),
    ),
    TunedPeer(
        "biased ALS", "rating", None, fit_biased_als,
        grid(factors=(8, 16, 32), ridge=(6, 8, 11, 14, 17), bias_ridge=(1.5, 3, 6)),
    ),
    TunedPeer(
        "user + item biases", "rating", None, fit_biases,
        grid(user_ridge=(1, 2, 3, 5, 7, 10, 15, 25), item_ridge=(0.5, 1, 2, 3, 5, 10)),
    ),
]  # fmt: skip
