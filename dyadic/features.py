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


def best_k(closeness: np.ndarray, k: int) -> np.ndarray:
    """Mark the k greatest of each row, of equals those further left: (n, r) -> (n, r) bool with k True a row, k < r."""
    place = closeness.shape[1] - k
    bound = np.partition(closeness, place, axis=1)[:, place, None]
    chosen = closeness >= bound
    crowded = np.flatnonzero(chosen.sum(1) > k)
    tied = closeness[crowded] == bound[crowded]
    surplus = tied & (np.cumsum(tied[:, ::-1], axis=1)[:, ::-1] <= chosen[crowded].sum(1, keepdims=True) - k)
    chosen[crowded] &= ~surplus
    return chosen


class _Neighbourhood:
    """The known dyads as matrices, and the neighbours of every dyad.

    Neighbours of u are ordered by W_u . W_k / |W_k|, from above, then by user number. Left out of the cosine is |W_u|,
    which is the same for every k: so the order cannot depend on whether the dyad itself is known. Squares are
    compared: integers divided by integers, in which equal similarities come out equal to the last bit.
    """

    def __init__(self, data: DyadicData, known: np.ndarray, options: FeatureOptions) -> None:
        self.options = options
        self.user_ids, self.item_ids = data.user_ids, data.item_ids
        shape = (data.num_users, data.num_items)
        weight = np.minimum(data.im[known], 1) if options.similarity == "binary" else data.im[known]
        cells = (data.user_ids[known], data.item_ids[known])
        self.weights = sparse.csr_matrix((weight.astype(np.float32), cells), shape)
        self.weights_by_item = self.weights.T.tocsr()
        self.own_weight = np.zeros(len(data))
        if options.exclude_self:
            self.own_weight[known] = weight
        self.norms = np.maximum(np.bincount(cells[0], weights=weight.astype(float) ** 2, minlength=shape[0]), 1)
        # A user with a single entry compares it with nothing, and counts as not having observed the item.
        comparable = np.flatnonzero(np.bincount(cells[0])[cells[0]] > 1)
        order = comparable[np.lexsort((cells[0][comparable], cells[1][comparable]))]
        self.entries, self.raters, self.rater_weight = order, cells[0][order], weight[order].astype(float)
        self.first_rater = np.searchsorted(cells[1][order], np.arange(data.num_items + 1))

    def blocks(self, bar) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield rows (n,) of dyads, how many neighbours each has (n,), and these: (sum,) positions in `known`."""
        self.products = _row_products(self.weights, self.weights_by_item)
        per_item = self.options.neighbors == "per_item"
        by, choose = (self.item_ids, self._of_item) if per_item else (self.user_ids, self._of_user)
        order = np.argsort(by, kind="stable")
        ends = np.flatnonzero(np.diff(by[order], prepend=-1, append=-1))
        for start, end in pairwise(ends):
            rows = order[start:end]
            yield rows, *choose(by[rows[0]], rows)
            bar.update(len(rows))

    def _closeness(self, products: np.ndarray, users: np.ndarray | slice) -> np.ndarray:
        products *= products
        products /= self.norms[users]
        return products

    def _of_item(self, item: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of those who observed the item, the k closest to each of `rows`, all of them dyads with this item."""
        here = slice(self.first_rater[item], self.first_rater[item + 1])
        raters, users = self.raters[here], self.user_ids[rows]
        chosen = raters != users[:, None]  # (dyads, raters)
        if len(raters) > self.options.num_neighbors:
            products = self.products[users[:, None], raters].astype(np.float64)
            products -= self.own_weight[rows, None] * self.rater_weight[here]
            closeness = self._closeness(products, raters)
            closeness[~chosen] = -1
            chosen = best_k(closeness, self.options.num_neighbors)
        return chosen.sum(1), self.entries[here][np.nonzero(chosen)[1]]

    def _of_user(self, user: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the k users closest to this one, those who observed the items of `rows`, all dyads of this user."""
        special = np.flatnonzero(self.own_weight[rows])  # their own entry moves the similarities; others share line 0
        line = np.zeros(len(rows), dtype=np.int64)
        line[special] = 1 + np.arange(len(special))
        pool, listed = self._closest(user, rows[special])
        column = np.full(len(self.norms), -1)  # the last column of `listed` is False
        column[pool] = np.arange(len(pool))
        first = self.first_rater[self.item_ids[rows]]
        candidates = self.first_rater[self.item_ids[rows] + 1] - first
        dyad = np.repeat(np.arange(len(rows)), candidates)
        place = np.arange(len(dyad)) + np.repeat(first - np.cumsum(candidates) + candidates, candidates)
        kept = listed[line[dyad], column[self.raters[place]]]
        return np.bincount(dyad[kept], minlength=len(rows)), self.entries[place[kept]]

    def _closest(self, user: int, special: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A pool (r,) of users, and who of them are the k closest: (1 + len(special), r + 1) bool, one line for all
        dyads of the user, and one for each dyad of `special`, whose own entry does not count.

        The pool is the best 2k: an entry that does not count only moves users down, and while at most k of the pool
        move, the k that stay keep out everybody else. If more do, the pool is everybody.
        """
        k = self.options.num_neighbors
        pool, products = np.arange(len(self.norms)), self.products[user].astype(np.float64)
        if 2 * k < len(pool):
            pool = np.flatnonzero(best_k(self._closeness(products[None].copy(), pool), 2 * k)[0])
        moved = self._own_share(special, pool)
        if len(special) and np.count_nonzero(moved, axis=1).max() > k:
            pool = np.arange(len(self.norms))
            moved = self._own_share(special, pool)
        closeness = self._closeness(products[pool] - np.vstack([np.zeros(len(pool)), moved]), pool)
        closeness[:, pool == user] = 0
        listed = closeness > 0
        if k < len(pool):
            listed &= best_k(closeness, k)
        return pool, np.column_stack([listed, np.zeros(len(listed), dtype=bool)])

    def _own_share(self, dyads: np.ndarray, pool: np.ndarray) -> np.ndarray:
        """(len(dyads), len(pool)) what the entry of a dyad adds to the products of its user with those of the pool."""
        columns = self.weights_by_item[self.item_ids[dyads]][:, pool].toarray()
        return columns * self.own_weight[dyads, None]


def _row_products(matrix: sparse.csr_matrix, transposed: sparse.csr_matrix) -> np.ndarray:
    """matrix @ transposed as a dense table, made a block of rows at a time: (U, I), (I, U) -> (U, U) float32.

    Exact: products are sums of whole numbers up to 36, and float32 counts to 16 million without a gap.
    """
    products = np.empty((matrix.shape[0],) * 2, dtype=np.float32)
    for start in range(0, matrix.shape[0], USERS_AT_A_TIME):
        rows = slice(start, start + USERS_AT_A_TIME)
        (matrix[rows] @ transposed).toarray(out=products[rows])
    return products


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
