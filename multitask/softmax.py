"""The multi-task net ranked by a softmax over all items: no negatives are drawn, every item is one.

A step over random pairs, as in BPR, mostly learns the noise of the draw. Here one matrix product scores all items for a
block of users, which is cheap for catalogs of up to some ten thousand items.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from dataset import Data
from evaluation import ranges, score_all_items
from losses import regression_loss, softmax_loss
from multitask.task import WatchAndRate
from training.streams import stream


class SoftmaxTask(WatchAndRate):
    """WatchAndRate with the cross-entropy of a watched item among all items instead of eq. (3).

    The multinomial likelihood of Liang et al. 2018 (Mult-VAE), applied to the factors of eq. (1). A batch is a block of
    users with all their training ratings.

    Args:
        data: the split ratings, on the device of the model.
        batch_size: ratings in a step, on average: a step takes as many users as have about that many.
        user_weight_exponent: X; in the ranking loss, each rating of a user with n ratings weighs n ** -X. 0: ratings
            count alike; 1: users do, as in the mean reciprocal rank.
        seed: each epoch's order comes from (seed, epoch).
    """

    advice: ClassVar = {
        "mrr": "more --epochs or a larger --embedding_dim",
        "mse": "a lower --lr, more --embedding_decay or another --regression_weight",
    }

    def __init__(self, data: Data, batch_size: int = 256, user_weight_exponent: float = 0.0, seed: int = 0) -> None:
        super().__init__(data, batch_size, ranking_loss="softmax", seed=seed)
        counts = data.train.offsets.diff()
        self._active_users = counts.nonzero().squeeze(1)
        self._users_per_step = max(1, round(batch_size * len(self._active_users) / len(data.train)))
        self._rows_by_user = torch.argsort(data.train.user_ids, stable=True)
        self._user_weights = counts.clamp(min=1).float() ** -user_weight_exponent

    @property
    def num_batches(self) -> int:
        return -(-len(self._active_users) // self._users_per_step)

    def batches(self, epoch: int) -> Iterator[dict[str, Tensor]]:
        """Yield every training rating once, those of a user together, users in random order.

        Yields:
            user_ids (B,), item_ids (B,), ratings (B,), and weights (B,) of mean 1 for the ranking loss.
        """
        generator = stream(self.seed, epoch)
        order = torch.randperm(len(self._active_users), generator=generator)
        for users in self._active_users[order.to(self._active_users.device)].split(self._users_per_step):
            yield self._make_batch(users, generator)

    def _make_batch(self, users: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        train = self.data.train
        block = train[self._rows_by_user[ranges(train.offsets[users], train.offsets[users + 1])]]
        weights = self._user_weights[block.user_ids]
        return {
            "user_ids": block.user_ids.long(),
            "item_ids": block.item_ids.long(),
            "ratings": block.ratings,
            "weights": weights / weights.mean(),
        }

    def losses(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The softmax loss and eq. (5) on one batch."""
        users, rows = torch.unique_consecutive(batch["user_ids"], return_inverse=True)
        predictions = score_all_items(model, users, self.data.train.num_items)
        score = model(batch["user_ids"], batch["item_ids"])[1]
        return {
            "factorization": softmax_loss(predictions, rows, batch["item_ids"], batch["weights"]),
            "regression": regression_loss(batch["ratings"], score),
        }
