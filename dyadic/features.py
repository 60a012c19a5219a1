"""Win, tie and loss: fifteen neighbourhood statistics of every dyad, from training dyads alone.

Source: Volkovs and Zemel 2012 (the statistics, neighbours per item, g = 1 in their notation); Moura et al. (IM as the
score). Where the two or the authors' code disagree, `FeatureOptions` has an option; the defaults leak nothing.

Letters: D dyads, T training dyads, u the user of a dyad, k a neighbour, m the item, W the user-item matrix that
similarity is taken on.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
from scipy import sparse
from tqdm import tqdm

from config.dyadic import FeatureOptions
from config.errors import UserError
from dyadic.data import DyadicData

FEATURES = tuple(
    f"{preference} {statistic}"
    for preference in ("win", "loss", "tie")
    for statistic in ("mean", "spread", "max", "min", "share")
)
MOST_USERS = 30_000  # the table of co-occurrences has num_users ** 2 cells of 4 bytes
USERS_AT_A_TIME = 512
PAIRS_AT_A_TIME = 2**20  # (dyad, neighbour) pairs summarised at once: bounds memory for any number of dyads
DEFAULT = FeatureOptions()
LEAK = (
    "LEAK: the features were computed from all dyads, those of the test part included, as the authors' code does; "
    "test figures are inflated"
)


def add_features(data: DyadicData, options: FeatureOptions = DEFAULT, quiet: bool = False) -> DyadicData:
    """The same dyads with `features` (D, 15), or more columns for bias slots. Reads labels of `data.train` alone.

    Columns are named by FEATURES; all lie in [0, 1]. A dyad whose item no other user observed has 15 zeros.

    Args:
        quiet: no progress bar; there is none either where stderr is no terminal.

    Raises:
        UserError: ratings are wanted and there are none, or the users are too many for the table of similarities.
    """
    if data.num_users > MOST_USERS:
        raise UserError(
            f"{data.num_users:,} users are too many: the similarities of more than {MOST_USERS:,} do not fit into "
            "memory; raise --min_user"
        )
    if options.score == "rating" and data.ratings is None:
        raise UserError(f"--score rating needs ratings, and {data.name} has none; take --score im")
    known = data.train if options.source == "train" else np.arange(len(data))
    score = data.im if options.score == "im" else data.ratings
    neighbourhood = _Neighbourhood(data, known, options)
    table = compare(data.user_ids[known], score[known])
    statistics = np.zeros((len(data), len(FEATURES)))
    alone = np.ones(len(data), dtype=bool)
    bar = tqdm(total=len(data), desc="features", unit="dyad", leave=False, disable=quiet or not sys.stderr.isatty())
    with bar:
        for rows, counts, entries in _gather(neighbourhood.blocks(bar)):
            length = counts if options.absent == "drop" else np.full_like(counts, options.num_neighbors)
            statistics[rows] = summarise(table[entries], counts, length, options.spread)
            alone[rows] = False
    bias = [np.ones(len(data)), alone.astype(float)][: {"none": 0, "const": 1, "vz": 2}[options.bias]]
    notes = (*data.notes, LEAK) if options.source == "all" else data.notes
    return replace(data, features=np.column_stack([statistics, *bias]), notes=notes)


def compare(user_ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How often each entry of a user wins, loses and ties against the user's other entries: (T, 3), rows sum to 1.

    Volkovs and Zemel's WIN, LOSS and TIE with g = 1. They do not depend on whose neighbour the user is, so that one
    table serves all dyads. An entry without another to compare with is a row of zeros.

    Args:
        user_ids, scores: (T,) who, and what the user thinks of the item.
    """
    levels, level = np.unique(scores, return_inverse=True)
    key, group, size = np.unique(
        user_ids.astype(np.int64) * len(levels) + level, return_inverse=True, return_counts=True
    )
    entries = np.bincount(user_ids)
    first = np.cumsum(entries) - entries
    lower = (np.cumsum(size) - size - first[key // len(levels)])[group]
    equal = size[group] - 1
    others = entries[user_ids] - 1
    wins = np.column_stack([lower, others - lower - equal, equal])
    return wins / np.maximum(others, 1)[:, None]


def summarise(values: np.ndarray, counts: np.ndarray, length: np.ndarray, spread: str = "std") -> np.ndarray:
    """Mean, spread, maximum, minimum and share of non-zeros of n ragged lists, for WIN, LOSS and TIE: (n, 15).

    Args:
        values: (P, 3) the lists one after another.
        counts: (n,) their lengths, each at least 1.
        length: (n,) lengths that they are padded to with zeros, at least `counts`.
        spread: "std" or "var", divisor `length`.
    """
    first = np.cumsum(counts) - counts
    padding = (length - counts)[:, None]
    length = length[:, None]
    mean = np.add.reduceat(values, first) / length
    deviation = values - np.repeat(mean, counts, axis=0)
    variance = (np.add.reduceat(deviation * deviation, first) + padding * mean * mean) / length
    low = np.where(padding > 0, 0.0, np.minimum.reduceat(values, first))
    share = np.add.reduceat(values != 0, first, dtype=np.int64) / length
    columns = [mean, np.sqrt(variance) if spread == "std" else variance, np.maximum.reduceat(values, first), low, share]
    return np.stack(columns, axis=2).reshape(len(counts), len(FEATURES))


def _gather(blocks: Iterator[tuple[np.ndarray, ...]]) -> Iterator[tuple[np.ndarray, ...]]:
    """Join blocks to about PAIRS_AT_A_TIME pairs, and leave out dyads without a neighbour."""
    waiting, pairs = [], 0
    for rows, counts, entries in blocks:
        some = counts > 0
        waiting.append((rows[some], counts[some], entries))
        pairs += len(entries)
        if pairs >= PAIRS_AT_A_TIME:
            yield tuple(map(np.concatenate, zip(*waiting, strict=True)))
            waiting, pairs = [], 0
    if pairs:
        yield tuple(map(np.concatenate, zip(*waiting, strict=True)))
