"""Truncated singular value decomposition of dense and sparse matrices, reproducible to the last bit on one machine."""

from typing import TypeAlias, cast

import torch
from scipy import sparse
from torch import Tensor

from training.streams import stream

EXACT_ROWS = 1000  # with at most this many rows or columns, all singular vectors are computed
OVERSAMPLING = 32  # further columns of the random start
ITERATIONS = 3

Matrix: TypeAlias = Tensor | sparse.csr_array


def top_singular_vectors(matrix: Matrix, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The largest singular values of a matrix with their vectors.

    A small matrix is decomposed exactly. For a large one the space of the leading vectors is found by subspace
    iteration from a fixed random start (Halko, Martinsson and Tropp 2011, algorithm 4.4), and the matrix is projected
    onto it.

    Args:
        matrix: (n, m), float64.
        width: number of values; at most min(n, m) are returned.

    Returns:
        left (n, k), values (k,) in descending order, and right (m, k). left * values @ right.T is the projection of the
        matrix onto the columns of `left` (of `right` where n > m), which are orthonormal.
    """
    rows, columns = matrix.shape
    if rows > columns:
        right, values, left = top_singular_vectors(_transpose(matrix), width)
        return left, values, right
    is_small = rows <= EXACT_ROWS or 4 * (width + OVERSAMPLING) > rows
    basis = torch.eye(rows, dtype=torch.double) if is_small else _find_range(matrix, width + OVERSAMPLING)
    projected = multiply(_transpose(matrix), basis)
    vectors = torch.linalg.eigh(projected.T @ projected).eigenvectors.flip(1)[:, :width]
    right = projected @ vectors
    values = right.norm(dim=0)
    return basis @ vectors, values, right / values.clamp(min=torch.finfo(values.dtype).tiny)


def multiply(matrix: Matrix, block: Tensor) -> Tensor:
    """Matrix product of a dense or sparse matrix with a dense one: (n, m), (m, k) -> (n, k)."""
    if isinstance(matrix, Tensor):
        return matrix @ block
    return torch.from_numpy(matrix @ block.numpy())


def _transpose(matrix: Matrix) -> Matrix:
    return matrix.T if isinstance(matrix, Tensor) else cast(sparse.csr_array, matrix.T.tocsr())


def _find_range(matrix: Matrix, width: int) -> Tensor:
    """An orthonormal basis, (n, width), that nearly holds the leading left singular vectors."""
    transposed = _transpose(matrix)
    block = torch.randn(matrix.shape[1], width, dtype=torch.double, generator=stream(0, 0))
    basis = torch.linalg.qr(multiply(matrix, block)).Q
    for _ in range(ITERATIONS):
        block = torch.linalg.qr(multiply(transposed, basis)).Q
        basis = torch.linalg.qr(multiply(matrix, block)).Q
    return basis
