"""Encoding a (user, item) pair as one number."""

import numpy as np


def encode_pairs(user_ids, item_ids, num_items: int):
    """Encode each (user, item) pair as user_id * num_items + item_id; the numbers sort by user, then by item.

    Args:
        user_ids, item_ids: (R,) row numbers of any integer type, both NumPy arrays or both tensors.
        num_items: item ids lie in [0, num_items).

    Returns:
        (R,) int64, of the kind of `user_ids`; the arguments are unchanged.
    """
    if isinstance(user_ids, np.ndarray):
        pairs = user_ids.astype(np.int64)
        pairs *= num_items  # in place: these columns may hold tens of millions of rows
    else:
        pairs = user_ids.long() * num_items
    pairs += item_ids
    return pairs
