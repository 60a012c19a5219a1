"""Metrics: pure functions of ranks, scores and labels, and the two well-known entry points mrr_score and mse_score.

Ranks start at 1 for the best item. Items with equal scores share the average of the ranks they cover, so a model that
cannot tell items apart is placed in the middle and never gains by the order in which items happen to be stored.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Every metric by name, and whether more (+1) or less (-1) of it is better.
METRICS = {"mrr": +1, "mse": -1, "first_hit_mrr": +1, "hit_rate@10": +1, "ndcg@10": +1, "auc": +1}

# Cells of a score matrix held at a time (4 bytes each): bounds memory for any number of users and items, and keeps
# the block inside the processor's cache.
BLOCK_CELLS = 2**20
# Test items of a user from which sorting all scores once is cheaper than comparing all scores with each of them.
SORT_FROM = 64
# Pairs given to `forward` at a time; each needs a few hundred bytes of activations.
BLOCK_PAIRS = 2**16


@dataclass(frozen=True)
class Ranking:
    """Where T test items ended up, each in the ranking of its own user.

    users: (T,) user row numbers, ascending.
    ranks: (T,) average ranks among the user's candidates, float64, 1 is best.
    candidates: (T,) how many items were ranked for that user: all items but those masked.
    """

    users: Tensor
    ranks: Tensor
    candidates: Tensor

    @property
    def hits(self) -> Tensor:
        """Test items of each user: (number of users,) float64, users ascending."""
        return torch.unique_consecutive(self.users, return_counts=True)[1].double()

    def sum_over_users(self, values: Tensor) -> Tensor:
        """The sum of (T,) values within each user: (number of users,), users ascending."""
        groups = torch.unique_consecutive(self.users, return_inverse=True)[1]
        return torch.bincount(groups, weights=values)

    def mean_over_users(self, values: Tensor) -> Tensor:
        """The mean of (T,) values within each user: (number of users,), users ascending."""
        return self.sum_over_users(values) / self.hits


def average_ranks(scores: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    """Rank items within rows of a score matrix, ties by average rank.

    Args:
        scores: (B, n) scores; -inf marks an item that is not a candidate, which then never outranks anything.
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
    """Compare each item with all others of its row.

    With g scores greater, e equal (the item itself among them) and l less, the average rank is g + (e + 1) / 2.
    Since g + e + l = n, that is (n + 1 + g - l) / 2, and g - l is the sum of the signs of the differences.
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
    """Sort each row once. An item with l scores less than its own, and m not greater, has rank n - (l + m - 1) / 2."""
    own = scores[rows, items].cpu().numpy()
    distinct, counts = torch.unique_consecutive(rows, return_counts=True)
    ranks = []
    for row, values in zip(distinct.tolist(), np.split(own, counts.cumsum(0)[:-1].cpu()), strict=True):
        ordered = np.sort(scores[row].cpu().numpy())
        less_or_not_greater = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
        ranks.append(len(ordered) - (less_or_not_greater - 1) / 2)
    return torch.from_numpy(np.concatenate(ranks))


def mean_reciprocal_rank(ranking: Ranking) -> float:
    """The homework's MRR: the mean of 1 / rank over *all* test items of a user, then over users.

    Spotlight's definition. The textbook's, which looks at the first hit alone, is `first_hit_reciprocal_rank`; it gives
    one and the same model a figure several times as large.
    """
    return ranking.mean_over_users(1 / ranking.ranks).mean().item()


def first_hit_reciprocal_rank(ranking: Ranking) -> float:
    """The textbook's MRR: 1 / rank of the best-placed test item of a user, mean over users."""
    groups, hits = torch.unique_consecutive(ranking.users, return_inverse=True, return_counts=True)[1:]
    best = torch.zeros(len(hits), dtype=torch.double).scatter_reduce(0, groups, 1 / ranking.ranks, reduce="amax")
    return best.mean().item()


