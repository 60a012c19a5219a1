"""Losses: pure functions of tensors. Each states its reduction.

Symbols: B rows in a batch, U users, N sampled items per row; p ranking score, r rating (as in models.py).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

# Target score of a masked item in masked_item_loss. The ensemble averages networks trained by that loss with networks
# trained by softmax_loss; this target puts the scores of both on a similar scale.
MASKED_ITEM_TARGET = 4.0


def bpr_sigmoid(positive: Tensor, negative: Tensor) -> Tensor:
    """mean[ 1 - sigmoid(p+ - p-) ], eq. (3) of the course sheet; in [0, 1].

    The gradient vanishes for pairs in badly wrong order.
    """
    margin = positive - negative
    return (-margin).sigmoid().mean()  # 1 - sigmoid(x) = sigmoid(-x), without the cancellation at large x


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """mean[ -log sigmoid(p+ - p-) ], the BPR loss of Rendle et al. 2009; in [0, inf).

    The gradient is largest for pairs in badly wrong order. Without the paper's L2 term, which is a setting of the
    optimizer here.
    """
    margin = positive - negative
    return F.softplus(-margin).mean()  # -log sigmoid(x) = softplus(-x), which never overflows


# Forms of the ranking loss over pairs: functions of positive and negative scores that broadcast against each other.
PAIRWISE_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"bpr_sigmoid": bpr_sigmoid, "bpr": bpr}


def bpr_loss(positive_predictions: Tensor, negative_predictions: Tensor, form: str = "bpr_sigmoid") -> Tensor:
    """Ranking loss over pairs of a watched and a sampled item: the mean over all pairs.

    Args:
        positive_predictions: (B,) ranking scores of the watched items.
        negative_predictions: (B,), or (B, N) for N sampled items per row, each paired with that row's watched item.
        form: a name in PAIRWISE_LOSSES.

    Returns:
        A scalar; nan for B = 0.

    Raises:
        ValueError: the shapes do not match, or the form is unknown.
    """
    if positive_predictions.dim() != 1 or negative_predictions.shape[:1] != positive_predictions.shape:
        raise ValueError(
            f"bpr_loss takes positives (B,) and negatives (B,) or (B, N), not {tuple(positive_predictions.shape)} "
            f"and {tuple(negative_predictions.shape)}"
        )
    if form not in PAIRWISE_LOSSES:
        raise ValueError(f"unknown form {form!r} of the ranking loss: choose one of {', '.join(PAIRWISE_LOSSES)}")
    if negative_predictions.dim() == 2:
        positive_predictions = positive_predictions.unsqueeze(1)  # (B, 1)
    return PAIRWISE_LOSSES[form](positive_predictions, negative_predictions)


def softmax_loss(predictions: Tensor, rows: Tensor, items: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of watched items among all items, in nats: mean over B of weight * -log softmax(predictions)[item].

    The negative multinomial log-likelihood (Liang et al. 2018, eq. 2), here as a weighted mean over watched items
    instead of a sum over users. Items that are ranked high get most of the gradient.

    Args:
        predictions: (U, num_items) ranking scores of all items, one row per user.
        rows: (B,) the row of each watched item's user.
        items: (B,) the watched items.
        weights: (B,) weights of the watched items, of mean 1, so that they do not change the scale of the loss.

    Returns:
        A scalar; nan for B = 0.
    """
    log_likelihood = predictions[rows, items] - predictions.logsumexp(dim=1)[rows]
    return -(weights * log_likelihood).mean()


