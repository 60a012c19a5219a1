"""Metrics of rankings and ratings: pure functions, and the entry points mrr_score and mse_score.

METRICS holds the metrics of ranking (RANKING_METRICS) and of ratings (RATING_METRICS). To add a metric, write its
function and enter it in its table: metrics.csv, the closing table of a run and the TensorBoard tags are made from
these tables. The metrics of 0/1 labels are in zoo/metrics.py.

Ranks start at 1 for the best item. Items with equal scores share the average of the ranks they cover, so the rank of an
item never depends on the order in which items are stored, and a constant model ranks every item in the middle.

Symbols: U users, T test items of all users, n items.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dataset import Interactions

# Cells of a score matrix held at a time (4 bytes each): bounds memory for any number of users and items, and keeps
# the block inside the processor's cache.
BLOCK_CELLS = 2**20
# From this number of test items of one user, sorting all scores once is cheaper than comparing them with each item.
SORT_FROM = 64
# Pairs per call of `forward`; each needs a few hundred bytes of activations.
BLOCK_PAIRS = 2**16

# Groups of curves in TensorBoard: of the metrics that stand for their tasks, and of the others, on the test part.
MAIN_METRICS, FURTHER_METRICS = "eval", "further metrics"


@dataclass(frozen=True)
class Metric:
    """A metric and how it is reported.

    function: computes the metric; its arguments are those of its table.
    direction: +1 if higher is better, -1 if lower is better, 0 if neither.
    title: its name in TensorBoard: "eval/<title>" or "further metrics/<title>" on test, "validation/<title>" on
        validation.
    """

    function: Callable[..., float]
    direction: int
    title: str


def metric_tags(metrics: Mapping[str, Metric], main: Collection[str]) -> dict[str, str]:
    """The TensorBoard tags of all columns of some metrics: {"test_mrr": "eval/Mean Reciprocal Rank", ..}.

    main: the metrics that stand for their tasks; TensorBoard shows them first, under "eval/".
    """
    groups = {name: MAIN_METRICS if name in main else FURTHER_METRICS for name in metrics}
    test = {f"test_{name}": f"{groups[name]}/{metric.title}" for name, metric in metrics.items()}
    return test | {f"val_{name}": f"validation/{metric.title}" for name, metric in metrics.items()}


@dataclass(frozen=True)
class Ranking:
    """The ranks of T test items, each among the candidates of its own user.

    users: (T,) user row numbers, ascending.
    ranks: (T,) average ranks, float64, 1 is best.
    candidates: (T,) how many items were ranked for that user: all items except masked ones.
    """

    users: Tensor
    ranks: Tensor
    candidates: Tensor

    @property
    def hits(self) -> Tensor:
        """Number of test items of each user: (U,) float64, users ascending."""
        return torch.unique_consecutive(self.users, return_counts=True)[1].double()

    def sum_over_users(self, values: Tensor) -> Tensor:
        """Sum of values within each user, users ascending: (T,) -> (U,)."""
        groups = torch.unique_consecutive(self.users, return_inverse=True)[1]
        return torch.bincount(groups, weights=values)

    def mean_over_users(self, values: Tensor) -> Tensor:
        """Mean of values within each user, users ascending: (T,) -> (U,)."""
        return self.sum_over_users(values) / self.hits


def average_ranks(scores: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    """Rank items within the rows of a score matrix; ties get their average rank.

    Args:
        scores: (B, n) scores; -inf marks an item that is not a candidate.
        rows, items: (T,) the cells to rank, rows ascending; their scores must be finite.

    Returns:
        (T,) ranks, float64 on the CPU: 1 is best.
    """
    ranks = torch.empty(len(rows), dtype=torch.double)
    is_long = torch.bincount(rows, minlength=len(scores))[rows] >= SORT_FROM
    for chosen, rank in ((~is_long, _ranks_by_comparing), (is_long, _ranks_by_sorting)):
        if chosen.any():
            ranks[chosen.cpu()] = rank(scores, rows[chosen], items[chosen])
    return ranks


def _ranks_by_comparing(scores: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    """Compare each item with all items of its row.

    With g scores greater, e equal (including the item itself) and l less, the average rank is g + (e + 1) / 2. Since
    g + e + l = n, this equals (n + 1 + g - l) / 2, and g - l is the sum of the signs of the differences.
    """
    own = scores[rows, items].unsqueeze(1)
    size = max(1, BLOCK_CELLS // scores.shape[1])
    differences = scores.new_empty(min(size, len(rows)), scores.shape[1])
    ahead_minus_behind = []
    for some_rows, some_own in zip(rows.split(size), own.split(size), strict=True):
        block = torch.index_select(scores, 0, some_rows, out=differences[: len(some_rows)])
        ahead_minus_behind.append(block.sub_(some_own).sign_().sum(dim=1))
    return (scores.shape[1] + 1 + torch.cat(ahead_minus_behind).cpu().double()) / 2


def _ranks_by_sorting(scores: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    """Sort each row once. An item with l scores below its own and m not above it has rank n - (l + m - 1) / 2."""
    own = scores[rows, items].cpu().numpy()
    distinct, counts = torch.unique_consecutive(rows, return_counts=True)
    ranks = []
    for row, values in zip(distinct.tolist(), np.split(own, counts.cumsum(0)[:-1].cpu()), strict=True):
        ordered = np.sort(scores[row].cpu().numpy())
        less_or_not_greater = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
        ranks.append(len(ordered) - (less_or_not_greater - 1) / 2)
    return torch.from_numpy(np.concatenate(ranks))


def mean_reciprocal_rank(ranking: Ranking) -> float:
    """The homework's MRR, as in Spotlight: the mean of 1 / rank over *all* test items of a user, then over users.

    The textbook's MRR uses the first hit only, see `first_hit_reciprocal_rank`; it is several times larger.
    """
    return ranking.mean_over_users(1 / ranking.ranks).mean().item()


def first_hit_reciprocal_rank(ranking: Ranking) -> float:
    """The textbook's MRR: 1 / rank of the best-ranked test item of a user, mean over users."""
    groups, hits = torch.unique_consecutive(ranking.users, return_inverse=True, return_counts=True)[1:]
    best = torch.zeros(len(hits), dtype=torch.double).scatter_reduce(0, groups, 1 / ranking.ranks, reduce="amax")
    return best.mean().item()


