"""Reading files of ratings, files of feedback and movie catalogues.

What their columns mean is said here; delimited.py takes the text apart. Every complaint names file, line and value.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from config.errors import UserError
from sources.delimited import column_name, quote, read_blocks, refuse

COLUMNS = ("user", "item", "rating")
LABEL_VALUES = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
# Rows renumbered at a time: bounds memory for files of any length.
ROWS_AT_A_TIME = 2**20


def read_ratings(
    path: Path, rating_scale: Sequence[float], with_times: bool = False
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read a file of ratings.

    Args:
        path: columns user, item, rating and optionally more, in this order or named by a header; ids of any kind.
        rating_scale: lowest and highest rating allowed.
        with_times: whether the column timestamp is wanted as well.

    Returns:
        A table with the columns user and item (raw ids: categories of strings, shorter ones first and equally long ones
        in the order of their letters, so that whole numbers ascend), rating (float32) and where it is wanted timestamp
        (float64), and notes on rows left out: of a pair that occurs more than once the last row counts.

    Raises:
        UserError: with file, line and value, at the first thing that is wrong.
    """
    values = {"rating": lambda column: _to_numbers(path, column, rating_scale)}
    if with_times:
        values["timestamp"] = lambda column: _to_any_numbers(path, column)
    return _drop_repeated(path, _read_table(path, values))


