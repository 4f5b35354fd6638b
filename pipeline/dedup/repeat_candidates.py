"""Candidates: the windows of a piece that have common anchors, and which of them are repeated.

A window that comes back within the piece is settled there. Only the first of equal ones is sent on,
so that a token repeated a million times makes a handful of windows for the partitions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.dedup.repeat_exchange import Answers
from tokenmill.pipeline.dedup.repeat_pieces import Piece
from tokenmill.pipeline.dedup.repeat_spans import RepeatedSpans, join_spans
from tokenmill.pipeline.dedup.repeat_windows import (
    Anchors,
    find_anchors,
    first_of_equal,
    hash_windows,
)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Windows of a piece in their order. One entry a window, but for the last."""

    documents: NDArray[np.int64]
    """Counted in the group."""
    starts: NDArray[np.int64]
    """The first token of each, counted in the document."""
    low: NDArray[np.uint64]
    high: NDArray[np.uint64]
    """Their hashes; of `high` the upper half."""
    first: NDArray[np.int32]
    """The place of the first equal one."""
    sent: NDArray[np.int64]
    """The places of those that are the first."""

    def to_send(self) -> NDArray[np.uint64]:
        """(sent, 2) 64 bits of the hash; 32 more and the document, as WindowTable takes them."""
        documents = self.documents[self.sent].astype(np.uint64)
        return np.stack([self.low[self.sent], self.high[self.sent] | documents], axis=1)


def anchors_of(piece: Piece, min_tokens: int) -> Anchors:
    return find_anchors(piece.tokens, piece.runs.starts, piece.runs.stops, min_tokens)


def find_candidates(piece: Piece, common: Answers, min_tokens: int) -> Candidates:
    """Those of a group's next piece.

    Args:
        common: which anchors of the group are.
    """
    runs, anchors = piece.runs, anchors_of(piece, min_tokens)
    is_common, _ = common.take(anchors.hashes)
    starts, stops = anchors.starts[is_common], anchors.stops[is_common]
    apart = starts[1:] != stops[:-1]
    starts = starts[np.concatenate([[True], apart])[: len(starts)]]  # (ranges of windows,)
    stops = stops[np.concatenate([apart, [True]])[: len(stops)]]
    low, high = hash_windows(piece.tokens, starts, stops, min_tokens)
    first = first_of_equal(low, high)
    run = np.searchsorted(runs.starts, starts, side="right") - 1
    length = stops - starts
    inside = np.arange(len(low)) - np.repeat(np.cumsum(length) - length, length)
    begin = starts - runs.starts[run] + runs.origins[run]
    return Candidates(
        documents=np.repeat(runs.documents[run], length),
        starts=np.repeat(begin, length) + inside,
        low=low,
        high=high,
        first=first,
        sent=np.flatnonzero(first == np.arange(len(first))),
    )


def repeated_spans(windows: Candidates, earlier: Answers, min_tokens: int) -> RepeatedSpans:
    """What those windows cover that stand earlier, in the piece or before it.

    Args:
        earlier: which of the group's windows stand before the piece.
    """
    known, handles = earlier.take(windows.low[windows.sent])
    handle = np.full(len(windows.first), -1)
    handle[windows.sent[known]] = handles[known]
    repeated = windows.first != np.arange(len(windows.first))
    repeated[windows.sent[known]] = True
    chosen = np.flatnonzero(repeated)
    first, starts = windows.first[chosen], windows.starts[chosen]
    return join_spans(
        RepeatedSpans(
            documents=windows.documents[chosen],
            starts=starts,
            stops=starts + min_tokens,
            originals=windows.documents[first],
            handles=handle[first],
        )
    )
