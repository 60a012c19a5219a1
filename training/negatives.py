"""Samplers of negative items."""

import torch
from torch import Tensor

from dataset import Interactions

# Negatives drawn, or rows shuffled, at a time. Bounds the memory for any number of ratings and negatives.
CHUNK_ROWS = 2**20


def sample_uniform(seen: Interactions, user_ids: Tensor, num_negatives: int, generator: torch.Generator) -> Tensor:
    """Draw items uniformly at random, watched ones included, as in eq. (3).

    Args:
        seen: the training interactions; only the number of items is used here.
        user_ids: (B,).
        num_negatives: N, items per user.
        generator: a CPU generator, so that the draws are the same on every device.

    Returns:
        (B, N) item ids, on the device of `user_ids`.
    """
    shape = (len(user_ids), num_negatives)
    return torch.randint(seen.num_items, shape, generator=generator).to(user_ids.device)


def sample_unseen(seen: Interactions, user_ids: Tensor, num_negatives: int, generator: torch.Generator) -> Tensor:
    """Draw items uniformly from those that the user does not have in `seen`, without rejection.

    Let s_0 < s_1 < ... be the seen items of a user. The r-th unseen item is r + k, where k is the number of j with
    s_j - j <= r, that is, the number of seen items before it. For a user who has seen every item the draw is from all
    items.

    Arguments and result as in `sample_uniform`.
    """
    users = user_ids.long().unsqueeze(1)
    starts, ends = seen.offsets[users], seen.offsets[users + 1]
    num_seen = ends - starts
    num_unseen = torch.where(num_seen < seen.num_items, seen.num_items - num_seen, seen.num_items)
    chance = torch.rand((len(user_ids), num_negatives), generator=generator, dtype=torch.double).to(user_ids.device)
    nth = (chance * num_unseen).long().clamp(max=num_unseen - 1)
    return torch.where(num_seen < seen.num_items, nth + _count_before(seen, starts, ends, nth), nth)


def _count_before(seen: Interactions, starts: Tensor, ends: Tensor, nth: Tensor) -> Tensor:
    """The number of seen items before the nth unseen item, by bisection in the sorted items of each user.

    Args:
        starts, ends: (B, 1), where each user begins and ends in `seen.items_by_user`.
        nth: (B, N).

    Returns:
        (B, N).
    """
    low, high = starts.expand_as(nth), ends.expand_as(nth)
    last = max(len(seen) - 1, 0)
    for _ in range(seen.num_items.bit_length()):
        middle = (low + high) // 2
        is_before = seen.items_by_user[middle.clamp(max=last)] - (middle - starts) <= nth
        is_before &= low < high
        low, high = torch.where(is_before, middle + 1, low), torch.where(is_before, high, middle)
    return low - starts
