"""From files to tensors: read ratings or feedback, number the users and items, and split the rows.

Users and items have two kinds of ids. *Raw ids* are arbitrary strings; files, flags and reports use them. *Row numbers*
(`user_ids`, `item_ids`) count from 0 without gaps; models see nothing else.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from config.errors import UserError
from sources import cache, download, movies, readers
from sources.cache import Table
from sources.catalog import MOVIELENS, SIMULATED_SIZE, Source
from sources.ids import encode_pairs
from sources.packing import Packed
from sources.selection import keep_frequent_rows, match, require_enough
from sources.splits import Split, require_known, split_randomly

DEFAULT_DATA_DIR = Path("data")
CHUNK_ROWS = 2**20  # rows copied or hashed at a time, which bounds memory for any number of rows
SORT_CHUNK_ROWS = 2**21  # rows sorted by user and item at a time, for the same reason


@dataclass(frozen=True, eq=False)
class Interactions:
    """R ratings as tensors.

    user_ids: (R,) in [0, num_users); `load` makes them int32 to halve memory, so widen them before multiplying.
    item_ids: (R,) in [0, num_items), of the same type.
    ratings: (R,) float32; from a feedback file (R, T), one column of 0 and 1 per label.

    Raises:
        ValueError: the columns differ in length, or an id is out of range.
    """

    user_ids: Tensor
    item_ids: Tensor
    ratings: Tensor
    num_users: int
    num_items: int

    def __post_init__(self) -> None:
        if not len(self.user_ids) == len(self.item_ids) == len(self.ratings):
            raise ValueError(
                f"user_ids, item_ids and ratings must have equal lengths, not {len(self.user_ids)}, "
                f"{len(self.item_ids)} and {len(self.ratings)}"
            )
        for name, ids, size in [("user", self.user_ids, self.num_users), ("item", self.item_ids, self.num_items)]:
            low, high = ids.aminmax() if len(ids) else (0, 0)
            if low < 0 or high >= size:
                raise ValueError(f"{name}_ids must lie in [0, {size}), not in [{low}, {high}]")

    def __len__(self) -> int:
        return len(self.ratings)

    def __repr__(self) -> str:
        return f"<Interactions: {self.num_users:,} users x {self.num_items:,} items, {len(self):,} ratings>"

    def __getitem__(self, rows) -> "Interactions":
        """Select rows by a slice, a mask or indices, over the same users and items."""
        if isinstance(rows, Tensor) and rows.dtype in (torch.int32, torch.int64):  # several times as fast as indexing
            return self._map(lambda column: column.index_select(0, rows))
        return self._map(lambda column: column[rows])

    def __add__(self, other: "Interactions") -> "Interactions":
        """Concatenate the rows of two objects over the same users and items."""
        user_ids, item_ids = _join(self.user_ids, other.user_ids), _join(self.item_ids, other.item_ids)
        return Interactions(user_ids, item_ids, _join(self.ratings, other.ratings), self.num_users, self.num_items)

    def to(self, device: torch.device) -> "Interactions":
        return self._map(lambda column: column.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Interactions":
        """The same users and items with every column changed."""
        columns = change(self.user_ids), change(self.item_ids), change(self.ratings)
        return Interactions(*columns, self.num_users, self.num_items)

    @property
    def pair_keys(self) -> Tensor:
        """(R,) int64, one number per (user, item) pair, ascending; see `encode_pairs`."""
        return encode_pairs(self.user_ids, self.item_ids, self.num_items).sort().values

    @cached_property
    def items_by_user(self) -> Tensor:
        """(R,) int32, all item ids sorted by user, then by item; `offsets` holds where each user begins."""
        found = torch.empty(len(self), dtype=torch.int32, device=self.item_ids.device)
        for low, high in self._blocks_of_users():
            chosen = slice(None) if high - low == self.num_users else (self.user_ids >= low) & (self.user_ids < high)
            keys = self[chosen].pair_keys
            found[self.offsets[low] : self.offsets[high]] = keys.remainder_(self.num_items)
        return found

    def _blocks_of_users(self) -> Iterator[tuple[int, int]]:
        """Ranges of users with about SORT_CHUNK_ROWS rows each; sorting all rows at once needs 5x the memory."""
        cuts = torch.arange(0, len(self), SORT_CHUNK_ROWS, device=self.offsets.device)
        starts = torch.searchsorted(self.offsets, cuts, right=True).sub_(1).unique().tolist()
        return pairwise([0, *starts[1:], self.num_users])

    @cached_property
    def offsets(self) -> Tensor:
        """(num_users + 1,) int64: the items of user u are `items_by_user[offsets[u] : offsets[u + 1]]`."""
        counts = _count(self.user_ids, self.num_users)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    @property
    def item_counts(self) -> Tensor:
        """(num_items,) int64, the number of rows of each item."""
        return _count(self.item_ids, self.num_items)


def _count(ids: Tensor, size: int) -> Tensor:
    """How often each id in [0, size) occurs; in blocks, as bincount converts its input to int64."""
    return cast(Tensor, sum(torch.bincount(block, minlength=size) for block in ids.split(CHUNK_ROWS)))


def _join(one: Tensor, other: Tensor) -> Tensor:
    """Concatenate; without a copy if the tensors are adjacent in memory, as the parts of `Data` are."""
    if (
        one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
        and one.storage_offset() + one.numel() == other.storage_offset()
        and one.dtype == other.dtype
        and one.is_contiguous()
        and other.is_contiguous()
    ):
        return one.as_strided((len(one) + len(other), *one.shape[1:]), one.stride())
    return torch.cat([one, other])


@dataclass(frozen=True, eq=False)
class Data:
    """A data set, split and ready to train on.

    users, items: raw ids, (num_users,) and (num_items,) strings; position = row number.
    titles, genres: one string per item; the raw id and "" if there is no catalog.
    rating_scale: lowest and highest rating allowed.
    validation: rows held out of train for validation, or None.
    notes: sentences for the user about rows that were left out.
    simulated: made up by the program; results on it say nothing about MovieLens.
    labels: for feedback, the names of the T label columns in the requested order; () for ratings.
    """

    name: str
    users: np.ndarray
    items: np.ndarray
    titles: list[str]
    genres: list[str]
    rating_scale: tuple[float, float]
    train: Interactions
    test: Interactions
    validation: Interactions | None = None
    notes: tuple[str, ...] = ()
    simulated: bool = False
    labels: tuple[str, ...] = ()

    def __repr__(self) -> str:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part is not None)
        name = f"{self.name} (SIMULATED)" if self.simulated else self.name
        columns = ", ".join(self.labels) or "ratings"
        return f"<{name}: {len(self.users):,} users x {len(self.items):,} items; {columns}: {sizes}>"

    @cached_property
    def seen(self) -> Interactions:
        """All rows but the test rows: train and validation."""
        return self.train if self.validation is None else self.train + self.validation

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 over raw ids, labels, ratings and the split; independent of the file they come from."""
        digest = hashlib.sha256("\n".join([*self.users, "", *self.items]).encode())
        digest.update("".join(f"\n\n{label}" for label in self.labels).encode())
        for part in (self.train, self.validation, self.test):
            if part is not None:
                for tensor, dtype in ((part.user_ids, torch.int64), (part.item_ids, torch.int64), (part.ratings, None)):
                    for block in tensor.split(CHUNK_ROWS):
                        digest.update(block.to(dtype).cpu().contiguous().numpy())
        return digest.hexdigest()

    def to(self, device: torch.device) -> "Data":
        validation = None if self.validation is None else self.validation.to(device)
        moved = {"train": self.train.to(device), "test": self.test.to(device), "validation": validation}
        return Data(**{name: getattr(self, name) for name in self.__dataclass_fields__} | moved)

    def with_users(self, users: np.ndarray, rows: Interactions) -> "Data":
        """The same items with other users, whose rows are all train rows."""
        device = self.train.user_ids.device
        rows = rows.to(device)
        return replace(self, users=users, train=rows, validation=None, test=rows[:0], notes=())

    @cached_property
    def interactions(self) -> Interactions:
        """All rows: train, validation and test."""
        return self.seen + self.test

    @property
    def training_rows(self) -> Interactions:
        return self.train

    @property
    def feedback_names(self) -> tuple[str, ...]:
        """What the columns of `Interactions.ratings` are."""
        return self.labels or ("rating",)

    def pack(self) -> Packed:
        """Everything, as arrays and texts; `unpack` makes an equal data set of it."""
        rows = self.interactions.to(torch.device("cpu"))
        arrays = {name: getattr(rows, name).numpy() for name in ("user_ids", "item_ids", "ratings")}
        texts = {name: getattr(self, name) for name in ("name", "titles", "genres", "rating_scale", "notes")}
        texts |= {"simulated": self.simulated, "labels": self.labels}
        texts |= {"users": self.users.tolist(), "items": self.items.tolist()}
        return Packed(arrays, texts | {"num_train": len(self.train), "num_seen": len(self.seen)})

    @classmethod
    def unpack(cls, packed: Packed) -> "Data":
        """The data set that `pack` was called on.

        Raises:
            KeyError, ValueError: `packed` does not hold one.
        """
        texts: dict[str, Any] = dict(packed.texts)
        num_train, num_seen = texts.pop("num_train"), texts.pop("num_seen")
        texts |= {name: np.array(texts[name], dtype=object) for name in ("users", "items")}
        texts |= {name: tuple(texts[name]) for name in ("rating_scale", "notes", "labels")}
        columns = {name: torch.from_numpy(packed.arrays[name]) for name in ("user_ids", "item_ids", "ratings")}
        rows = Interactions(**columns, num_users=len(texts["users"]), num_items=len(texts["items"]))
        return cls.of_rows(rows, num_train, num_seen, **texts)

    @classmethod
    def of_rows(cls, rows: Interactions, num_train: int, num_seen: int, **metadata: Any) -> "Data":
        """The data set whose first `num_train` rows are for training, and those up to `num_seen` for validation."""
        return cls(
            train=rows[:num_train],
            validation=rows[num_train:num_seen] if num_seen > num_train else None,
            test=rows[num_seen:],
            **metadata,
        )


