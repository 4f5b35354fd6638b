"""Milled documents in pieces of a bounded number of tokens, whatever the files and documents are.

A piece is some consecutive documents of a group of token files; a long document is read as several
runs of tokens that overlap by one token less than a window, so that each window is in one run.
Documents too short for a window, and those that an earlier step removed, are left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.dedup.kept import batches_of
from tokenmill.pipeline.dedup.steps import Removals, find_removed
from tokenmill.shards.arrays import as_numpy

PIECE_TOKENS = 1 << 21
"""A piece has at most twice as many."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of tokens that hold all windows of some documents. One entry a run."""

    starts: NDArray[np.int64]
    """Where each begins in the tokens at hand."""
    stops: NDArray[np.int64]
    documents: NDArray[np.int64]
    """The document, counted in the group, removed ones too."""
    origins: NDArray[np.int64]
    """Its first token, counted in the document."""

    def take(self, chosen: slice, shift: int) -> "Runs":
        """Some of the runs, in tokens that begin elsewhere."""
        return Runs(
            self.starts[chosen] + shift,
            self.stops[chosen] + shift,
            self.documents[chosen],
            self.origins[chosen],
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens and the runs in them."""

    tokens: NDArray[Any]
    runs: Runs


def batches_of_all(run: Path, files: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The record batches of some token files, mapped, in their order."""
    for path in files:
        yield from batches_of(run, path)


def read_pieces(
    run: Path, files: Sequence[str], removals: Sequence[Removals], window_tokens: int
) -> Iterator[Piece]:
    """The pieces of a group, at least one."""
    held: list[tuple[NDArray[Any], Runs]] = []
    num_held = num_pieces = num_documents = 0
    for batch in batches_of_all(run, files):
        removed, _, _ = find_removed(removals, as_numpy(batch["doc_id"]))
        runs = _runs_of(as_numpy(batch["tokens"].offsets), removed, num_documents, window_tokens)
        tokens = as_numpy(batch["tokens"].values)
        num_documents += batch.num_rows
        first = 0
        while first < len(runs.starts):
            begin = int(runs.starts[first])
            fit = np.searchsorted(runs.stops[first:] - begin, PIECE_TOKENS - num_held, "right")
            last = first + max(1, int(fit))
            end = int(runs.stops[last - 1])
            held.append((tokens[begin:end], runs.take(slice(first, last), -begin)))
            num_held += end - begin
            first = last
            if num_held >= PIECE_TOKENS:
                yield _joined(held)
                held, num_held, num_pieces = [], 0, num_pieces + 1
    if held or not num_pieces:
        yield _joined(held)


def _runs_of(
    offsets: NDArray[np.int64], removed: NDArray[np.bool_], number: int, window_tokens: int
) -> Runs:
    """The runs of a record batch, of which the first document has this number."""
    num_windows = np.diff(offsets) - window_tokens + 1
    document = np.flatnonzero(~removed & (num_windows > 0))
    num_runs = -(-num_windows[document] // PIECE_TOKENS)
    document = np.repeat(document, num_runs)
    origin = (np.arange(len(document)) - np.repeat(np.cumsum(num_runs) - num_runs, num_runs)) * (
        PIECE_TOKENS
    )
    start = offsets[document] + origin
    stop = np.minimum(start + PIECE_TOKENS + window_tokens - 1, offsets[document + 1])
    return Runs(start, stop, document + number, origin)


def _joined(held: Sequence[tuple[NDArray[Any], Runs]]) -> Piece:
    """One piece of several stretches of tokens."""
    if not held:
        none = np.zeros(0, np.int64)
        return Piece(np.zeros(0, np.uint16), Runs(none, none, none, none))
    tokens = [stretch for stretch, _ in held]
    lengths = np.array([len(stretch) for stretch in tokens])
    shifts = np.cumsum(lengths) - lengths
    moved = [
        runs.take(slice(None), int(shift)) for (_, runs), shift in zip(held, shifts, strict=True)
    ]
    columns = (
        np.concatenate([getattr(runs, name) for runs in moved])
        for name in ("starts", "stops", "documents", "origins")
    )
    return Piece(tokens[0] if len(tokens) == 1 else np.concatenate(tokens), Runs(*columns))
