"""Ratings as numbered columns, and the binary copies that save reading a large file, or making a large world, twice.

The copy of `ratings.csv` is `.ratings.csv.npz` beside it. It counts only while it belongs to the very bytes of the
file: the sha256 of all of them is compared each time, about a second per gigabyte, and so is that of the code that
reads. Times of change are not asked: they can lie, and a file that was merely touched need not be read again. A copy
that is stale, or damaged by its own checksums, is made anew; where none can be written, all is as before, but slower.
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from sources import delimited, readers, simulated

# What is smaller is as quickly made as looked up.
FROM_BYTES = 2**22
FROM_RATINGS = 2**20
# Seconds after which a copy that is still being written belongs to a process that died.
ABANDONED = 3600


@dataclass
class Table:
    """R numbered rows.

    users, items: raw ids, (num_users,) and (num_items,) strings; position = id. Each occurs in some row.
    columns: user_ids, item_ids (R,) int32; ratings (R,) float32, or (R, T) for T labels.
    notes: on rows left out.
    """

    users: np.ndarray
    items: np.ndarray
    columns: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.columns["user_ids"])


def number_rows(frame: pd.DataFrame, values: str | list[str], notes: tuple[str, ...]) -> Table:
    """What readers.py reads, as a table: `values`, a column or a list of them, become its ratings."""
    users, items = frame["user"].array, frame["item"].array
    ids = {"user_ids": users.codes, "item_ids": items.codes}
    columns = {name: codes.astype(np.int32, copy=False) for name, codes in ids.items()}
    columns["ratings"] = np.ascontiguousarray(frame[values].to_numpy())
    return Table(users.categories.to_numpy(), items.categories.to_numpy(), columns, notes)


def read_ratings(path: Path, rating_scale: Sequence[float]) -> Table:
    """As readers.read_ratings, from the copy where there is one; a large file without one gets one."""
    if not path.is_file() or path.stat().st_size < FROM_BYTES:
        return _read_ratings(path, rating_scale)
    copy = path.with_name(f".{path.name}.npz")
    key = {"file": _digest(path), "code": _version(readers, delimited)}
    found = _load(copy, key)
    low, high = rating_scale
    if found is not None:
        table, about = found
        if low <= table.columns["ratings"].min() and table.columns["ratings"].max() <= high:
            table.notes = tuple(note.replace(about["path"], str(path)) for note in table.notes)
            return table
    state = path.stat()
    table = _read_ratings(path, rating_scale)
    if (path.stat().st_mtime_ns, path.stat().st_size) == (state.st_mtime_ns, state.st_size):
        _save(copy, key, table, {"path": str(path)})
    return table


def simulate(size: Sequence[int], folder: Path) -> tuple[Table, list[str], list[str]]:
    """A simulated world of so many users, items and ratings, its titles and genres; `folder` keeps the large ones."""
    copy = folder / f".simulated-{'x'.join(map(str, size))}.npz"
    key = {"size": [*size], "code": _version(simulated), "numpy": np.__version__}
    if size[2] >= FROM_RATINGS and (found := _load(copy, key)) is not None:
        table, about = found
        return table, about["titles"], about["genres"]
    world = simulated.simulate(*size)
    users, items = (np.array([str(number + 1) for number in range(count)], dtype=object) for count in size[:2])
    columns = {"user_ids": world.user_ids, "item_ids": world.item_ids, "ratings": world.ratings}
    table = Table(users, items, columns)
    if size[2] >= FROM_RATINGS:
        _save(copy, key, table, {"titles": world.titles, "genres": world.genres})
    return table, world.titles, world.genres


def _read_ratings(path: Path, rating_scale: Sequence[float]) -> Table:
    frame, notes = readers.read_ratings(path, rating_scale)
    return number_rows(frame, "rating", notes)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(*modules: ModuleType) -> str:
    """Of the code that made a copy and of the code that keeps it."""
    return " ".join(_digest(Path(file)) for file in (*(module.__file__ for module in modules), __file__))


def _load(copy: Path, key: dict) -> tuple[Table, dict] | None:
    """The table and what else was saved under this key; None where there is no such copy, or no sound one."""
    try:
        with np.load(copy, allow_pickle=False) as stored:
            about = json.loads(stored["about"].tobytes())
            if about["key"] != key:
                return None
            columns = {name: stored[name] for name in ("user_ids", "item_ids", "ratings")}
        users, items = (np.array(about[name], dtype=object) for name in ("users", "items"))
        return Table(users, items, columns, tuple(about["notes"])), about
    except Exception:  # damaged files are answered by a dozen kinds of errors; the source is still there
        return None


def _save(copy: Path, key: dict, table: Table, more: dict) -> None:
    """Keep a table, or do nothing where that cannot be done."""
    about = {"key": key, "users": table.users.tolist(), "items": table.items.tolist(), "notes": table.notes} | more
    scratch = copy.with_name(f"{copy.name}.{secrets.token_hex(8)}.part")  # each process writes its own
    with suppress(OSError):
        copy.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(copy)
        try:
            with scratch.open("xb") as file:
                np.savez(file, about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8), **table.columns)
            os.replace(scratch, copy)
        finally:
            scratch.unlink(missing_ok=True)


def _remove_abandoned(copy: Path) -> None:
    for scratch in copy.parent.glob(f"{copy.name}.*.part"):
        if time.time() - scratch.stat().st_mtime > ABANDONED:
            scratch.unlink(missing_ok=True)
