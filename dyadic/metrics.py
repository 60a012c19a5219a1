"""Metrics of the dyadic tasks, pure functions of labels and scores, and two Wilcoxon tests between models.

Every metric per user is a vector over all users, nan for users without a value, so that two models can be compared user
by user. Scores are logits; thresholds apply to sigmoid(score).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from scipy.special import expit

from evaluation import auc_by_group

THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5)  # the grid of the paper
MAP_NORMS = ("k", "minkp")
MAP_USERS = ("all", "with_pos")
METRICS = ("f1", "auc", "map@1", "map@5")


@dataclass(frozen=True, eq=False)
class TaskMetrics:
    """One task on a set of dyads.

    means: {name of METRICS: value}, nan if no user has a value; "f1" is pooled over all dyads, not a mean over users.
    per_user: {name: (num_users,)}, nan for users without a value.
    skipped: number of users whose dyads belong to a single class, so that they have no AUC.
    users: number of users with dyads.
    """

    means: dict[str, float]
    per_user: dict[str, np.ndarray]
    skipped: int
    users: int


@dataclass(frozen=True)
class Comparison:
    """One metric of two models.

    first, second: the means of the models.
    ranksum_p: p value of the rank-sum test, as in the paper; it ignores that both vectors belong to the same users.
    signed_rank_p: p value of the signed-rank test, which pairs the users. The two tests can disagree.
    worse: "first", "second" or None: the model that the rank-sum test finds worse.
    """

    first: float
    second: float
    ranksum_p: float
    signed_rank_p: float
    worse: str | None


def f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """F1 of the positive class over (n,) dyads; 0 without positive labels and positive predictions."""
    hits = np.count_nonzero(labels & predicted)
    made = np.count_nonzero(labels) + np.count_nonzero(predicted)
    return float(2 * hits / made) if made else 0.0


def predict(scores: np.ndarray, threshold: float) -> np.ndarray:
    """(n,) bool: sigmoid(score) > threshold."""
    return expit(scores) > threshold


def best_threshold(
    labels: np.ndarray, scores: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[float, float]:
    """The threshold with the highest F1, the first of equal ones, and this F1. Not for test dyads."""
    values = [f1(labels.astype(bool), predict(scores, threshold)) for threshold in thresholds]
    best = int(np.argmax(values))
    return thresholds[best], values[best]


def f1_per_user(user_ids: np.ndarray, labels: np.ndarray, predicted: np.ndarray, num_users: int) -> np.ndarray:
    """F1 over the dyads of each user: (num_users,), nan for users without dyads."""
    hits, positives, made = (
        np.bincount(user_ids, weights=column, minlength=num_users) for column in (labels & predicted, labels, predicted)
    )
    value = 2 * hits / np.maximum(positives + made, 1)
    return np.where(np.bincount(user_ids, minlength=num_users) > 0, value, np.nan)


def auc_per_user(user_ids: np.ndarray, labels: np.ndarray, scores: np.ndarray, num_users: int) -> np.ndarray:
    """Probability that a positive dyad of a user outscores a negative one; ties count half: (num_users,).

    Computed from the sum of average ranks (Mann and Whitney 1947). nan for users without dyads of both classes.
    """
    values = np.full(num_users, np.nan)
    columns = (torch.from_numpy(np.asarray(column)) for column in (scores, labels, user_ids))
    values[np.unique(user_ids)] = auc_by_group(*columns).numpy()
    return values


def average_precision_per_user(
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    num_users: int,
    k: int,
    norm: str = "k",
) -> np.ndarray:
    """AP@k of each user: (num_users,), nan for users without dyads, 0 for users without positives.

        AP@k = 1/k sum_{r <= k} rel_r (hits up to r) / r

    The k dyads with the highest scores; equal scores are sorted by item id. The authors divide by k, so users with
    fewer than k positives cannot reach 1. norm="minkp" divides by min(k, positives), the usual definition.

    Raises:
        ValueError: the norm is unknown.
    """
    if norm not in MAP_NORMS:
        raise ValueError(f"unknown map_norm {norm!r}: choose one of {', '.join(MAP_NORMS)}")
    order = np.lexsort((item_ids, -scores, user_ids))
    users, hit = user_ids[order], labels[order].astype(np.float64)
    counts = np.bincount(users, minlength=num_users)
    first = np.cumsum(counts) - counts
    rank = np.arange(len(users)) - first[users] + 1
    running = np.cumsum(hit)
    before = np.concatenate([[0.0], running])[first]
    gain = np.where(rank <= k, hit * (running - before[users]) / rank, 0.0)
    positives = np.bincount(users, weights=hit, minlength=num_users)
    divisor = k if norm == "k" else np.clip(positives, 1, k)
    return np.where(counts > 0, np.bincount(users, weights=gain, minlength=num_users) / divisor, np.nan)


def evaluate(
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    num_users: int,
    threshold: float = 0.5,
    map_norm: str = "k",
    map_users: str = "all",
) -> TaskMetrics:
    """All metrics of one task.

    Args:
        user_ids, item_ids, labels, scores: (n,) each; labels of 0 and 1.
        num_users: length of the vectors per user.
        threshold: for sigmoid(score), chosen on training dyads.
        map_norm: see `average_precision_per_user`.
        map_users: average MAP over "all" users with dyads, as the authors do, or over those with a positive dyad
            ("with_pos").

    Raises:
        ValueError: there are no dyads, a score is not finite, or an option is unknown.
    """
    if len(user_ids) == 0 or not np.isfinite(scores).all():
        raise ValueError("evaluate needs at least one dyad and finite scores")
    if map_users not in MAP_USERS:
        raise ValueError(f"unknown map_users {map_users!r}: choose one of {', '.join(MAP_USERS)}")
    labels = labels.astype(bool)
    predicted = predict(scores, threshold)
    per_user = {
        "f1": f1_per_user(user_ids, labels, predicted, num_users),
        "auc": auc_per_user(user_ids, labels, scores, num_users),
    }
    without = np.bincount(user_ids, weights=labels, minlength=num_users) == 0
    for k in (1, 5):
        precision = average_precision_per_user(user_ids, item_ids, labels, scores, num_users, k, map_norm)
        per_user[f"map@{k}"] = precision if map_users == "all" else np.where(without, np.nan, precision)
    means = {name: _mean(values) for name, values in per_user.items()} | {"f1": f1(labels, predicted)}
    users = int(np.count_nonzero(np.bincount(user_ids)))
    return TaskMetrics(means, per_user, users - int(np.isfinite(per_user["auc"]).sum()), users)


def compare(first: TaskMetrics, second: TaskMetrics, level: float = 0.01) -> dict[str, Comparison]:
    """Compare two models on the same dyads by their values per user: {name of METRICS: Comparison}.

    p is nan if no user has values of both models, and the signed-rank p is 1 if all these values are equal.

    Args:
        level: p below it makes a model worse.
    """
    return {
        name: _compare(first.means[name], second.means[name], first.per_user[name], second.per_user[name], level)
        for name in METRICS
    }


def _compare(first: float, second: float, a: np.ndarray, b: np.ndarray, level: float) -> Comparison:
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any():
        return Comparison(first, second, np.nan, np.nan, None)
    statistic, ranksum_p = stats.ranksums(a[np.isfinite(a)], b[np.isfinite(b)])
    signed_rank_p = stats.wilcoxon(a[both], b[both]).pvalue if (a != b)[both].any() else 1.0
    worse = None if not ranksum_p < level else "first" if statistic < 0 else "second"
    return Comparison(first, second, float(ranksum_p), float(signed_rank_p), worse)


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
