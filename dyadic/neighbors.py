"""The neighbors of every dyad: the most similar users, without the influence of the dyad itself."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy import sparse

from config.dyadic import FeatureOptions
from dyadic.data import DyadicData

CHUNK_USERS = 512


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
