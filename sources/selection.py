"""Which rows of a table are used: those of frequent users and items, and test rows that a training file knows."""

from pathlib import Path

import numpy as np

from config.errors import UserError
from sources.cache import Table, renumber
from sources.ids import encode_pairs
from sources.splits import Split, keep_frequent


def keep_frequent_rows(table: Table, name: str, split: Split) -> Table:
    """The rows of users and items with enough rows; UserError where none is left."""
    least = split.min_user_ratings, split.min_item_ratings
    rows = np.flatnonzero(keep_frequent(table.columns["user_ids"], table.columns["item_ids"], *least))
    needed = f"{least[0]:,} rows and items at least {least[1]:,}"
    if not len(rows):
        raise UserError(
            f"no row of {name} is left where users have at least {needed}: lower --min_user_ratings and "
            "--min_item_ratings"
        )
    lost = len(table) - len(rows)
    if not lost:
        return table
    table.columns = {column: values[rows] for column, values in table.columns.items()}
    table.notes += (f"{lost:,} of {lost + len(rows):,} rows were left out, so that users have at least {needed}",)
    return renumber(table, np.arange(len(rows)))


def require_enough(table: Table, name: str) -> None:
    """Raises UserError where there are too few users or items to train on."""
    for kind, raw_ids in [("user", table.users), ("item", table.items)]:
        if len(raw_ids) < 2:
            raise UserError(f"{name} holds {len(raw_ids)} {kind}; training needs at least 2 {kind}s")


def match(test: Table, train: Table, test_file: Path, train_file: Path) -> tuple[np.ndarray, list[str]]:
    """Renumber the ids of `test` as in `train`, in place.

    Returns:
        The test rows to keep, whose user and item are in `train` and whose pair is not; and notes about the others.

    Raises:
        UserError: no row is left.
    """
    user_of, item_of = _find(test.users, train.users), _find(test.items, train.items)
    users = test.columns["user_ids"] = user_of[test.columns["user_ids"]]
    items = test.columns["item_ids"] = item_of[test.columns["item_ids"]]
    known = (users >= 0) & (items >= 0)
    train_pairs = encode_pairs(train.columns["user_ids"], train.columns["item_ids"], len(train.items))
    leaked = known & np.isin(encode_pairs(users, items, len(train.items)), train_pairs)
    notes = []
    if not known.all():
        notes.append(
            f"{(~known).sum():,} rows of {test_file} were left out: {(user_of < 0).sum():,} users and "
            f"{(item_of < 0).sum():,} items are not in {train_file}"
        )
    if leaked.any():
        notes.append(f"{leaked.sum():,} rows of {test_file} were left out: the same pairs are in {train_file}")
    kept = np.flatnonzero(known & ~leaked)
    if len(kept) == 0:
        raise UserError(
            f"no row of {test_file} is left to test on: in each, the user or the item is missing from {train_file}, "
            "or the pair itself is in it; give another test file"
        )
    return kept, notes


def _find(raw_ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N,) int32, the position of each raw id in `known`; -1 for unknown ones."""
    numbers = {raw_id: number for number, raw_id in enumerate(known)}
    return np.array([numbers.get(raw_id, -1) for raw_id in raw_ids], dtype=np.int32)
