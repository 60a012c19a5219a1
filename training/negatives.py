"""Drawing negatives: items for users, beside those that they have."""

import torch
from torch import Tensor

from dataset import Interactions

# Negatives drawn, and rows shuffled into place, at a time: bounds memory for any number of ratings and negatives.
ROWS_AT_A_TIME = 2**20


def sample_uniform(seen: Interactions, user_ids: Tensor, num_negatives: int, generator: torch.Generator) -> Tensor:
    """Draw items at random, watched ones too, as eq. (3) has it: (B,) users -> (B, num_negatives) item ids."""
    shape = (len(user_ids), num_negatives)
    return torch.randint(seen.num_items, shape, generator=generator).to(user_ids.device)


def sample_unseen(seen: Interactions, user_ids: Tensor, num_negatives: int, generator: torch.Generator) -> Tensor:
    """Draw items that the user does not have in `seen`, each with the same chance, without rejection.

    The r-th unseen item of a user is r + k, where k counts the seen items (in ascending order s_0, s_1, ...) with
    s_k - k <= r: those that lie before it. A user who has seen everything gets items from all.

    Args and result as in `sample_uniform`.
    """
    users = user_ids.long().unsqueeze(1)
    starts, ends = seen.offsets[users], seen.offsets[users + 1]
    num_seen = ends - starts
    num_unseen = torch.where(num_seen < seen.num_items, seen.num_items - num_seen, seen.num_items)
    chance = torch.rand((len(user_ids), num_negatives), generator=generator, dtype=torch.double).to(user_ids.device)
    nth = (chance * num_unseen).long().clamp(max=num_unseen - 1)
    return torch.where(num_seen < seen.num_items, nth + _count_before(seen, starts, ends, nth), nth)


def _count_before(seen: Interactions, starts: Tensor, ends: Tensor, nth: Tensor) -> Tensor:
    """How many seen items lie before the nth unseen one, by bisection in each user's own items: (B, N)."""
    low, high = starts.expand_as(nth), ends.expand_as(nth)
    last = max(len(seen) - 1, 0)
    for _ in range(seen.num_items.bit_length()):
        middle = (low + high) // 2
        lies_before = seen.items_by_user[middle.clamp(max=last)] - (middle - starts) <= nth
        lies_before &= low < high
        low, high = torch.where(lies_before, middle + 1, low), torch.where(lies_before, high, middle)
    return low - starts
