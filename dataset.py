"""From files to tensors: read ratings or feedback, number their ids, and split.

Two kinds of names for users and items are kept apart. *Raw ids* are what files, flags and reports say; they are strings
of any kind. *Ids* (`user_ids`, `item_ids`) are row numbers from 0, without gaps, and are all that a model ever sees.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from config.errors import UserError
from sources import cache, download, readers
from sources.cache import Table

DEFAULT_DATA_DIR = Path("data")
ROWS_AT_A_TIME = 2**20  # copied or hashed at a time: bounds memory for any number of rows
ROWS_SORTED = 2**21  # likewise, by user and item
SIMULATED_SIZE = (943, 1682, 100_000)  # users, items and ratings of MovieLens 100K


@dataclass(frozen=True, eq=False)
class Interactions:
    """R ratings as tensors: who rated what, and how.

    user_ids: (R,) in [0, num_users); `load` makes them int32, half of what int64 takes: widen before multiplying.
    item_ids: (R,) in [0, num_items), likewise.
    ratings: (R,) float32; from a feedback file (R, T), one column of 0 and 1 for each label.
    """

    user_ids: Tensor
    item_ids: Tensor
    ratings: Tensor
    num_users: int
    num_items: int

    def __post_init__(self) -> None:
        if not len(self.user_ids) == len(self.item_ids) == len(self.ratings):
            raise ValueError(
                f"user_ids, item_ids and ratings must be equally long, not {len(self.user_ids)}, "
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
        """The given rows (a slice, a mask, or numbers from 0 on) over the same users and items."""
        columns = (self.user_ids, self.item_ids, self.ratings)
        if isinstance(rows, Tensor) and rows.dtype in (torch.int32, torch.int64):  # several times as fast as brackets
            return Interactions(*(c.index_select(0, rows) for c in columns), self.num_users, self.num_items)
        return Interactions(*(column[rows] for column in columns), self.num_users, self.num_items)

    def __add__(self, other: "Interactions") -> "Interactions":
        """The rows of both; the two must be over the same users and items."""
        pairs = [(self.user_ids, other.user_ids), (self.item_ids, other.item_ids), (self.ratings, other.ratings)]
        return Interactions(*(_join(*pair) for pair in pairs), self.num_users, self.num_items)

    def to(self, device: torch.device) -> "Interactions":
        tensors = (t.to(device) for t in (self.user_ids, self.item_ids, self.ratings))
        return Interactions(*tensors, self.num_users, self.num_items)

    @property
    def pair_keys(self) -> Tensor:
        """(R,) int64, one number for each (user, item) pair, ascending: user * num_items + item."""
        return (self.user_ids.long() * self.num_items + self.item_ids).sort().values

    @cached_property
    def items_by_user(self) -> Tensor:
        """(R,) int32, all item ids, those of user 0 first, ascending within a user; `offsets` says where one begins."""
        found = torch.empty(len(self), dtype=torch.int32, device=self.item_ids.device)
        for low, high in self._blocks_of_users():
            chosen = slice(None) if high - low == self.num_users else (self.user_ids >= low) & (self.user_ids < high)
            keys = self[chosen].pair_keys
            found[self.offsets[low] : self.offsets[high]] = keys.remainder_(self.num_items)
        return found

    def _blocks_of_users(self) -> Iterator[tuple[int, int]]:
        """Ranges of users with about ROWS_SORTED rows each: sorting all rows at once takes five times their memory."""
        cuts = torch.arange(0, len(self), ROWS_SORTED, device=self.offsets.device)
        starts = torch.searchsorted(self.offsets, cuts, right=True).sub_(1).unique().tolist()
        return pairwise([0, *starts[1:], self.num_users])

    @cached_property
    def offsets(self) -> Tensor:
        """(num_users + 1,) int64: user u has the rows offsets[u] to offsets[u + 1] of `items_by_user`."""
        blocks = self.user_ids.split(ROWS_AT_A_TIME)  # each of them is made int64 to be counted
        counts = sum(torch.bincount(block, minlength=self.num_users) for block in blocks)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _join(one: Tensor, other: Tensor) -> Tensor:
    """One after the other; without a copy where they already lie so in memory, as the parts of `Data` do."""
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

    users, items: raw ids, (num_users,) and (num_items,) strings; position = id.
    titles, genres: one string an item; without a catalogue the raw id and "".
    rating_scale: lowest and highest rating that the data allow.
    validation: a part cut out of train, or None.
    notes: sentences about rows that were left out, for the user.
    simulated: made by the program; figures from it say nothing about MovieLens.
    labels: names of the T label columns where the data are feedback, in the order asked for; () for ratings.
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
        what = ", ".join(self.labels) or "ratings"
        return f"<{name}: {len(self.users):,} users x {len(self.items):,} items; {what}: {sizes}>"

    @cached_property
    def seen(self) -> Interactions:
        """What is known before the test: train and validation."""
        return self.train if self.validation is None else self.train + self.validation

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 over raw ids, labels, ratings and the split: equal for equal data, whatever file they came from."""
        digest = hashlib.sha256("\n".join([*self.users, "", *self.items]).encode())
        digest.update("".join(f"\n\n{label}" for label in self.labels).encode())
        for part in (self.train, self.validation, self.test):
            if part is not None:
                for tensor, dtype in ((part.user_ids, torch.int64), (part.item_ids, torch.int64), (part.ratings, None)):
                    for block in tensor.split(ROWS_AT_A_TIME):
                        digest.update(block.to(dtype).cpu().contiguous().numpy())
        return digest.hexdigest()

    def to(self, device: torch.device) -> "Data":
        validation = None if self.validation is None else self.validation.to(device)
        moved = {"train": self.train.to(device), "test": self.test.to(device), "validation": validation}
        return Data(**{name: getattr(self, name) for name in self.__dataclass_fields__} | moved)


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
    test_fraction: float = 0.05,
    val_fraction: float = 0.0,
    seed: int = 0,
) -> Data:
    """Read, or make, a data set and split it.

    Args:
        dataset: a name of `download.MOVIELENS`, "simulated", or "auto": MovieLens 100K where it lies in `data_dir` or
            can be downloaded, and else the simulated set.
        data_dir: folder of the MovieLens folders; None: $MOVIELENS_DIR, else data/.
        ratings: a file of one's own, split at random.
        train_ratings, test_ratings: two files of one's own, split already.
        feedback: a file of impressions of one's own, split at random.
        labels: names of its columns of 0 and 1 that are wanted.
        rating_scale: lowest and highest rating allowed in one's own files of ratings.
        simulated_size: users, items and ratings of the simulated set.
        test_fraction: share of the rows that is held out.
        val_fraction: share of the remaining rows that is cut out of train for validation.
        seed: of the split. The simulated set itself is always the same.

    Raises:
        UserError: the data cannot be had, hold a wrong value, or are too few to split.
    """
    fractions = {"test_fraction": test_fraction, "val_fraction": val_fraction, "seed": seed}
    if train_ratings is not None:
        return _load_ready_split(Path(train_ratings), Path(test_ratings), rating_scale, val_fraction, seed)
    if ratings is not None:
        return _assemble(cache.read_ratings(Path(ratings), rating_scale), ratings, None, rating_scale, **fractions)
    if feedback is not None:
        frame, notes = readers.read_feedback(Path(feedback), labels)
        table = cache.number_rows(frame, list(labels), notes)
        return _assemble(table, feedback, None, (0.0, 1.0), labels=tuple(labels), **fractions)
    folder = data_folder(data_dir)
    if dataset == "simulated":
        return _load_simulated(simulated_size, folder, (), fractions)
    if dataset != "auto":
        return _load_movielens(dataset, folder, fractions)
    try:
        return _load_movielens("ml-100k", folder, fractions)
    except download.Unreachable as reason:
        note = f"MovieLens 100K is not in {folder} and could not be downloaded ({reason.cause})"
        return _load_simulated(simulated_size, folder, (note,), fractions)


