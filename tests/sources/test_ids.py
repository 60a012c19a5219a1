"""Pairs as numbers: no overflow, the same for arrays and tensors, inputs unchanged."""

import numpy as np
import pytest
import torch

from sources.ids import encode_pairs


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_arrays_and_tensors_give_the_same_int64_numbers(dtype):
    users, items = np.array([3, 0, 100, 3], dtype), np.array([1, 0, 90, 0], dtype)
    expected = [3 * 10**9 + 1, 0, 100 * 10**9 + 90, 3 * 10**9]
    pairs = encode_pairs(users, items, 10**9)
    assert (pairs.dtype, pairs.tolist()) == (np.int64, expected)
    tensors = torch.from_numpy(users), torch.from_numpy(items)
    pairs = encode_pairs(*tensors, 10**9)
    assert (pairs.dtype, pairs.tolist()) == (torch.int64, expected)
    assert users.tolist() == tensors[0].tolist() == [3, 0, 100, 3]


def test_numbers_sort_by_user_then_by_item():
    users, items = np.divmod(np.random.default_rng(0).permutation(35), 7)
    order = np.argsort(encode_pairs(users, items, 7))
    assert order.tolist() == np.lexsort((items, users)).tolist()
