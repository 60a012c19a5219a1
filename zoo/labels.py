"""Rows with labels of 0 and 1, out of ratings or out of a feedback file, and the negatives beside them.

A rating says two things: that the user saw the item (view), and, if it is high, that they liked it (like). It is a
proxy: rating is not watching, and what nobody rated may well have been seen.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dataset import Data, Interactions
from training.negatives import sample_unseen


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """R rows: user_ids (R,), item_ids (R,) int64 and labels (R, T) float32 of 0 and 1, one column a task."""

    user_ids: Tensor
    item_ids: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.user_ids)

    def __getitem__(self, rows) -> "LabelledRows":
        return LabelledRows(self.user_ids[rows], self.item_ids[rows], self.labels[rows])

    def __add__(self, other: "LabelledRows") -> "LabelledRows":
        mine, theirs = (self.user_ids, self.item_ids, self.labels), (other.user_ids, other.item_ids, other.labels)
        return LabelledRows(*(torch.cat(pair) for pair in zip(mine, theirs, strict=True)))


class Labeller:
    """Gives rows their labels and draws negatives for them.

    Args:
        data: ratings, which then mean view and like; or feedback, whose labels are in the file.
        names: the tasks; of ratings "view", "like" or both.
        like_from: the lowest rating that is a like.
        negatives: k, items drawn for each positive row: for each rating, or each row of feedback with a label of 1.
    """

    def __init__(self, data: Data, names: tuple[str, ...], like_from: float, negatives: int) -> None:
        self.is_feedback = bool(data.labels)
        self.names = names
        self.like_from = like_from
        self.negatives = negatives

    def label(self, rows: Interactions) -> LabelledRows:
        user_ids, item_ids = rows.user_ids.long(), rows.item_ids.long()
        if self.is_feedback:
            return LabelledRows(user_ids, item_ids, rows.ratings)
        columns = {"view": torch.ones_like(rows.ratings), "like": (rows.ratings >= self.like_from).float()}
        return LabelledRows(user_ids, item_ids, torch.stack([columns[name] for name in self.names], dim=1))

    def is_positive(self, rows: LabelledRows) -> Tensor:
        """(R,) bool: the rows that negatives are drawn for. What was rated was viewed, whichever label is asked for."""
        return rows.labels.any(dim=1) if self.is_feedback else torch.ones_like(rows.user_ids, dtype=torch.bool)

    def draw_negatives(self, rows: LabelledRows, seen: Interactions, generator: torch.Generator) -> LabelledRows:
        """k rows for each positive one: the same user, an item that they have not in `seen`, all labels 0.

        The users are those of the positives, so that a user's activity tells nothing. A user who has seen every item
        gets none.
        """
        users = rows.user_ids[self.is_positive(rows)]
        users = users[self._has_unseen(seen)[users]]
        items = sample_unseen(seen, users, self.negatives, generator).flatten()
        users = users.repeat_interleave(self.negatives)
        return LabelledRows(users, items, rows.labels.new_zeros(len(users), len(self.names)))

    def count_negatives(self, rows: LabelledRows, seen: Interactions) -> int:
        """How many rows `draw_negatives` gives."""
        users = rows.user_ids[self.is_positive(rows)]
        return self.negatives * int(self._has_unseen(seen)[users].sum())

    def _has_unseen(self, seen: Interactions) -> Tensor:
        return seen.offsets.diff() < seen.num_items
