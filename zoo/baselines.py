"""What any network has to beat: predictions from counts of the training rows.

    constant           every pair alike
    popularity         how often an item is rated; of feedback, how often what was shown of it got the first label
    item mean          popularity, and how the item's viewers liked it
    user + item mean   the same, and how much the user likes of what they view

They answer as a network does, and are measured by the same code.
"""

import torch
from torch import Tensor, nn

from dataset import Interactions
from losses import chain_logits
from zoo.labels import LabelledRows, Labeller

SHRINK = 10.0  # rows of average behaviour that are added to every item's and user's own
LOWEST = 1e-4  # no probability below it, and none above 1 - LOWEST


class Baseline(nn.Module):
    """P(label t | label t - 1) = base_t + user_t[u] + item_t[i], held between 0 and 1.

    Args:
        names: the tasks.
        chain: "joint", "conditional" or "none": what the later logits of `forward` mean.
        parts: for each task base, users and items: a number, (num_users,) and (num_items,).
    """

    def __init__(self, names: tuple[str, ...], chain: str, parts: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        super().__init__()
        self.tasks, self.chain = names, chain
        for name, values in zip(("bases", "users", "items"), zip(*parts, strict=True), strict=True):
            self.register_buffer(name, torch.stack(values))

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        logits = self.conditional_logits(user_ids, item_ids)
        return chain_logits(logits) if self.chain == "joint" else logits

    def conditional_logits(self, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        chances = self.bases.unsqueeze(1) + self.users[:, user_ids] + self.items[:, item_ids]  # (T, B)
        return dict(zip(self.tasks, chances.clamp(LOWEST, 1 - LOWEST).logit().unbind(), strict=True))


def make_baselines(labeller: Labeller, train: Interactions, chain: str) -> dict[str, Baseline]:
    """The four baselines, from the training rows alone; on the processor, whose float64 not every device has."""
    train = train.to(torch.device("cpu"))
    rows = labeller.label(train)
    expected = _expected_negatives(labeller, rows, train)
    parts: dict[str, list] = {name: [] for name in ("constant", "popularity", "item mean", "user + item mean")}
    for task in range(len(labeller.names)):
        is_later = task > 0 and chain != "none"
        counted = rows[rows.labels[:, task - 1] == 1] if is_later else rows
        means = _means(counted, task, train, None if is_later else expected)
        base, users, items = means
        nobody, nothing = torch.zeros_like(users), torch.zeros_like(items)
        parts["constant"].append((base, nobody, nothing))
        parts["popularity"].append((base, nobody, nothing if is_later else items))
        parts["item mean"].append((base, nobody, items))
        parts["user + item mean"].append((base, users if is_later else nobody, items))
    return {name: Baseline(labeller.names, chain, part) for name, part in parts.items()}


def _means(
    rows: LabelledRows, task: int, train: Interactions, negatives: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The rate of a label, and by how much each user's (given the item) and each item's differs from it, shrunk."""
    labels = rows.labels[:, task].double()
    item_counts = torch.bincount(rows.item_ids, minlength=train.num_items).double()
    if negatives is not None:
        item_counts += negatives
    item_sums = torch.bincount(rows.item_ids, labels, train.num_items)
    base = item_sums.sum() / item_counts.sum().clamp(min=1)  # 0 where there is nothing to count
    items = (item_sums - base * item_counts) / (item_counts + SHRINK)
    left = torch.bincount(rows.user_ids, labels - base - items[rows.item_ids], train.num_users)
    users = left / (torch.bincount(rows.user_ids, minlength=train.num_users) + SHRINK)
    return base.float(), users.float(), items.float()


def _expected_negatives(labeller: Labeller, rows: LabelledRows, train: Interactions) -> Tensor:
    """(num_items,) how often each item is drawn as a negative in an epoch, on average."""
    positives = torch.bincount(rows.user_ids[labeller.is_positive(rows)], minlength=train.num_users).double()
    unseen = train.num_items - train.offsets.diff()
    each = torch.where(unseen > 0, labeller.negatives * positives / unseen.clamp(min=1), 0.0)
    return each.sum() - torch.bincount(train.item_ids, each[train.user_ids], train.num_items)
