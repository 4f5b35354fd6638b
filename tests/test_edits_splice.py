"""Spans of a batch are exchanged, and everything else stays where it is in its document."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.pipeline.edits.splice import splice

PARTS = st.lists(st.tuples(st.text(max_size=4), st.none() | st.text(max_size=4)), max_size=4)


@given(st.lists(PARTS, max_size=4), st.integers(0, 4))
def test_spans_are_exchanged_and_all_else_stays(documents, first):
    """A document is a list of parts; a part with another text beside it is exchanged for that."""
    texts = pa.array(["".join(old for old, _ in parts) for parts in documents], pa.large_string())
    offsets = np.concatenate([[0], np.cumsum([len(text.encode()) for text in texts.to_pylist()])])
    changes = []
    for row, parts in enumerate(documents[first:]):
        at = int(offsets[first + row])
        for old, new in parts:
            end = at + len(old.encode())
            if new is not None:
                changes.append((row, at, end, new.encode()))
            at = end
    spliced = splice(texts[first:], changes)
    spliced.validate(full=True)
    wanted = ["".join(old if new is None else new for old, new in parts) for parts in documents]
    assert spliced.to_pylist() == wanted[first:]


def test_without_spans_the_very_array_comes_back():
    texts = pa.array(["a", "b"], pa.large_string())
    assert splice(texts, []) is texts
