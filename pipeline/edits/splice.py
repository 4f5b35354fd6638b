"""Exchange spans of a batch's bytes, and leave the rest as it is.

The texts of a batch stand one after another in one buffer, so that spans of any of its documents
are exchanged in one join; where documents end moves by what the spans before grew.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.tokenizer.words import text_buffers


def splice(
    texts: pa.LargeStringArray,
    documents: NDArray[np.int64],
    spans: NDArray[np.int64],
    replacements: Sequence[bytes],
) -> pa.LargeStringArray:
    """The texts with each span exchanged.

    Args:
        documents: (k,) whose span each is, counted from 0.
        spans: (k, 2) where it starts and ends in the batch's bytes; in order, none overlapping.
        replacements: (k,) UTF-8.
    """
    if not len(spans):
        return texts
    offsets, data = text_buffers(texts)
    view = data.data
    pieces: list[bytes | memoryview] = []
    at = int(offsets[0])
    for (start, stop), replacement in zip(spans.tolist(), replacements, strict=True):
        pieces += [view[at:start], replacement]
        at = stop
    pieces.append(view[at : int(offsets[-1])])
    growth = np.zeros(len(offsets), np.int64)
    lengths = np.fromiter(map(len, replacements), np.int64, len(replacements))
    np.add.at(growth, documents + 1, lengths - np.diff(spans, axis=1)[:, 0])
    new_offsets = offsets - offsets[0] + np.cumsum(growth)
    buffers = [None, pa.py_buffer(new_offsets), pa.py_buffer(b"".join(pieces))]
    return pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers)
