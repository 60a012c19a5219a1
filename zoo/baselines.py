"""Baselines: predictions from counts of the training rows, which every network has to beat.

    constant           the same probability for every pair
    popularity         how often an item is rated; for feedback, how often a row of the item has the first label
    item mean          popularity, and the mean later labels of each item
    user + item mean   item mean, and the mean later labels of each user

They have the methods of a network and are evaluated by the same code.
"""

import torch
from torch import Tensor, nn

from dataset import Interactions
from losses import chain_logits
from zoo.labels import LabelledRows, Labeller

SHRINK = 10.0  # pseudo-counts: rows with the average label that are added to those of every item and user
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


def make_baselines(labeller: Labeller, train: Interactions, chain: str) -> dict[str, Baseline]:
    """The four baselines, from the training rows alone. On the CPU, since not every device has float64."""
    train = train.to(torch.device("cpu"))
    rows = labeller.label(train)
    expected = _expected_negatives(labeller, rows, train)
    terms: dict[str, list] = {name: [] for name in ("constant", "popularity", "item mean", "user + item mean")}
    for task in range(len(labeller.names)):
        is_later = task > 0 and chain != "none"
        counted = rows[rows.labels[:, task - 1] == 1] if is_later else rows
        base, users, items = _means(counted, task, train, None if is_later else expected)
        no_users, no_items = torch.zeros_like(users), torch.zeros_like(items)
        terms["constant"].append((base, no_users, no_items))
        terms["popularity"].append((base, no_users, no_items if is_later else items))
        terms["item mean"].append((base, no_users, items))
        terms["user + item mean"].append((base, users if is_later else no_users, items))
    return {name: Baseline(labeller.names, chain, values) for name, values in terms.items()}


def _means(
    rows: LabelledRows, task: int, train: Interactions, negatives: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of a label, and the deviations from it: of each user given the item, and of each item; shrunk.

    Args:
        rows: the rows to count.
        task: column of the label.
        train: gives the numbers of users and items.
        negatives: (num_items,) expected negatives per item, counted as rows with label 0; None adds none.

    Returns:
        base (), users (num_users,) and items (num_items,), float32.
    """
    labels = rows.labels[:, task].double()
    item_counts = torch.bincount(rows.item_ids, minlength=train.num_items).double()
    if negatives is not None:
        item_counts += negatives
    item_sums = torch.bincount(rows.item_ids, labels, train.num_items)
    base = item_sums.sum() / item_counts.sum().clamp(min=1)  # 0 without rows
    items = (item_sums - base * item_counts) / (item_counts + SHRINK)
    residuals = torch.bincount(rows.user_ids, labels - base - items[rows.item_ids], train.num_users)
    users = residuals / (torch.bincount(rows.user_ids, minlength=train.num_users) + SHRINK)
    return base.float(), users.float(), items.float()


def _expected_negatives(labeller: Labeller, rows: LabelledRows, train: Interactions) -> Tensor:
    """The expected number of times that each item is drawn as a negative in an epoch: (num_items,)."""
    positives = torch.bincount(rows.user_ids[labeller.is_positive(rows)], minlength=train.num_users).double()
    unseen = train.num_items - train.offsets.diff()
    each = torch.where(unseen > 0, labeller.negatives * positives / unseen.clamp(min=1), 0.0)
    return each.sum() - torch.bincount(train.item_ids, each[train.user_ids], train.num_items)