def masked_item_loss(predictions: Tensor, rows: Tensor, items: Tensor, masked: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean squared error of ranking scores that are computed from the unmasked items of each user.

    The target is MASKED_ITEM_TARGET for a masked item and 0 for an item that the user never watched; unmasked watched
    items are left out. The loss of a linear autoencoder with dropout (Steck 2020), except that the items that the
    encoder has seen carry no loss.

    Args:
        predictions: (U, num_items) ranking scores of all items, one row per user.
        rows: (B,) the row of each watched item's user.
        items: (B,) the watched items.
        masked: (B,) bool, True for items that the encoder has not seen.
        weights: (U,) weight of each user's entries; only their ratios matter.

    Returns:
        A scalar; 0 if every item is watched and unmasked.
    """
    targets = torch.zeros_like(predictions)
    targets[rows, items] = MASKED_ITEM_TARGET
    entry_weights = weights.unsqueeze(1).repeat(1, predictions.shape[1])
    entry_weights[rows[~masked], items[~masked]] = 0.0
    errors = (entry_weights * (predictions - targets).square()).sum()
    return errors / entry_weights.sum().clamp(min=torch.finfo(errors.dtype).tiny)


def regression_loss(observed_ratings: Tensor, predicted_ratings: Tensor) -> Tensor:
    """Mean squared error, eq. (5): mean over the batch of (r^ - r)^2, in squared rating points.

    Args:
        observed_ratings: (B,).
        predicted_ratings: (B,).

    Returns:
        A scalar; nan for B = 0.

    Raises:
        ValueError: the shapes differ. Broadcasting (B,) against (B, 1) would average over B * B wrong pairs.
    """
    if observed_ratings.shape != predicted_ratings.shape:
        raise ValueError(
            f"regression_loss takes two tensors of one shape, not {tuple(observed_ratings.shape)} "
            f"and {tuple(predicted_ratings.shape)}"
        )
    return F.mse_loss(predicted_ratings, observed_ratings)


def joint_loss(losses: Mapping[str, Tensor], weights: Mapping[str, float | Tensor] | Mapping[str, float]) -> Tensor:
    """Weighted sum of named losses: L = lambda_F L_F + lambda_R L_R, for any names.

    Raises:
        ValueError: `losses` and `weights` have different names.
    """
    if losses.keys() != weights.keys():
        raise ValueError(f"losses {sorted(losses)} and weights {sorted(weights)} must have the same names")
    return cast(Tensor, sum(weights[name] * loss for name, loss in losses.items()))


def masked_log_loss(logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy over the rows of the mask, in nats: sum_i m_i loss_i / sum_i m_i.

    Tang et al. 2020 (PLE) train each task on its own sample space in this way.

    Args:
        logits: (B,) sigmoid(logit) is the probability of label 1.
        labels: (B,) 0 or 1.
        mask: (B,) bool, True for the rows of this task; None uses all rows.

    Returns:
        A scalar; 0 if there is no row.

    Raises:
        ValueError: the shapes differ.
    """
    if mask is None:
        mask = torch.ones_like(labels, dtype=torch.bool)
    if not logits.shape == labels.shape == mask.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)}, labels {tuple(labels.shape)} and mask {tuple(mask.shape)} "
            "must have one shape"
        )
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return torch.where(mask, losses, 0.0).sum() / mask.sum().clamp(min=1)


def calibrator(logits: Sequence[Tensor]) -> Tensor:
    """Behavioral expectation calibrator: mean over rows of sum_t max(p_t - p_{t-1}, 0) (Xi et al. 2021, AITM).

    Zero, with zero gradient, for rows in which no step of the chain is more probable than the step before it.

    Args:
        logits: (B,) each, in the order of the chain, of P(step and all before it); a single one gives 0.

    Returns:
        A scalar; nan for B = 0.
    """
    steps = [logit.sigmoid() for logit in logits]
    # relu has gradient 0 at 0, clamp has 1. ESMM rows whose second factor rounds to 1 are such ties.
    excess = [(later - earlier).relu() for earlier, later in pairwise(steps)]
    return sum(excess, torch.zeros_like(steps[0])).mean()


def joint_logit(first: Tensor, second: Tensor) -> Tensor:
    """Logit of sigmoid(first) * sigmoid(second), computed from logits: (B,), (B,) -> (B,). The product of ESMM.

    With p = sigmoid(a) sigmoid(b), logit(p) = log p - log(1 - p) = -log(e^-a + e^-b + e^(-a-b)). It is finite if a + b
    is, and at most min(a, b). The product of the probabilities would underflow to 0, with zero gradient.
    """
    return -torch.logsumexp(torch.stack([-first, -second, -first - second]), dim=0)


def chain_logits(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert logits of P(task | task before it) to logits of P(task and all before it): {task: (B,)}, in order."""
    return dict(zip(logits, accumulate(logits.values(), joint_logit), strict=True))


def ratio_logit(joint: Tensor, first: Tensor) -> Tensor:
    """Logit of sigmoid(joint) / sigmoid(first): (B,), (B,) -> (B,). P(like | view) from P(view, like) and P(view).

    The ratio is clipped to 1 - 1e-6, because only ESMM guarantees P(view, like) <= P(view).
    """
    log_ratio = (F.logsigmoid(joint) - F.logsigmoid(first)).clamp(max=math.log1p(-1e-6))
    return log_ratio - torch.log(-torch.expm1(log_ratio))
