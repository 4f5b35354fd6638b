"""Ranges of numbers, one after the other: what gathers pieces of a long array in one step."""

import numpy as np
from numpy.typing import NDArray


def ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """starts[0], starts[0] + 1, ... counts[0] of them, then those of the next, and so on."""
    before = np.cumsum(counts) - counts
    found: NDArray[np.int64] = np.arange(counts.sum()) + np.repeat(starts - before, counts)
    return found
