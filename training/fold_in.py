"""Embeddings of new users from their items, with every other weight of a trained network fixed.

    x_u = n_u ** -1/2 * (sum of w_uj q_j over the n_u items j of user u)        u^ = A' x_u + a

q_j is the row of item j in all item tables, each column scaled to variance 1, and w_uj is 1 or a label. A and a are a
ridge regression of the trained users' embeddings on their own x_u, so they need no data but the run's. The ridge is
chosen by leave-one-out.

The sum scaled by n_u ** -1/2 is that of Paterek 2007 (NSVD); there the item vectors are learned with the network.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from dataset import Interactions

MAX_USERS = 5000  # trained users that the regression is fitted on, evenly spaced: bounds its time and memory
RIDGES = tuple(10.0 ** (half / 2) for half in range(-10, 5))  # times the mean squared singular value
# Leave-one-out favors a ridge that is too low for new users: the item tables were trained with those it leaves out. Of
# a further tenth of the users held out of the training users of seed 0 in benchmark.py fold_in, 10 to 30 times as much
# suits three families.
CAUTION = 10.0
SMALLEST = 1e-12  # of squared singular values and variances, relative to the largest: below, they are rounding


@dataclass(frozen=True, eq=False)
class Encoded:
    """mean: (new users, d), the embeddings of new users, float64 on the CPU; d is the width of all user tables.

    own: (m,) row numbers of the trained users that the regression was fitted on.
    own_mean: (m, d), what the regression predicts for each of them when it is fitted without them.
    residuals: (m, d), their embeddings minus `own_mean`.
    """

    mean: Tensor
    own: Tensor
    own_mean: Tensor
    residuals: Tensor


def side_by_side(model: nn.Module, kinds: Mapping[str, str], kind: str) -> Tensor:
    """All user tables or all item tables as one, float64 on the CPU: (rows, sum of the widths).

    Args:
        kinds: see `Task.row_tables`.
        kind: "user" or "item".
    """
    state = model.state_dict()
    return torch.cat([state[name].cpu().double() for name in kinds if kinds[name] == kind], dim=1)


def user_widths(model: nn.Module, kinds: Mapping[str, str]) -> dict[str, int]:
    """The widths of the user tables by their names."""
    state = model.state_dict()
    return {name: state[name].shape[1] for name in kinds if kinds[name] == "user"}


def with_users(model: nn.Module, kinds: Mapping[str, str], users: Tensor) -> nn.Module:
    """A copy of a network whose user tables hold other users: (N, d), as wide as all user tables side by side."""
    folded: Any = copy.deepcopy(model).requires_grad_(False)
    widths = user_widths(model, kinds)
    for name, columns in zip(widths, users.split(list(widths.values()), dim=1), strict=True):
        table = folded.get_submodule(name.removesuffix(".weight"))
        table.weight = nn.Parameter(columns.to(table.weight).contiguous(), requires_grad=False)
        table.num_embeddings = len(users)
    if hasattr(folded, "num_users"):
        folded.num_users = len(users)
    return folded.eval()


def encode_new_users(
    model: nn.Module,
    kinds: Mapping[str, str],
    own: Interactions,
    new: Interactions,
    own_weights: Tensor,
    new_weights: Tensor,
) -> Encoded:
    """Predict the embeddings of new users from their items.

    Args:
        kinds: see `Task.row_tables`.
        own: the rows that the network was trained on.
        new: rows of the new users over the same items; each user has at least one.
        own_weights, new_weights: (R, K), K weights w of each row; x_u holds a sum for each of them.
    """
    items = side_by_side(model, kinds, "item")
    deviation = items.std(dim=0, correction=0, keepdim=True)
    items = torch.where(deviation > 0, items / deviation, 0.0)
    users, own, own_weights = _choose_users(own, own_weights)
    inputs, targets = aggregate(own, own_weights, items), side_by_side(model, kinds, "user")[users]
    center = inputs.mean(dim=0)
    weights, residuals = fit_ridge(inputs - center, targets)
    mean = targets.mean(dim=0) + (aggregate(new, new_weights, items) - center) @ weights
    return Encoded(mean, users, targets - residuals, residuals)


def aggregate(rows: Interactions, weights: Tensor, items: Tensor) -> Tensor:
    """x_u of every user: (R, K) weights, (num_items, q) item vectors -> (num_users, K q)."""
    cells = rows.user_ids.cpu().numpy(), rows.item_ids.cpu().numpy()
    shape = rows.num_users, rows.num_items
    columns = weights.cpu().double().numpy().T
    sums = [sparse.csr_array((column, cells), shape) @ items.numpy() for column in columns]
    counts = rows.offsets.diff().cpu().double().clamp(min=1)
    return torch.from_numpy(np.concatenate(sums, axis=1)) / counts.sqrt().unsqueeze(1)


def _choose_users(rows: Interactions, weights: Tensor) -> tuple[Tensor, Interactions, Tensor]:
    """At most MAX_USERS users with rows, and their rows numbered by place among them."""
    users = rows.offsets.diff().nonzero().squeeze(1)
    chosen = users[evenly_spaced(len(users), MAX_USERS).to(users.device)]
    place = torch.full((rows.num_users,), -1, dtype=torch.long, device=users.device)
    place[chosen] = torch.arange(len(chosen), device=users.device)
    numbers = place[rows.user_ids.long()]
    kept = (numbers >= 0).nonzero().squeeze(1)
    some = rows[kept]
    renumbered = Interactions(numbers[kept], some.item_ids.long(), some.ratings, len(chosen), rows.num_items)
    return chosen.cpu(), renumbered, weights[kept]


def evenly_spaced(count: int, most: int) -> Tensor:
    """At most `most` of the numbers 0 .. count - 1, evenly spaced."""
    return torch.arange(min(count, most)) * count // max(1, min(count, most))


def fit_ridge(
    inputs: Tensor, targets: Tensor, ridges: Sequence[float] = RIDGES, caution: float = CAUTION
) -> tuple[Tensor, Tensor]:
    """Ridge regression with an intercept.

    Args:
        inputs: (m, p), centered.
        targets: (m, d). In the leave-one-out error, each column counts relative to its variance.
        ridges: times the mean squared singular value of the inputs; the one with the lowest leave-one-out error,
            times `caution`, is taken.

    Returns:
        weights (p, d), the intercept being the mean of the targets; and the residual (m, d) of each row under a fit
        without it, up to the centering of its inputs.
    """
    centered = targets - targets.mean(dim=0)
    left, squares, right = _decompose(inputs)
    projected = left.T @ centered
    variance = centered.square().mean(dim=0).clamp(min=torch.finfo(centered.dtype).tiny)

    def left_out(ridge: float) -> Tensor:
        shrink = (squares / (squares + ridge)).unsqueeze(1)
        leverage = left.square() @ shrink + 1 / len(inputs)
        return (centered - left @ (shrink * projected)) / (1 - leverage).clamp(min=SMALLEST)

    scale = squares.mean().item()
    errors = [(left_out(ridge * scale).square().mean(dim=0) / variance).mean().item() for ridge in ridges]
    ridge = caution * scale * ridges[errors.index(min(errors))]
    weights = right @ ((squares.sqrt() / (squares + ridge)).unsqueeze(1) * projected)
    return weights, left_out(ridge)


def _decompose(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """left (m, k), squared singular values (k,) and right (p, k), by the eigenvectors of the smaller Gram matrix."""
    if len(matrix) < matrix.shape[1]:
        right, squares, left = _decompose(matrix.T)
        return left, squares, right
    squares, right = torch.linalg.eigh(matrix.T @ matrix)
    kept = squares > SMALLEST * squares[-1]
    squares, right = squares[kept], right[:, kept]
    return matrix @ right / squares.sqrt(), squares, right
