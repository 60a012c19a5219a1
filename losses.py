"""Losses: pure functions of tensors. Each says how it reduces; none knows a model or a data set."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

BPR_FORMS = ("sigmoid", "logsigmoid")
WATCHED = 4.0  # target of denoising_loss: in a mean with the logits of a softmax, of the same order as these


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


def softmax_loss(predictions: Tensor, rows: Tensor, items: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of watched items among all items: mean over them of weight * -log softmax(predictions)[item].

    The multinomial log-likelihood (Liang et al. 2018, eq. 2), here as a mean over watched items, in nats. The gradient
    looks hardest at what is ranked highest, while BPR looks at the average pair.

    Args:
        predictions: (U, num_items) ranking scores of every item, one row a user.
        rows: (B,) the row of the user of each watched item.
        items: (B,) the watched items.
        weights: (B,) how much each counts; of mean 1, so that the scale of the loss does not depend on them.
    """
    log_likelihood = predictions[rows, items] - predictions.logsumexp(dim=1)[rows]
    return -(weights * log_likelihood).mean()


def denoising_loss(predictions: Tensor, rows: Tensor, items: Tensor, hidden: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error of ranking scores that were made without the hidden items.

    The target is WATCHED for a hidden item and 0 for one never watched; what was kept is left out. It is the loss of
    a linear autoencoder with dropout (Steck 2020), on what is dropped alone.

    Args:
        predictions: (U, num_items) ranking scores of every item, one row a user.
        rows: (B,) the row of the user of each watched item.
        items: (B,) the watched items.
        hidden: (B,) whether the item was hidden.
        weights: (U,) how much the entries of a user's row count; only their ratios matter.
    """
    targets = torch.zeros_like(predictions)
    targets[rows, items] = WATCHED
    entry_weights = weights.unsqueeze(1).repeat(1, predictions.shape[1])
    entry_weights[rows[~hidden], items[~hidden]] = 0.0
    errors = (entry_weights * (predictions - targets).square()).sum()
    return errors / entry_weights.sum().clamp(min=torch.finfo(errors.dtype).tiny)  # 0 where all was watched and kept


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


def masked_log_loss(logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy over the rows of the mask: sum_i m_i loss_i / sum_i m_i (Tang et al. 2020, PLE).

    Args:
        logits: (B,) sigmoid(logit) is the probability of label 1.
        labels: (B,) 0 or 1.
        mask: (B,) bool, the rows that belong to the task; None: all of them. Without any row the loss is 0.

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
    """Behavioural expectation calibrator: the mean of sum_t max(p_t - p_{t-1}, 0) over rows (Xi et al. 2021, AITM).

    It is 0, and pulls at nothing, where no step of the chain is likelier than the step before it.

    Args:
        logits: (B,) each, in the order of the chain; a single one gives 0.

    Returns:
        A scalar; nan for B = 0.
    """
    steps = [logit.sigmoid() for logit in logits]
    # relu, as clamp has slope 1 at a tie: rows of ESMM whose second factor rounds to 1 are in order.
    excess = [(later - earlier).relu() for earlier, later in pairwise(steps)]
    return sum(excess, torch.zeros_like(steps[0])).mean()


def joint_logit(first: Tensor, second: Tensor) -> Tensor:
    """The logit of sigmoid(first) * sigmoid(second), both (B,): the product of ESMM, without leaving the logits.

    With p = sigmoid(a) sigmoid(b) it is log p - log(1 - p) = -log(e^-a + e^-b + e^(-a-b)): finite wherever a + b is,
    and never above either of them, while the plain product underflows to 0 and takes the gradient with it.
    """
    return -torch.logsumexp(torch.stack([-first, -second, -first - second]), dim=0)


def chain_logits(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From logits of P(task | the task before it) to those of P(task and all before it): {task: (B,)}, in order."""
    return dict(zip(logits, accumulate(logits.values(), joint_logit), strict=True))


def ratio_logit(joint: Tensor, first: Tensor) -> Tensor:
    """The logit of sigmoid(joint) / sigmoid(first), both (B,): P(like | view) from P(view, like) and P(view).

    The ratio is held a little below 1 (by 1e-6), as networks that do not multiply may put the joint above the first.
    """
    log_ratio = (F.logsigmoid(joint) - F.logsigmoid(first)).clamp(max=math.log1p(-1e-6))
    return log_ratio - torch.log(-torch.expm1(log_ratio))