def read_feedback(
    path: Path, labels: Sequence[str], numbers: Sequence[str] = ()
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read a file of feedback: what a user did, and did not do, with an item that was shown.

    Args:
        path: a header names its columns, in any order: user, item, the labels, and others; a label says 0 or 1.
        labels: the columns wanted, found as user and item are: "Add to cart" means add_to_cart too.
        numbers: further columns wanted, of numbers.

    Returns:
        A table with the columns user and item as in `read_ratings` and, in the order of `labels` and called as there,
        one for each label (float32, 0 or 1) and each of `numbers` (float64); and notes as in `read_ratings`.

    Raises:
        UserError: as in `read_ratings`; or `labels` are none, not distinct, or mean the user or the item.
    """
    _require_proper_labels(path, (*labels, *numbers))
    values = dict.fromkeys(labels, lambda column: _to_labels(path, column))
    values |= dict.fromkeys(numbers, lambda column: _to_any_numbers(path, column))
    return _drop_repeated(path, _read_table(path, values, header_required=True))


def read_movies(path: Path) -> pd.DataFrame:
    """Read a MovieLens catalogue, in any of its formats: a table indexed by raw item id, columns title and genres.

    Genres are joined by "|". A catalogue that is missing gives an empty table, since titles only decorate.

    Raises:
        UserError: the catalogue is there, and damaged.
    """
    if not path.is_file():
        return pd.DataFrame({"title": [], "genres": []}, index=pd.Index([], dtype=str))
    try:
        return _parse_movies(path)
    except (ValueError, KeyError, IndexError, pd.errors.ParserError) as error:
        raise UserError(f"the catalogue {path} is damaged ({type(error).__name__}); restore or remove it") from None


def _parse_movies(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        movies = pd.read_csv(path, dtype=str, keep_default_na=False)
        return movies.set_index("movieId")[["title", "genres"]]
    text = path.read_bytes()
    try:
        lines = text.decode("utf-8").splitlines()
    except UnicodeDecodeError:  # MovieLens 100K and 1M are in Latin-1, 10M is in UTF-8
        lines = text.decode("latin-1").splitlines()
    if path.suffix == ".dat":
        rows = [line.split("::") for line in lines if line]
    else:
        names = _genre_names(path.with_name("u.genre"))
        rows = [_read_u_item(line, names) for line in lines if line]
    ids, titles, genres = zip(*(row[:3] for row in rows), strict=True)
    return pd.DataFrame({"title": titles, "genres": genres}, index=pd.Index(ids))


def look_up(raw: pd.Series, ids: np.ndarray) -> np.ndarray:
    """The numbers of raw ids among `ids`; -1 for those that are not there."""
    return pd.Index(ids).get_indexer(raw.cat.categories)[raw.cat.codes]


def describe(items: np.ndarray, catalogue: pd.DataFrame | None) -> tuple[list[str], list[str]]:
    """Titles and genres of raw item ids; what no catalogue knows is called by its raw id."""
    if catalogue is None or catalogue.empty:
        return list(items), [""] * len(items)
    known = catalogue[~catalogue.index.duplicated()].reindex(items)
    return list(known["title"].where(known["title"].notna(), items)), list(known["genres"].fillna(""))


def _require_proper_labels(path: Path, labels: Sequence[str]) -> None:
    names = [column_name(label) for label in labels]
    if not names or "" in names:
        raise UserError(f"no label is named for {path}; --labels takes the names of its columns of 0 and 1")
    for label, name in zip(labels, names, strict=True):
        if name in ("user", "item"):
            raise UserError(f"the label {quote(label)} means the {name} column of {path}; name a column of 0 and 1")
        if names.count(name) > 1:
            raise UserError(f"the labels {', '.join(labels)} name one column of {path} twice; name each column once")


def _read_table(path: Path, values: dict[str, Callable], header_required: bool = False) -> pd.DataFrame:
    """The columns user, item and those of `values`, whose functions turn categories of texts into checked numbers."""

    def convert(block: pd.DataFrame) -> dict[str, np.ndarray | pd.Categorical]:
        numbers = {name: to_numbers(block[name]) for name, to_numbers in values.items()}
        return numbers | {name: block[name].array for name in ids}

    ids = {"user": _Ids(), "item": _Ids()}
    columns = ids | {name: _Column() for name in values}
    for block in read_blocks(path, tuple(ids), tuple(values), convert, header_required):
        for name, column in columns.items():
            column.append(block[name])
    if not len(columns["user"].rows):
        raise UserError(f"{path} holds no rows")
    return pd.DataFrame({name: column.finish() for name, column in columns.items()}, copy=False)


class _Column:
    """Numbers that come in a block at a time."""

    def __init__(self) -> None:
        self.rows = np.empty(0)

    def append(self, block: np.ndarray) -> None:
        # grows where it lies: a list of blocks, joined in the end, would for a while be there twice
        rows = len(self.rows)
        self.rows = self.rows.astype(block.dtype, copy=False)
        self.rows.resize(rows + len(block), refcheck=False)
        self.rows[rows:] = block

    def finish(self) -> np.ndarray:
        return self.rows


class _Ids(_Column):
    """Raw ids, numbered as they come in, and then in their order."""

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
        for start in range(0, len(self.rows), ROWS_AT_A_TIME):
            part = slice(start, start + ROWS_AT_A_TIME)
            self.rows[part] = place[self.rows[part]]
        return pd.Categorical.from_codes(self.rows, pd.Index(ids, dtype=object), validate=False)


def _drop_repeated(path: Path, table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Keep the last row of every (user, item) pair: the table, and a note where rows were dropped."""
    keys = _pair_keys(table)
    if not (keys[1:] >= keys[:-1]).all():  # most files are in order
        keys.sort()
    twice = keys[1:][keys[1:] == keys[:-1]]
    if not len(twice):
        return table, ()
    keys = _pair_keys(table)
    rows = np.flatnonzero(pd.Series(keys, copy=False).isin(twice))
    repeated = rows[pd.Series(keys[rows]).duplicated(keep="last")]
    note = f"{len(repeated):,} of {len(table):,} rows of {path} repeat a (user, item) pair; the last of each counts"
    return table.drop(index=repeated).reset_index(drop=True), (note,)


def _pair_keys(table: pd.DataFrame) -> np.ndarray:
    """(R,) one number for each pair."""
    keys = table["user"].array.codes.astype(np.int64)
    keys *= len(table["item"].array.categories)
    keys += table["item"].array.codes
    return keys


def _to_numbers(path: Path, ratings: pd.Series, rating_scale: Sequence[float]) -> np.ndarray:
    """Check every distinct rating once, then spread the numbers over the rows: (rows,) float32."""
    low, high = rating_scale
    texts = ratings.cat.categories
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~((numbers >= low) & (numbers <= high))
    if wrong.any():
        row = wrong[ratings.cat.codes].argmax()
        value, number = ratings.iloc[row], numbers[ratings.cat.codes.iloc[row]]
        line = ratings.index[row]
        if not np.isfinite(number):
            refuse(path, line, f"has the rating {quote(value)}, which is not a number")
        problem = f"has the rating {quote(value)} outside the scale {low:g} to {high:g}"
        refuse(path, line, f"{problem}; --rating_scale LOW HIGH sets another")
    return numbers.astype(np.float32)[ratings.cat.codes]


def _to_any_numbers(path: Path, column: pd.Series) -> np.ndarray:
    """(rows,) float64, any finite numbers."""
    numbers = pd.to_numeric(column.cat.categories, errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~np.isfinite(numbers)[column.cat.codes]
    if wrong.any():
        row = wrong.argmax()
        value = quote(column.iloc[row])
        refuse(path, column.index[row], f"has the {column.name} {value}, which is not a number")
    return numbers[column.cat.codes]


def _to_labels(path: Path, values: pd.Series) -> np.ndarray:
    """Check every distinct value of a label once, then spread the numbers over the rows: (rows,) float32, 0 or 1."""
    texts = values.cat.categories
    numbers = np.array([LABEL_VALUES.get(text.strip().lower(), np.nan) for text in texts], dtype=np.float32)
    wrong = np.isnan(numbers)[values.cat.codes]
    if wrong.any():
        row = wrong.argmax()
        refuse(path, values.index[row], f"has {quote(values.iloc[row])} for {values.name}; a label must be 0 or 1")
    return numbers[values.cat.codes]


def _genre_names(path: Path) -> list[str]:
    lines = path.read_text(encoding="latin-1").splitlines() if path.is_file() else []
    return [line.split("|")[0] for line in lines if "|" in line]


def _read_u_item(line: str, genre_names: list[str]) -> tuple[str, str, str]:
    """One line of u.item: id, title, dates, address and a 0/1 flag for every genre."""
    fields = line.split("|")
    flags = zip(genre_names, fields[5:], strict=False)
    return fields[0], fields[1], "|".join(name for name, flag in flags if flag == "1")
