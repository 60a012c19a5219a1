"""The rows of new users: from a table or a file with raw ids to the rows that a family can fold in."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from config.errors import UserError
from dataset import Interactions
from serving.tables import read_pairs
from sources.delimited import header_names
from sources.readers import read_feedback, read_ratings
from training.protocols import RunData, Task

RATING = ("rating",)


def require_new_users(task: Task) -> None:
    """Raises UserError where the family cannot take up users without training."""
    if not task.scores_any_pair:
        raise UserError(
            "this run cannot take up new users without training, as it scores pairs of its data alone: train again "
            "with the rows of the new users"
        )


def read_new_users(path: Path, data: RunData) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read a file of rows of new users.

    Args:
        path: columns user, item and rating, as in training; or a header that names user and item and no rating, for
            items that were watched. For a run on feedback: a header that names user, item and the run's labels.

    Returns:
        The argument of `TrainedRun.fold_in`, and notes on rows that were left out.

    Raises:
        UserError: the file is missing, or a value in it is invalid; names file, line and value.
    """
    if data.feedback_names != RATING:
        return read_feedback(path, data.feedback_names)
    names = header_names(path)
    if {"user", "item"} <= names and "rating" not in names:
        blocks = [pd.DataFrame({"user": pairs.users, "item": pairs.items}) for pairs in read_pairs(path)]
        return pd.concat(blocks, ignore_index=True), ()
    return read_ratings(path, data.rating_scale, advice="it is that of the run's data")


def new_rows(
    table: pd.DataFrame, as_raw: Callable[[Iterable], np.ndarray], data: RunData, items: dict[str, int]
) -> tuple[np.ndarray, Interactions, tuple[str, ...]]:
    """The users, rows and notes of `TrainedRun.fold_in`; its errors.

    Args:
        as_raw: converts a column of ids to texts.
        items: {raw id: row number}.

    Returns:
        raw ids (N,) of the users with rows, in the order of the table; their rows, sorted by user and item, so that the
        order of the table does not matter; and notes on rows that were left out.
    """
    feedback = _feedback_of(table, data)
    raw_users, raw_items = as_raw(table["user"]), as_raw(table["item"])
    _require_new(raw_users, data)
    item_ids = np.array([items.get(raw, -1) for raw in raw_items], dtype=np.int64)
    known = item_ids >= 0
    notes = []
    if not known.all():
        unknown = pd.unique(raw_items[~known])
        notes.append(
            f"{(~known).sum():,} rows of new users were left out, as their items are not in the data of the run "
            f"({', '.join(unknown[:3])}{', ...' if len(unknown) > 3 else ''})"
        )
    if not known.any():
        raise UserError(
            f"no item of the new users is in the data of the run, such as {raw_items[0]}: rate items it has"
        )
    if lost := len(pd.unique(raw_users)) - len(pd.unique(raw_users[known])):
        notes.append(f"{lost:,} new users have no other row, so that nothing is known of them")
    codes, users = pd.factorize(raw_users[known])
    rows = pd.DataFrame({"user": codes, "item": item_ids[known], "place": np.flatnonzero(known)})
    chosen = rows.drop_duplicates(["user", "item"], keep="last").sort_values(["user", "item"])
    if repeated := len(rows) - len(chosen):
        notes.append(f"{repeated:,} rows of new users repeat a (user, item) pair; the last of each is kept")
    columns = (torch.tensor(chosen[name].to_numpy(np.int32, copy=True)) for name in ("user", "item"))
    values = torch.from_numpy(feedback[chosen["place"]])
    return users, Interactions(*columns, values, len(users), len(data.items)), tuple(notes)


def _feedback_of(table: pd.DataFrame, data: RunData) -> np.ndarray:
    """The ratings (R,), nan where there is none, or the labels (R, T); float32."""
    names = data.feedback_names
    required = ("user", "item") if names == RATING else ("user", "item", *names)
    for name in required:
        if name not in table.columns:
            raise UserError(f"the rows of new users need the column {name}; they have {', '.join(map(str, table))}")
        if table[name].isna().any():
            raise UserError(f"row {int(table[name].isna().to_numpy().argmax())} of the new users has no {name}")
    if not len(table):
        raise UserError("there are no rows of new users: give at least one")
    columns = [_numbers(table, name, data.rating_scale) for name in names]
    return columns[0] if names == RATING else np.stack(columns, axis=1)


def _numbers(table: pd.DataFrame, name: str, scale: tuple[float, float]) -> np.ndarray:
    """A column of numbers on the scale, (R,) float32; nan where the table has none."""
    if name not in table.columns:
        return np.full(len(table), np.nan, dtype=np.float32)
    given = table[name].astype(object)
    numbers = pd.to_numeric(given, errors="coerce").to_numpy(dtype=np.float64)
    low, high = scale
    wrong = given.notna().to_numpy() & ~((numbers >= low) & (numbers <= high))
    if wrong.any():
        row = int(wrong.argmax())
        user, item = table["user"].iloc[row], table["item"].iloc[row]
        raise UserError(
            f"user {user}, item {item}: the {name} {given.iloc[row]!r} is not a number from {low:g} to {high:g}, the "
            "scale of the run's data"
        )
    return numbers.astype(np.float32)


def _require_new(raw_users: np.ndarray, data: RunData) -> None:
    is_known = pd.Index(raw_users).isin(data.users)
    if is_known.any():
        known = pd.unique(raw_users[is_known])
        more = f" and {len(known) - 1:,} more users" if len(known) > 1 else ""
        verb = "are" if more else "is"
        raise UserError(
            f"user {known[0]}{more} {verb} in the data of the run: leave them out and ask with --recommend, or give "
            "new users other ids"
        )
