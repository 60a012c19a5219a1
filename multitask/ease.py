"""The ranking block in closed form: EASE, cut to the width of the embedding tables.

    P = (X' diag(w) X + diag(lambda + delta g))^-1,  g the diagonal of X' diag(w) X        B = I - P / diag(P)

X is the 0/1 matrix of who rated what, and the scores of a user are X B: every item is predicted from the others, as the
diagonal of B is zero. Sources: Steck 2019 (EASE, delta = 0 and w = 1) and Steck 2020 (EDLAE: delta = p / (1 - p) stands
for training with a fraction p of the inputs dropped). The weights w_u ~ n_u^-exponent of the users are ours: without
them the users with the most ratings decide.
"""

from collections.abc import Sequence

import torch
from scipy import sparse
from torch import Tensor, nn

from dataset import Interactions
from evaluation import mrr_score, rank_test_items
from multitask.features import row_counts, watch_matrix
from multitask.svd import multiply, top_singular_vectors

USER_EXPONENT = 0.3
DROPOUT = 0.3
RIDGES = (30.0, 60.0, 120.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0)
WIDTHS = (4, 16, 64, 128, 256, 512)


def fit_ease(
    train: Interactions, ridge: float, user_exponent: float = USER_EXPONENT, dropout: float = DROPOUT
) -> Tensor:
    """The item-item weights B, (num_items, num_items) float64 with a zero diagonal.

    Costs num_items^3 operations; `ease_scores` is cheaper where there are fewer users than items.

    Args:
        train: rated pairs; the ratings are not read.
        ridge: lambda, above 0.
        user_exponent: how much less a rating of an active user counts; with 0 every rating counts the same.
        dropout: delta.

    Raises:
        ValueError: `ridge` is not positive.
    """
    watched = watch_matrix(train)
    weighted = sparse.diags_array(_user_weights(watched, user_exponent).sqrt().numpy()) @ watched
    gram = torch.from_numpy((weighted.T @ weighted).toarray())
    gram.diagonal().copy_(gram.diagonal() + _penalty(gram.diagonal(), ridge, dropout))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    weights = inverse.div_(-inverse.diagonal().clone())
    weights.fill_diagonal_(0.0)
    return weights


def ease_scores(
    train: Interactions, ridge: float, user_exponent: float = USER_EXPONENT, dropout: float = DROPOUT
) -> Tensor:
    """The scores X B of every user and item, (num_users, num_items) float64; arguments and errors as in `fit_ease`."""
    if train.num_items <= train.num_users:
        return multiply(watch_matrix(train), fit_ease(train, ridge, user_exponent, dropout))
    return _scores_by_users(train, ridge, user_exponent, dropout)


def _scores_by_users(train: Interactions, ridge: float, user_exponent: float, dropout: float) -> Tensor:
    """X B from a matrix of the size of the users (Woodbury identity).

    With D = diag(lambda + delta g) and K = diag(w)^-1 + X D^-1 X', X P = diag(w)^-1 K^-1 X D^-1, and the diagonal of P
    is that of D^-1 - D^-1 X' K^-1 X D^-1.
    """
    watched = watch_matrix(train)
    weights = _user_weights(watched, user_exponent)
    penalty = _penalty(torch.from_numpy(watched.T @ weights.numpy()), ridge, dropout)
    scaled = watched @ sparse.diags_array((1 / penalty).numpy())  # X D^-1
    kernel = torch.from_numpy((scaled @ watched.T).toarray())
    kernel.diagonal().add_(1 / weights)
    scaled = torch.from_numpy(scaled.toarray())
    solved = torch.cholesky_solve(scaled, torch.linalg.cholesky(kernel))
    diagonal = 1 / penalty - (scaled * solved).sum(dim=0)
    return torch.from_numpy(watched.toarray()) - solved.div_(weights.unsqueeze(1)).div_(diagonal)


def _user_weights(watched: sparse.csr_array, exponent: float) -> Tensor:
    """w: n_u^-exponent with mean 1 over the ratings."""
    counts = row_counts(watched)
    weights = counts.clamp(min=1) ** -exponent
    return weights * counts.sum() / (counts @ weights).clamp(min=1e-9)


def _penalty(gram_diagonal: Tensor, ridge: float, dropout: float) -> Tensor:
    if ridge <= 0:
        raise ValueError(f"ridge must be positive, not {ridge}")
    return ridge + dropout * gram_diagonal


