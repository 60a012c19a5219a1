"""Read files of ratings, files of feedback and movie catalogs.

This module defines what the columns mean; delimited.py parses the text. Every error names file, line and value.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from config.errors import UserError
from sources.delimited import ROLES, column_name, fail, quote, read_blocks
from sources.ids import encode_pairs

COLUMNS = ("user", "item", "rating")
LABEL_VALUES = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
# Rows renumbered at a time, which bounds memory for files of any length.
CHUNK_ROWS = 2**20


def read_ratings(
    path: Path,
    rating_scale: Sequence[float],
    names: Mapping[str, str] | None = None,
    with_times: bool = False,
    advice: str = "--rating_scale LOW HIGH sets another",
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read a file of ratings.

    Args:
        path: columns user, item, rating and optionally more, in this order or named by a header; ids of any kind.
        rating_scale: lowest and highest rating allowed.
        names: {role: its exact name in the header}, for the roles user, item, rating and time.
        with_times: read the column timestamp as well: the fourth, or named timestamp or time by the header.
        advice: ends the message about a rating outside the scale.

    Returns:
        A table with the columns user and item (raw ids as categories of strings, sorted by length, then
        alphabetically, so that whole numbers ascend), rating (float32) and, if `with_times`, timestamp (float64); and
        notes about rows left out: of a repeated (user, item) pair only the last row is kept.

    Raises:
        UserError: the file is missing, or a value in it is invalid; names file, line and value.
    """
    values = {"rating": lambda column: _to_numbers(path, column, rating_scale, advice)}
    if with_times:
        values["timestamp"] = lambda column: _to_times(path, column)
    return _drop_repeated(path, _read_table(path, values, names))