def hit_rate(ranking: Ranking, k: int = 10) -> float:
    """Fraction of users with at least one test item at rank k or better."""
    return (ranking.sum_over_users((ranking.ranks <= k).double()) > 0).double().mean().item()


def ndcg(ranking: Ranking, k: int = 10) -> float:
    """Normalized discounted cumulative gain at k with binary relevance; mean over users.

    Järvelin and Kekäläinen 2002, with the discount 1 / log2(1 + r) for a hit at rank r <= k, over the gain of the ideal
    order of the user's test items. Tied items use their average rank; the paper breaks ties by order.
    """
    gains = torch.where(ranking.ranks <= k, 1 / torch.log2(1 + ranking.ranks), 0.0)
    ideal = (1 / torch.log2(torch.arange(2, k + 2, dtype=torch.double))).cumsum(0)
    best_possible = ideal[ranking.hits.long().clamp(max=k) - 1]
    return (ranking.sum_over_users(gains) / best_possible).mean().item()


def auc(ranking: Ranking) -> float:
    """Probability that a test item outranks another candidate, ties counting half; mean over users.

    Computed from the rank sum (Mann and Whitney 1947). Users whose candidates are all test items have no AUC and are
    left out; nan if no user remains.
    """
    hits = ranking.hits
    others = ranking.mean_over_users(ranking.candidates.double()) - hits
    pairs_lost = ranking.sum_over_users(ranking.ranks) - hits * (hits + 1) / 2
    return (1 - pairs_lost / (hits * others))[others > 0].mean().item()


class Predictor(Protocol):
    """An object in the style of Spotlight, which can be scored in place of a network.

    predict: user_ids and item_ids, (B,) int64 NumPy arrays -> (predictions, score), (B,) arrays or tensors each, in the
    meaning of `MultiTaskNet.forward`. Other names of the arguments are fine.
    """

    def predict(self, user_ids: np.ndarray, item_ids: np.ndarray, /) -> tuple[Any, Any]: ...