def load(
    dataset: str = "auto",
    data_dir: str | os.PathLike | None = None,
    ratings: str | None = None,
    train_ratings: str | None = None,
    test_ratings: str | None = None,
    feedback: str | None = None,
    labels: Sequence[str] = (),
    rating_scale: Sequence[float] = (0.5, 5.0),
    simulated_size: Sequence[int] = SIMULATED_SIZE,
    columns: Mapping[str, str] | None = None,
    split: str = "random",
    test_fraction: float = 0.05,
    val_fraction: float = 0.0,
    seed: int = 0,
    fold: tuple[int, int] | None = None,
    min_user_ratings: int = 1,
    min_item_ratings: int = 1,
) -> Data:
    """Read or simulate a data set, and split it into train, validation and test rows.

    Args:
        dataset: a data set of ratings by its name in sources/catalog.py; "auto" is MovieLens 100K if it is in
            `data_dir` or can be downloaded, otherwise the simulated set.
        data_dir: folder that holds the MovieLens folders; None: $MOVIELENS_DIR if set, otherwise data/.
        ratings: your own file of ratings.
        train_ratings, test_ratings: your own files of ratings, split already.
        feedback, labels: your own file of feedback, and the names of its columns of 0 and 1 to read.
        rating_scale: lowest and highest rating allowed in your own files.
        simulated_size: numbers of users, items and ratings of the simulated set.
        columns: names in the header of your own files: {role: name} for the roles user, item, rating and time.
        split, test_fraction, val_fraction, seed, fold, min_user_ratings, min_item_ratings: see sources/splits.py. A
            ready split uses val_fraction and seed alone. The simulated set is the same for every seed.

    After a random split, the row numbers are those of all users and items. After another one they are those with a
    training row, so that no row of an embedding table stays untrained; validation and test rows with another user or
    item are left out, and a note counts them.

    Raises:
        UserError: the data are not available, hold an invalid value, or have too few rows to split.
    """
    how = Split(split, test_fraction, val_fraction, seed, fold, min_user_ratings, min_item_ratings)
    if train_ratings is not None and test_ratings is not None:
        return _load_ready_split(Path(train_ratings), Path(test_ratings), rating_scale, columns, how)
    if ratings is not None:
        table = cache.read_ratings(Path(ratings), rating_scale, columns, how.needs_times)
        return _assemble(table, ratings, None, rating_scale, how)
    if feedback is not None:
        return _load_feedback(feedback, labels, columns, how)
    return _load_by_name(dataset, data_folder(data_dir), simulated_size, how)


