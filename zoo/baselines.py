"""Baselines: predictions from counts of the training rows, which every network has to beat.

    constant           the same probability for every pair
    popularity         how often an item is rated; for feedback, how often a row of the item has any label
    item mean          the mean of each label over the rows of an item
    user mean          the mean of each label over the rows of a user
    user + item mean   item mean, and how far the rows of a user lie above or below it

In a chain, the rows of a later label are those with the label before it. Where negatives are drawn, "user + item mean"
has no user term for the first label: they have the users of the positives, so that users hardly differ in it. Labels
that form no chain are counted each on its own, over all rows.

They have the methods of a network and are evaluated by the same code.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dataset import Interactions
from losses import chain_logits
from zoo.labels import LabelledRows, Labeller

SHRINK = 10.0  # pseudo-counts: rows with the average label that are added to those of every item and user
TINY = 1e-30  # keeps 0 / 0 out
LOWEST = 1e-4  # probabilities are clipped to [LOWEST, 1 - LOWEST]


class Baseline(nn.Module):
    """P(label t | label t - 1) = base_t + user_t[u] + item_t[i], clipped to [LOWEST, 1 - LOWEST].

    Args:
        names: the tasks.
        chain: "joint", "conditional" or "none": the meaning of `forward`'s logits, see `zoo.task.LabelTask`.
        terms: for each task base (), users (num_users,) and items (num_items,).
    """

    def __init__(self, names: tuple[str, ...], chain: str, terms: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        super().__init__()
        self.tasks, self.chain = names, chain
        for name, values in zip(("bases", "users", "items"), zip(*terms, strict=True), strict=True):
            self.register_buffer(name, torch.stack(values))

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        """One logit per task for each pair: (B,), (B,) -> {task: (B,)}."""
        logits = self.conditional_logits(user_ids, item_ids)
        return chain_logits(logits) if self.chain == "joint" else logits

    def conditional_logits(self, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        """Logits of P(task | the task before it): (B,), (B,) -> {task: (B,)}."""
        probabilities = self.bases.unsqueeze(1) + self.users[:, user_ids] + self.items[:, item_ids]  # (T, B)
        return dict(zip(self.tasks, probabilities.clamp(LOWEST, 1 - LOWEST).logit().unbind(), strict=True))


class _Means(NamedTuple):
    """The mean of a label, and the deviations from it, shrunk; float32.

    base: () the mean over all rows.
    items: (num_items,) deviations of the items.
    users: (num_users,) deviations of the users.
    users_given_items: (num_users,) mean deviations of a user's rows from base + items.
    """

    base: Tensor
    items: Tensor
    users: Tensor
    users_given_items: Tensor


def make_baselines(labeller: Labeller, train: Interactions, chain: str) -> dict[str, Baseline]:
    """The five baselines, from the training rows alone. On the CPU, since not every device has float64."""
    train = train.to(torch.device("cpu"))
    rows = labeller.label(train)
    chances = _negative_chances(labeller, rows, train)
    any_label = _means(rows, labeller.is_positive(rows), train, chances)
    terms: dict[str, list] = {}
    for task in range(len(labeller.names)):
        is_later = task > 0 and chain != "none"
        counted = rows[rows.labels[:, task - 1] == 1] if is_later else rows
        means = _means(counted, counted.labels[:, task], train, torch.zeros_like(chances) if is_later else chances)
        base, items, users, users_given_items = means
        no_items, no_users = torch.zeros_like(items), torch.zeros_like(users)
        if chain == "none":
            popular = any_label.items * (base / any_label.base.clamp(min=TINY))  # P(any label) P(label | any label)
        else:
            popular = no_items if is_later else items
        has_users = is_later or chain == "none" or not labeller.negatives
        for name, of_users, of_items in (
            ("constant", no_users, no_items),
            ("popularity", no_users, popular),
            ("item mean", no_users, items),
            ("user mean", users, no_items),
            ("user + item mean", users_given_items if has_users else no_users, items),
        ):
            terms.setdefault(name, []).append((base, of_users, of_items))
    return {name: Baseline(labeller.names, chain, values) for name, values in terms.items()}


def _means(rows: LabelledRows, labels: Tensor, train: Interactions, chances: Tensor) -> _Means:
    """The means of a label over some rows and the negatives that an epoch is expected to draw.

    Args:
        rows: the R rows to count.
        labels: (R,) 0 or 1.
        train: says which items a user does not have, and gives the numbers of users and items.
        chances: (num_users,) expected draws of each of these items per epoch, counted as rows with label 0.
    """
    labels = labels.double()
    item_counts = torch.bincount(rows.item_ids, minlength=train.num_items).double()
    item_counts += chances.sum() - torch.bincount(train.item_ids, chances[train.user_ids], train.num_items)
    user_counts = torch.bincount(rows.user_ids, minlength=train.num_users).double()
    user_counts += chances * (train.num_items - train.offsets.diff())
    item_sums = torch.bincount(rows.item_ids, labels, train.num_items)
    user_sums = torch.bincount(rows.user_ids, labels, train.num_users)
    base = item_sums.sum() / item_counts.sum().clamp(min=1)  # 0 without rows
    items = (item_sums - base * item_counts) / (item_counts + SHRINK)
    users = (user_sums - base * user_counts) / (user_counts + SHRINK)
    expected = base + items
    of_unseen = expected.sum() - torch.bincount(train.user_ids, expected[train.item_ids], train.num_users)
    residuals = torch.bincount(rows.user_ids, labels - base - items[rows.item_ids], train.num_users)
    users_given_items = (residuals - chances * of_unseen) / (user_counts + SHRINK)
    return _Means(base.float(), items.float(), users.float(), users_given_items.float())


def _negative_chances(labeller: Labeller, rows: LabelledRows, train: Interactions) -> Tensor:
    """How often each item that a user does not have is expected to be drawn for them in an epoch: (num_users,)."""
    positives = torch.bincount(rows.user_ids[labeller.is_positive(rows)], minlength=train.num_users).double()
    unseen = train.num_items - train.offsets.diff()
    return torch.where(unseen > 0, labeller.negatives * positives / unseen.clamp(min=1), 0.0)
