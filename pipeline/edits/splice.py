"""Exchange spans of a batch's bytes, and leave the rest as it is.

The texts of a batch stand one after another in one buffer, so that spans of any of its documents
are exchanged in one pass; where documents end moves by what the spans before grew.
"""

import io
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from tokenmill.tokenizer.words import text_buffers

Change = tuple[int, int, int, bytes]
"""Whose span it is, counted from 0; where it starts and ends in the batch's bytes; UTF-8 for it."""


def splice(texts: pa.LargeStringArray, changes: Iterable[Change]) -> pa.LargeStringArray:
    """The texts with each span exchanged, the very array where none is.

    Args:
        changes: in order, none overlapping. They are taken one by one, so that millions of them
            need no memory but that of the new texts.
    """
    offsets, data = text_buffers(texts)
    view = data.data
    written = io.BytesIO()
    growth = np.zeros(len(offsets), np.int64)
    at = int(offsets[0]) if len(offsets) else 0
    changed = False
    for document, start, stop, replacement in changes:
        written.write(view[at:start])
        written.write(replacement)
        growth[document + 1] += len(replacement) - (stop - start)
        at = stop
        changed = True
    if not changed:
        return texts
    written.write(view[at : int(offsets[-1])])
    new_offsets = offsets - offsets[0] + np.cumsum(growth)
    buffers = [None, pa.py_buffer(new_offsets), pa.py_buffer(written.getbuffer())]
    return pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers)
