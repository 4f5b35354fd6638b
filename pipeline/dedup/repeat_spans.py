"""From repeated windows to spans, and from spans to what becomes of a document.

windows of 4   [a b c d] e f g h       repeated: those that begin at a and at c
                    [c d e f]
span           [a b c d e f] g h       6 of 8 tokens: 0.75 of the document
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.dedup.repeat_config import RepeatConfig


@dataclass(frozen=True, slots=True)
class RepeatedSpans:
    """Repeated spans of a group, by document and start. One entry a span."""

    documents: NDArray[np.int64]
    """Counted in the group."""
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    originals: NDArray[np.int64]
    """The document in the group where the first window of each stands first, or..."""
    handles: NDArray[np.int64]
    """... the handle of the answer that names a document before it; -1: there is none."""

    def take(self, chosen: NDArray[Any]) -> "RepeatedSpans":
        return RepeatedSpans(*(getattr(self, field.name)[chosen] for field in fields(self)))


def concatenate_spans(parts: Sequence[RepeatedSpans]) -> RepeatedSpans:
    """The spans of consecutive pieces."""
    columns = ([getattr(part, field.name) for part in parts] for field in fields(RepeatedSpans))
    return RepeatedSpans(*(np.concatenate(column) for column in columns))


def join_spans(spans: RepeatedSpans) -> RepeatedSpans:
    """Those that overlap or touch made one, which keeps what the first says.

    Args:
        spans: of which in each document the stops rise with the starts, as those of windows do.
    """
    if not len(spans.starts):
        return spans
    begins = np.ones(len(spans.starts), np.bool_)
    begins[1:] = (spans.documents[1:] != spans.documents[:-1]) | (
        spans.starts[1:] > spans.stops[:-1]
    )
    firsts = np.flatnonzero(begins)
    lasts = np.concatenate([firsts[1:], [len(begins)]]) - 1
    joined = spans.take(firsts)
    joined.stops[:] = spans.stops[lasts]
    return joined


@dataclass(frozen=True, slots=True)
class Judged:
    """What becomes of the documents of a group."""

    longest: NDArray[np.int64]
    """(documents that leave,) the place of the longest span of each, by document."""
    share: NDArray[np.float32]
    """(documents that leave,) how much of each is repeated."""
    cut: NDArray[np.int64]
    """(spans that are cut,) their places."""


def judge_documents(
    spans: RepeatedSpans, num_tokens: NDArray[np.int64], config: RepeatConfig
) -> Judged:
    """Which documents leave, and which spans are cut out of the others.

    Args:
        spans: joined.
        num_tokens: (documents,) of the group.
    """
    lengths = spans.stops - spans.starts
    covered = np.zeros(len(num_tokens), np.int64)
    np.add.at(covered, spans.documents, lengths)
    share = covered / np.maximum(num_tokens, 1)
    leaves = (covered > 0) & ((share > config.max_share) | (covered == num_tokens))
    longest_first = np.lexsort((-lengths, spans.documents))
    documents, where = np.unique(spans.documents[longest_first], return_index=True)
    stay = np.flatnonzero(~leaves[spans.documents])
    return Judged(
        longest=longest_first[where][leaves[documents]],
        share=share[leaves].astype(np.float32),
        cut=stay if config.spans == "cut" else stay[:0],
    )
