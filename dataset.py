"""From files to tensors: read ratings or feedback, map ids, split, and sample negatives.

Two kinds of names for users and items are kept apart. *Raw ids* are what files, flags and reports say; they are strings
of any kind. *Ids* (`user_ids`, `item_ids`) are row numbers from 0, without gaps, and are all that a model ever sees.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import download
import readers
from errors import UserError
from simulated import simulate

DEFAULT_DATA_DIR = Path("data")
SIMULATED_SIZE = (943, 1682, 100_000)  # users, items and ratings of MovieLens 100K


@dataclass(frozen=True, eq=False)
class Interactions:
    """R ratings as tensors: who rated what, and how.

    user_ids: (R,) int64 in [0, num_users).
    item_ids: (R,) int64 in [0, num_items).
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
            if len(ids) and not 0 <= ids.min() <= ids.max() < size:
                raise ValueError(f"{name}_ids must lie in [0, {size}), not in [{ids.min()}, {ids.max()}]")

    def __len__(self) -> int:
        return len(self.ratings)

    def __repr__(self) -> str:
        return f"<Interactions: {self.num_users:,} users x {self.num_items:,} items, {len(self):,} ratings>"

    def __getitem__(self, rows) -> "Interactions":
        """The given rows (a slice, an index or a mask) over the same users and items."""
        return Interactions(
            self.user_ids[rows], self.item_ids[rows], self.ratings[rows], self.num_users, self.num_items
        )

    def __add__(self, other: "Interactions") -> "Interactions":
        """The rows of both; the two must be over the same users and items."""
        pairs = [(self.user_ids, other.user_ids), (self.item_ids, other.item_ids), (self.ratings, other.ratings)]
        return Interactions(*(torch.cat(pair) for pair in pairs), self.num_users, self.num_items)

    def to(self, device: torch.device) -> "Interactions":
        tensors = (t.to(device) for t in (self.user_ids, self.item_ids, self.ratings))
        return Interactions(*tensors, self.num_users, self.num_items)

    @cached_property
    def pair_keys(self) -> Tensor:
        """(R,) one number for each (user, item) pair, ascending: user * num_items + item."""
        return (self.user_ids * self.num_items + self.item_ids).sort().values

    @cached_property
    def items_by_user(self) -> Tensor:
        """(R,) all item ids, those of user 0 first, ascending within a user; `offsets` says where a user begins."""
        return self.pair_keys % self.num_items

    @cached_property
    def offsets(self) -> Tensor:
        """(num_users + 1,) user u has the rows offsets[u] to offsets[u + 1] of `items_by_user`."""
        counts = torch.bincount(self.user_ids, minlength=self.num_users)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


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
                for tensor in (part.user_ids, part.item_ids, part.ratings):
                    digest.update(tensor.cpu().numpy().tobytes())
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
        table, notes = readers.read_ratings(Path(ratings), rating_scale)
        return _assemble(ratings, table, None, rating_scale, notes, **fractions)
    if feedback is not None:
        table, notes = readers.read_feedback(Path(feedback), labels)
        return _assemble(feedback, table, None, (0.0, 1.0), notes, tuple(labels), **fractions)
    if dataset == "simulated":
        return _load_simulated(simulated_size, (), fractions)
    folder = data_folder(data_dir)
    if dataset != "auto":
        return _load_movielens(dataset, folder, fractions)
    try:
        return _load_movielens("ml-100k", folder, fractions)
    except download.Unreachable as reason:
        note = f"MovieLens 100K is not in {folder} and could not be downloaded ({reason.cause})"
        return _load_simulated(simulated_size, (note,), fractions)


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
    order = np.random.RandomState(seed).permutation(num_rows)
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


def sample_uniform(seen: Interactions, user_ids: Tensor, num_negatives: int, generator: torch.Generator) -> Tensor:
    """Draw items at random, watched ones too, as eq. (3) has it: (B,) users -> (B, num_negatives) item ids."""
    shape = (len(user_ids), num_negatives)
    return torch.randint(seen.num_items, shape, generator=generator).to(user_ids.device)


def sample_unseen(seen: Interactions, user_ids: Tensor, num_negatives: int, generator: torch.Generator) -> Tensor:
    """Draw items that the user does not have in `seen`, each with the same chance, without rejection.

    The r-th unseen item of a user is r + k, where k counts the seen items (in ascending order s_0, s_1, ...) with
    s_k - k <= r: those that lie before it. A user who has seen everything gets items from all.

    Args and result as in `sample_uniform`.
    """
    users = user_ids.unsqueeze(1)
    num_seen = seen.offsets[users + 1] - seen.offsets[users]
    num_unseen = torch.where(num_seen < seen.num_items, seen.num_items - num_seen, seen.num_items)
    chance = torch.rand((len(user_ids), num_negatives), generator=generator, dtype=torch.double).to(user_ids.device)
    nth = (chance * num_unseen).long().clamp(max=num_unseen - 1)
    seen_before = torch.searchsorted(_shifted_keys(seen), users * seen.num_items + nth, right=True)
    return torch.where(num_seen < seen.num_items, nth + seen_before - seen.offsets[users], nth)


