"""Reading files of ratings, files of feedback and movie catalogues, and mapping raw ids to row numbers.

One reader serves all formats: columns separated by comma, tab, semicolon or `::`, with or without a header, plain or
gzip. Every complaint names the file, the line and the value.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from errors import UserError

SEPARATORS = ("::", "\t", ";", ",")
COLUMNS = ("user", "item", "rating")
# Header names that count as ours, compared in lower case without "_" and a final "id".
SYNONYMS = {"movie": "item", "film": "item", "product": "item", "score": "rating", "stars": "rating"}
LABEL_VALUES = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}


def read_ratings(
    path: Path, rating_scale: Sequence[float], with_times: bool = False
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read a file of ratings.

    Args:
        path: columns user, item, rating and optionally more, in this order or named by a header; ids of any kind.
        rating_scale: lowest and highest rating allowed.
        with_times: whether the column timestamp is wanted as well.

    Returns:
        A table with the columns user and item (raw ids, categories of strings), rating (float32) and where it is wanted
        timestamp (float64), and notes on rows left out: of a pair that occurs more than once the last row counts.

    Raises:
        UserError: with file, line and value, at the first thing that is wrong.
    """
    table = _read_table(path, (*COLUMNS, "timestamp") if with_times else COLUMNS)
    table["rating"] = _to_numbers(path, table["rating"], rating_scale)
    if with_times:
        table["timestamp"] = _to_any_numbers(path, table["timestamp"])
    return _drop_repeated(path, table)


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
    table = _read_table(path, ("user", "item", *labels, *numbers), header_required=True)
    for name in numbers:
        table[name] = _to_any_numbers(path, table[name])
    for label in labels:
        table[label] = _to_labels(path, table[label])
    return _drop_repeated(path, table)


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


def map_ids(raw: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Number the raw ids of a category column: (raw ids in order of their number, number of every row).

    Shorter ids come first, equally long ones in the order of their letters; whole numbers are thus in ascending order.
    """
    present = raw.cat.remove_unused_categories()
    ids = sorted(present.cat.categories, key=lambda raw_id: (len(raw_id), raw_id))
    return np.array(ids, dtype=object), present.cat.set_categories(ids).cat.codes.to_numpy()


def look_up(raw: pd.Series, ids: np.ndarray) -> np.ndarray:
    """The numbers of raw ids among `ids`; -1 for those that are not there."""
    return pd.Index(ids).get_indexer(raw.astype(str))


def describe(items: np.ndarray, catalogue: pd.DataFrame | None) -> tuple[list[str], list[str]]:
    """Titles and genres of raw item ids; what no catalogue knows is called by its raw id."""
    if catalogue is None or catalogue.empty:
        return list(items), [""] * len(items)
    known = catalogue[~catalogue.index.duplicated()].reindex(items)
    return list(known["title"].where(known["title"].notna(), items)), list(known["genres"].fillna(""))


def _require_proper_labels(path: Path, labels: Sequence[str]) -> None:
    names = [_column_name(label) for label in labels]
    if not names or "" in names:
        raise UserError(f"no label is named for {path}; --labels takes the names of its columns of 0 and 1")
    for label, name in zip(labels, names, strict=True):
        if name in ("user", "item"):
            raise UserError(f"the label {_quote(label)} means the {name} column of {path}; name a column of 0 and 1")
        if names.count(name) > 1:
            raise UserError(f"the labels {', '.join(labels)} name one column of {path} twice; name each column once")


def _read_table(path: Path, columns: Sequence[str], header_required: bool = False) -> pd.DataFrame:
    """The columns asked for, called as they are asked for: categories of strings, indexed by line number."""
    text = _read_bytes(path, columns)
    line = _decode(path, re.split(rb"[\r\n]", text, maxsplit=1)[0])
    separator, fields = _split_first_line(path, line, columns)
    bare = not header_required and _is_number(fields[2])
    header = None if bare else _read_header(path, line, fields, columns, header_required)
    if separator == "::":
        # pandas reads a one-character separator with its fast parser, any other with a slow one
        text, separator = text.replace(b"::", b"\t"), "\t"
    return _parse(path, text, separator, header, columns)


def _drop_repeated(path: Path, table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Keep the last row of every (user, item) pair: the table, and a note where rows were dropped."""
    repeated = table.duplicated(["user", "item"], keep="last").to_numpy()
    if not repeated.any():
        return table.reset_index(drop=True), ()
    note = f"{repeated.sum():,} of {len(table):,} rows of {path} repeat a (user, item) pair; the last of each counts"
    return table[~repeated].reset_index(drop=True), (note,)


def _read_bytes(path: Path, columns: Sequence[str]) -> bytes:
    try:
        text = path.read_bytes()
        if text[:2] == b"\x1f\x8b":
            text = gzip.decompress(text)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not text.strip():
        raise UserError(f"{path} is empty; it should hold rows of {', '.join(columns)}")
    return text.removeprefix(b"\xef\xbb\xbf")  # the byte order mark that spreadsheets write


def _split_first_line(path: Path, line: str, columns: Sequence[str]) -> tuple[str, list[str]]:
    """The separator and the fields that it leaves: three at least."""
    for separator in SEPARATORS:
        fields = _split(path, line, separator)
        if len(fields) >= 3:
            return separator, fields
    wanted = f"{'three' if len(columns) == 3 else len(columns)} columns {', '.join(columns)}"
    _refuse(path, 1, f"reads {_quote(line)}, which is not {wanted} separated by , tab ; or ::")


def _read_header(path: Path, line: str, fields: list[str], columns: Sequence[str], required: bool) -> list[str | None]:
    """What each field is called in `columns`; None for those that nobody asked for."""
    names = [_column_name(field) for field in fields]
    called = {_column_name(column): column for column in columns}
    missing = [column for name, column in called.items() if name not in names]
    if len(missing) == len(columns):
        header = f"a header naming {', '.join(columns[:-1])} and {columns[-1]}"
        problem = f"it must be {header}" if required else f"neither {header}, nor a row with its rating third"
        _refuse(path, 1, f"reads {_quote(line)}: {problem}")
    if missing:
        found = _quote(", ".join(fields), limit=600 if required else 60)  # a label is chosen among many columns
        _refuse(path, 1, f"is a header without a column {missing[0]}: it names {found}")
    for name, column in called.items():
        if names.count(name) > 1:
            _refuse(path, 1, f"is a header with {names.count(name)} columns for the {column}: {_quote(line)}")
    return [called.get(name) for name in names]


def _split(path: Path, line: str, separator: str) -> list[str]:
    if len(separator) > 1:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error as error:
        _refuse(path, 1, f"cannot be split into columns ({error})")


def _column_name(field: str) -> str:
    name = field.strip().lower().replace("_", "").replace(" ", "")
    name = name.removesuffix("id") or name
    return SYNONYMS.get(name, name)


def _parse(path: Path, text: bytes, separator: str, header: list | None, columns: Sequence[str]) -> pd.DataFrame:
    names = header or columns
    try:
        table = pd.read_csv(
            io.BytesIO(text),
            sep=separator,
            header=None,
            skiprows=1 if header else 0,
            dtype={names.index(column): str for column in columns},  # or pandas would read the id 007 as 7
            keep_default_na=False,
            na_values=[""],
            skip_blank_lines=False,
            skipinitialspace=True,
            encoding="utf-8",
            low_memory=False,  # or columns that nobody asked for are warned about
        )
    except UnicodeDecodeError:
        _decode(path, text)
        raise
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} holds a header but no rows") from None
    except pd.errors.ParserError as error:
        _explain_parser_error(path, error)
    table.index += 2 if header else 1
    table = table.dropna(how="all")
    if header is None and table.shape[1] > 4:
        _refuse(path, 1, f"has {table.shape[1]} columns and no header says which are user, item and rating")
    if header is not None and table.shape[1] != len(header):
        _refuse(path, 2, f"has {table.shape[1]} columns where the header names {len(header)}")
    if table.empty:
        raise UserError(f"{path} holds no rows")
    table.columns = header or [*columns, "timestamp"][: table.shape[1]]
    table = table[list(columns)]
    for column in columns:
        empty = table[column].isna().to_numpy()
        if empty.any():
            _refuse(path, table.index[empty.argmax()], f"has no {column}; a row is {', '.join(columns)}")
    return table.astype("category")