def hit_rate(ranking: Ranking, k: int = 10) -> float:
    """The share of users with at least one test item at rank k or better."""
    return (ranking.sum_over_users((ranking.ranks <= k).double()) > 0).double().mean().item()


def ndcg(ranking: Ranking, k: int = 10) -> float:
    """Normalised discounted cumulative gain at k, every test item worth the same; mean over users.

    Järvelin and Kekäläinen 2002: a hit at rank r <= k gains 1 / log2(1 + r), divided by what the best order of the
    user's test items would gain. Tied items gain as at their average rank, where the 2002 paper breaks ties by order.
    """
    gains = torch.where(ranking.ranks <= k, 1 / torch.log2(1 + ranking.ranks), 0.0)
    ideal = (1 / torch.log2(torch.arange(2, k + 2, dtype=torch.double))).cumsum(0)
    best_possible = ideal[ranking.hits.long().clamp(max=k) - 1]
    return (ranking.sum_over_users(gains) / best_possible).mean().item()


def auc(ranking: Ranking) -> float:
    """The chance that a test item outranks a candidate that is none, ties counting half; mean over users.

    By the rank sum (Mann and Whitney 1947). Users whose every candidate is a test item have no AUC and are left out;
    nan if that leaves nobody.
    """
    hits = ranking.hits
    others = ranking.mean_over_users(ranking.candidates.double()) - hits
    pairs_lost = ranking.sum_over_users(ranking.ranks) - hits * (hits + 1) / 2
    return (1 - pairs_lost / (hits * others))[others > 0].mean().item()


def ranking_metrics(ranking: Ranking) -> dict[str, float]:
    """Every ranking metric of METRICS by its name."""
    return {
        "mrr": mean_reciprocal_rank(ranking),
        "first_hit_mrr": first_hit_reciprocal_rank(ranking),
        "hit_rate@10": hit_rate(ranking, 10),
        "ndcg@10": ndcg(ranking, 10),
        "auc": auc(ranking),
    }


def rank_test_items(model: nn.Module, test, train=None) -> Ranking:
    """Rank every test item among all items its user has not in `train`.

    Works through blocks of users of about BLOCK_CELLS scores each. A model that offers
    `score_items(user_ids) -> (B, num_items)` is ranked by that; any other by its `forward` on all pairs, more slowly.

    Args:
        model: a network whose forward returns (predictions, score).
        test: Interactions whose items are ranked; no pair of them may be in `train`.
        train: Interactions masked out of the ranking; None masks nothing.

    Raises:
        ValueError: `test` is empty.
        FloatingPointError: the model scores an item with nan or infinity.
    """
    _require_rows(test)
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
                _mask(scores, block_users, train)
            rows = torch.arange(len(block_users), device=scores.device).repeat_interleave(block_counts)
            ranks.append(average_ranks(scores, rows, next(items_of)))
    return Ranking(users.cpu(), torch.cat(ranks), num_candidates.repeat_interleave(counts).cpu())


def mrr_score(model: nn.Module, test, train=None) -> float:
    """The homework's mean reciprocal rank of `model` on `test`, the items of `train` masked. See `rank_test_items`."""
    return mean_reciprocal_rank(rank_test_items(model, test, train))


def mse_score(model: nn.Module, test) -> float:
    """Mean squared error of the predicted ratings on `test`, in squared rating points; predictions are not clipped.

    Raises:
        ValueError: `test` is empty.
        FloatingPointError: a predicted rating is nan or infinite.
    """
    _require_rows(test)
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


def _require_rows(test) -> None:
    if len(test) == 0:
        raise ValueError("there is nothing to evaluate: the test part has no rows")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards the model is in the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def score_all_items(model: nn.Module, users: Tensor, num_items: int) -> Tensor:
    """Ranking scores of every item: (B,) users -> (B, num_items); by `score_items` where the model offers it."""
    if hasattr(model, "score_items"):
        return model.score_items(users)
    items = torch.arange(num_items, device=users.device).repeat(len(users))
    repeated_users = users.repeat_interleave(num_items)
    parts = zip(repeated_users.split(BLOCK_PAIRS), items.split(BLOCK_PAIRS), strict=True)
    return torch.cat([model(u, i)[0] for u, i in parts]).view(len(users), num_items)


