"""The rating block in closed form: variational Bayesian matrix factorization, informed by who watched what.

    r_ui = mu + s (x_u0 + y_i0 + sum_k x_uk y_ik + noise)        noise ~ N(0, 1 / tau_u)
    x_u ~ N(W' f_u, Lambda^-1), and y_i likewise with its own f, W and Lambda
    tau_u ~ Gamma(nu / 2, nu v / 2): some users rate more consistently than others; v is a typical variance of the noise

mu and s are the mean and the standard deviation of the training ratings, so that a change of the rating scale changes
the predictions and nothing else.

Symbols:
    d  factors           D  d + 1 coordinates of a row; number 0 is the bias
    n  rows of a side    P  features of a row        N  ratings
    m, C  mean (n, D) and covariance (n, D, D) of the posterior of each row
    F  features (n, P)   W  their weights (P, D)     rho  strength of the prior of W
    b_i = (1, y_i1, .., y_id): the score of a user is linear in it, x_u . b_i + y_i0

Sources: Lim and Teh 2007 (variational matrix factorization); Salakhutdinov and Mnih 2008 (BPMF: the prior of rows is
learned); Simm et al. 2015 (Macau: its mean depends on features). The last two draw samples; here the posterior is
approximated by one normal distribution per row, which coordinate ascent finds in a few sweeps. Noise by user and the
start among the features are ours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from scipy import sparse
from torch import Tensor

from dataset import Interactions
from multitask.features import rating_matrix
from multitask.svd import multiply
from training.streams import stream

START_STD = 0.1  # of the factors
START_WEIGHT = 0.3  # of the features in the initial factors
START_VARIANCE = 0.5  # of the prior of rows before its first update
# What the prior of Lambda adds to the sum of squares of the biases and of each factor. It keeps variances above zero
# and hardly binds where ratings say something; more would be learned as signal where they are noise.
BIAS_SCATTER, FACTOR_SCATTER = 0.5, 2.5
USER_NOISE_ROWS = 10.0  # nu: a user's own noise counts half after this many ratings
MIN_NOISE_VARIANCE = 1e-4  # v, in units of s: ratings without noise would let it vanish
WEIGHT_ROWS = 1.0  # the prior of rho is as weak as this many weights


@dataclass(frozen=True, eq=False)
class Factorization:
    """Ratings mean + user_bias + item_bias + users . items, all float64.

    user_bias (num_users,), item_bias (num_items,), users (num_users, d), items (num_items, d).
    """

    mean: float
    user_bias: Tensor
    item_bias: Tensor
    users: Tensor
    items: Tensor

    def predict(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Predicted ratings of B pairs, not clipped to the rating scale: (B,), (B,) -> (B,)."""
        biases = self.user_bias[user_ids] + self.item_bias[item_ids]
        return self.mean + biases + (self.users[user_ids] * self.items[item_ids]).sum(dim=1)


def mean_of(factorizations: Sequence[Factorization]) -> Factorization:
    """The factorization, as wide as all together, that predicts the mean of their predictions."""
    count = len(factorizations)
    return Factorization(
        mean=sum(one.mean for one in factorizations) / count,
        user_bias=torch.stack([one.user_bias for one in factorizations]).mean(dim=0),
        item_bias=torch.stack([one.item_bias for one in factorizations]).mean(dim=0),
        users=torch.cat([one.users for one in factorizations], dim=1),
        items=torch.cat([one.items for one in factorizations], dim=1) / count,
    )