def _explain_parser_error(path: Path, error: Exception) -> NoReturn:
    found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
    if found:
        expected, line, saw = map(int, found.groups())
        _refuse(path, line, f"has {saw} columns where the lines before it have {expected}")
    found = re.search(r"starting at row (\d+)", str(error))
    if found:
        _refuse(path, int(found[1]) + 1, "opens a quotation mark that is never closed")
    raise UserError(f"{path} cannot be parsed: {error}")


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
            _refuse(path, line, f"has the rating {_quote(value)}, which is not a number")
        problem = f"has the rating {_quote(value)} outside the scale {low:g} to {high:g}"
        _refuse(path, line, f"{problem}; --rating_scale LOW HIGH sets another")
    return numbers.astype(np.float32)[ratings.cat.codes]


def _to_any_numbers(path: Path, column: pd.Series) -> np.ndarray:
    """(rows,) float64, any finite numbers."""
    numbers = pd.to_numeric(column.cat.categories, errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~np.isfinite(numbers)[column.cat.codes]
    if wrong.any():
        row = wrong.argmax()
        value = _quote(column.iloc[row])
        _refuse(path, column.index[row], f"has the {column.name} {value}, which is not a number")
    return numbers[column.cat.codes]


def _to_labels(path: Path, values: pd.Series) -> np.ndarray:
    """Check every distinct value of a label once, then spread the numbers over the rows: (rows,) float32, 0 or 1."""
    texts = values.cat.categories
    numbers = np.array([LABEL_VALUES.get(text.strip().lower(), np.nan) for text in texts], dtype=np.float32)
    wrong = np.isnan(numbers)[values.cat.codes]
    if wrong.any():
        row = wrong.argmax()
        _refuse(path, values.index[row], f"has {_quote(values.iloc[row])} for {values.name}; a label must be 0 or 1")
    return numbers[values.cat.codes]


def _decode(path: Path, text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        _refuse(path, line, f"holds the byte 0x{text[error.start]:02x}, which is not UTF-8; save the file as UTF-8")


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _genre_names(path: Path) -> list[str]:
    lines = path.read_text(encoding="latin-1").splitlines() if path.is_file() else []
    return [line.split("|")[0] for line in lines if "|" in line]


def _read_u_item(line: str, genre_names: list[str]) -> tuple[str, str, str]:
    """One line of u.item: id, title, dates, address and a 0/1 flag for every genre."""
    fields = line.split("|")
    flags = zip(genre_names, fields[5:], strict=False)
    return fields[0], fields[1], "|".join(name for name, flag in flags if flag == "1")


def _quote(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def _refuse(path: Path, line: int, problem: str) -> NoReturn:
    raise UserError(f"{path}, line {line}: {problem}")