def get_movielens_dataset(variant: str = "100K") -> Interactions:
    """All ratings of a MovieLens data set, in the order of its file; named as in Spotlight.

    Args:
        variant: "100K", "1M", "10M" or another name in sources/catalog.py without its "ml-".

    Raises:
        ValueError: there is no such variant.
        UserError: the data are neither on disk nor can they be downloaded.
    """
    name = f"ml-{variant.lower()}"
    if name not in MOVIELENS:
        variants = ", ".join(known.removeprefix("ml-").upper() for known in MOVIELENS)
        raise ValueError(f"there is no MovieLens variant {variant!r}: choose one of {variants}")
    _, table = _read_movielens(name, data_folder(None))
    columns = {column: torch.tensor(values) for column, values in table.columns.items()}
    return Interactions(**columns, num_users=len(table.users), num_items=len(table.items))


def random_train_test_split(
    interactions: Interactions,
    test_fraction: float = Split.test_fraction,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[Interactions, Interactions]:
    """The training rows and the test rows; named as in Spotlight. An integer splits as `main.py --seed` does.

    Raises:
        ValueError: test_fraction is not between 0 and 1.
        UserError: the rows are too few for two parts.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must be greater than 0 and less than 1, not {test_fraction}")
    train, _, test = split_randomly(len(interactions), test_fraction, 0.0, random_state)
    return interactions[torch.from_numpy(train)], interactions[torch.from_numpy(test)]


def data_folder(data_dir: str | os.PathLike | None) -> Path:
    """The folder that holds the MovieLens folders: the argument, else $MOVIELENS_DIR, else data/."""
    return Path(data_dir or os.environ.get("MOVIELENS_DIR") or DEFAULT_DATA_DIR)


def _load_feedback(path: str, labels: Sequence[str], columns: Mapping[str, str] | None, split: Split) -> Data:
    frame, notes = readers.read_feedback(Path(path), labels, names=columns, with_times=split.needs_times)
    table = cache.number_rows(frame, list(labels), notes, split.needs_times)
    return _assemble(table, path, None, (0.0, 1.0), split, labels=tuple(labels))


def _load_by_name(name: str, folder: Path, simulated_size: Sequence[int], split: Split) -> Data:
    """Load a data set by name; "auto" falls back to the simulated set if MovieLens 100K cannot be reached."""
    if name == "simulated":
        return _load_simulated(simulated_size, folder, (), split)
    if name != "auto":
        return _load_movielens(name, folder, split)
    try:
        return _load_movielens("ml-100k", folder, split)
    except download.Unreachable as reason:
        note = f"MovieLens 100K is not in {folder} and could not be downloaded ({reason.cause})"
        return _load_simulated(simulated_size, folder, (note,), split)


def _read_movielens(name: str, folder: Path, with_times: bool = False) -> tuple[Source, Table]:
    source = download.fetch(name, folder)
    return source, cache.read_ratings(source.ratings_file, source.scale, with_times=with_times)


def _load_movielens(name: str, folder: Path, split: Split) -> Data:
    source, table = _read_movielens(name, folder, split.needs_times)
    published = source.num_ratings
    if published and len(table) != published:
        found = f"{source.ratings_file} holds {len(table):,} ratings, not the {published:,} of {name} as published"
        table.notes += (f"{found}: results cannot be compared with published ones",)
    catalog = movies.read_movies(source.movies_file)
    table.notes += movies.missing_movies(source.movies_file, table.items, catalog)
    return _assemble(table, name, catalog, source.scale, split)


def _load_simulated(size: Sequence[int], folder: Path, notes: tuple[str, ...], split: Split) -> Data:
    if split.needs_times:
        reason = "".join(f"{note}, and " for note in notes)
        raise UserError(f"{reason}the simulated set has no timestamps for --split {split.kind}: choose --split random")
    table, titles, genres = cache.simulate(size, folder)
    table.notes = notes
    catalog = pd.DataFrame({"title": titles, "genres": genres}, index=table.items)
    return _assemble(table, "simulated", catalog, (1.0, 5.0), split, simulated=True)


def _assemble(
    table: Table, name: str, catalog: pd.DataFrame | None, rating_scale: Sequence[float], split: Split, **metadata
) -> Data:
    """Filter and split a table, and add titles and genres from a movie catalog, which may be None."""
    if split.is_filtered:
        table = keep_frequent_rows(table, name, split)
    require_enough(table, name)
    parts = split.draw(table.columns["user_ids"], table.columns.pop("times", None))
    if split.needs_times:
        parts, notes = require_known(parts, (table.columns["user_ids"], table.columns["item_ids"]))
        table = cache.renumber(table, parts[0])
        table.notes += notes
        require_enough(table, f"the training part of {name}")
    titles, genres = movies.describe(table.items, catalog)
    return _make_data(
        table, parts, name=name, titles=titles, genres=genres, rating_scale=tuple(rating_scale), **metadata
    )


def _make_data(table: Table, parts: tuple[np.ndarray, ...], **metadata) -> Data:
    """Make the data set whose (train, validation, test) rows are `parts`, adjacent in memory.

    Removes each column from `table.columns` once it is copied, to save memory.
    """
    columns = {name: torch.from_numpy(_gather(table.columns.pop(name), parts)) for name in list(table.columns)}
    rows = Interactions(**columns, num_users=len(table.users), num_items=len(table.items))
    num_train, num_seen = len(parts[0]), len(parts[0]) + len(parts[1])
    metadata |= {"users": table.users, "items": table.items, "notes": table.notes}
    return Data.of_rows(rows, num_train, num_seen, **metadata)


def _gather(column: np.ndarray, parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """Select the given rows, part after part, in chunks because NumPy converts indices to int64."""
    found = np.empty((sum(map(len, parts)), *column.shape[1:]), column.dtype)
    place = 0
    for part in parts:
        for start in range(0, len(part), CHUNK_ROWS):
            rows = part[start : start + CHUNK_ROWS]
            found[place : place + len(rows)] = column[rows]
            place += len(rows)
    return found


def _load_ready_split(
    train_file: Path, test_file: Path, rating_scale, columns: Mapping[str, str] | None, split: Split
) -> Data:
    """Load two files. Row numbers come from the train file; test rows with an unknown user or item are left out."""
    train = cache.read_ratings(train_file, rating_scale, columns)
    test = cache.read_ratings(test_file, rating_scale, columns)
    require_enough(train, str(train_file))
    kept, notes = match(test, train, test_file, train_file)
    num_train = len(train)
    parts = np.arange(num_train), kept[:0]
    if split.val_fraction:
        parts = split_randomly(num_train, 0.0, split.val_fraction, split.seed)[:2]
    titles, genres = movies.describe(train.items, None)
    values = {name: np.concatenate([train.columns.pop(name), test.columns.pop(name)]) for name in list(train.columns)}
    return _make_data(
        Table(train.users, train.items, values, (*train.notes, *test.notes, *notes)),
        (*parts, num_train + kept),
        name=f"{train_file} / {test_file}",
        titles=titles,
        genres=genres,
        rating_scale=tuple(rating_scale),
    )