def data_folder(data_dir: str | os.PathLike | None) -> Path:
    """The folder of the MovieLens folders."""
    return Path(data_dir or os.environ.get("MOVIELENS_DIR") or DEFAULT_DATA_DIR)


def is_chain(data: Data) -> bool:
    """Whether no label is 1 in a row where a label before it is 0. Ratings are: what is liked was viewed."""
    return not data.labels or not _breaks(data.seen + data.test).any()


def require_chain(data: Data) -> None:
    """Hold feedback to a chain.

    Raises:
        UserError: a label is 1 in a row where the one before it is 0.
    """
    if is_chain(data):
        return
    rows = data.seen + data.test
    breaks = _breaks(rows)
    row, place = breaks.nonzero()[0].tolist()
    user, item = data.users[rows.user_ids[row]], data.items[rows.item_ids[row]]
    raise UserError(
        f"{data.name}: {data.labels[place + 1]} is 1 where {data.labels[place]} is 0 for user {user!r} and item "
        f"{item!r}, one of {breaks.any(1).sum():,} such rows; models that assume a chain {' > '.join(data.labels)} "
        "(ESMM, AITM, --chain conditional, --calibrator) need a label to be 0 where one before it is 0; fix the rows, "
        "give --labels in the order of the chain, or choose another model"
    )


