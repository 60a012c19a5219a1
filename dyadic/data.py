"""The data of the dyadic learner: observed dyads, their labels, and the split.

A *dyad* is a user and an offer (an item) that was displayed to the user or that the user acted on. An offer that was
displayed and ignored is a dyad with three zeros: an observation, not a missing value. `dyadic.from_ratings`,
`dyadic.from_table` and `dyadic.simulate` make such data.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from config.errors import UserError
from dataset import Interactions
from sources.ids import encode_pairs
from sources.packing import Packed

LABELS = ("click", "bookmark", "reply")
IM_WEIGHTS = np.array([1, 2, 3])  # of a click, a bookmark and a reply; repeated actions count once


@dataclass(frozen=True, eq=False)
class DyadicData:
    """D observed dyads, split into train and test.

    name: of the data set.
    users, items: raw ids, (num_users,) and (num_items,) strings; position = id.
    user_ids, item_ids: (D,) row numbers; no pair occurs twice.
    labels: (D, 3) of 0 and 1: click, bookmark, reply; they need not be nested.
    context: (D, n_ctx) numbers that describe user and offer, unscaled.
    train, test: index arrays of dyads, disjoint.
    features: (D, 15) neighborhood statistics, or more columns with bias columns; None before `features.add_features`.
    ratings: (D,) the ratings that the labels were made from; None for other data.
    displayed: (D,) bool, or None if unknown; a dyad that was not displayed was acted on. Used only for statistics.
    label_names: names of the three labels in the data.
    notes: sentences for the user.
    simulated: True for data made by a program; figures from them say nothing about any real platform.
    item_texts: a title and genres for each item; empty if unknown.
    """

    name: str
    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    labels: np.ndarray
    context: np.ndarray
    train: np.ndarray
    test: np.ndarray
    features: np.ndarray | None = None
    ratings: np.ndarray | None = None
    displayed: np.ndarray | None = None
    label_names: tuple[str, ...] = LABELS
    notes: tuple[str, ...] = ()
    simulated: bool = False
    item_texts: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self), 3) or not np.isin(self.labels, (0, 1)).all():
            raise ValueError(f"labels must be (D, 3) of 0 and 1 for D = {len(self)} dyads, not {self.labels.shape}")
        for name, column in [("item_ids", self.item_ids), ("context", self.context), ("ratings", self.ratings)]:
            if column is not None and len(column) != len(self):
                raise ValueError(f"{name} has {len(column)} rows for {len(self)} dyads")
        if not np.isfinite(self.context).all():
            raise UserError(f"a context column of {self.name} holds a value that is not finite; replace or drop it")
        if len(np.unique(self.pair_keys)) != len(self):
            raise UserError(f"{self.name} contains a (user, item) pair more than once; keep one row of each pair")
        if len(np.intersect1d(self.train, self.test)):
            raise ValueError("train and test must not share a dyad")

    def __len__(self) -> int:
        return len(self.user_ids)

    def __repr__(self) -> str:
        label = f"{self.name} (SIMULATED)" if self.simulated else self.name
        rates = ", ".join(f"{n} {r:.3f}" for n, r in zip(self.label_names, self.labels.mean(0), strict=True))
        return (
            f"<{label}: {self.num_users:,} users x {self.num_items:,} items, {len(self):,} dyads "
            f"({len(self.train):,} train, {len(self.test):,} test); {rates}>"
        )

    @property
    def num_users(self) -> int:
        return len(self.users)

    @property
    def num_items(self) -> int:
        return len(self.items)

    @property
    def titles(self) -> list[str]:
        """A title for each item; raw ids if titles are unknown."""
        return [title for title, _ in self.item_texts] or list(self.items)

    @property
    def genres(self) -> list[str]:
        return [genres for _, genres in self.item_texts] or [""] * self.num_items

    @property
    def fingerprint(self) -> str:
        """The sha256 of raw ids, labels, context and split: equal for equal data."""
        digest = hashlib.sha256("\n".join([*self.users, "", *self.items]).encode())
        for column in (self.user_ids, self.item_ids, self.labels, self.context, self.train, self.test):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    @cached_property
    def interactions(self) -> Interactions:
        """All dyads with their labels, (D, 3)."""
        columns = (torch.from_numpy(values.astype(np.int64)) for values in (self.user_ids, self.item_ids))
        return Interactions(*columns, torch.from_numpy(self.labels).float(), self.num_users, self.num_items)

    @property
    def training_rows(self) -> Interactions:
        return self.interactions[torch.from_numpy(self.train)]

    @property
    def feedback_names(self) -> tuple[str, ...]:
        """What the columns of `Interactions.ratings` are."""
        return self.label_names

    @property
    def rating_scale(self) -> tuple[float, float]:
        """Of the labels."""
        return 0.0, 1.0

    def pack(self) -> Packed:
        """Everything, as arrays and texts; `unpack` makes an equal data set of it."""
        optional = ("features", "ratings", "displayed")
        names = ("user_ids", "item_ids", "labels", "context", "train", "test", *optional)
        arrays = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        texts = {name: getattr(self, name) for name in ("name", "label_names", "notes", "simulated", "item_texts")}
        return Packed(arrays, texts | {"users": self.users.tolist(), "items": self.items.tolist()})

    @classmethod
    def unpack(cls, packed: Packed) -> "DyadicData":
        """The data set that `pack` was called on; errors as in `Data.unpack`."""
        texts = dict(packed.texts)
        ids = {name: np.array(texts.pop(name), dtype=object) for name in ("users", "items")}
        texts |= {name: tuple(texts[name]) for name in ("label_names", "notes")}
        texts["item_texts"] = tuple(map(tuple, texts["item_texts"]))
        return cls(**ids, **texts, **packed.arrays)

    @property
    def pair_keys(self) -> np.ndarray:
        """(D,) int64, one number per (user, item) pair; see `encode_pairs`."""
        return encode_pairs(self.user_ids, self.item_ids, self.num_items)

    @property
    def task_labels(self) -> np.ndarray:
        """(D, 4) the label of each of the four tasks; the embedding task uses the click."""
        return self.labels[:, [0, 1, 2, 0]]

    @property
    def im(self) -> np.ndarray:
        """(D,) entries of the paper's interaction matrix: click + 2 bookmark + 3 reply, in 0..6."""
        return self.labels.astype(np.int64) @ IM_WEIGHTS
