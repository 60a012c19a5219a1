"""The highest-scored items of a block of users, in an order that is the same on every machine.

All items are scored by `Task.score_all`, which is fast, and the best candidates again by `Task.score`, which is the
network's `forward`. The order is that of the second scores; equal ones are ordered by raw id.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset import Interactions
from evaluation import BLOCK_CELLS, mask_items
from training.protocols import Task

MARGIN = 16  # candidates beyond k
CHUNK_ITEMS = 64  # items compared at a time in long rows
# Of the size of a user's scores; the two ways of scoring differ by rounding, which is far less.
ROUNDING = 1e-4


def raw_order(raw_ids: np.ndarray) -> Tensor:
    """(n,) int64: the place of each id when all are sorted by length, then as text, so that whole numbers ascend."""
    texts = raw_ids.astype(str)
    place = np.empty(len(texts), np.int64)
    place[np.lexsort((texts, np.char.str_len(texts)))] = np.arange(len(texts))
    return torch.from_numpy(place)


@dataclass(frozen=True, eq=False)
class Choice:
    """What may be recommended.

    seen: pairs to leave out; None: none.
    allowed: (n,) bool, the items to choose from; None: all.
    """

    seen: Interactions | None = None
    allowed: Tensor | None = None

    def scores(self, model: Any, task: Task, users: Tensor) -> Tensor:
        """(B, n) scores by `Task.score_all`, -inf for what may not be recommended."""
        scores = task.score_all(model, users)
        if self.seen is not None:
            mask_items(scores, users, self.seen)
        return scores if self.allowed is None else scores.masked_fill_(~self.allowed, -torch.inf)


def top_items(model: Any, task: Task, users: Tensor, k: int, place: Tensor, choice: Choice) -> tuple[Tensor, Tensor]:
    """The k items with the highest scores for each user.

    Args:
        users: (B,) row numbers.
        k: at most the number of items n.
        place: (n,) breaks ties between items, lower first; see `raw_order`.

    Returns:
        (B, k) item row numbers, best first, and (B, k) their scores; -inf from where a user has no further item.
    """
    num_items = len(place)
    count = min(num_items, k + MARGIN)
    blocks = users.split(max(1, BLOCK_CELLS // num_items))
    best = [_topk(choice.scores(model, task, block), count) for block in blocks]
    rough, candidates = (torch.cat([part[side] for part in best]) for side in (0, 1))
    scores = task.score(model, users.repeat_interleave(count), candidates.flatten())[0].view(-1, count)
    items, scores = _ordered(candidates, scores.masked_fill(rough == -torch.inf, -torch.inf), place, k)
    if count < num_items:
        for row in _crowded(rough, k).nonzero().flatten().tolist():
            items[row], scores[row] = _by_forward(model, task, users[row : row + 1], k, place, choice)
    return items, scores


def _topk(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`scores.topk(count)` in a fraction of its time for long rows: the best lie in the chunks of highest maxima."""
    num_items = scores.shape[1]
    whole = num_items // CHUNK_ITEMS * CHUNK_ITEMS
    if whole <= 2 * count * CHUNK_ITEMS:
        return scores.topk(count)
    maxima = scores[:, :whole].unflatten(1, (-1, CHUNK_ITEMS)).amax(dim=2)
    within = torch.arange(CHUNK_ITEMS, device=scores.device)
    items = (maxima.topk(count).indices.unsqueeze(2) * CHUNK_ITEMS + within).flatten(1)
    rest = torch.arange(whole, num_items, device=scores.device).expand(len(scores), -1)
    items = torch.cat([items, rest], dim=1)
    values, places = scores.gather(1, items).topk(count)
    return values, items.gather(1, places)


def _crowded(best: Tensor, k: int) -> Tensor:
    """(B,) True where an item that is no candidate may belong to the k best, because many scores are nearly equal."""
    last, needed = best[:, -1], best[:, k - 1]
    size = best[:, 0].abs() + needed.abs()
    return last.isfinite() & (needed - last <= ROUNDING * size)


def _by_forward(model: Any, task: Task, user: Tensor, k: int, place: Tensor, choice: Choice) -> tuple[Tensor, Tensor]:
    """The k best items of one user (1,), by scoring all of them with `forward`: (1, k) and (1, k)."""
    excluded = choice.scores(model, task, user) == -torch.inf
    items = torch.arange(len(place), device=user.device)
    scores = task.score(model, user.expand(len(items)), items)[0]
    return _ordered(items.unsqueeze(0), scores.masked_fill(excluded, -torch.inf), place, k)


def _ordered(items: Tensor, scores: Tensor, place: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of (B, m) items by score, equal ones by place: (B, k) and (B, k)."""
    by_place = place[items].argsort(dim=1)
    items, scores = items.gather(1, by_place), scores.gather(1, by_place)
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :k]
    return items.gather(1, order), scores.gather(1, order)
