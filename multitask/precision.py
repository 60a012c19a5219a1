"""Networks in double precision, for what rounding would disturb."""

import copy

import torch
from torch import nn


def in_double(model: nn.Module) -> nn.Module:
    """A copy of a network in float64; in its own precision where its code allows no other.

    models.py may convert to float32 on the way, and layers of float64 do not take that.
    """
    exact = copy.deepcopy(model).double()
    first_row = torch.zeros(1, dtype=torch.long, device=next(exact.parameters()).device)
    try:
        with torch.no_grad():
            exact(first_row, first_row)
    except RuntimeError:
        return copy.deepcopy(model)
    return exact
