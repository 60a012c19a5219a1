"""The neighbors of every dyad: the most similar users, without the influence of the dyad itself."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy import sparse

from config.dyadic import FeatureOptions
from dyadic.data import DyadicData
from dyadic.split import position_in_group

CHUNK_USERS = 512


def best_k(closeness: np.ndarray, k: int) -> np.ndarray:
    """Mark the k largest of each row, of equal ones the leftmost: (n, r) -> (n, r) bool with k True per row, k < r."""
    rank = closeness.shape[1] - k
    bound = np.partition(closeness, rank, axis=1)[:, rank, None]
    chosen = closeness >= bound
    overfull = np.flatnonzero(chosen.sum(1) > k)
    tied = closeness[overfull] == bound[overfull]
    surplus = tied & (np.cumsum(tied[:, ::-1], axis=1)[:, ::-1] <= chosen[overfull].sum(1, keepdims=True) - k)
    chosen[overfull] &= ~surplus
    return chosen


class Neighborhood:
    """The known dyads as matrices, and the search for the neighbors of every dyad.

    Neighbors k of u are sorted by W_u . W_k / |W_k|, descending, then by row number. This is the cosine without the
    factor 1 / |W_u|, which is equal for all k, so the label of the dyad itself cannot change the order through |W_u|.
    The code compares squares: quotients of integers, so equal similarities are equal to the last bit.

    Args:
        data: all dyads.
        known: (T,) dyads that the features may use.
        options: similarity, neighbors, num_neighbors and exclude_self.
    """

    def __init__(self, data: DyadicData, known: np.ndarray, options: FeatureOptions) -> None:
        self.options = options
        self.user_ids, self.item_ids = data.user_ids, data.item_ids
        shape = (data.num_users, data.num_items)
        weight = np.minimum(data.im[known], 1) if options.similarity == "binary" else data.im[known]
        cells = (data.user_ids[known], data.item_ids[known])
        self.weights = sparse.csr_matrix((weight.astype(np.float32), cells), shape)
        self.weights_by_item = self.weights.T.tocsr()
        self.products = _row_products(self.weights, self.weights_by_item)
        self.own_weight = np.zeros(len(data))
        if options.exclude_self:
            self.own_weight[known] = weight
        self.norms = np.maximum(np.bincount(cells[0], weights=weight.astype(float) ** 2, minlength=shape[0]), 1)
        # A user with a single entry has nothing to compare it with: the item counts as unobserved.
        comparable = np.flatnonzero(np.bincount(cells[0])[cells[0]] > 1)
        order = comparable[np.lexsort((cells[0][comparable], cells[1][comparable]))]
        self.entries, self.raters, self.rater_weight = order, cells[0][order], weight[order].astype(float)
        self.first_rater = np.searchsorted(cells[1][order], np.arange(data.num_items + 1))

    def blocks(self, bar) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield dyads (n,), their numbers of neighbors (n,), and the neighbors' entries: (sum,) positions in `known`.

        Args:
            bar: a progress bar, updated by the number of dyads.
        """
        per_item = self.options.neighbors == "per_item"
        by, choose = (self.item_ids, self._of_item) if per_item else (self.user_ids, self._of_user)
        order = np.argsort(by, kind="stable")
        ends = np.flatnonzero(np.diff(by[order], prepend=-1, append=-1))
        for start, end in pairwise(ends):
            rows = order[start:end]
            yield rows, *choose(by[rows[0]], rows)
            bar.update(len(rows))

    def _closeness(self, products: np.ndarray, users: np.ndarray | slice) -> np.ndarray:
        """Squared similarities up to a factor of the user u; overwrites `products`."""
        products *= products
        products /= self.norms[users]
        return products

    def _of_item(self, item: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The k most similar users who observed the item, for each dyad of `rows`, all of this item."""
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
        """Those of the k most similar users who observed the item, for each dyad of `rows`, all of this user."""
        special = np.flatnonzero(self.own_weight[rows])  # excluding their own entry changes similarities
        line = np.zeros(len(rows), dtype=np.int64)  # the other dyads share line 0
        line[special] = 1 + np.arange(len(special))
        pool, listed = self._closest(user, rows[special])
        column = np.full(len(self.norms), -1)  # the last column of `listed` is False
        column[pool] = np.arange(len(pool))
        first = self.first_rater[self.item_ids[rows]]
        candidates = self.first_rater[self.item_ids[rows] + 1] - first
        dyad = np.repeat(np.arange(len(rows)), candidates)
        position = np.repeat(first, candidates) + position_in_group(candidates)
        kept = listed[line[dyad], column[self.raters[position]]]
        return np.bincount(dyad[kept], minlength=len(rows)), self.entries[position[kept]]

    def _closest(self, user: int, special: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The k users most similar to one user, among a pool of candidates.

        The pool holds the 2k most similar users. Excluding an entry only lowers similarities. If it lowers at most k
        users of the pool, the other k still precede everybody outside. If it lowers more, the pool holds all users.

        Args:
            special: dyads of the user whose own entry is excluded.

        Returns:
            The pool (r,), and (1 + len(special), r + 1) bool that mark the k users: line 0 without any exclusion, then
            one line per dyad of `special`. The last column is False.
        """
        k = self.options.num_neighbors
        pool, products = np.arange(len(self.norms)), self.products[user].astype(np.float64)
        if 2 * k < len(pool):
            pool = np.flatnonzero(best_k(self._closeness(products[None].copy(), pool), 2 * k)[0])
        own = self._own_products(special, pool)
        if len(special) and np.count_nonzero(own, axis=1).max() > k:
            pool = np.arange(len(self.norms))
            own = self._own_products(special, pool)
        closeness = self._closeness(products[pool] - np.vstack([np.zeros(len(pool)), own]), pool)
        closeness[:, pool == user] = 0
        listed = closeness > 0
        if k < len(pool):
            listed &= best_k(closeness, k)
        return pool, np.column_stack([listed, np.zeros(len(listed), dtype=bool)])

    def _own_products(self, dyads: np.ndarray, pool: np.ndarray) -> np.ndarray:
        """What the entry of a dyad adds to its user's products with the pool: (len(dyads), len(pool))."""
        columns = self.weights_by_item[self.item_ids[dyads]][:, pool].toarray()
        return columns * self.own_weight[dyads, None]


def _row_products(matrix: sparse.csr_matrix, transposed: sparse.csr_matrix) -> np.ndarray:
    """matrix @ transposed as a dense table, computed in chunks of rows: (U, I), (I, U) -> (U, U) float32.

    Exact: products are sums of integers up to 36, and float32 represents all integers up to 2**24.
    """
    products = np.empty((matrix.shape[0],) * 2, dtype=np.float32)
    for start in range(0, matrix.shape[0], CHUNK_USERS):
        rows = slice(start, start + CHUNK_USERS)
        (matrix[rows] @ transposed).toarray(out=products[rows])
    return products