def _breaks(rows: Interactions) -> Tensor:
    """(R, T - 1) where a label is 1 and the one before it 0: any broken chain rises between neighbours somewhere."""
    return rows.ratings[:, 1:] > rows.ratings[:, :-1]


def split_rows(num_rows: int, test_fraction: float, val_fraction: float, seed: int) -> tuple[np.ndarray, ...]:
    """Draw the rows of (train, validation, test), three index arrays that cover all rows once.

    The test rows are the first of `numpy.random.RandomState(seed).permutation(num_rows)`, the protocol that published
    comparisons on MovieLens 100K can be repeated with; the validation rows are the next ones.

    Raises:
        UserError: a part that is wanted would be empty.
    """
    order = np.arange(num_rows, dtype=np.int32)
    np.random.RandomState(seed).shuffle(order)  # as permutation does, in half its memory
    num_test = round(num_rows * test_fraction)
    num_val = round((num_rows - num_test) * val_fraction)
    test, validation, train = np.split(order, [num_test, num_test + num_val])
    for name, part, wanted in [
        ("train", train, True),
        ("validation", validation, val_fraction > 0),
        ("test", test, test_fraction > 0),
    ]:
        if wanted and len(part) == 0:
            raise UserError(
                f"{num_rows} ratings are too few for this split: the {name} part would be empty; "
                "give more ratings or other values of --test_fraction and --val_fraction"
            )
    return train, validation, test


def _load_movielens(name: str, folder: Path, fractions: dict) -> Data:
    source = download.fetch(name, folder)
    table = cache.read_ratings(source.ratings_file, source.scale)
    if source.rows and len(table) != source.rows:
        found = f"{source.ratings_file} holds {len(table):,} ratings, not the {source.rows:,} of {name} as published"
        table.notes += (f"{found}: figures cannot be compared with others",)
    return _assemble(table, name, readers.read_movies(source.movies_file), source.scale, **fractions)


def _load_simulated(size: Sequence[int], folder: Path, notes: tuple[str, ...], fractions: dict) -> Data:
    table, titles, genres = cache.simulate(size, folder)
    table.notes = notes
    about = {"titles": titles, "genres": genres, "rating_scale": (1.0, 5.0), "simulated": True}
    return _finish(table, name="simulated", **about, **fractions)


