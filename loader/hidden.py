"""Documents that were taken back after the build: from a step on their sequences are padding.

Rows, their order and the places of all other sequences stay, and so do the masks of other rows. In
a row of which something is hidden fewer tokens are maskable, so fewer are masked, of the same ones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Hidden:
    """Which documents a phase does not show, and from when on. One entry a document."""

    doc_ids: NDArray[np.uint64]
    """Rising."""
    first_steps: NDArray[np.int64]
    """The first step that leaves each out."""

    def at(self, step: int, doc_ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """(documents,) which of these are left out at a step."""
        if not len(self.doc_ids):
            return np.zeros(len(doc_ids), np.bool_)
        place = np.minimum(np.searchsorted(self.doc_ids, doc_ids), len(self.doc_ids) - 1)
        hidden: NDArray[np.bool_] = self.doc_ids[place] == doc_ids
        return hidden & (self.first_steps[place] <= step)
