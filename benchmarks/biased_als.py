"""Matrix factorization with biases, by alternating least squares: a peer that needs no package.

    r = mean + b_u + c_i + p_u . q_i
    minimizes  sum (rating - r)^2 + ridge (sum_u |p_u|^2 + sum_i |q_i|^2) + bias_ridge (sum_u b_u^2 + sum_i c_i^2)

With the items fixed, (b_u, p_u) of each user is the ridge regression of its ratings on (1, q_i), and the other way
round. Source: Koren, Bell and Volinsky 2009, Matrix Factorization Techniques for Recommender Systems, eq. (5), with the
mean held at that of the ratings and a ridge of their own for the biases.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from dataset import Interactions

SWEEPS = 15
BLOCK_ROWS = 4096  # normal equations solved at a time, which bounds memory


@dataclass(frozen=True, eq=False)
class BiasedFactors:
    """A fit: the mean, and (bias, factors) of every user (num_users, 1 + d) and item (num_items, 1 + d), float64."""

    mean: float
    users: np.ndarray
    items: np.ndarray

    def predict(self, user_ids: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
        """The ratings of R pairs: (R,), (R,) -> (R,). A row without ratings has the bias 0 and the factors 0."""
        users, items = self.users[user_ids], self.items[item_ids]
        return self.mean + users[:, 0] + items[:, 0] + (users[:, 1:] * items[:, 1:]).sum(axis=1)


def factorize(
    train: Interactions, factors: int, ridge: float, bias_ridge: float, sweeps: int = SWEEPS, seed: int = 0
) -> BiasedFactors:
    """Alternate between the users and the items, `sweeps` times, from small random factors of the items.

    Args:
        train: ratings; pairs that occur twice count twice.
        factors: d, 0 or more.
        ridge, bias_ridge: above 0.
    """
    ratings = train.ratings.numpy().astype(np.float64)
    mean = ratings.mean()
    cells = (train.user_ids.numpy(), train.item_ids.numpy())
    shape = (train.num_users, train.num_items)
    watched = sparse.csr_array((np.ones(len(ratings)), cells), shape)
    centered = sparse.csr_array((ratings - mean, cells), shape)
    watched_by, centered_by = watched.T.tocsr(), centered.T.tocsr()
    users = np.zeros((train.num_users, 1 + factors))
    items = np.random.default_rng(seed).normal(0.0, 0.1, (train.num_items, 1 + factors))
    items[:, 0] = 0.0
    penalty = np.diag([bias_ridge] + [ridge] * factors)
    for _ in range(sweeps):
        users = _regress(watched, centered, items, penalty)
        items = _regress(watched_by, centered_by, users, penalty)
    return BiasedFactors(float(mean), users, items)


def _regress(
    watched: sparse.csr_array, centered: sparse.csr_array, others: np.ndarray, penalty: np.ndarray
) -> np.ndarray:
    """(bias, factors) of every row, with the other side fixed.

    Args:
        watched, centered: (N, M), how often each pair is rated, and its ratings less the mean.
        others: (M, 1 + d), (bias, factors) of the other side.
        penalty: (1 + d, 1 + d), added to the matrix of every row.

    Returns:
        (N, 1 + d): the solutions of the N normal equations.
    """
    bias = others[:, :1]
    inputs = np.concatenate([np.ones_like(bias), others[:, 1:]], axis=1)
    rows, columns = np.triu_indices(inputs.shape[1])
    products = inputs[:, rows] * inputs[:, columns]
    targets = centered @ inputs - watched @ (inputs * bias)
    found = np.empty_like(targets)
    for start in range(0, len(found), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        moments = watched[block] @ products
        gram = np.empty((len(moments), inputs.shape[1], inputs.shape[1]))
        gram[:, rows, columns] = gram[:, columns, rows] = moments
        found[block] = np.linalg.solve(gram + penalty, targets[block, :, None])[..., 0]
    return found
