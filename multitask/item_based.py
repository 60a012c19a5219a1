"""A multi-task net whose user embeddings are computed from the items they have watched, and its stepper."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset import Interactions
from models import MultiTaskNet
from training.steps import GradientStepper


class ItemBasedNet(MultiTaskNet):
    """MultiTaskNet on one pair of tables, with users that are not learnt one by one:

        u_i = n_i ** -1/2 * (sum of v_j over the n_i items j that i has watched)

    V (items, d) is an item table of its own, as in Paterek 2007 (NSVD) and Kabbur, Ning and Karypis 2013 (FISM), which
    leave an item out of the user that scores it, as item_based_task.py does with a half of them. `write_users` puts the
    users into U, and eq. (1) and (4) hold as they stand.
    """

    def __init__(self, num_users: int, num_items: int, embedding_dim: int, layer_sizes: list[int]) -> None:
        super().__init__(num_users, num_items, embedding_dim, layer_sizes)
        self.U.requires_grad_(False)
        self.V = nn.Embedding(num_items, embedding_dim)
        for table in (self.V, self.Q):  # from 1 / d, as sums of many items, both learn too late
            nn.init.normal_(table.weight, std=embedding_dim**-0.5)

    def encode_users(self, item_ids: Tensor, counts: Tensor) -> Tensor:
        """Users of these items, counts[0] for the first user and so on: (sum of counts,), (K,) -> (K, d)."""
        starts = counts.cumsum(0) - counts
        sums = F.embedding_bag(item_ids, self.V.weight, starts, mode="sum")
        return sums / counts.clamp(min=1).sqrt().unsqueeze(1)

    def score_encoded_users(self, users: Tensor) -> Tensor:
        """Ranking scores of every item, eq. (1): (K, d) -> (K, num_items)."""
        return torch.addmm(self.B.weight.T, users, self.Q.weight.T)

    def rate_encoded_users(self, users: Tensor, rows: Tensor, item_ids: Tensor) -> Tensor:
        """Ratings of the users in these rows for items, eq. (4): (K, d), (B,), (B,) -> (B,)."""
        user, item = users[rows], self.Q(item_ids)
        return self._rate(user, item, user * item)

    @torch.no_grad()
    def write_users(self, seen: Interactions) -> None:
        """Make U from all that users have in `seen`."""
        self.U.weight.copy_(self.encode_users(seen.items_by_user, seen.offsets.diff()))


class ItemBasedStepper(GradientStepper):
    """GradientStepper that rewrites U after each epoch."""

    def __init__(self, model: ItemBasedNet, task, settings, device: torch.device) -> None:
        super().__init__(model, task, settings, device)
        model.write_users(task.data.train)

    def run_epoch(self, epoch: int, history, stop: Callable[[], bool]) -> dict[str, float]:
        row = super().run_epoch(epoch, history, stop)
        self.model.write_users(self.task.data.train)
        return row
