"""The highest-scored items of a block of users, in an order that is the same on every machine.

All items are scored by `Task.score_all`, which is fast, and the best candidates again by `Task.score`, which is the
network's `forward`. The order is that of the second scores; equal ones are ordered by raw id.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset import Interactions
from evaluation import mask_items
from training.protocols import Task

MARGIN = 16  # candidates beyond k
# Of the range of a user's scores; the two ways of scoring differ by rounding, which is far less.
ROUNDING = 1e-4


def raw_order(raw_ids: np.ndarray) -> Tensor:
    """(n,) int64: the place of each id when all are sorted by length, then as text, so that whole numbers ascend."""
    texts = raw_ids.astype(str)
    place = np.empty(len(texts), np.int64)
    place[np.lexsort((texts, np.char.str_len(texts)))] = np.arange(len(texts))
    return torch.from_numpy(place)


def top_items(
    model: Any, task: Task, users: Tensor, k: int, place: Tensor, seen: Interactions | None, allowed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The k items with the highest scores for each user.

    Args:
        users: (B,) row numbers.
        place: (n,) breaks ties between items, lower first; see `raw_order`.
        seen: pairs to leave out; None: none.
        allowed: (n,) bool, the items to choose from; None: all.

    Returns:
        (B, k) item row numbers, best first, and (B, k) their scores; -inf from where a user has no further item.
    """
    rough = _masked(task.score_all(model, users), users, seen, allowed)
    count = min(rough.shape[1], k + MARGIN)
    rough_best, candidates = rough.topk(count)
    scores = task.score(model, users.repeat_interleave(count), candidates.flatten())[0].view(-1, count)
    scores = scores.masked_fill(rough_best == -torch.inf, -torch.inf)
    items, scores = _ordered(candidates, scores, place, min(k, count))
    for row in _crowded(rough_best, k, rough.shape[1]).nonzero().flatten().tolist():
        items[row], scores[row] = _by_forward(model, task, users[row], place, rough[row] == -torch.inf, items.shape[1])
    return items, scores


def _masked(scores: Tensor, users: Tensor, seen: Interactions | None, allowed: Tensor | None) -> Tensor:
    if seen is not None:
        mask_items(scores, users, seen)
    if allowed is not None:
        scores.masked_fill_(~allowed, -torch.inf)
    return scores


def _crowded(best: Tensor, k: int, num_items: int) -> Tensor:
    """(B,) True where an item that is no candidate may belong to the k best, because many scores are nearly equal."""
    if best.shape[1] == num_items:
        return torch.zeros(len(best), dtype=torch.bool)
    last, needed = best[:, -1], best[:, k - 1]
    spread = best[:, 0].abs() + needed.abs()
    return last.isfinite() & (needed - last <= ROUNDING * spread)


def _by_forward(model: Any, task: Task, user: Tensor, place: Tensor, excluded: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best items of one user, (k,) and (k,), by scoring all of them with `forward`."""
    items = torch.arange(len(place), device=user.device)
    scores = task.score(model, user.expand(len(items)), items)[0].masked_fill(excluded, -torch.inf)
    best, values = _ordered(items.unsqueeze(0), scores.unsqueeze(0), place, k)
    return best[0], values[0]


def _ordered(items: Tensor, scores: Tensor, place: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of (B, m) items by score, equal ones by place: (B, k) and (B, k)."""
    by_place = place[items].argsort(dim=1)
    items, scores = items.gather(1, by_place), scores.gather(1, by_place)
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :k]
    return items.gather(1, order), scores.gather(1, order)
