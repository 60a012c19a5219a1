"""New users of a trained MultiTaskNet: the ranking from the watched items, the rating from the ratings.

    u ~ N(m_u, S)          m_u from the watched items (training.fold_in), S the covariance of its residuals
    r_uj ~ N(f_theta(u, q_j), v)

m_u alone ranks. The ratings move u to the mean of its posterior. Where f_theta is linear, that is a closed form,

    u = m + S J' (J S J' + v I)^-1 (r - f(m))        J (n, d): the derivative of the ratings by u

and otherwise a few steps of Gauss and Newton: the same with f linearized anew. v has the highest marginal likelihood of
the ratings of trained users. Prior and noise therefore come from the run's own rows.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dataset import Interactions
from training.fold_in import SMALLEST, encode_new_users, evenly_spaced, side_by_side, user_widths, with_users

STEPS = 4
NOISE_USERS = 200  # trained users whose ratings choose v
NOISE_FACTORS = tuple(2.0**power for power in range(-2, 7))  # v, times the mean squared error on their rows


@dataclass(frozen=True, eq=False)
class Rows:
    """Item numbers (n,) and ratings (n,) float64 of one user."""

    item_ids: Tensor
    ratings: Tensor


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
        solver.choose_noise(side_by_side(model, kinds, "user")[encoded.own[chosen]], encoded.own_mean[chosen], trained)
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
        self.model, self.spread = copy.deepcopy(model).cpu().double().requires_grad_(False), spread
        self.widths = widths
        self.noise = 1.0
        self.active = torch.ones(len(spread), dtype=torch.bool)
        self.factor = _root(spread)

    def choose_noise(self, embeddings: Tensor, means: Tensor, rows: list[Rows]) -> None:
        """Set v, and the columns of u that move a rating at all.

        Args:
            embeddings, means: (m, d), the trained embeddings of some users and their m_u.
            rows: their training rows.
        """
        known = [
            (users, mean, own) for users, mean, own in zip(embeddings, means, rows, strict=True) if len(own.ratings)
        ]
        trained = torch.cat([own.ratings - self.linearize(user, own)[0] for user, _, own in known])
        linear = [self.linearize(mean, own) for _, mean, own in known]
        self.active = torch.stack([slopes.abs().amax(dim=0) for _, slopes in linear]).amax(dim=0) > 0
        self.factor = _root(self.spread[self.active][:, self.active])
        error = max(trained.square().mean().item(), SMALLEST)
        surprise = torch.zeros(len(NOISE_FACTORS), dtype=torch.double)
        for (_, _, own), (predicted, slopes) in zip(known, linear, strict=True):
            left, squares = self._decompose(slopes)
            for place, factor in enumerate(NOISE_FACTORS):
                surprise[place] += _surprise(own.ratings - predicted, left, squares, factor * error)
        self.noise = error * NOISE_FACTORS[int(surprise.argmin())]

    def solve(self, mean: Tensor, rows: Rows) -> Tensor:
        """u of one user: (d,), from m_u (d,). Of the linearizations, the one whose posterior density is highest."""
        user, expected, prior = mean, None, 0.0
        best, lowest = mean, float("inf")
        for _ in range(STEPS + 1):
            predicted, slopes = self.linearize(user, rows)
            objective = (rows.ratings - predicted).square().sum().item() / self.noise + prior
            if objective < lowest:
                best, lowest = user, objective
            if expected is not None and torch.allclose(predicted, expected, rtol=0, atol=1e-9):
                break  # f is linear here: a further step changes nothing
            target = rows.ratings - predicted + slopes @ (user - mean)
            left, squares = self._decompose(slopes)
            solved = _solve(target, left, squares, self.noise)
            user = mean + self.spread[:, self.active] @ (slopes[:, self.active].T @ solved)
            prior = (squares * (left.T @ solved).square()).sum().item()
            expected = rows.ratings - target + slopes @ (user - mean)
        return best

    def linearize(self, user: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Predicted ratings (n,) of one user's items, and their derivatives by the embedding u, (n, d)."""
        copies = user.repeat(len(rows.item_ids), 1)
        tables = [part.contiguous().requires_grad_() for part in copies.split(list(self.widths.values()), dim=1)]
        places = torch.arange(len(rows.item_ids))
        with torch.enable_grad():
            state = dict(zip(self.widths, tables, strict=True))
            predicted = functional_call(self.model, state, (places, rows.item_ids))[1]
            slopes = torch.autograd.grad(predicted.sum(), tables, allow_unused=True, materialize_grads=True)
        return predicted.detach(), torch.cat(slopes, dim=1)

    def _decompose(self, slopes: Tensor) -> tuple[Tensor, Tensor]:
        """Left singular vectors (n, k) and squared singular values (k,) of J S^1/2."""
        left, values, _ = torch.linalg.svd(slopes[:, self.active] @ self.factor, full_matrices=False)
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