def _shifted_keys(seen: Interactions) -> Tensor:
    """(R,) user * num_items + s_k - k for the k-th seen item s_k of every user: ascending."""
    users = seen.pair_keys // seen.num_items
    place = torch.arange(len(seen), device=users.device) - seen.offsets[users]
    return seen.pair_keys - place


def _load_movielens(name: str, folder: Path, fractions: dict) -> Data:
    source = download.fetch(name, folder)
    table, notes = readers.read_ratings(source.ratings_file, source.scale)
    if source.rows and len(table) != source.rows:
        found = f"{source.ratings_file} holds {len(table):,} ratings, not the {source.rows:,} of {name} as published"
        notes = (*notes, f"{found}: figures cannot be compared with others")
    return _assemble(name, table, readers.read_movies(source.movies_file), source.scale, notes, **fractions)


def _load_simulated(size: Sequence[int], notes: tuple[str, ...], fractions: dict) -> Data:
    world = simulate(*size)
    return _finish(
        Interactions(*map(torch.from_numpy, (world.user_ids, world.item_ids, world.ratings)), *size[:2]),
        name="simulated",
        users=np.array([str(u + 1) for u in range(size[0])]),
        items=np.array([str(i + 1) for i in range(size[1])]),
        titles=world.titles,
        genres=world.genres,
        rating_scale=(1.0, 5.0),
        notes=notes,
        simulated=True,
        **fractions,
    )


def _assemble(name, table, catalogue, rating_scale, notes, labels=(), **fractions) -> Data:
    users, user_ids = readers.map_ids(table["user"])
    items, item_ids = readers.map_ids(table["item"])
    titles, genres = readers.describe(items, catalogue)
    return _finish(
        _tensors(user_ids, item_ids, table[list(labels) or "rating"], len(users), len(items)),
        name=name,
        users=users,
        items=items,
        titles=titles,
        genres=genres,
        rating_scale=tuple(rating_scale),
        notes=notes,
        labels=labels,
        **fractions,
    )


def _tensors(user_ids, item_ids, ratings, num_users: int, num_items: int) -> Interactions:
    columns = (torch.as_tensor(np.array(c, dtype=np.int64)) for c in (user_ids, item_ids))
    return Interactions(*columns, torch.as_tensor(np.array(ratings, dtype=np.float32, order="C")), num_users, num_items)


def _finish(interactions: Interactions, test_fraction: float, val_fraction: float, seed: int, **about) -> Data:
    _require_enough(interactions, about["name"])
    train, validation, test = split_rows(len(interactions), test_fraction, val_fraction, seed)
    return Data(
        train=interactions[train],
        validation=interactions[validation] if len(validation) else None,
        test=interactions[test],
        **about,
    )


def _require_enough(interactions: Interactions, name: str) -> None:
    for what, count in [("user", interactions.num_users), ("item", interactions.num_items)]:
        if count < 2:
            raise UserError(f"{name} holds {count} {what}; learning what sets {what}s apart takes at least 2")


def _load_ready_split(train_file: Path, test_file: Path, rating_scale, val_fraction: float, seed: int) -> Data:
    """Ids are mapped by the train file alone; what only the test file knows is counted and left out."""
    train_table, train_notes = readers.read_ratings(train_file, rating_scale)
    test_table, test_notes = readers.read_ratings(test_file, rating_scale)
    users, user_ids = readers.map_ids(train_table["user"])
    items, item_ids = readers.map_ids(train_table["item"])
    train = _tensors(user_ids, item_ids, train_table["rating"], len(users), len(items))
    _require_enough(train, str(train_file))

    test_users = readers.look_up(test_table["user"], users)
    test_items = readers.look_up(test_table["item"], items)
    known = (test_users >= 0) & (test_items >= 0)
    test = _tensors(test_users[known], test_items[known], test_table["rating"][known], len(users), len(items))
    leaked = torch.isin(test.user_ids * len(items) + test.item_ids, train.pair_keys)
    notes = [*train_notes, *test_notes]
    if not known.all():
        strange_users = test_table["user"][test_users < 0].nunique()
        strange_items = test_table["item"][test_items < 0].nunique()
        notes.append(
            f"{(~known).sum():,} rows of {test_file} were left out: {strange_users:,} users and {strange_items:,} "
            f"items are not in {train_file}"
        )
    if leaked.any():
        notes.append(f"{leaked.sum():,} rows of {test_file} were left out: the same pairs are in {train_file}")
    if len(test) == leaked.sum():
        raise UserError(
            f"no row of {test_file} is left to test on: either its user or its item is missing from {train_file}, "
            "or the very pair is in it"
        )

    titles, genres = readers.describe(items, None)
    train_rows, validation_rows, _ = split_rows(len(train), 0.0, val_fraction, seed)
    if val_fraction == 0:
        train_rows = slice(None)
    return Data(
        name=f"{train_file} / {test_file}",
        users=users,
        items=items,
        titles=titles,
        genres=genres,
        rating_scale=tuple(rating_scale),
        train=train[train_rows],
        validation=train[validation_rows] if val_fraction else None,
        test=test[~leaked],
        notes=tuple(notes),
    )
