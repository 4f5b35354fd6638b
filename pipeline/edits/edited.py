"""What a step that changes texts hands on: the texts, and how much it changed."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.rules.checks import Signals


@dataclass(frozen=True, slots=True)
class Edited:
    """A batch of documents after an edit."""

    texts: pa.LargeStringArray
    """(documents,) the texts that are left; the very array that was given where none changed."""
    num_edits: NDArray[np.int32]
    """(documents,) places that were changed; 0 means that the text is the same."""
    signals: Signals
    """What the edit found, for the rules that judge it."""
