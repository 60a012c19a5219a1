"""Ratings as numbered columns, with a binary cache for large files and large simulated sets.

The cache of `ratings.csv` is `.ratings.csv.npz` beside it. It is valid only for the exact bytes of that file and the
exact code that read it: both are compared by sha256 on every use, about a second per gigabyte. Modification times are
ignored, because they can be wrong and because a file that was merely touched need not be read again. What the cache
holds is verified, too: a digest of every array, then shapes, types, and the ranges of ids and ratings. A stale, damaged
or foreign cache is rebuilt; where none can be written, the program works without one, only slower.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from config.reading import open_regular
from sources import delimited, ids, readers, simulated, verified
from sources.packing import Packed
from sources.verified import read_verified, write_verified

# Below these sizes, reading or simulating again is as fast as loading the cache.
MIN_CACHED_BYTES = 2**22
MIN_CACHED_RATINGS = 2**20
TYPES = {"user_ids": np.int32, "item_ids": np.int32, "ratings": np.float32, "times": np.float64}
COLUMNS = ("user_ids", "item_ids", "ratings")  # of every table
CATALOG = ("titles", "genres")
SIMULATED_SCALE = (1.0, 5.0)
LARGEST = np.finfo(np.float64).max


@dataclass
class Table:
    """R numbered rows.

    users, items: raw ids, (num_users,) and (num_items,) strings; position = row number. Each has at least one row.
    columns: user_ids, item_ids (R,) int32; ratings (R,) float32, or (R, T) for T labels; times (R,) float64, only
        where they are asked for.
    notes: sentences about rows left out.
    """

    users: np.ndarray
    items: np.ndarray
    columns: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.columns["user_ids"])


def number_rows(
    frame: pd.DataFrame, values: str | list[str], notes: tuple[str, ...], with_times: bool = False
) -> Table:
    """Convert what readers.py returns to a table; `values`, a column or a list of them, become its ratings."""
    users, items = frame["user"].array, frame["item"].array
    codes = {"user_ids": users.codes, "item_ids": items.codes}
    columns = {name: column.astype(np.int32, copy=False) for name, column in codes.items()}
    columns["ratings"] = np.ascontiguousarray(frame[values].to_numpy())
    if with_times:
        columns["times"] = frame["timestamp"].to_numpy()
    return Table(users.categories.to_numpy(), items.categories.to_numpy(), columns, notes)


def renumber(table: Table, rows: np.ndarray) -> Table:
    """The table with only the users and items of these rows; the ids of rows of others become -1."""
    columns, raw_ids = dict(table.columns), []
    for name, known in (("user_ids", table.users), ("item_ids", table.items)):
        is_used = np.bincount(columns[name][rows], minlength=len(known)) > 0
        place = np.where(is_used, is_used.cumsum() - 1, -1).astype(np.int32)
        columns[name] = place[columns[name]]
        raw_ids.append(known[is_used])
    return Table(*raw_ids, columns, table.notes)


def read_ratings(
    path: Path, rating_scale: Sequence[float], names: Mapping[str, str] | None = None, with_times: bool = False
) -> Table:
    """Read a file of ratings as readers.read_ratings does, through the cache if the file is large.

    A cache with times also serves those who need none; they do not read them.
    """
    if not path.is_file() or path.stat().st_size < MIN_CACHED_BYTES:
        return _read_ratings(path, rating_scale, names, with_times)
    cached = path.with_name(f".{path.name}.npz")
    key = {"file": _digest(path), "code": _version(readers, delimited, ids), "names": dict(names or {})}
    if (found := _load(cached, key, rating_scale, with_times, also=("path",))) is not None:
        table, texts = found
        table.notes = tuple(note.replace(texts["path"][0], str(path)) for note in table.notes)
        return table
    before = path.stat()
    table = _read_ratings(path, rating_scale, names, with_times)
    if (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size):
        _save(cached, key, table, {"path": [str(path)]})
    return table


def simulate(size: Sequence[int], folder: Path) -> tuple[Table, list[str], list[str]]:
    """Simulate ratings, or load them from `folder` if the set is large and was simulated before.

    Args:
        size: numbers of users, items and ratings.
        folder: holds the cache.

    Returns:
        The ratings, and a title and genres per item.
    """
    cached = folder / f".simulated-{'x'.join(map(str, size))}.npz"
    key = {"size": [*size], "code": _version(simulated), "numpy": np.__version__}
    is_large = size[2] >= MIN_CACHED_RATINGS
    if is_large and (found := _load(cached, key, SIMULATED_SCALE, also=CATALOG)) is not None:
        table, texts = found
        titles, genres = texts["titles"], texts["genres"]
        if [len(part) for part in (table.users, table.items, table, titles, genres)] == [*size, size[1], size[1]]:
            return table, titles, genres
    made = simulated.simulate(*size)
    users, items = (np.array([str(number + 1) for number in range(count)], dtype=object) for count in size[:2])
    columns = {"user_ids": made.user_ids, "item_ids": made.item_ids, "ratings": made.ratings}
    table = Table(users, items, columns)
    if is_large:
        _save(cached, key, table, {"titles": made.titles, "genres": made.genres})
    return table, made.titles, made.genres


def _read_ratings(
    path: Path, rating_scale: Sequence[float], names: Mapping[str, str] | None, with_times: bool
) -> Table:
    frame, notes = readers.read_ratings(path, rating_scale, names, with_times)
    return number_rows(frame, "rating", notes, with_times)


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(*modules: ModuleType) -> str:
    """Digests of the given modules, of this one and of the one that writes the files."""
    files = (*(module.__file__ for module in (*modules, verified)), __file__)
    return " ".join(_digest(Path(str(file))) for file in files)


def _load(
    cached: Path, key: dict, scale: Sequence[float], with_times: bool = False, also: Sequence[str] = ()
) -> tuple[Table, dict[str, list]] | None:
    """The cached table and all texts, those named by `also` too; None if there is no sound cache with this key."""
    found = read_verified(cached, key, tuple(TYPES) if with_times else COLUMNS)
    if found is None or not _are_sound(found.texts, ("users", "items", "notes", *also)):
        return None
    users, items = (np.array(found.texts[name], dtype=object) for name in ("users", "items"))
    table = Table(users, items, found.arrays, tuple(found.texts["notes"]))
    return (table, found.texts) if _is_sound(table, scale) else None


def _are_sound(texts: dict, names: Sequence[str]) -> bool:
    """True where these entries are lists of strings, and ids are all different."""
    lists = [texts.get(name) for name in names]
    if not all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in lists):
        return False
    return all(len(set(texts[name])) == len(texts[name]) for name in ("users", "items"))


def _is_sound(table: Table, scale: Sequence[float]) -> bool:
    """True where a table is one that can have been read: types and lengths, all ids in range, ratings on the scale."""
    columns = table.columns
    if any(column.dtype != TYPES[name] or column.shape != (len(table),) for name, column in columns.items()):
        return False
    sizes = {"user_ids": len(table.users), "item_ids": len(table.items)}
    bounds = {name: (0, size - 1) for name, size in sizes.items()} | {"ratings": tuple(scale)}
    bounds |= {"times": (-LARGEST, LARGEST)} if "times" in columns else {}
    return len(table) > 0 and all(
        low <= columns[name].min() and columns[name].max() <= high for name, (low, high) in bounds.items()
    )


def _save(cached: Path, key: dict, table: Table, more: dict) -> None:
    """Cache a table and further texts; do nothing if that is not possible."""
    texts = {"users": table.users.tolist(), "items": table.items.tolist(), "notes": table.notes} | more
    with suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_verified(cached, key, Packed(table.columns, texts))
