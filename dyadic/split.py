"""Select the dyads to keep, and split them into train and test."""

import numpy as np

from config.dyadic import SPLITS, DyadOptions
from config.errors import UserError
from sources import splits


def keep_frequent(user_ids: np.ndarray, item_ids: np.ndarray, options: DyadOptions) -> np.ndarray:
    """Select the dyads of frequent items and users: (D,) bool; see `sources.splits.keep_frequent`.

    The authors' code does one pass. `iterate=True` repeats it until nothing changes.

    Args:
        user_ids, item_ids: (D,) row numbers.
        options: min_user, min_item and iterate.

    Raises:
        UserError: no dyad is left.
    """
    keep = splits.keep_frequent(user_ids, item_ids, options.min_user, options.min_item, repeat=options.iterate)
    if not keep.any():
        raise UserError(
            f"no dyad is left: items need at least {options.min_item} dyads and users at least {options.min_user}; "
            "lower --min_user and --min_item"
        )
    return keep


def split_dyads(
    user_ids: np.ndarray, split: str = "random30", times: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of (train, test), ascending; together they cover all dyads once.

    "random30" draws 30 % of the dyads for train, as the paper says; "time67" takes the first two thirds of each user's
    dyads by time, as the authors' code does (equal times by position).

    Args:
        user_ids: (D,) row numbers of the users.
        times: (D,) of any sortable type; only "time67" reads them.

    Raises:
        UserError: the split is unknown, needs times that are missing, or leaves a part empty.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    is_train = np.zeros(len(user_ids), dtype=bool)
    if split == "random30":
        order = np.random.default_rng(seed).permutation(len(user_ids))
        is_train[order[: round(0.3 * len(order))]] = True
    else:
        if times is None:
            raise UserError("split time67 needs a time for every dyad; give one, or choose random30")
        order = np.lexsort((times, user_ids))
        counts = np.bincount(user_ids)
        is_train[order] = 3 * position_in_group(counts) < 2 * np.repeat(counts, counts)
    train, test = np.flatnonzero(is_train), np.flatnonzero(~is_train)
    if not len(train) or not len(test):
        raise UserError(f"{len(user_ids)} dyads are too few for split {split}: the train or the test part is empty")
    return train, test


def position_in_group(counts: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each of several groups that lie one after another: (groups,) sizes -> (sum of sizes,)."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
