"""A fastText matrix as its file holds it: rows of float32, or rows of codes.

A quantised row is one byte for each piece of it, which chooses among 256 centroids, times a norm
that a byte more may choose. Rows are decoded as they are used, so the matrix stays mapped from the
file: read-only, and one for all processes of a machine.

    row 7    codes [3, 250]    centroids of piece 0: ... 3: [0.5, -1] ...    norm 2
                               centroids of piece 1: ... 250: [0, 1] ...     -> [1, -2, 0, 2]
"""

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline

CENTROIDS = 256
"""Centroids for each piece of a row: as many as a byte chooses from."""


class Matrix(NamedTuple):
    """One of the two kinds, as compiled code sees it; the arrays of the other are empty."""

    dense: NDArray[np.float32]
    """(rows, dim), or (0, dim) where the rows are codes."""
    codes: NDArray[np.uint8]
    """(rows, pieces)"""
    centroids: NDArray[np.float32]
    """(dim * 256,) by piece, centroid, place in the piece; the last piece may be shorter."""
    piece: int
    """Numbers in each piece but the last."""
    norm_codes: NDArray[np.uint8]
    """(rows,), or (0,) where every norm is 1."""
    norms: NDArray[np.float32]
    """(256,) or (0,)"""

    @property
    def num_rows(self) -> int:
        return max(len(self.dense), len(self.codes))

    @property
    def dim(self) -> int:
        return int(self.dense.shape[1])


def dense_matrix(dense: NDArray[np.float32]) -> Matrix:
    """Rows of float32."""
    return Matrix(
        read_only(dense), no_numbers(np.uint8, 0, 0), no_numbers(np.float32), 1,
        no_numbers(np.uint8), no_numbers(np.float32),
    )  # fmt: skip


def decode(matrix: Matrix) -> NDArray[np.float32]:
    """(rows, dim) all of a matrix, which should be small."""
    if len(matrix.dense):
        return matrix.dense
    decoded = np.zeros((len(matrix.codes), matrix.dim), np.float64)
    _decode(matrix, decoded)
    return read_only(decoded.astype(np.float32))


Array = TypeVar("Array", bound=np.generic)


def read_only(array: NDArray[Array]) -> NDArray[Array]:
    """The array, protected: so all models are of one type, and loops are compiled once for all."""
    array.flags.writeable = False
    return array


def no_numbers(dtype: type[Array], *shape: int) -> NDArray[Array]:
    """An empty array in place of one that a model does not have."""
    return read_only(np.zeros(shape or 0, dtype))


@compiled
def _decode(matrix: Matrix, decoded: NDArray[np.float64]) -> None:
    rows = np.arange(len(decoded)).astype(np.uint64)
    for row in range(len(decoded)):
        add_rows(decoded[row], matrix, rows[row : row + 1], np.uint64(1))


@compiled_inline
def add_rows(
    total: NDArray[np.float64], matrix: Matrix, rows: NDArray[np.uint64], num_rows: np.uint64
) -> None:
    """Add rows of the matrix to the first `dim` numbers of `total`."""
    dense, codes, centroids, piece_size, norm_codes, norms = matrix
    dim = dense.shape[1]
    for number in range(num_rows):
        row = rows[number]
        if len(dense):
            for place in range(dim):
                total[place] += dense[row, place]
            continue
        norm = norms[norm_codes[row]] if len(norm_codes) else np.float32(1)
        first, centroid = 0, 0
        for piece in range(codes.shape[1]):
            size = min(piece_size, dim - first)
            chosen = centroid + size * np.int64(codes[row, piece])
            for place in range(size):
                total[first + place] += norm * centroids[chosen + place]
            first += size
            centroid += size * CENTROIDS
