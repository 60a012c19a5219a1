"""Titles and genres: the movie catalogs of MovieLens in all its formats."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from config.errors import UserError
from config.reading import open_regular, read_text

GENRES_FILE = "u.genre"  # beside u.item; names the genre of each flag there
TITLE_FIELDS = 5  # of u.item before the flags: id, title, two dates, URL


def read_movies(path: Path) -> pd.DataFrame:
    """Read a MovieLens catalog in any of its formats.

    Returns:
        A table indexed by raw item id, with the columns title and genres (joined by "|"). It is empty if the catalog is
        missing, because titles are needed for display only.

    Raises:
        UserError: the catalog exists and is damaged: a line is cut, or the names of the genres do not fit its flags.
    """
    if not path.exists():
        return pd.DataFrame({"title": [], "genres": []}, index=pd.Index([], dtype=str))
    try:
        with open_regular(path) as file:
            content = file.read()
        return _parse_csv(content) if path.suffix == ".csv" else _parse_lines(path, content)
    except OSError as error:
        raise UserError(f"the catalog {path} cannot be read ({error.strerror}); restore or remove it") from None
    except (ValueError, KeyError, IndexError, pd.errors.ParserError) as error:
        raise UserError(f"the catalog {path} is damaged ({_reason(error)}); restore or remove it") from None


def describe(items: np.ndarray, catalog: pd.DataFrame | None) -> tuple[list[str], list[str]]:
    """Titles and genres of raw item ids; an item that is not in the catalog gets its raw id as title, and no genres."""
    if catalog is None or catalog.empty:
        return list(items), [""] * len(items)
    known = catalog[~catalog.index.duplicated()].reindex(items)
    return list(known["title"].where(known["title"].notna(), items)), list(known["genres"].fillna(""))


def missing_movies(path: Path, items: np.ndarray, catalog: pd.DataFrame) -> tuple[str, ...]:
    """A note that counts the rated items which a catalog lacks; none where it is missing as a whole.

    The catalogs of MovieLens describe every rated item, so this one has been cut.
    """
    unknown = items[~pd.Index(items).isin(catalog.index)]
    if catalog.empty or not len(unknown):
        return ()
    return (
        f"the catalog {path} lacks {len(unknown):,} of {len(items):,} rated items, such as {unknown[0]}, which are "
        "shown by their ids: restore or remove it",
    )


def _parse_csv(content: bytes) -> pd.DataFrame:
    movies = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, na_values=[""])
    movies = movies.set_index("movieId")[["title", "genres"]]
    if movies.isna().to_numpy().any():
        raise ValueError(f"movie {movies.index[movies.isna().any(axis=1).argmax()]} has not all columns")
    return movies


def _parse_lines(path: Path, content: bytes) -> pd.DataFrame:
    """movies.dat: id::title::genres; u.item: see TITLE_FIELDS, then a 0/1 flag per genre, separated by |."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:  # MovieLens 100K and 1M are in Latin-1, 10M is in UTF-8
        text = content.decode("latin-1")
    lines = re.split(r"\r?\n", text)  # splitlines would split at further characters, which a title may hold
    if path.suffix == ".dat":
        rows = [line.split("::") for line in lines if line]
    else:
        names = _genre_names(path.with_name(GENRES_FILE))
        rows = [_read_u_item(number, line, names) for number, line in enumerate(lines, 1) if line]
    ids, titles, genres = zip(*(row[:3] for row in rows), strict=True)
    return pd.DataFrame({"title": titles, "genres": genres}, index=pd.Index(ids))


def _genre_names(path: Path) -> list[str]:
    """The names in u.genre, whose lines are name|number, numbered from 0."""
    try:
        lines = read_text(path, "latin-1").splitlines()
    except OSError as error:
        raise ValueError(f"{path.name} beside it cannot be read: {error.strerror}") from None
    names = [line.rpartition("|") for line in lines if line]
    if [number for _, _, number in names] != [str(number) for number in range(len(names))]:
        raise ValueError(f"{path.name} beside it does not number the genres 0, 1, ...")
    return [name for name, _, _ in names]


def _read_u_item(number: int, line: str, genre_names: Sequence[str]) -> tuple[str, str, str]:
    """Raw id, title and genres."""
    fields = line.split("|")
    flags = fields[TITLE_FIELDS:]
    if len(flags) != len(genre_names) or not set(flags) <= {"0", "1"}:
        raise ValueError(
            f"line {number} has {len(fields)} fields where {TITLE_FIELDS} and a 0 or 1 for each of "
            f"{len(genre_names)} genres belong"
        )
    return fields[0], fields[1], "|".join(name for name, flag in zip(genre_names, flags, strict=True) if flag == "1")


def _reason(error: Exception) -> str:
    text = str(error).splitlines()
    return text[0] if text and type(error) is ValueError else type(error).__name__
