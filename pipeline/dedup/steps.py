"""What a step after the mill says of documents: which leave, for whose sake, and which spans go.

    removals/<reason>/00000.arrow    doc_id, duplicate_of, similarity; sorted by doc_id
    spans/<reason>/00000.arrow       doc_id, start, stop; sorted by doc_id and start

Steps come one after the other, each over what those before it left. Text is not read, and a unit
finds its own documents in these files by halving, so they are mapped and never held whole.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.plan import Unit
from tokenmill.pipeline.receipts import Receipt
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.listing import Output
from tokenmill.shards.ranges import ranges

NO_DOCUMENT = np.uint64(0)
"""duplicate_of where a document left for no other's sake."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step that is done."""

    reason: str
    """Of documents that leave by it."""
    removals: tuple[Output, ...] = ()
    spans: tuple[Output, ...] = ()


@dataclass(frozen=True, slots=True)
class MilledUnit:
    """A unit and what the mill said of it."""

    unit: Unit
    receipt: Receipt


class RunStage(Protocol):
    """Runs what is not done of a stage's tasks; the receipts of all by task name."""

    def __call__(
        self, stage: str, function: Callable[[Any], Receipt], tasks: Sequence[Any], below: str = ""
    ) -> Mapping[str, Receipt]: ...


@dataclass(frozen=True, slots=True)
class Removals:
    """A file of removals, mapped. One entry a document."""

    doc_ids: NDArray[np.uint64]
    """Rising."""
    duplicate_of: NDArray[np.uint64]
    """The document that stays, or NO_DOCUMENT."""
    similarity: NDArray[np.float32]
    """Estimated share of runs of words that both have; 1: all, 0: not estimated."""


@dataclass(frozen=True, slots=True)
class Spans:
    """A file of spans, mapped. One entry a span; a document's do not overlap."""

    doc_ids: NDArray[np.uint64]
    """Not falling."""
    starts: NDArray[np.int64]
    """The first token of each, counted in the milled document."""
    stops: NDArray[np.int64]
    """One past its last token."""


def removals_path(run: Path, reason: str, number: int) -> Path:
    return run / "removals" / reason / f"{number:05d}.arrow"


def spans_path(run: Path, reason: str, number: int) -> Path:
    return run / "spans" / reason / f"{number:05d}.arrow"


def removals_batch(removals: Removals) -> pa.RecordBatch:
    """Removals as they stand in a file, sorted by doc_id."""
    order = np.argsort(removals.doc_ids, kind="stable")
    columns = {
        "doc_id": removals.doc_ids[order],
        "duplicate_of": removals.duplicate_of[order],
        "similarity": removals.similarity[order].astype(np.float32),
    }
    return pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()})


def spans_batch(spans: Spans) -> pa.RecordBatch:
    """Spans as they stand in a file, sorted by doc_id and start."""
    order = np.lexsort((spans.starts, spans.doc_ids))
    columns = {
        "doc_id": spans.doc_ids[order],
        "start": spans.starts[order],
        "stop": spans.stops[order],
    }
    return pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()})


def open_removals(run: Path, files: Sequence[Output]) -> list[Removals]:
    """The removals of each file that has any."""
    return [
        Removals(*(as_numpy(batch[name]) for name in ("doc_id", "duplicate_of", "similarity")))
        for batch in _open(run, files)
    ]


def open_spans(run: Path, files: Sequence[Output]) -> list[Spans]:
    """The spans of each file that has any."""
    return [
        Spans(*(as_numpy(batch[name]) for name in ("doc_id", "start", "stop")))
        for batch in _open(run, files)
    ]


def find_removed(
    files: Sequence[Removals], doc_ids: NDArray[np.uint64]
) -> tuple[NDArray[np.bool_], NDArray[np.uint64], NDArray[np.float32]]:
    """(documents,) which were removed, what stands for those, and how similar it is.

    Only the pages around a unit's own ids are read, however many removals there are.
    """
    is_removed = np.zeros(len(doc_ids), np.bool_)
    original = np.full(len(doc_ids), NO_DOCUMENT)
    similarity = np.zeros(len(doc_ids), np.float32)
    for removals in files:
        around = _around(removals.doc_ids, doc_ids)
        known = removals.doc_ids[around]
        place = np.searchsorted(known, doc_ids)
        hit = np.flatnonzero(place < len(known))
        hit = hit[known[place[hit]] == doc_ids[hit]]
        is_removed[hit] = True
        original[hit] = removals.duplicate_of[around][place[hit]]
        similarity[hit] = removals.similarity[around][place[hit]]
    return is_removed, original, similarity