class Side:
    """The posterior of all users or of all items, and its prior.

    Args:
        features: F.
        num_factors: d.
        generator: draws the initial factors; the initial biases are zero.
    """

    state_names = ("mean", "covariance", "weights", "precision", "ridge")

    def __init__(self, features: Tensor, num_factors: int, generator: torch.Generator) -> None:
        self.features = features
        self.num_rows, self.num_features = features.shape
        self.width = num_factors + 1
        start = torch.randn(self.num_features, self.width, dtype=torch.double, generator=generator)
        self.mean = START_WEIGHT * (features - features.mean(dim=0)) @ start
        self.mean += START_STD * torch.randn(self.mean.shape, dtype=torch.double, generator=generator)
        self.mean[:, 0] = 0.0
        self.covariance = START_STD**2 * torch.eye(self.width, dtype=torch.double).repeat(self.num_rows, 1, 1)
        self.weights = torch.zeros(self.num_features, self.width, dtype=torch.double)
        self.precision = torch.eye(self.width, dtype=torch.double) / START_VARIANCE
        self.ridge = torch.ones((), dtype=torch.double)

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (P,) and eigenvectors (P, P) of F'F."""
        values, vectors = torch.linalg.eigh(self.features.T @ self.features)
        return values.clamp(min=0), vectors

    @property
    def second_moment(self) -> Tensor:
        """E[x x'] of each row: (n, D, D)."""
        return self.covariance + self.mean.unsqueeze(2) * self.mean.unsqueeze(1)

    def regressors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the other side sees of this one.

        Returns:
            b (n, D); E[b b'] (n, D, D); E[y_0 b] (n, D), which includes the covariance of y_0 and b; E[y_0^2] (n,).
        """
        b = self.mean.clone()
        b[:, 0] = 1.0
        cov = self.covariance.clone()
        cov[:, 0, :] = cov[:, :, 0] = 0.0
        bias_cov = self.covariance[:, 0, :].clone()
        bias_cov[:, 0] = 0.0
        bias_square = self.mean[:, 0].square() + self.covariance[:, 0, 0]
        return b, cov + b.unsqueeze(2) * b.unsqueeze(1), self.mean[:, :1] * b + bias_cov, bias_square

    def update_rows(self, moments: Tensor, targets: Tensor) -> None:
        """The optimal posterior of every row: C^-1 = Lambda + A and m = C (Lambda W'f + g).

        Args:
            moments: A (n, D, D), the sum of E[b b'] over a row's ratings, each times the precision of its noise.
            targets: g (n, D), the sum of E[(r - y_0) b], likewise.
        """
        factor = torch.linalg.cholesky(self.precision + moments)
        self.covariance = torch.cholesky_inverse(factor)
        prior = self.features @ (self.weights @ self.precision)
        self.mean = (self.covariance @ (prior + targets).unsqueeze(2)).squeeze(2)

    def update_prior(self) -> None:
        """The optimal W, then rho, then Lambda.

        W has the prior N(0, (rho Lambda)^-1) and the posterior N(W, (F'F + rho I)^-1) x Lambda^-1, whose covariance
        rho counts. Lambda has the Wishart prior of D rows that add up to BIAS_SCATTER and FACTOR_SCATTER.
        """
        values, vectors = self.spectrum
        projected = vectors.T @ (self.features.T @ self.mean)
        self.weights = vectors @ (projected / (values + self.ridge).unsqueeze(1))
        size = self.width * self.num_features + 2 * WEIGHT_ROWS
        squares = self.width * (1 / (values + self.ridge)).sum() + self._weight_squares() + 2 * WEIGHT_ROWS
        self.ridge = size / squares
        precision = (self.num_rows + self.width) * torch.linalg.inv(self._scatter())
        self.precision = (precision + precision.T) / 2

    def _weight_squares(self) -> Tensor:
        """tr(Lambda W'W)."""
        return (self.precision * (self.weights.T @ self.weights)).sum()

    def _scatter(self) -> Tensor:
        """diag(BIAS_SCATTER, FACTOR_SCATTER, ..) + sum of E[(z - W'f) (z - W'f)'] + rho W'W: (D, D)."""
        residuals = self.mean - self.features @ self.weights
        prior = FACTOR_SCATTER * torch.eye(self.width, dtype=torch.double)
        prior[0, 0] = BIAS_SCATTER
        scatter = self.covariance.sum(dim=0) + residuals.T @ residuals
        return prior + scatter + self.ridge * (self.weights.T @ self.weights)

    def lower_bound(self) -> Tensor:
        """This side's part of the lower bound, with the posterior of W at its optimum and up to a constant."""
        values = self.spectrum[0] + self.ridge
        width, rows = self.width, self.num_rows
        of_rows = ((rows + width) * self.precision.logdet() - (self.precision * self._scatter()).sum()) / 2
        entropy = self.covariance.logdet().sum() / 2
        of_weights = width / 2 * (self.num_features * self.ridge.log() - values.log().sum())
        return of_rows + entropy + of_weights + WEIGHT_ROWS * (self.ridge.log() - self.ridge)


class BayesianFactorization:
    """The model of the module's docstring, fitted by coordinate ascent; deterministic for a seed.

    A sweep costs about N D^2 operations, so several narrow fits are cheaper than one wide one.

    Args:
        train: ratings (N,), at least one.
        features: F of the users (num_users, P) and of the items (num_items, P'), float64; see `watch_features`.
        num_factors: d, at least 1.
        seed: of the initial factors.

    Raises:
        ValueError: there are no ratings, or more than one column of them.
    """

    state_names = ("noise_precision", "noise_variance")

    def __init__(self, train: Interactions, features: tuple[Tensor, Tensor], num_factors: int, seed: int = 0) -> None:
        if len(train) == 0 or train.ratings.ndim != 1:
            raise ValueError(f"train must hold ratings in one column; it has the shape {tuple(train.ratings.shape)}")
        ratings = train.ratings.cpu().double()
        self.offset = ratings.mean().item()
        spread = ratings.std(correction=0).item()
        self.scale = spread if spread > 1e-9 * abs(self.offset) else 1.0  # else all ratings are equal
        residuals = (ratings - self.offset) / self.scale
        counts, sums = rating_matrix(train, torch.ones(len(train))), rating_matrix(train, residuals)
        self._by_user, self._by_item = (counts, sums), (counts.T.tocsr(), sums.T.tocsr())
        self.user_counts = torch.from_numpy(counts.sum(axis=1))
        self.user_squares = torch.from_numpy(rating_matrix(train, residuals.square()).sum(axis=1))
        generator = stream(seed, 0)
        self.users = Side(features[0], num_factors, generator)
        self.items = Side(features[1], num_factors, generator)
        self.noise_precision = torch.ones(train.num_users, dtype=torch.double)  # the mean of tau_u
        self.noise_variance = torch.ones((), dtype=torch.double)  # v

    def sweep(self) -> None:
        """Update the users and their prior, the noise, and the items and their prior. No update lowers the bound."""
        moments, targets, squares = self._sums_of_users()
        precision = self.noise_precision.unsqueeze(1)
        self.users.update_rows(precision.unsqueeze(2) * moments, precision * targets)
        self.users.update_prior()
        self._update_noise(self._expected_squares(moments, targets, squares))
        self.items.update_rows(*self._sums_of_items())
        self.items.update_prior()

    def _update_noise(self, squares: Tensor) -> None:
        """The optimal tau_u, then v."""
        nu = USER_NOISE_ROWS
        self.noise_precision = (nu + self.user_counts) / (nu * self.noise_variance + squares)
        self.noise_variance = (1 / self.noise_precision.mean()).clamp(min=MIN_NOISE_VARIANCE)

    def _sums_of_users(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over the ratings of each user of E[b b'], E[(r - y_0) b] and E[(r - y_0)^2]."""
        counts, sums = self._by_user
        b, second, offset, bias_square = self.items.regressors()
        moments, offsets = _sum_pairs(counts, second, torch.cat([offset, bias_square.unsqueeze(1)], dim=1))
        of_ratings = multiply(sums, torch.cat([b, self.items.mean[:, :1]], dim=1))
        squares = self.user_squares - 2 * of_ratings[:, -1] + offsets[:, -1]
        return moments, of_ratings[:, :-1] - offsets[:, :-1], squares

    def _sums_of_items(self) -> tuple[Tensor, Tensor]:
        """Sums over the ratings of each item of E[b b'] and E[(r - x_0) b], times the precision of the noise."""
        counts, sums = self._by_item
        precision = self.noise_precision.unsqueeze(1)
        b, second, offset, _ = self.users.regressors()
        moments, offsets = _sum_pairs(counts, precision.unsqueeze(2) * second, precision * offset)
        return moments, multiply(sums, precision * b) - offsets

    def _expected_squares(self, moments: Tensor, targets: Tensor, squares: Tensor) -> Tensor:
        """E[sum of squared errors] of each user, in units of s: (num_users,); from `_sums_of_users`."""
        users = self.users
        return squares - 2 * (users.mean * targets).sum(dim=1) + (users.second_moment * moments).sum(dim=(1, 2))

    def lower_bound(self) -> float:
        """The variational lower bound, up to a constant; coordinate ascent never lowers it."""
        squares = self._expected_squares(*self._sums_of_users())
        tau, prior_squares = self.noise_precision, USER_NOISE_ROWS * self.noise_variance
        of_ratings = (USER_NOISE_ROWS + self.user_counts) @ tau.log() - tau @ (prior_squares + squares)
        of_noise = len(tau) * USER_NOISE_ROWS * prior_squares.log()
        return ((of_ratings + of_noise) / 2 + self.users.lower_bound() + self.items.lower_bound()).item()

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise of a typical user, in rating points."""
        return self.scale * math.sqrt(self.noise_variance.item())

    def factorization(self) -> Factorization:
        """The posterior mean, in rating points."""
        users, items = self.users.mean, self.items.mean
        return Factorization(
            mean=self.offset,
            user_bias=self.scale * users[:, 0],
            item_bias=self.scale * items[:, 0],
            users=self.scale * users[:, 1:],
            items=items[:, 1:].clone(),
        )

    def predict(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Posterior mean of B ratings, not clipped to the rating scale: (B,), (B,) -> (B,)."""
        return self.factorization().predict(user_ids, item_ids)

    def predict_std(self, user_ids: Tensor, item_ids: Tensor, with_noise: bool = True) -> Tensor:
        """Posterior standard deviation of B ratings, in rating points: (B,), (B,) -> (B,).

        Args:
            with_noise: of the rating that a user would give; otherwise of its expectation alone.
        """
        a, b = self.users.mean[user_ids], self.items.mean[item_ids]
        user_cov, item_cov = self.users.covariance[user_ids], self.items.covariance[item_ids]
        both = (user_cov[:, 1:, 1:] * item_cov[:, 1:, 1:]).sum(dim=(1, 2))  # of the products of two factors
        a[:, 0] = b[:, 0] = 1.0
        variance = _quadratic(user_cov, b) + _quadratic(item_cov, a) + both
        if with_noise:
            shape = (USER_NOISE_ROWS + self.user_counts[user_ids]) / 2  # of the posterior of tau_u, a Gamma
            variance = variance + shape / (shape - 1) / self.noise_precision[user_ids]
        return self.scale * variance.sqrt()

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a sweep changes, as copies: float64 tensors by name."""
        state = {name: getattr(self, name) for name in self.state_names}
        for name, side in (("users", self.users), ("items", self.items)):
            state |= {f"{name}.{part}": getattr(side, part) for part in Side.state_names}
        return {name: value.clone() for name, value in state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()` of a fit of the same ratings, features and width, bit-equal to that fit.

        Raises:
            ValueError: names or shapes differ from those of this fit.
        """
        own = self.state_dict()
        if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in state.items()}:
            raise ValueError("the state belongs to a factorization of another size; load it into one like its own")
        for name in self.state_names:
            setattr(self, name, state[name].clone())
        for name, side in (("users", self.users), ("items", self.items)):
            for part in Side.state_names:
                setattr(side, part, state[f"{name}.{part}"].clone())


def _sum_pairs(counts: sparse.csr_array, second: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Sum symmetric matrices and vectors over the ratings of each row: (m, D, D), (m, K) -> (n, D, D), (n, K).

    One sparse product, which reads only the upper triangles.
    """
    upper = tuple(torch.triu_indices(*second.shape[1:]))
    packed = multiply(counts, torch.cat([second[:, *upper], others], dim=1))
    moments = packed.new_empty(len(packed), *second.shape[1:])
    moments[:, *upper] = moments[:, *upper[::-1]] = packed[:, : len(upper[0])]
    return moments, packed[:, len(upper[0]) :]


def _quadratic(matrices: Tensor, vectors: Tensor) -> Tensor:
    """v' M v of each row: (B, D, D), (B, D) -> (B,)."""
    return torch.einsum("bi,bij,bj->b", vectors, matrices, vectors)


def mixture_std(fits: Sequence[BayesianFactorization], user_ids: Tensor, item_ids: Tensor) -> Tensor:
    """Standard deviation of B ratings under the mixture of several fits, whose mean `mean_of` predicts: (B,) -> (B,).

    The mean of their variances plus the variance of their means.
    """
    variances = torch.stack([fit.predict_std(user_ids, item_ids).square() for fit in fits])
    means = torch.stack([fit.predict(user_ids, item_ids) for fit in fits])
    return (variances.mean(dim=0) + (means - means.mean(dim=0)).square().mean(dim=0)).sqrt()
