"""Protocols of holding rows out, for ratings and feedback alike: pure functions of arrays.

A split is three index arrays, (train, validation, test), that cover all rows once. `keep_frequent` is the filter that
may come before it, and `require_known` what must follow a split whose test rows may hold new users or items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from config.base import SPLITS, SplitConfig
from config.errors import UserError

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Split:
    """How the rows of a data set are held out.

    kind: one of SPLITS.
    test_fraction, val_fraction: of all rows, and of those that are left.
    seed: of the random splits.
    fold: (K, N) tests on part K of N equal random parts; None: no cross-validation.
    min_user_ratings, min_item_ratings: see `keep_frequent`.
    """

    kind: str = "random"
    test_fraction: float = SplitConfig.test_fraction
    val_fraction: float = 0.0
    seed: int = 0
    fold: tuple[int, int] | None = None
    min_user_ratings: int = 1
    min_item_ratings: int = 1

    def __post_init__(self) -> None:
        if self.kind not in SPLITS:
            raise UserError(f"there is no split {self.kind!r}: choose one of {', '.join(SPLITS)}")

    @property
    def needs_times(self) -> bool:
        return self.kind != "random"

    @property
    def is_filtered(self) -> bool:
        return max(self.min_user_ratings, self.min_item_ratings) > 1

    def draw(self, user_ids: np.ndarray, times: np.ndarray | None) -> Parts:
        """Split R rows: (train, validation, test).

        Args:
            user_ids: (R,) row numbers of users.
            times: (R,) timestamps; None where `needs_times` is False.

        Raises:
            UserError: the rows are too few.
        """
        if times is None:
            return split_randomly(len(user_ids), self.test_fraction, self.val_fraction, self.seed, self.fold)
        if self.kind == "time":
            return split_by_time(times, self.test_fraction, self.val_fraction)
        return leave_last_out(user_ids, times, with_validation=self.val_fraction > 0)


def split_randomly(
    num_rows: int,
    test_fraction: float,
    val_fraction: float,
    seed: int | np.random.RandomState | None,
    fold: tuple[int, int] | None = None,
) -> Parts:
    """Draw the test rows, then the validation rows, from one random order.

    The test rows are the first of `numpy.random.RandomState(seed).permutation(num_rows)`, which reproduces published
    comparisons on MovieLens 100K; the validation rows are the next ones, and train is the rest. With `fold` = (K, N),
    that order is cut into N parts whose lengths differ by at most one, and part K, counted from 1, is the test part
    instead: the N test parts cover all rows once. A generator as seed is used as it is; None draws another order each
    time.

    Raises:
        UserError: train is empty, or a part whose fraction is positive.
    """
    order = np.arange(num_rows, dtype=np.int32)
    random = seed if isinstance(seed, np.random.RandomState) else np.random.RandomState(seed)
    random.shuffle(order)  # same result as permutation, in half the memory
    num_test = round(num_rows * test_fraction)
    if fold is not None:
        number, folds = fold
        start, end = (num_rows * place // folds for place in (number - 1, number))
        order, num_test = np.concatenate([order[start:end], order[:start], order[end:]]), end - start
    num_val = round((num_rows - num_test) * val_fraction)
    test, validation, train = np.split(order, [num_test, num_test + num_val])
    return _require_parts((train, validation, test), val_fraction > 0, test_fraction > 0)


def split_by_time(times: np.ndarray, test_fraction: float, val_fraction: float) -> Parts:
    """Split at two points in time: the last rows are the test part, the last of the others the validation part.

    Equal times are ordered by position. Users and items that appear late are in no training row, see `require_known`.

    Raises:
        UserError: a part is empty.
    """
    order = np.argsort(times, kind="stable").astype(np.int32)
    num_test = round(len(order) * test_fraction)
    num_val = round((len(order) - num_test) * val_fraction)
    train, validation, test = np.split(order, [len(order) - num_test - num_val, len(order) - num_test])
    return _require_parts((train, validation, test), val_fraction > 0, test_fraction > 0)


def leave_last_out(user_ids: np.ndarray, times: np.ndarray, with_validation: bool) -> Parts:
    """Test on the newest row of each user (leave-one-out, as in He et al. 2017, Neural Collaborative Filtering).

    A user with one row keeps it for train. With a validation part, it holds the second newest row of each user with
    three rows or more. Of equal times, the row further down is newer.

    Raises:
        UserError: no user has the rows that a part needs.
    """
    order = np.lexsort((times, user_ids)).astype(np.int32)
    counts = np.bincount(user_ids)
    ends = counts.cumsum()
    test = order[ends[counts >= 2] - 1]
    validation = order[ends[counts >= 3] - 2] if with_validation else test[:0]
    is_train = np.ones(len(order), dtype=bool)
    is_train[test] = is_train[validation] = False
    return _require_parts((np.flatnonzero(is_train), validation, test), with_validation, True)


def keep_frequent(
    user_ids: np.ndarray, item_ids: np.ndarray, min_user: int, min_item: int, repeat: bool = True
) -> np.ndarray:
    """The rows of frequent users and items: (R,) bool.

    One pass drops the rows of items with fewer than `min_item` rows, then those of users with fewer than `min_user` of
    the rows left, which may leave an item with too few. `repeat` goes on until nothing changes: then both bounds hold,
    and the rows are the largest set for which they do (the bipartite core; k-core where the bounds are equal).

    Args:
        user_ids, item_ids: (R,) row numbers.
    """
    keep = np.ones(len(user_ids), dtype=bool)
    while True:
        before = keep.sum()
        for ids, minimum in [(item_ids, min_item), (user_ids, min_user)]:
            keep &= np.bincount(ids[keep], minlength=ids.max(initial=0) + 1)[ids] >= minimum
        if not repeat or keep.sum() == before:
            return keep


def require_known(parts: Parts, columns: Sequence[np.ndarray]) -> tuple[Parts, tuple[str, ...]]:
    """Leave out the validation and test rows with an id that no training row has; and notes that count them.

    Args:
        parts: train, validation and test rows.
        columns: (R,) row numbers each: of the users, and of the items.

    Raises:
        UserError: a part would be empty.
    """
    known = np.ones(len(columns[0]), dtype=bool)
    for ids in columns:
        known &= (np.bincount(ids[parts[0]], minlength=ids.max() + 1) > 0)[ids]
    notes, kept = [], [parts[0]]
    for name, part in zip(("validation", "test"), parts[1:], strict=True):
        kept.append(part[known[part]])
        lost = len(part) - len(kept[-1])
        if lost:
            what = f"{lost:,} of {len(part):,} {name} rows"
            notes.append(f"{what} were left out: their user or item has no training row")
        if lost == len(part) > 0:
            raise UserError(
                f"no {name} row is left: the user or the item of each has no training row; hold out another fraction "
                "or choose another --split"
            )
    return (kept[0], kept[1], kept[2]), tuple(notes)


def _require_parts(parts: Parts, needs_validation: bool, needs_test: bool) -> Parts:
    train, validation, test = parts
    for name, part, is_required in [
        ("train", train, True),
        ("validation", validation, needs_validation),
        ("test", test, needs_test),
    ]:
        if is_required and len(part) == 0:
            raise UserError(
                f"{sum(map(len, parts))} ratings are too few for this split: the {name} part would be empty; "
                "give more ratings or other values of --test_fraction and --val_fraction"
            )
    return parts