def read_feedback(
    path: Path,
    labels: Sequence[str],
    numbers: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    with_times: bool = False,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read a file of feedback: which actions a user took on an item that was shown.

    Args:
        path: a header names the columns, in any order: user, item, the labels (0 or 1), and others.
        labels: label columns to read; names are compared as those of user and item are, so "Add to cart" finds
            add_to_cart.
        numbers: numeric columns to read.
        names, with_times: as in `read_ratings`.

    Returns:
        A table with the columns user and item as in `read_ratings`, one per label (float32, 0 or 1) and one per entry
        of `numbers` (float64), in the given order and under the given names, and timestamp as in `read_ratings`; and
        notes as in `read_ratings`.

    Raises:
        UserError: as in `read_ratings`; or `labels` is empty, names a column twice, or names the user or item column.
    """
    _require_proper_labels(path, (*labels, *numbers))
    values = dict.fromkeys(labels, lambda column: _to_labels(path, column))
    values |= dict.fromkeys(numbers, lambda column: _to_any_numbers(path, column))
    if with_times:
        values["timestamp"] = lambda column: _to_times(path, column)
    return _drop_repeated(path, _read_table(path, values, names, header_required=True))


def look_up(raw: pd.Series, ids: np.ndarray) -> np.ndarray:
    """The row numbers of raw ids, their positions in `ids`; -1 for unknown ones."""
    return pd.Index(ids).get_indexer(raw.cat.categories)[raw.cat.codes]


def _require_proper_labels(path: Path, labels: Sequence[str]) -> None:
    names = [column_name(label) for label in labels]
    if not names or "" in names:
        raise UserError(f"no label is given for {path}; --labels takes the names of its columns of 0 and 1")
    for label, name in zip(labels, names, strict=True):
        if name in ("user", "item"):
            raise UserError(f"the label {quote(label)} names the {name} column of {path}; choose a column of 0 and 1")
        if names.count(name) > 1:
            raise UserError(f"the labels {', '.join(labels)} name one column of {path} twice; name each column once")


def _read_table(
    path: Path, values: dict[str, Callable], names: Mapping[str, str] | None, header_required: bool = False
) -> pd.DataFrame:
    """Read the columns user, item and those of `values`.

    Args:
        values: {column: function that checks a column of text categories and converts it to numbers}.
        names: see `read_ratings`.
    """

    def convert(block: pd.DataFrame) -> dict[str, np.ndarray | pd.Categorical]:
        numbers = {name: to_numbers(block[name]) for name, to_numbers in values.items()}
        return numbers | {name: block[name].array for name in ids}

    ids = {"user": _Ids(), "item": _Ids()}
    columns = ids | {name: _Column() for name in values}
    named = {column: names[role] for column, role in ROLES.items() if role in names} if names else {}
    for block in read_blocks(path, tuple(ids), tuple(values), convert, header_required, named):
        for name, column in columns.items():
            column.append(block[name])
    if not len(columns["user"].rows):
        raise UserError(f"{path} holds no rows")
    return pd.DataFrame({name: column.finish() for name, column in columns.items()}, copy=False)


class _Column:
    """A column of numbers that grows block by block."""

    def __init__(self) -> None:
        self.rows = np.empty(0)

    def append(self, block: np.ndarray) -> None:
        # Grows in place: concatenating a list of blocks at the end would hold all rows twice.
        rows = len(self.rows)
        self.rows = self.rows.astype(block.dtype, copy=False)
        self.rows.resize(rows + len(block), refcheck=False)
        self.rows[rows:] = block

    def finish(self) -> np.ndarray:
        return self.rows


class _Ids(_Column):
    """Raw ids, numbered by first occurrence, and renumbered in sorted order at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[str, int] = {}

    def append(self, block: pd.Categorical) -> None:
        numbers = [self.numbers.setdefault(raw_id, len(self.numbers)) for raw_id in block.categories]
        super().append(np.array(numbers, dtype=np.int32)[block.codes])

    def finish(self) -> pd.Categorical:
        ids = sorted(self.numbers, key=lambda raw_id: (len(raw_id), raw_id))
        place = np.empty(len(ids), dtype=np.int32)
        place[[self.numbers[raw_id] for raw_id in ids]] = np.arange(len(ids))
        for start in range(0, len(self.rows), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            self.rows[part] = place[self.rows[part]]
        return pd.Categorical.from_codes(self.rows, pd.Index(ids, dtype=object), validate=False)


def _drop_repeated(path: Path, table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Keep the last row of every (user, item) pair; returns the table, and a note if rows were dropped."""
    pairs = _encode_rows(table)
    if not (pairs[1:] >= pairs[:-1]).all():  # most files are sorted already
        pairs.sort()
    duplicates = pairs[1:][pairs[1:] == pairs[:-1]]
    if not len(duplicates):
        return table, ()
    pairs = _encode_rows(table)  # again, in file order: keeping both orders would take twice the memory
    rows = np.flatnonzero(pd.Series(pairs, copy=False).isin(duplicates))
    repeated = rows[pd.Series(pairs[rows]).duplicated(keep="last")]
    note = f"{len(repeated):,} of {len(table):,} rows of {path} repeat a (user, item) pair; the last of each is kept"
    return table.drop(index=repeated).reset_index(drop=True), (note,)


def _encode_rows(table: pd.DataFrame) -> np.ndarray:
    """(R,) one number per (user, item) pair."""
    users, items = table["user"].array, table["item"].array
    return encode_pairs(users.codes, items.codes, len(items.categories))


def _to_numbers(path: Path, ratings: pd.Series, rating_scale: Sequence[float], advice: str) -> np.ndarray:
    """Convert ratings: (rows,) float32. Every distinct text is checked once."""
    low, high = rating_scale
    texts = ratings.cat.categories
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~((numbers >= low) & (numbers <= high))
    if wrong.any():
        row = wrong[ratings.cat.codes].argmax()
        value, number = ratings.iloc[row], numbers[ratings.cat.codes.iloc[row]]
        line = ratings.index[row]
        if not np.isfinite(number):
            fail(path, line, f"has the rating {quote(value)}, which is not a number")
        fail(path, line, f"has the rating {quote(value)} outside the scale {low:g} to {high:g}; {advice}")
    return numbers.astype(np.float32)[ratings.cat.codes]


def _to_times(path: Path, column: pd.Series) -> np.ndarray:
    """Convert timestamps, numbers or dates as in ISO 8601: (rows,) float64; dates as seconds since 1970 (UTC)."""
    texts = column.cat.categories
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
    if np.isnan(numbers).any():
        dates = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)
        seconds = (dates - pd.Timestamp(0, tz="UTC")).total_seconds().to_numpy()
        numbers = np.where(np.isnan(numbers), seconds, numbers)
    wrong = ~np.isfinite(numbers)[column.cat.codes]
    if wrong.any():
        row = wrong.argmax()
        problem = f"has the timestamp {quote(column.iloc[row])}, which is neither a number nor a date like 2024-12-31"
        fail(path, column.index[row], problem)
    return numbers[column.cat.codes]


def _to_any_numbers(path: Path, column: pd.Series) -> np.ndarray:
    """Convert a column of finite numbers: (rows,) float64."""
    numbers = pd.to_numeric(column.cat.categories, errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~np.isfinite(numbers)[column.cat.codes]
    if wrong.any():
        row = wrong.argmax()
        value = quote(column.iloc[row])
        fail(path, column.index[row], f"has the {column.name} {value}, which is not a number")
    return numbers[column.cat.codes]


def _to_labels(path: Path, values: pd.Series) -> np.ndarray:
    """Convert a label column: (rows,) float32, 0 or 1. Every distinct text is checked once."""
    texts = values.cat.categories
    numbers = np.array([LABEL_VALUES.get(text.strip().lower(), np.nan) for text in texts], dtype=np.float32)
    wrong = np.isnan(numbers)[values.cat.codes]
    if wrong.any():
        row = wrong.argmax()
        fail(path, values.index[row], f"has {quote(values.iloc[row])} for {values.name}; a label must be 0 or 1")
    return numbers[values.cat.codes]
