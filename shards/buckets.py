"""Buckets: length classes of documents; subsets: unions of them.

    edges (1024, 2048)      buckets  0-1023 | 1024-2047 | 2048+
    subset "all"                     ^^^^^^^^^^^^^^^^^^^^^^^^^^
    subset "1024+"                            ^^^^^^^^^^^^^^^^^

A document's length counts its special tokens and is taken before any phase cuts it. Buckets are
disjoint, so a subset is a view over whole buckets and never a copy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import RecipeError


@dataclass(frozen=True)
class Buckets:
    """The length classes that rising edges make."""

    edges: tuple[int, ...]
    """Tokens; each is the first length of a bucket. The first bucket starts at 0, the last is
    open."""

    def __post_init__(self) -> None:
        if any(low >= high for low, high in zip((0, *self.edges), self.edges, strict=False)):
            raise RecipeError(f"bucket edges must be positive and rise, found {list(self.edges)}")

    @property
    def names(self) -> tuple[str, ...]:
        """One name a bucket, shortest first."""
        starts = (0, *self.edges)
        closed = [f"{low}-{high - 1}" for low, high in zip(starts, self.edges, strict=False)]
        return (*closed, f"{starts[-1]}+")

    def of_lengths(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """(documents,) the index of the bucket of each length in tokens."""
        return np.searchsorted(np.asarray(self.edges), lengths, side="right").astype(np.int64)

    def of_subset(self, subset: str) -> tuple[str, ...]:
        """The names of the buckets that a subset joins: "all", or an edge and a plus, as "1024+".

        Raises:
            RecipeError: the subset does not begin at an edge.
        """
        if subset == "all":
            return self.names
        starts = {f"{edge}+": index + 1 for index, edge in enumerate(self.edges)}
        if subset not in starts:
            known = ", ".join(["all", *starts])
            raise RecipeError(f"subset {subset}: no bucket begins there. Known subsets: {known}.")
        return self.names[starts[subset] :]
