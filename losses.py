"""Losses: pure functions of tensors. Each says how it reduces; none knows a model or a data set."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

BPR_FORMS = ("sigmoid", "logsigmoid")


def bpr_loss(positive_predictions: Tensor, negative_predictions: Tensor, form: str = "sigmoid") -> Tensor:
    """How far the watched items are from outranking the sampled ones: the mean over all pairs.

        form="sigmoid"      mean[ 1 - sigmoid(p+ - p-) ]       eq. (3), the form of the course sheet; in [0, 1]
        form="logsigmoid"   mean[ -log sigmoid(p+ - p-) ]      BPR as Rendle et al. 2009 state it; in [0, inf)

    The two are different losses: the first gives up on pairs that are badly wrong, the second pushes them hardest.

    Args:
        positive_predictions: (B,) ranking scores of the watched items.
        negative_predictions: (B,), or (B, N) for N sampled items a row, each compared with that row's watched item.
        form: one of BPR_FORMS.

    Returns:
        A scalar; nan for B = 0.

    Raises:
        ValueError: the rows do not match, or the form is unknown.
    """
    if positive_predictions.dim() != 1 or negative_predictions.shape[:1] != positive_predictions.shape:
        raise ValueError(
            f"bpr_loss takes positives (B,) and negatives (B,) or (B, N), not {tuple(positive_predictions.shape)} "
            f"and {tuple(negative_predictions.shape)}"
        )
    if negative_predictions.dim() == 2:
        positive_predictions = positive_predictions.unsqueeze(1)
    margin = positive_predictions - negative_predictions
    if form == "sigmoid":
        return (-margin).sigmoid().mean()  # 1 - sigmoid(x) = sigmoid(-x), without the cancellation for large x
    if form == "logsigmoid":
        return F.softplus(-margin).mean()  # -log sigmoid(x) = softplus(-x), which never overflows
    raise ValueError(f"unknown BPR form {form!r}: choose one of {', '.join(BPR_FORMS)}")


def regression_loss(observed_ratings: Tensor, predicted_ratings: Tensor) -> Tensor:
    """Mean squared error, eq. (5): mean over the batch of (r^ - r)^2, in squared rating points.

    Args:
        observed_ratings: (B,) ratings given.
        predicted_ratings: (B,) ratings predicted.

    Raises:
        ValueError: the shapes differ (broadcasting (B,) against (B, 1) would average B * B wrong pairs).
    """
    if observed_ratings.shape != predicted_ratings.shape:
        raise ValueError(
            f"regression_loss takes two tensors of one shape, not {tuple(observed_ratings.shape)} "
            f"and {tuple(predicted_ratings.shape)}"
        )
    return F.mse_loss(predicted_ratings, observed_ratings)


def joint_loss(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The weighted sum of named losses: L = lambda_F L_F + lambda_R L_R, for any names.

    Raises:
        ValueError: the two name different losses.
    """
    if losses.keys() != weights.keys():
        raise ValueError(f"losses {sorted(losses)} and weights {sorted(weights)} must carry the same names")
    return sum(weights[name] * loss for name, loss in losses.items())