class ScoreTable(nn.Module):
    """A model that looks its ranking scores up in a matrix (num_users, num_items)."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = scores

    def score_items(self, user_ids: Tensor) -> Tensor:
        return self.scores[user_ids]


def choose_ridge(
    train: Interactions, validation: Interactions, grid: Sequence[float] = RIDGES
) -> tuple[float, dict[float, float]]:
    """The ridge with the best MRR of EASE on validation rows, among all items that the user does not have in train.

    Starts in the middle of the ascending grid and moves while the MRR rises, so that few of the fits are made.

    Returns:
        The ridge, and the MRR of every ridge that was tried.
    """
    tried: dict[float, float] = {}

    def mrr(place: int) -> float:
        ridge = grid[place]
        if ridge not in tried:
            tried[ridge] = mrr_score(ScoreTable(ease_scores(train, ridge)), validation, train)
        return tried[ridge]

    best = len(grid) // 2
    for step in (-1, 1):
        while 0 <= best + step < len(grid) and mrr(best + step) > mrr(best):
            best += step
    mrr(best)
    return grid[best], tried


def cut(scores: Tensor, width: int, popularity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tables whose scores u . q + b rank the items of each user nearly as `scores` do.

    Each user's scores are centered and scaled to a standard deviation of 1, which keeps their order. b is the mean over
    users, and the rest is cut to its largest singular values. Scores that are equal for all items rank nothing, as
    those of a user without ratings, or whose items nobody else has: such a user counts in the mean with `popularity`,
    and is ranked by b.

    Args:
        scores: (num_users, num_items), float64.
        width: d, of the tables. Columns beyond the rank of the scores are zero.
        popularity: (num_items,), the number of ratings of each item.

    Returns:
        User table (num_users, d), item table (num_items, d), item bias (num_items,), all float64.
    """
    scaled, is_constant = _standardize(scores)
    popular, _ = _standardize(popularity.double().unsqueeze(0))
    bias = torch.where(is_constant, popular, scaled).mean(dim=0)
    rest = torch.where(is_constant, 0.0, scaled - bias)
    left, values, right = top_singular_vectors(rest, width)
    missing = width - len(values)
    users, items = (nn.functional.pad(part * values.sqrt(), (0, missing)) for part in (left, right))
    return users, items, bias


def gain_over_popularity(
    train: Interactions, validation: Interactions, ridge: float, width: int
) -> tuple[float, float]:
    """By how much EASE, cut to a width, ranks validation rows better than popularity: a difference in MRR.

    Returns:
        The mean over users, and its standard error, which is nan for a single user.
    """
    users, items, bias = cut(ease_scores(train, ridge), width, train.item_counts)
    popular = train.item_counts.double().expand(train.num_users, -1).clone()
    mine, theirs = (
        rank_test_items(ScoreTable(scores), validation, train) for scores in (users @ items.T + bias, popular)
    )
    gains = mine.mean_over_users(1 / mine.ranks - 1 / theirs.ranks)
    return gains.mean().item(), (gains.std() / len(gains) ** 0.5).item()


def _standardize(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with mean 0 and standard deviation 1, or zeros where all scores are equal; and where they are, (rows, 1)."""
    centered = scores - scores.mean(dim=1, keepdim=True)
    spread = centered.square().mean(dim=1, keepdim=True).sqrt()
    is_constant = spread <= 1e-12 * scores.abs().amax(dim=1, keepdim=True)
    return torch.where(is_constant, 0.0, centered / spread.clamp(min=torch.finfo(spread.dtype).tiny)), is_constant


def choose_width(
    train: Interactions, validation: Interactions, ridge: float, widths: Sequence[int] = WIDTHS
) -> tuple[int, dict[int, float]]:
    """The width of the cut with the best MRR on validation rows; the narrower of equal ones.

    Few columns smooth the scores, which helps on some data; others need hundreds.

    Returns:
        The width, and the MRR of every width.
    """
    users, items, bias = cut(ease_scores(train, ridge), max(widths), train.item_counts)
    tried = {
        width: mrr_score(ScoreTable(users[:, :width] @ items[:, :width].T + bias), validation, train)
        for width in sorted(widths)
    }
    return max(tried, key=lambda width: tried[width]), tried