def _assemble(table: Table, name: str, catalogue, rating_scale: Sequence[float], **about) -> Data:
    titles, genres = readers.describe(table.items, catalogue)
    return _finish(table, name=name, titles=titles, genres=genres, rating_scale=tuple(rating_scale), **about)


def _finish(table: Table, test_fraction: float, val_fraction: float, seed: int, **about) -> Data:
    _require_enough(table, about["name"])
    rows = split_rows(len(table), test_fraction, val_fraction, seed)
    return _cut(table, rows, **about)


def _cut(table: Table, parts: tuple[np.ndarray, ...], **about) -> Data:
    """The rows of (train, validation, test), one after the other in memory. Empties `table.columns`."""
    columns = {name: torch.from_numpy(_gather(table.columns.pop(name), parts)) for name in list(table.columns)}
    rows = Interactions(**columns, num_users=len(table.users), num_items=len(table.items))
    num_train, num_seen = len(parts[0]), len(parts[0]) + len(parts[1])
    return Data(
        users=table.users,
        items=table.items,
        train=rows[:num_train],
        validation=rows[num_train:num_seen] if num_seen > num_train else None,
        test=rows[num_seen:],
        notes=table.notes,
        **about,
    )


def _gather(column: np.ndarray, parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """The given rows, part after part; a block at a time, since NumPy makes int64 of what it is indexed by."""
    found = np.empty((sum(map(len, parts)), *column.shape[1:]), column.dtype)
    place = 0
    for part in parts:
        for start in range(0, len(part), ROWS_AT_A_TIME):
            rows = part[start : start + ROWS_AT_A_TIME]
            found[place : place + len(rows)] = column[rows]
            place += len(rows)
    return found


def _require_enough(table: Table, name: str) -> None:
    for what, ids in [("user", table.users), ("item", table.items)]:
        if len(ids) < 2:
            raise UserError(f"{name} holds {len(ids)} {what}; learning what sets {what}s apart takes at least 2")


def _load_ready_split(train_file: Path, test_file: Path, rating_scale, val_fraction: float, seed: int) -> Data:
    """Ids are numbered by the train file alone; what only the test file knows is counted and left out."""
    train = cache.read_ratings(train_file, rating_scale)
    test = cache.read_ratings(test_file, rating_scale)
    _require_enough(train, str(train_file))
    user_of, item_of = _find(test.users, train.users), _find(test.items, train.items)
    test.columns["user_ids"] = user_of[test.columns["user_ids"]]
    test.columns["item_ids"] = item_of[test.columns["item_ids"]]
    known = (test.columns["user_ids"] >= 0) & (test.columns["item_ids"] >= 0)
    leaked = known & np.isin(_pair_keys(test, train), _pair_keys(train, train))
    notes = [*train.notes, *test.notes]
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
            f"no row of {test_file} is left to test on: either its user or its item is missing from {train_file}, "
            "or the very pair is in it"
        )
    num_train = len(train)
    parts = split_rows(num_train, 0.0, val_fraction, seed)[:2] if val_fraction else (np.arange(num_train), kept[:0])
    titles, genres = readers.describe(train.items, None)
    columns = {name: np.concatenate([train.columns.pop(name), test.columns.pop(name)]) for name in list(train.columns)}
    return _cut(
        Table(train.users, train.items, columns, tuple(notes)),
        (*parts, num_train + kept),
        name=f"{train_file} / {test_file}",
        titles=titles,
        genres=genres,
        rating_scale=tuple(rating_scale),
    )


def _find(raw_ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The numbers of raw ids among the known ones, (N,) int32; -1 for those that are not there."""
    numbers = {raw_id: number for number, raw_id in enumerate(known)}
    return np.array([numbers.get(raw_id, -1) for raw_id in raw_ids], dtype=np.int32)


def _pair_keys(rows: Table, of: Table) -> np.ndarray:
    """(R,) one number for each pair of a user and an item of `of`."""
    return rows.columns["user_ids"].astype(np.int64) * len(of.items) + rows.columns["item_ids"]