def find_spans(files: Sequence[Spans], doc_ids: NDArray[np.uint64]) -> Spans:
    """The spans of some documents, those that overlap or touch made one.

    Args:
        doc_ids: (documents,) in any order.
    """
    found: list[tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]] = []
    wanted = np.sort(doc_ids)
    for spans in files:
        around = _around(spans.doc_ids, wanted)
        known = spans.doc_ids[around]
        first = np.searchsorted(known, wanted, side="left")
        last = np.searchsorted(known, wanted, side="right")
        counts = last - first
        place = around.start + ranges(first, counts)
        found.append((spans.doc_ids[place], spans.starts[place], spans.stops[place]))
    if not found:
        return Spans(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    ids, starts, stops = (np.concatenate(column) for column in zip(*found, strict=True))
    return merge_spans(ids, starts.astype(np.int64), stops.astype(np.int64))


def merge_spans(
    doc_ids: NDArray[np.uint64], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> Spans:
    """Spans sorted by document and start, those that overlap or touch made one."""
    order = np.lexsort((starts, doc_ids))
    doc_ids, starts, stops = doc_ids[order], starts[order], stops[order]
    if not len(doc_ids):
        return Spans(doc_ids, starts, stops)
    # A running maximum of the stops, begun anew with each document.
    number = np.cumsum(np.concatenate([[0], doc_ids[1:] != doc_ids[:-1]]))
    width = np.int64(stops.max()) + 1
    reach = np.maximum.accumulate(number * width + stops) - number * width
    begins = np.concatenate([[True], (number[1:] != number[:-1]) | (starts[1:] > reach[:-1])])
    firsts = np.flatnonzero(begins)
    lasts = np.concatenate([firsts[1:], [len(starts)]]) - 1
    return Spans(doc_ids[firsts], starts[firsts], reach[lasts])


def tokens_in_spans(spans: Spans, doc_ids: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(documents,) how many tokens of each lie in spans; doc_ids in any order, each once."""
    order = np.argsort(doc_ids)
    mine = order[np.searchsorted(doc_ids[order], spans.doc_ids)]
    lengths = spans.stops - spans.starts
    return np.bincount(mine, lengths.astype(np.float64), len(doc_ids)).astype(np.int64)


def leave_out(
    tokens: NDArray[Any],
    starts: NDArray[np.int64],
    num_tokens: NDArray[np.int64],
    doc_ids: NDArray[np.uint64],
    spans: Spans,
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Tokens, starts and lengths of documents without their spans; the tokens are a copy.

    Args:
        tokens: (tokens,) in which document i has num_tokens[i] from starts[i] on.
        spans: of these documents.
    """
    order = np.argsort(doc_ids)
    of_span = order[np.searchsorted(doc_ids[order], spans.doc_ids)]
    edge = np.zeros(len(tokens) + 1, np.int8)
    edge[starts[of_span] + spans.starts] += 1
    edge[starts[of_span] + spans.stops] -= 1
    keep = np.cumsum(edge[:-1], dtype=np.int8) == 0
    before = np.concatenate([[0], np.cumsum(keep)])
    new_starts = before[starts]
    return tokens[keep], new_starts, before[starts + num_tokens] - new_starts


def _around(known: NDArray[np.uint64], doc_ids: NDArray[np.uint64]) -> slice:
    """The part of a rising array that can hold some documents: a unit's ids lie together."""
    if not len(doc_ids):
        return slice(0, 0)
    first = np.searchsorted(known, doc_ids.min(), side="left")
    return slice(int(first), int(np.searchsorted(known, doc_ids.max(), side="right")))


def _open(run: Path, files: Sequence[Output]) -> list[pa.RecordBatch]:
    batches = []
    for output in files:
        reader = pa.ipc.open_file(pa.memory_map(str(run / output.path)))
        batches += [reader.get_batch(number) for number in range(reader.num_record_batches)]
    return [batch for batch in batches if batch.num_rows]