class _PredictorNet(nn.Module):
    """A Predictor as a network."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        found = self.predictor.predict(user_ids.cpu().numpy(), item_ids.cpu().numpy())
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise ValueError(f"predict must return two results, predictions and score, not {type(found).__name__}")
        predictions, score = (torch.as_tensor(values, device=user_ids.device) for values in found)
        for name, values in {"predictions": predictions, "score": score}.items():
            if values.shape != user_ids.shape:
                raise ValueError(f"predict must return {name} of shape {(len(user_ids),)}, not {tuple(values.shape)}")
        return predictions + 0.0, score + 0.0  # whole numbers, such as counts, become real ones


def as_network(model: nn.Module | Predictor) -> nn.Module:
    """The model itself if it is a network, else a network that calls its `predict`."""
    return model if isinstance(model, nn.Module) else _PredictorNet(model)


def rank_test_items(model: nn.Module | Predictor, test: Interactions, train: Interactions | None = None) -> Ranking:
    """Rank every test item among all items that its user does not have in `train`.

    Scores blocks of users of about BLOCK_CELLS scores each, see `score_all_items`.

    Args:
        model: a network whose forward returns (predictions, score), or an object whose `predict` does.
        test: the pairs to rank; none of them may be in `train`.
        train: the pairs to mask; None masks nothing.

    Raises:
        ValueError: `test` is empty.
        FloatingPointError: a score is nan or infinite.
    """
    _require_rows(test)
    model = as_network(model)
    order = torch.argsort(test.user_ids, stable=True)
    users, items = test.user_ids[order].long(), test.item_ids[order].long()
    distinct, counts = torch.unique_consecutive(users, return_counts=True)
    num_candidates = torch.full_like(distinct, test.num_items)
    if train is not None:
        num_candidates -= train.offsets.diff()[distinct]

    ranks = []
    size = max(1, BLOCK_CELLS // test.num_items)
    items_of = iter(items.split([int(part.sum()) for part in counts.split(size)]))
    with evaluating(model):
        for block_users, block_counts in zip(distinct.split(size), counts.split(size), strict=True):
            scores = score_all_items(model, block_users, test.num_items)
            if not torch.stack(scores.aminmax()).isfinite().all():
                raise FloatingPointError("the model scores an item with nan or infinity")
            if train is not None:
                mask_items(scores, block_users, train)
            rows = torch.arange(len(block_users), device=scores.device).repeat_interleave(block_counts)
            ranks.append(average_ranks(scores, rows, next(items_of)))
    return Ranking(users.cpu(), torch.cat(ranks), num_candidates.repeat_interleave(counts).cpu())


def mrr_score(model: nn.Module | Predictor, test: Interactions, train: Interactions | None = None) -> float:
    """The homework's mean reciprocal rank on `test`, with the items of `train` masked.

    Arguments and errors as in `rank_test_items`; the definition is that of `mean_reciprocal_rank`.
    """
    return mean_reciprocal_rank(rank_test_items(model, test, train))


def mse_score(model: nn.Module | Predictor, test: Interactions) -> float:
    """Mean squared error of the predicted ratings on `test`, in squared rating points; predictions are not clipped.

    `model` as in `rank_test_items`.

    Raises:
        ValueError: `test` is empty.
        FloatingPointError: a predicted rating is nan or infinite.
    """
    _require_rows(test)
    model = as_network(model)
    total = 0.0
    with evaluating(model):
        for users, items, ratings in zip(
            test.user_ids.split(BLOCK_PAIRS),
            test.item_ids.split(BLOCK_PAIRS),
            test.ratings.split(BLOCK_PAIRS),
            strict=True,
        ):
            score = model(users.long(), items.long())[1]
            total += (score - ratings).cpu().double().square().sum().item()
    if not math.isfinite(total):
        raise FloatingPointError(f"the squared error of the predicted ratings became {total}")
    return total / len(test)


RANKING_METRICS = {
    "mrr": Metric(mean_reciprocal_rank, +1, "Mean Reciprocal Rank"),
    "first_hit_mrr": Metric(first_hit_reciprocal_rank, +1, "First-Hit MRR"),
    "hit_rate@10": Metric(hit_rate, +1, "Hit Rate@10"),
    "ndcg@10": Metric(ndcg, +1, "NDCG@10"),
    "auc": Metric(auc, +1, "AUC"),
}  # functions of a Ranking
RATING_METRICS = {"mse": Metric(mse_score, -1, "MSE")}  # functions of a model and the test rows
METRICS = RANKING_METRICS | RATING_METRICS


def ranking_metrics(ranking: Ranking) -> dict[str, float]:
    """Every metric of RANKING_METRICS by its name."""
    return {name: metric.function(ranking) for name, metric in RANKING_METRICS.items()}


def evaluate(model: nn.Module | Predictor, test: Interactions, train: Interactions | None = None) -> dict[str, float]:
    """Every metric of METRICS on `test`, with the items of `train` masked in rankings.

    Arguments and errors as in `rank_test_items` and `mse_score`.
    """
    ranking = ranking_metrics(rank_test_items(model, test, train))
    return ranking | {name: metric.function(model, test) for name, metric in RATING_METRICS.items()}


def _require_rows(test: Interactions) -> None:
    if len(test) == 0:
        raise ValueError("there is nothing to evaluate: the test part has no rows")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; restores the model's mode at the end."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def score_all_items(model: nn.Module, users: Tensor, num_items: int) -> Tensor:
    """Ranking scores of all items: (B,) -> (B, num_items).

    Uses the model's `score_items(user_ids)` if it has one, else `forward` on all pairs, which is slower.
    """
    if (score_items := getattr(model, "score_items", None)) is not None:
        return score_items(users)
    items = torch.arange(num_items, device=users.device).repeat(len(users))
    repeated_users = users.repeat_interleave(num_items)
    parts = zip(repeated_users.split(BLOCK_PAIRS), items.split(BLOCK_PAIRS), strict=True)
    return torch.cat([model(u, i)[0] for u, i in parts]).view(len(users), num_items)


def mask_items(scores: Tensor, users: Tensor, seen: Interactions) -> None:
    """Set the scores of the items that each user, one per row, has in `seen` to -inf."""
    starts, ends = seen.offsets[users], seen.offsets[users + 1]
    rows = torch.arange(len(users), device=users.device).repeat_interleave(ends - starts)
    scores[rows, seen.items_by_user[ranges(starts, ends)].long()] = -torch.inf


def ranges(starts: Tensor, ends: Tensor) -> Tensor:
    """Concatenate the ranges start, .., end - 1: (K,), (K,) -> (sum of the lengths,)."""
    lengths = ends - starts
    first = (starts - (lengths.cumsum(0) - lengths)).repeat_interleave(lengths)
    return first + torch.arange(len(first), device=first.device)


def roc_auc(scores: Tensor, labels: Tensor) -> float:
    """Probability that a row with label 1 scores above one with label 0, ties counting half: (R,), (R,) -> number.

    nan if there is one class only.
    """
    return auc_by_group(scores, labels, torch.zeros_like(labels, dtype=torch.long)).item()


def auc_by_group(scores: Tensor, labels: Tensor, groups: Tensor) -> Tensor:
    """The AUC within each group, from the rank sum with average ranks (Mann and Whitney 1947).

    Args:
        scores: (R,) any numbers.
        labels: (R,) 0 or 1.
        groups: (R,) the group of each row, an integer.

    Returns:
        (number of groups,) float64, groups ascending; nan for groups with one class only.
    """
    scores, labels, groups = scores.cpu(), labels.cpu(), groups.cpu()  # some devices have no float64
    order = torch.argsort(scores, stable=True)
    order = order[torch.argsort(groups[order], stable=True)]
    scores, labels = scores[order], labels[order].double()
    place = torch.unique_consecutive(groups[order], return_inverse=True)[1]
    ranks = _average_positions(scores, place)
    sizes = torch.bincount(place).double()
    starts = sizes.cumsum(0) - sizes
    positives = torch.bincount(place, weights=labels)
    rank_sums = torch.bincount(place, weights=(ranks - starts[place]) * labels)
    return (rank_sums - positives * (positives + 1) / 2) / (positives * (sizes - positives))


def _average_positions(scores: Tensor, groups: Tensor) -> Tensor:
    """Positions, from 1, of rows sorted by group and score; ties share their average: (R,), (R,) -> (R,) float64."""
    starts_tie = torch.ones_like(groups, dtype=torch.bool)
    starts_tie[1:] = (groups[1:] != groups[:-1]) | (scores[1:] != scores[:-1])
    tie = starts_tie.cumsum(0) - 1
    counts = torch.bincount(tie).double()
    return (counts.cumsum(0) - (counts - 1) / 2)[tie]
