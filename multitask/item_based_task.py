"""The multi-task net on ratings of which a half is hidden at a time: what a user keeps is to say what they hide.

A network that sees an item when it learns to score it learns mostly to give back what it has seen. Here it is asked, as
in the test, for items that it has not been given.
"""

import torch
from torch import Tensor, nn

from losses import masked_item_loss, regression_loss
from multitask.softmax import WatchAndRateBySoftmax

HIDDEN = 0.5  # of the ratings, drawn anew in every epoch


class WatchAndRateByDenoising(WatchAndRateBySoftmax):
    """Batches as with the softmax; the ranking loss is the squared error on hidden items and on those never watched.

    The ratings are predicted by users made of all their items, as they are when the network is used: what a user has
    watched does not tell the score. The model must be an item_based.ItemBasedNet.
    """

    def _batch_of(self, users: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        batch = super()._batch_of(users, generator)
        hidden = torch.rand(len(batch["ratings"]), generator=generator) < HIDDEN
        return batch | {"hidden": hidden.to(users.device)}

    def losses(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        users, rows, counts = torch.unique_consecutive(batch["user_ids"], return_inverse=True, return_counts=True)
        items, hidden = batch["item_ids"], batch["hidden"]
        kept_counts = torch.bincount(rows[~hidden], minlength=len(users))
        predictions = model.score_encoded_users(model.encode_users(items[~hidden], kept_counts))
        score = model.rate_encoded_users(model.encode_users(items, counts), rows, items)
        return {
            "factorization": masked_item_loss(predictions, rows, items, hidden, self._weights[users]),
            "regression": regression_loss(batch["ratings"], score),
        }
