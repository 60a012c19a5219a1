"""The multi-task net with user embeddings computed from watched items: its network, task and stepper.

The ranking is trained by masking: half of each user's items is hidden, and the others have to score them. Without the
mask, a network that sees an item while it learns to score it mostly learns to repeat its input.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.multitask import MultiTaskConfig
from dataset import Interactions
from losses import masked_item_loss, regression_loss
from models import MultiTaskNet
from multitask.softmax import SoftmaxTask
from multitask.steps import settings_for_autograd, steps_note
from training.protocols import GradientTask, History, Row, Stop
from training.steps import GradientStepper

MASKED_FRACTION = 0.5  # of the ratings, drawn anew in every epoch


class ItemBasedNet(MultiTaskNet):
    """MultiTaskNet on one pair of tables whose user embeddings are functions of the watched items:

        u_i = n_i ** -1/2 * (sum of v_j over the n_i items j that user i has watched)

    V (items, d) is an item table of its own, as in Paterek 2007 (NSVD) and Kabbur, Ning and Karypis 2013 (FISM). FISM
    leaves out of u_i the item that it scores; ItemBasedTask masks half of them. `write_users` stores the users in U,
    so that eq. (1) and (4) apply unchanged.
    """

    def __init__(self, num_users: int, num_items: int, embedding_dim: int, layer_sizes: list[int]) -> None:
        super().__init__(num_users, num_items, embedding_dim, layer_sizes)
        self.U.requires_grad_(False)
        self.V = nn.Embedding(num_items, embedding_dim)
        for table in (self.V, self.Q):  # with the usual 1 / d, sums over many items start too small and learn too late
            nn.init.normal_(table.weight, std=embedding_dim**-0.5)

    def encode_users(self, item_ids: Tensor, counts: Tensor) -> Tensor:
        """User embeddings from items, counts[0] of them for the first user: (sum of counts,), (K,) -> (K, d)."""
        starts = counts.cumsum(0) - counts
        sums = F.embedding_bag(item_ids, self.V.weight, starts, mode="sum")
        return sums / counts.clamp(min=1).sqrt().unsqueeze(1)

    def score_encoded_users(self, users: Tensor) -> Tensor:
        """Ranking scores of every item, eq. (1): (K, d) -> (K, num_items)."""
        return torch.addmm(self.B.weight.T, users, self.Q.weight.T)

    def rate_encoded_users(self, users: Tensor, rows: Tensor, item_ids: Tensor) -> Tensor:
        """Predicted ratings of items by the users in these rows, eq. (4): (K, d), (B,), (B,) -> (B,)."""
        user, item = users[rows], self.Q(item_ids)
        hidden = torch.cat([user, item, user * item], dim=1)
        for layer in self.mlp_layers:
            hidden = layer(hidden)
        return hidden.squeeze(1)

    @torch.no_grad()
    def write_users(self, seen: Interactions) -> None:
        """Compute U from all items in `seen`."""
        self.U.weight.copy_(self.encode_users(seen.items_by_user, seen.offsets.diff()))


class ItemBasedTask(SoftmaxTask):
    """SoftmaxTask with the squared error on masked and unwatched items as its ranking loss; for ItemBasedNet.

    The ratings are predicted from users encoded from all their items, as they are at test time: which items a user has
    watched does not reveal the rating.
    """

    def _make_batch(self, users: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        batch = super()._make_batch(users, generator)
        masked = torch.rand(len(batch["ratings"]), generator=generator) < MASKED_FRACTION
        return batch | {"masked": masked.to(users.device)}

    def losses(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The masked-item loss and eq. (5) on one batch."""
        users, rows, counts = torch.unique_consecutive(batch["user_ids"], return_inverse=True, return_counts=True)
        items, masked = batch["item_ids"], batch["masked"]
        visible_counts = torch.bincount(rows[~masked], minlength=len(users))
        predictions = model.score_encoded_users(model.encode_users(items[~masked], visible_counts))
        score = model.rate_encoded_users(model.encode_users(items, counts), rows, items)
        return {
            "factorization": masked_item_loss(predictions, rows, items, masked, self._user_weights[users]),
            "regression": regression_loss(batch["ratings"], score),
        }


class ItemBasedStepper(GradientStepper):
    """GradientStepper that rewrites U after each epoch."""

    def __init__(self, model: ItemBasedNet, task: GradientTask, config: MultiTaskConfig, device: torch.device) -> None:
        super().__init__(model, task, config, device)
        self.notes = (steps_note(settings_for_autograd(config, device)),)
        model.write_users(task.data.train)

    def run_epoch(self, epoch: int, history: History, stop: Stop) -> Row:
        row = super().run_epoch(epoch, history, stop)
        self.model.write_users(self.task.data.train)
        return row
