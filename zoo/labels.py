"""Rows with labels of 0 and 1, from ratings or from a feedback file, and negatives for them.

A rating gives two labels: the user viewed the item (view), and, if the rating is high, liked it (like). This is a
proxy: an item that a user never rated may have been viewed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from config.errors import UserError
from dataset import Data, Interactions
from training.negatives import CHUNK_ROWS, sample_unseen


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """R rows: user_ids (R,) and item_ids (R,) int64, labels (R, T) float32 of 0 and 1, one column per task."""

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
    """Labels rows and draws negatives for them.

    Args:
        data: ratings, from which view and like are derived; or feedback, whose labels are in the file.
        names: the tasks; for ratings "view", "like" or both.
        like_from: the lowest rating that counts as a like.
        negatives: k, items drawn per positive row.
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
        """(R,) bool: True for every rating (a rated item was viewed), and for feedback with at least one label of 1."""
        return rows.labels.any(dim=1) if self.is_feedback else torch.ones_like(rows.user_ids, dtype=torch.bool)

    def draw_negatives(self, rows: LabelledRows, seen: Interactions, generator: torch.Generator) -> LabelledRows:
        """Draw k rows per positive row: the same user, an item that they do not have in `seen`, all labels 0.

        Negatives have the users of the positives, so that a user's activity carries no information about a label. Users
        who have every item in `seen` get no negatives.
        """
        users = rows.user_ids[self.is_positive(rows)]
        users = users[self._has_unseen(seen)[users]]
        items = sample_unseen(seen, users, self.negatives, generator).flatten()
        users = users.repeat_interleave(self.negatives)
        return LabelledRows(users, items, rows.labels.new_zeros(len(users), len(self.names)))

    def count_negatives(self, rows: LabelledRows, seen: Interactions) -> int:
        """The number of rows that `draw_negatives` returns."""
        users = rows.user_ids[self.is_positive(rows)]
        return self.negatives * int(self._has_unseen(seen)[users].sum())

    def count_epoch(self, train: Interactions) -> tuple[int, list[int]]:
        """The rows of an epoch with their negatives, and how many have each label; in blocks, to save memory."""
        num_rows, ones = len(train), torch.zeros(len(self.names), dtype=torch.int64)
        for start in range(0, len(train), CHUNK_ROWS):
            rows = self.label(train[start : start + CHUNK_ROWS])
            num_rows += self.count_negatives(rows, train)
            ones += rows.labels.count_nonzero(dim=0).cpu()
        return num_rows, ones.tolist()

    def require_learnable(self, train: Interactions) -> None:
        """Raises UserError where a label is the same in all rows of an epoch."""
        num_rows, ones = self.count_epoch(train)
        self.require_both_classes("the training part", "it cannot be learned", ones, num_rows)

    def require_both_classes(self, part: str, purpose: str, ones: Sequence[int], num_rows: int) -> None:
        """Check that every label is 1 in some rows of a part, and 0 in others.

        Args:
            part: such as "the test split"; purpose: what is not possible otherwise, both for the message.
            ones: how many rows have each label.

        Raises:
            UserError: naming the first label with one value only.
        """
        flags = "--labels or --seed" if self.is_feedback else "--labels, --like_from or --seed"
        for name, count in zip(self.names, ones, strict=True):
            if not 0 < count < num_rows:
                advice = "add --negatives 4, which draws random items with labels of 0" if count else "give more rows"
                raise UserError(
                    f"the label {name} is {int(count > 0)} in all {num_rows} rows of {part}, so {purpose}: {advice}, "
                    f"or change {flags}"
                )

    def _has_unseen(self, seen: Interactions) -> Tensor:
        """(num_users,) bool: True for users who do not have every item in `seen`."""
        return seen.offsets.diff() < seen.num_items


def note_positives(data: Data) -> Data:
    """The feedback with a note where every row has a label of 1."""
    if not data.interactions.ratings.any(dim=1).all():
        return data
    note = (
        f"every row of {data.name} has a label of 1: nothing tells what users leave, and a network may do no better "
        "than a constant; --negatives 4 draws random items with labels of 0"
    )
    return replace(data, notes=(*data.notes, note))
