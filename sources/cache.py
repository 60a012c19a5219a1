"""Ratings as numbered columns, with a binary cache for large files and large simulated sets.

The cache of `ratings.csv` is `.ratings.csv.npz` beside it. It is valid only for the exact bytes of that file and the
exact code that read it: both are compared by sha256 on every use, about a second per gigabyte. Modification times are
ignored, because they can be wrong and because a file that was merely touched need not be read again. A stale or damaged
cache is rebuilt; where none can be written, the program works without one, only slower.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from sources import delimited, ids, readers, simulated
from sources.files import write_atomically

# Below these sizes, reading or simulating again is as fast as loading the cache.
MIN_CACHED_BYTES = 2**22
MIN_CACHED_RATINGS = 2**20
COLUMNS = ("user_ids", "item_ids", "ratings")  # of every table


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
    low, high = rating_scale
    if (found := _load(cached, key, (*COLUMNS, "times") if with_times else COLUMNS)) is not None:
        table, metadata = found
        if low <= table.columns["ratings"].min() and table.columns["ratings"].max() <= high:
            table.notes = tuple(note.replace(metadata["path"], str(path)) for note in table.notes)
            return table
    before = path.stat()
    table = _read_ratings(path, rating_scale, names, with_times)
    if (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size):
        _save(cached, key, table, {"path": str(path)})
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
    if is_large and (found := _load(cached, key)) is not None:
        table, metadata = found
        return table, metadata["titles"], metadata["genres"]
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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(*modules: ModuleType) -> str:
    """Digests of the given modules and of this one."""
    return " ".join(_digest(Path(file)) for file in (*(module.__file__ for module in modules), __file__))


def _load(cached: Path, key: dict, names: Sequence[str] = COLUMNS) -> tuple[Table, dict] | None:
    """The cached table and its metadata; None if there is no intact cache with this key and these columns."""
    try:
        with np.load(cached, allow_pickle=False) as stored:
            metadata = json.loads(stored["metadata"].tobytes())
            if metadata["key"] != key:
                return None
            columns = {name: stored[name] for name in names}
        users, items = (np.array(metadata[name], dtype=object) for name in ("users", "items"))
        return Table(users, items, columns, tuple(metadata["notes"])), metadata
    except Exception:  # a damaged file raises many kinds of errors; the source file is still there
        return None


def _save(cached: Path, key: dict, table: Table, more: dict) -> None:
    """Cache a table and further metadata; do nothing if that is not possible."""
    metadata = {"key": key, "users": table.users.tolist(), "items": table.items.tolist(), "notes": table.notes} | more
    encoded = np.frombuffer(json.dumps(metadata).encode(), dtype=np.uint8)
    with suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cached, lambda file: np.savez(file, metadata=encoded, **table.columns))
