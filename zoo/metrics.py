"""Metrics of 0/1 labels: pure functions of logits and labels, in tables as those of evaluation.py.

LABEL_METRICS are computed for each label, CHAIN_METRICS for each pair of successive labels of a chain. To add a metric,
write its function and enter it in one of the two.

Symbols: R rows with labels.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation import Metric, auc_by_group, roc_auc


@dataclass(frozen=True)
class LabelScores:
    """R rows of one label, on the CPU.

    logits: (R,) float64; sigmoid(logit) is the predicted probability of label 1.
    labels: (R,) float64, 0 or 1.
    user_ids: (R,) the user of each row.
    """

    logits: Tensor
    labels: Tensor
    user_ids: Tensor


def label_auc(scores: LabelScores) -> float:
    """The AUC over all rows; nan if there is one class only."""
    return roc_auc(scores.logits, scores.labels)


def log_loss(scores: LabelScores) -> float:
    """Mean cross-entropy in nats."""
    return F.binary_cross_entropy_with_logits(scores.logits, scores.labels).item()


def normalized_entropy(scores: LabelScores) -> float:
    """The log loss divided by that of always predicting the mean label of these rows; nan if there is one class only.

    1 for a model that knows the mean label only. He et al. 2014, who take the mean label of the training rows.
    """
    rate = scores.labels.mean()
    entropy = -(torch.xlogy(rate, rate) + torch.xlogy(1 - rate, 1 - rate)).item()
    return log_loss(scores) / entropy if entropy else math.nan


def calibration(scores: LabelScores) -> float:
    """Mean predicted probability over mean label; 1 is ideal, nan if no label is 1."""
    rate = scores.labels.mean()
    return (scores.logits.sigmoid().mean() / rate).item() if rate else math.nan


def user_auc(scores: LabelScores) -> float:
    """The AUC within each user, mean over the users with both classes; nan if there is none."""
    return auc_by_group(scores.logits, scores.labels, scores.user_ids).nanmean().item()


LABEL_METRICS = {
    "auc": Metric(label_auc, +1, "auc"),
    "log_loss": Metric(log_loss, -1, "log loss"),
    "entropy": Metric(normalized_entropy, -1, "entropy"),
    "calibration": Metric(calibration, 0, "calibration"),
    "user_auc": Metric(user_auc, +1, "user auc"),
}  # functions of LabelScores


def fraction_above(later: Tensor, earlier: Tensor) -> float:
    """Fraction of rows with later > earlier, both (R,): a later step of a chain more probable than an earlier one."""
    return (later > earlier).float().mean().item()


# Functions of the joint logits of a label and of the label before it.
CHAIN_METRICS = {"over": Metric(fraction_above, -1, "over")}


def label_metrics(
    logits: Tensor, labels: Tensor, user_ids: Tensor, names: Iterable[str] | None = None
) -> dict[str, float]:
    """Metrics of one label's logits by their names.

    Args:
        logits: (R,) sigmoid(logit) is the predicted probability of label 1.
        labels: (R,) 0 or 1.
        user_ids: (R,) the user of each row.
        names: which metrics of LABEL_METRICS; None computes all.

    Raises:
        FloatingPointError: a logit is nan or infinite.
    """
    if not logits.isfinite().all():
        raise FloatingPointError("the model scores a pair with nan or infinity")
    scores = LabelScores(logits.cpu().double(), labels.cpu().double(), user_ids.cpu())
    return {name: LABEL_METRICS[name].function(scores) for name in names or LABEL_METRICS}
