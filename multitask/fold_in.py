"""New users of a trained MultiTaskNet: the ranking from the watched items, the rating from the ratings.

    u ~ N(m_u, S)          m_u from the watched items (training.fold_in), S the covariance of its residuals
    r_uj ~ N(f_theta(u, q_j), v)

m_u alone ranks. The ratings move u to the mean of its posterior. Where f_theta is linear, that is a closed form,

    u = m + S J' (J S J' + v I)^-1 (r - f(m))        J (n, d): the derivative of the ratings by u

and otherwise a few steps of Gauss and Newton: the same with f linearized anew. v has the highest marginal likelihood of
the ratings of trained users. Prior and noise therefore come from the run's own rows.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dataset import Interactions
from evaluation import BLOCK_CELLS
from multitask.precision import in_double
from training.fold_in import SMALLEST, encode_new_users, evenly_spaced, side_by_side, user_widths, with_users

STEPS = 4  # where f is not linear
LINEAR_USERS = 5  # trained users whose ratings tell whether f is linear
NOISE_USERS = 200  # trained users whose ratings choose v
NOISE_FACTORS = tuple(2.0**power for power in range(-2, 7))  # v, times the mean squared error on their rows


@dataclass(frozen=True, eq=False)
class Rows:
    """Item numbers (n,) and ratings (n,) float64 of one user."""

    item_ids: Tensor
    ratings: Tensor


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of PyTorch: many small decompositions are several times slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def fold_in(model: nn.Module, kinds: Mapping[str, str], train: Interactions, rows: Interactions) -> nn.Module:
    """A copy of the network whose users are those of `rows`; a rating that is nan stands for a watched item alone.

    Args:
        kinds: see `Task.row_tables`.
        train: the rows that the network was trained on.
        rows: at least one for each new user, over the same items.
    """
    ones = (torch.ones(len(part), 1) for part in (train, rows))
    encoded = encode_new_users(model, kinds, train, rows, *ones)
    users = encoded.mean.clone()
    of_users = _by_user(rows)
    if any(len(own.ratings) for own in of_users):
        chosen = evenly_spaced(len(encoded.own), NOISE_USERS)
        trained = _by_user(train, encoded.own[chosen])
        spread = encoded.residuals.T @ encoded.residuals / len(encoded.residuals)
        solver = RatingSolver(model, user_widths(model, kinds), spread)
        embeddings = side_by_side(model, kinds, "user")[encoded.own[chosen]]
        solver.fit(embeddings, encoded.own_mean[chosen], trained, rows.num_items)
        for place, own in enumerate(of_users):
            if len(own.ratings):
                users[place] = solver.solve(users[place], own)
    return with_users(model, kinds, users)


def _by_user(rows: Interactions, users: Tensor | None = None) -> list[Rows]:
    """The rated rows of each of some users; of all where none are named."""
    if users is not None:
        rows = rows[torch.isin(rows.user_ids, users.to(rows.user_ids))]
    rows = rows.to(torch.device("cpu"))
    rows = rows[rows.ratings.isfinite()]
    rows = rows[torch.argsort(rows.user_ids, stable=True)]
    counts = rows.offsets.diff()
    parts = zip(rows.item_ids.long().split(counts.tolist()), rows.ratings.double().split(counts.tolist()), strict=True)
    found = [Rows(*part) for part in parts]
    return found if users is None else [found[user] for user in users.tolist()]


class RatingSolver:
    """The posterior mean of a user's embedding given ratings.

    Args:
        model: its item tables and f_theta are used.
        widths: of its user tables by their names in its state_dict; u holds them side by side.
        spread: S, (d, d).
    """

    def __init__(self, model: nn.Module, widths: Mapping[str, int], spread: Tensor) -> None:
        self.model = in_double(model).cpu().requires_grad_(False)
        self.widths, self.spread = widths, spread
        self.noise = 1.0
        self.active = torch.arange(len(spread))  # the columns of u that move a rating, as far as is known
        self.factor = _root(spread)
        self.table: tuple[Tensor, Tensor] | None = None  # where f is linear: f(0) and J of every item

    def fit(self, embeddings: Tensor, means: Tensor, rows: list[Rows], num_items: int) -> None:
        """Find out whether f is linear and which columns of u move a rating; set v.

        Args:
            embeddings, means: (m, d), the trained embeddings of some users and their m_u.
            rows: their training rows; the m users have one at least.
        """
        known = [one for one in zip(embeddings, means, rows, strict=True) if len(one[2].ratings)]
        if all(self._is_linear_between(*one) for one in known[:LINEAR_USERS]):
            self.table = self._tabulate(num_items)
        trained = torch.cat([own.ratings - self.linearize(user, own)[0] for user, _, own in known])
        error = max(trained.square().mean().item(), SMALLEST)
        surprise = torch.zeros(len(NOISE_FACTORS), dtype=torch.double)
        for _, mean, own in known:
            predicted, gradients = self.linearize(mean, own)
            left, squares = self._decompose(gradients)
            for place, factor in enumerate(NOISE_FACTORS):
                surprise[place] += _surprise(own.ratings - predicted, left, squares, factor * error)
        self.noise = error * NOISE_FACTORS[int(surprise.argmin())]

    def solve(self, mean: Tensor, rows: Rows) -> Tensor:
        """u of one user: (d,), from m_u (d,). Of the linearizations, the one whose posterior density is highest."""
        user, prior = mean, 0.0
        best, lowest = mean, float("inf")
        for step in range(STEPS + 1):
            predicted, gradients = self.linearize(user, rows)
            objective = (rows.ratings - predicted).square().sum().item() / self.noise + prior
            if objective < lowest:
                best, lowest = user, objective
            if step == STEPS:
                break
            target = rows.ratings - predicted + gradients @ (user - mean)[self.active]
            left, squares = self._decompose(gradients)
            solved = _solve(target, left, squares, self.noise)
            user = mean + self.spread[:, self.active] @ (gradients.T @ solved)
            prior = (squares * (left.T @ solved).square()).sum().item()
            if self.table is not None:
                return user  # f is linear: a further step changes nothing
        return best

    def linearize(self, user: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Predicted ratings (n,) of one user's items, and their derivatives by the active columns of u, (n, k)."""
        if self.table is None:
            predicted, gradients = self._differentiate(user, rows.item_ids)
            return predicted, gradients[:, self.active]
        constants, gradients = (part[rows.item_ids] for part in self.table)
        return constants + gradients @ user[self.active], gradients

    def _differentiate(self, user: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted ratings (n,) of items, and their derivatives by u, (n, d)."""
        copies = user.to(next(self.model.parameters()).dtype).repeat(len(item_ids), 1)
        tables = [part.contiguous().requires_grad_() for part in copies.split(list(self.widths.values()), dim=1)]
        with torch.enable_grad():
            state = dict(zip(self.widths, tables, strict=True))
            predicted = functional_call(self.model, state, (torch.arange(len(item_ids)), item_ids))[1]
            gradients = torch.autograd.grad(predicted.sum(), tables, allow_unused=True, materialize_grads=True)
        return predicted.detach().double(), torch.cat(gradients, dim=1).double()

    def _is_linear_between(self, user: Tensor, mean: Tensor, rows: Rows) -> bool:
        (there, _), (here, gradients) = (self._differentiate(point, rows.item_ids) for point in (user, mean))
        return torch.allclose(there, here + gradients @ (user - mean), rtol=1e-9, atol=1e-9)

    def _tabulate(self, num_items: int) -> tuple[Tensor, Tensor]:
        """f(0) of every item (num_items,), and its derivatives by the columns of u that move any rating."""
        zero = torch.zeros(len(self.spread), dtype=torch.double)
        size = max(1, BLOCK_CELLS // len(zero))
        is_active = torch.zeros(len(zero), dtype=torch.bool)
        blocks = torch.arange(num_items).split(size)
        for block in blocks:
            is_active |= self._differentiate(zero, block)[1].abs().amax(dim=0) > 0
        self.active = is_active.nonzero().squeeze(1)
        self.factor = _root(self.spread[self.active][:, self.active])
        constants, gradients = [], []
        for block in blocks:
            predicted, derivatives = self._differentiate(zero, block)
            constants.append(predicted)
            gradients.append(derivatives[:, self.active])
        return torch.cat(constants), torch.cat(gradients)

    def _decompose(self, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Left singular vectors (n, k) and squared singular values (k,) of J S^1/2."""
        left, values, _ = torch.linalg.svd(gradients @ self.factor, full_matrices=False)
        return left, values.square()


def _root(matrix: Tensor) -> Tensor:
    """R with R R' = matrix, which is positive semidefinite."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt()


def _solve(target: Tensor, left: Tensor, squares: Tensor, noise: float) -> Tensor:
    """(J S J' + v I)^-1 target: (n,)."""
    projected = left.T @ target
    return (target - left @ (squares / (squares + noise) * projected)) / noise


def _surprise(target: Tensor, left: Tensor, squares: Tensor, noise: float) -> Tensor:
    """Twice the negative log density of N(0, J S J' + v I) at the target, up to a constant (Rasmussen and Williams
    2006, eq. 2.30)."""
    log_determinant = (squares + noise).log().sum() + (len(target) - len(squares)) * math.log(noise)
    return log_determinant + target @ _solve(target, left, squares, noise)
