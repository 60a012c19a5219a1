"""Win, loss and tie: fifteen neighborhood statistics of every dyad, from training dyads only.

Source: Volkovs and Zemel 2012 (the statistics, neighbors per item, g = 1 in their notation); Moura et al. (IM as the
score). Where the two or the authors' code disagree, `FeatureOptions` has an option; the defaults leak nothing.

Letters, here and in dyadic.neighbors: D dyads, T training dyads, u the user of a dyad, k a neighbor, m the item, W the
user-item matrix whose rows the similarity compares.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from config.dyadic import FeatureOptions
from config.errors import UserError
from dyadic.data import DyadicData
from dyadic.neighbors import Neighborhood

FEATURES = tuple(
    f"{preference} {statistic}"
    for preference in ("win", "loss", "tie")
    for statistic in ("mean", "spread", "max", "min", "nonzero")
)
MAX_USERS = 30_000  # the table of co-occurrences has num_users ** 2 cells of 4 bytes
CHUNK_PAIRS = 2**20  # (dyad, neighbor) pairs summarized at once; bounds the memory
DEFAULT = FeatureOptions()
LEAK = (
    "LEAK: the features were computed from all dyads, including the test part, as in the authors' code; "
    "test figures are inflated"
)


def add_features(data: DyadicData, options: FeatureOptions = DEFAULT, quiet: bool = False) -> DyadicData:
    """The same dyads with `features` (D, 15), or more columns with options.bias. Reads only labels of `data.train`.

    FEATURES names the 15 columns; all values lie in [0, 1]. A dyad whose item no other user observed has 15 zeros.

    Args:
        quiet: hide the progress bar, which appears only if stderr is a terminal.

    Raises:
        UserError: options.score needs ratings that are missing, or there are too many users for the similarity table.
    """
    if data.num_users > MAX_USERS:
        raise UserError(
            f"{data.num_users:,} users are too many: the similarities of more than {MAX_USERS:,} users do not fit "
            "into memory; raise --min_user"
        )
    if options.score == "rating" and data.ratings is None:
        raise UserError(f"--score rating needs ratings, and {data.name} has none: choose --score im")
    known = data.train if options.source == "train" else np.arange(len(data))
    score = data.im if options.score == "im" else data.ratings
    neighborhood = Neighborhood(data, known, options)
    table = compare(data.user_ids[known], score[known])
    statistics = np.zeros((len(data), len(FEATURES)))
    no_neighbor = np.ones(len(data), dtype=bool)
    bar = tqdm(total=len(data), desc="features", unit="dyad", leave=False, disable=quiet or not sys.stderr.isatty())
    with bar:
        for rows, counts, entries in _gather(neighborhood.blocks(bar)):
            length = counts if options.absent == "drop" else np.full_like(counts, options.num_neighbors)
            statistics[rows] = summarize(table[entries], counts, length, options.spread)
            no_neighbor[rows] = False
    bias = [np.ones(len(data)), no_neighbor.astype(float)][: {"none": 0, "const": 1, "vz": 2}[options.bias]]
    notes = (*data.notes, LEAK) if options.source == "all" else data.notes
    return replace(data, features=np.column_stack([statistics, *bias]), notes=notes)


def compare(user_ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Fractions of wins, losses and ties of each entry against the same user's other entries: (T, 3), rows sum to 1.

    WIN, LOSS and TIE of Volkovs and Zemel with g = 1. They do not depend on whose neighbor the user is, so one table
    serves all dyads. The only entry of a user has a row of zeros.

    Args:
        user_ids, scores: (T,) each; the score is the user's preference for the item.
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


def summarize(values: np.ndarray, counts: np.ndarray, length: np.ndarray, spread: str = "std") -> np.ndarray:
    """Mean, spread, maximum, minimum and fraction of nonzeros of n ragged lists, for WIN, LOSS and TIE: (n, 15).

    Args:
        values: (P, 3) the lists one after another.
        counts: (n,) their lengths, each at least 1.
        length: (n,) lengths after padding with zeros, at least `counts`.
        spread: "std" or "var", with the divisor `length`.
    """
    first = np.cumsum(counts) - counts
    padding = (length - counts)[:, None]
    length = length[:, None]
    mean = np.add.reduceat(values, first) / length
    deviation = values - np.repeat(mean, counts, axis=0)
    variance = (np.add.reduceat(deviation * deviation, first) + padding * mean * mean) / length
    low = np.where(padding > 0, 0.0, np.minimum.reduceat(values, first))
    nonzero = np.add.reduceat(values != 0, first, dtype=np.int64) / length
    high = np.maximum.reduceat(values, first)
    columns = [mean, np.sqrt(variance) if spread == "std" else variance, high, low, nonzero]
    return np.stack(columns, axis=2).reshape(len(counts), len(FEATURES))


def _gather(blocks: Iterator[tuple[np.ndarray, ...]]) -> Iterator[tuple[np.ndarray, ...]]:
    """Join blocks to chunks of about CHUNK_PAIRS pairs; drop dyads without a neighbor."""
    waiting, pairs = [], 0
    for rows, counts, entries in blocks:
        some = counts > 0
        waiting.append((rows[some], counts[some], entries))
        pairs += len(entries)
        if pairs >= CHUNK_PAIRS:
            yield tuple(map(np.concatenate, zip(*waiting, strict=True)))
            waiting, pairs = [], 0
    if pairs:
        yield tuple(map(np.concatenate, zip(*waiting, strict=True)))
