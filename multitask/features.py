"""Who rated what: its matrix, and features of users and items from it and from genres, without the ratings."""

from collections.abc import Sequence

import torch
from scipy import sparse
from torch import Tensor

from dataset import Interactions
from multitask.svd import top_singular_vectors

USER_EXPONENT, ITEM_EXPONENT = 0.5, 0.25  # weights of the two sides in the matrix whose singular vectors are features
NUM_COUNT_FEATURES = 2  # the constant and the number of ratings, ahead of the singular vectors


def rating_matrix(train: Interactions, values: Tensor) -> sparse.csr_array:
    """The sparse matrix (num_users, num_items) of one value per rating, float64; repeated pairs add up."""
    cells = train.user_ids.cpu().long().numpy(), train.item_ids.cpu().long().numpy()
    return sparse.csr_array((values.cpu().double().numpy(), cells), (train.num_users, train.num_items))


def watch_matrix(train: Interactions) -> sparse.csr_array:
    """The sparse matrix (num_users, num_items) with 1 where the user rated the item, float64."""
    matrix = rating_matrix(train, torch.ones(len(train)))
    matrix.data[:] = 1.0
    return matrix


def row_counts(matrix: sparse.csr_array) -> Tensor:
    """Number of stored entries of each row, float64."""
    return torch.from_numpy(matrix.indptr).diff().double()


def watch_features(train: Interactions, k: int) -> tuple[Tensor, Tensor]:
    """Features of users and items from who rated what, without the ratings.

    Each row is [1, standardized log(1 + count), k coordinates]. The coordinates are the leading singular vectors times
    singular values of D_u^-1/2 X D_i^-1/4, with the 0/1 matrix X and the counts D_u of users and D_i of items, scaled
    to a mean squared row norm of 1.

    Returns:
        (num_users, 2 + k') and (num_items, 2 + k') float64, with k' = min(k, num_users, num_items). Rows without
        ratings have zero coordinates.
    """
    watched = watch_matrix(train)
    user_counts, item_counts = row_counts(watched), row_counts(watched.T.tocsr())
    scales = user_counts.clamp(min=1) ** -USER_EXPONENT, item_counts.clamp(min=1) ** -ITEM_EXPONENT
    left, right = (sparse.diags_array(scale.numpy()) for scale in scales)
    user_vectors, values, item_vectors = top_singular_vectors((left @ watched @ right).tocsr(), k)
    return _features(user_counts, user_vectors * values), _features(item_counts, item_vectors * values)


def _features(counts: Tensor, coordinates: Tensor) -> Tensor:
    activity = torch.log1p(counts)
    activity = (activity - activity.mean()) / max(activity.std(correction=0).item(), 1e-9)
    norm = coordinates.square().sum(dim=1).mean().sqrt().clamp(min=1e-9)
    return torch.cat([torch.ones(len(counts), 1), activity.unsqueeze(1), coordinates / norm], dim=1)


def genre_features(genres: Sequence[str]) -> Tensor:
    """Further item features, to be joined to those of `watch_features`: one standardized column per genre.

    Args:
        genres: for each item its genres, separated by "|"; "" if there are none.

    Returns:
        (num_items, G) float64 with a mean squared row norm of 1; G = 0 if no item has a genre.
    """
    of_items = [set(text.split("|")) - {""} for text in genres]
    names = sorted(set().union(*of_items))
    table = torch.tensor([[name in own for name in names] for own in of_items], dtype=torch.double)
    table = table - table.mean(dim=0)
    table = table / table.square().mean(dim=0).sqrt().clamp(min=1e-9)
    return table / max(table.square().sum(dim=1).mean().sqrt().item(), 1e-9)
