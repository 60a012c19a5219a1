"""The multi-task net ranked by a softmax over the whole catalogue: no negatives are drawn, every item is one.

A pair of items at a time, as BPR goes, most of what a step learns is noise of the draw. One matrix product scores all
items for a block of users, so that comparing with all of them costs little where the catalogue is of some ten thousand.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dataset import Data
from evaluation import ranges, score_all_items
from losses import regression_loss, softmax_loss
from multitask.task import WatchAndRate
from training.streams import stream


class WatchAndRateBySoftmax(WatchAndRate):
    """WatchAndRate with the cross-entropy of a watched item among all items in the place of eq. (3).

    The likelihood is multinomial, as that of Liang et al. 2018 (Mult-VAE), but of the factors of eq. (1). A batch is a
    block of users with all their training ratings.

    Args:
        data: the split ratings, on the device of the model.
        batch_size: ratings in a step, on average: a step takes as many users as have about that many.
        user_balance: each rating of a user with n of them weighs n ** -user_balance in the ranking loss. 0: ratings
            count alike; 1: users do, as they do in the mean reciprocal rank.
        seed: each epoch's order comes from (seed, epoch).
    """

    def __init__(
        self,
        data: Data,
        batch_size: int = 256,
        user_balance: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(data, batch_size, seed=seed)
        counts = data.train.offsets.diff()
        self._active = counts.nonzero().squeeze(1)
        self._users_a_step = max(1, round(batch_size * len(self._active) / len(data.train)))
        self._by_user = torch.argsort(data.train.user_ids, stable=True)
        self._weights = counts.clamp(min=1).float() ** -user_balance

    @property
    def num_batches(self) -> int:
        return -(-len(self._active) // self._users_a_step)

    def batches(self, epoch: int) -> Iterator[dict[str, Tensor]]:
        """Yield every training rating once, those of a user together, users in random order.

        Yields:
            user_ids (B,), item_ids (B,), ratings (B,), and weights (B,) of mean 1 for the ranking loss.
        """
        generator = stream(self.seed, epoch)
        order = torch.randperm(len(self._active), generator=generator)
        for users in self._active[order.to(self._active.device)].split(self._users_a_step):
            yield self._batch_of(users, generator)

    def _batch_of(self, users: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        train = self.data.train
        block = train[self._by_user[ranges(train.offsets[users], train.offsets[users + 1])]]
        weights = self._weights[block.user_ids]
        return {
            "user_ids": block.user_ids.long(),
            "item_ids": block.item_ids.long(),
            "ratings": block.ratings,
            "weights": weights / weights.mean(),
        }

    def losses(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The softmax loss and eq. (5) on one batch."""
        users, row_of = torch.unique_consecutive(batch["user_ids"], return_inverse=True)
        predictions = score_all_items(model, users, self.data.train.num_items)
        score = model(batch["user_ids"], batch["item_ids"])[1]
        return {
            "factorization": softmax_loss(predictions, row_of, batch["item_ids"], batch["weights"]),
            "regression": regression_loss(batch["ratings"], score),
        }