def _mask(scores: Tensor, users: Tensor, seen) -> None:
    """Set the scores of what each of `users` (one per row) has in `seen` to -inf."""
    starts, ends = seen.offsets[users], seen.offsets[users + 1]
    rows = torch.arange(len(users), device=users.device).repeat_interleave(ends - starts)
    scores[rows, seen.items_by_user[ranges(starts, ends)].long()] = -torch.inf


def ranges(starts: Tensor, ends: Tensor) -> Tensor:
    """All whole numbers from each start up to its end, one range after the other: (K,), (K,) -> (sum of lengths,)."""
    lengths = ends - starts
    first = (starts - (lengths.cumsum(0) - lengths)).repeat_interleave(lengths)
    return first + torch.arange(len(first), device=first.device)


def label_metrics(logits: Tensor, labels: Tensor, user_ids: Tensor) -> dict[str, float]:
    """How well one task's logits tell rows with label 1 from rows with label 0.

    Args:
        logits: (R,) sigmoid(logit) is the predicted probability.
        labels: (R,) 0 or 1.
        user_ids: (R,) whose row it is.

    Returns:
        auc: over all rows; nan where there is one class only.
        log_loss: mean cross-entropy in nats.
        entropy: normalised entropy, log_loss over that of a constant at the rows' own rate (He et al. 2014; they take
            the rate of the training rows); 1 is knowing nothing.
        calibration: mean predicted probability over mean label; 1 is right.
        user_auc: the AUC within each user, mean over users with both classes; nan where there are none.

    Raises:
        FloatingPointError: a logit is nan or infinite.
    """
    if not logits.isfinite().all():
        raise FloatingPointError("the model scores a pair with nan or infinity")
    logits, labels, user_ids = logits.cpu().double(), labels.cpu().double(), user_ids.cpu()
    log_loss = F.binary_cross_entropy_with_logits(logits, labels).item()
    rate = labels.mean()
    entropy = -(torch.xlogy(rate, rate) + torch.xlogy(1 - rate, 1 - rate)).item()
    return {
        "auc": roc_auc(logits, labels),
        "log_loss": log_loss,
        "entropy": log_loss / entropy if entropy else math.nan,
        "calibration": (logits.sigmoid().mean() / rate).item() if rate else math.nan,
        "user_auc": auc_by_group(logits, labels, user_ids).nanmean().item(),
    }


def roc_auc(scores: Tensor, labels: Tensor) -> float:
    """The chance that a row with label 1 scores above one with label 0, ties counting half: (R,), (R,) -> number.

    nan where there is one class only.
    """
    return auc_by_group(scores, labels, torch.zeros_like(labels, dtype=torch.long)).item()


def auc_by_group(scores: Tensor, labels: Tensor, groups: Tensor) -> Tensor:
    """The AUC within each group, by the rank sum with average ranks (Mann and Whitney 1947).

    Args:
        scores: (R,) any numbers.
        labels: (R,) 0 or 1.
        groups: (R,) a whole number for each row.

    Returns:
        (number of groups,) float64, groups ascending; nan where a group has one class only.
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
    """(R,) positions from 1 of rows that are sorted by group and score; equals share their average."""
    starts_tie = torch.ones_like(groups, dtype=torch.bool)
    starts_tie[1:] = (groups[1:] != groups[:-1]) | (scores[1:] != scores[:-1])
    tie = starts_tie.cumsum(0) - 1
    counts = torch.bincount(tie).double()
    return (counts.cumsum(0) - (counts - 1) / 2)[tie]
