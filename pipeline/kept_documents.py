"""The kept documents of a group of units as numbers, and the mapped arrays that hold their tokens.

Documents come in the order of their content hashes, whatever unit they are of; spans that a step
cut out of them are gone, and where their sentences begin is told of what is left:

    tokens      a b c d e f g h i        spans 2 to 6 cut        a b g h i
    sentences   ^     ^   ^   ^                                  ^   ^ ^

A sentence whose beginning was cut begins at what is left of it; one of which nothing is left is
none. Tokens stay on disk (but of record batches that spans are cut from); the rest takes some 50
bytes a document, and 4 a sentence where they are asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenmill.errors import FormatError
from tokenmill.pipeline.dedup.steps import Spans, find_spans, leave_out, open_spans
from tokenmill.pipeline.sentences import Sentences
from tokenmill.pipeline.settle import first_8_bytes
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.listing import Output

DTYPES = {
    "doc_ids": np.uint64, "hashes": np.uint64, "held_out": np.bool_, "file": np.int32,
    "start": np.int64, "num_tokens": np.int64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kept:
    """Documents in the order of their content hashes. One entry a document."""

    doc_ids: NDArray[np.uint64]
    hashes: NDArray[np.uint64]
    """The first 8 bytes of each content hash."""
    held_out: NDArray[np.bool_]
    file: NDArray[np.int32]
    """Which of the mapped arrays holds its tokens."""
    start: NDArray[np.int64]
    """Where they begin there."""
    num_tokens: NDArray[np.int64]
    """Without special tokens, at least 1."""
    sentences: Sentences | None
    """None where nobody asked."""

    def take(self, chosen: NDArray[np.int64]) -> "Kept":
        """Some of them, in this order."""
        columns = {name: getattr(self, name)[chosen] for name in DTYPES}
        return Kept(**columns, sentences=self.sentences and self.sentences.take(chosen))


def read_kept(
    run: Path,
    token_files: Sequence[str],
    decision_files: Sequence[str],
    span_files: Sequence[Output],
    *,
    with_sentences: bool,
) -> tuple[Kept, list[NDArray[Any]]]:
    """The kept documents of some units, and the arrays of tokens that they name.

    Args:
        decision_files: one for each file of tokens, in the same order.
        span_files: what is left out of these documents.

    Raises:
        FormatError: sentences are asked for, and a file does not say where they begin.
    """
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in DTYPES}
    sources: list[NDArray[Any]] = []
    sentence_lists: list[Sentences] = []
    spans = open_spans(run, span_files)
    for tokens_path, decisions_path in zip(token_files, decision_files, strict=True):
        decisions = pq.read_table(run / decisions_path, columns=["doc_id", "reason", "held_out"])
        keep = as_numpy(pc.equal(decisions["reason"].cast(pa.string()), ""))
        final = as_numpy(decisions["doc_id"])[keep]
        hold = as_numpy(decisions["held_out"])[keep]
        reader = pa.ipc.open_file(pa.memory_map(str(run / tokens_path)))
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            doc_ids = as_numpy(batch["doc_id"])
            offsets = as_numpy(batch["tokens"].offsets)
            # Both files hold their documents in one order, so a kept one is found by its place.
            stays = np.flatnonzero(np.isin(doc_ids, final))
            tokens, starts = as_numpy(batch["tokens"].values), offsets[:-1][stays]
            num_tokens = np.diff(offsets)[stays]
            cuts = find_spans(spans, doc_ids[stays])
            if with_sentences:
                sentences = _read_sentences(run / tokens_path, batch, np.diff(offsets)).take(stays)
                sentence_lists.append(without_spans(sentences, num_tokens, doc_ids[stays], cuts))
            if len(cuts.doc_ids):
                tokens, starts, num_tokens = leave_out(
                    tokens, starts, num_tokens, doc_ids[stays], cuts
                )
            columns["doc_ids"].append(doc_ids[stays])
            columns["hashes"].append(first_8_bytes(batch["content_hash"])[stays])
            columns["held_out"].append(hold[np.isin(final, doc_ids)])
            columns["file"].append(np.full(len(stays), len(sources)))
            columns["start"].append(starts)
            columns["num_tokens"].append(num_tokens)
            sources.append(tokens)
    whole: dict[str, NDArray[Any]] = {
        name: np.concatenate([np.zeros(0, dtype), *columns[name]]).astype(dtype)
        for name, dtype in DTYPES.items()
    }
    kept = Kept(**whole, sentences=_joined(sentence_lists) if with_sentences else None)
    return kept.take(np.lexsort((kept.doc_ids, kept.hashes))), sources


def without_spans(
    sentences: Sentences, num_tokens: NDArray[np.int64], doc_ids: NDArray[np.uint64], spans: Spans
) -> Sentences:
    """Where sentences begin in documents from which spans are cut.

    Args:
        num_tokens: (documents,) before the cut.
        spans: of these documents, sorted by document and start, apart from each other.
    """
    if not len(spans.doc_ids):
        return sentences
    first = np.searchsorted(spans.doc_ids, doc_ids, side="left")
    last = np.searchsorted(spans.doc_ids, doc_ids, side="right")
    starts, ends = _shift(
        sentences.starts, sentences.ends, num_tokens, first, last, spans.starts, spans.stops
    )
    return Sentences(starts, ends)


def _read_sentences(path: Path, batch: pa.RecordBatch, num_tokens: NDArray[np.int64]) -> Sentences:
    if "sentence_starts" not in batch.schema.names:
        raise FormatError(
            f"{path}: expected the column sentence_starts, which packing.sequences needs, found "
            f"{', '.join(batch.schema.names)}. Delete the file and build the run again, or choose "
            "sequences: documents or concatenated."
        )
    column = batch["sentence_starts"]
    offsets, starts = as_numpy(column.offsets), as_numpy(column.values)
    starts = starts[offsets[0] : offsets[-1]]
    sentences = Sentences(starts, offsets[1:] - offsets[0])
    counts = np.diff(offsets)
    first = sentences.ends - counts
    rises = np.append(np.diff(starts) > 0, True)
    rises[sentences.ends[counts > 0] - 1] = True
    last = starts[sentences.ends[counts > 0] - 1]
    if (
        not rises.all()
        or starts[first[counts > 0]].any()
        or (last >= num_tokens[counts > 0]).any()
        or num_tokens[counts == 0].any()
    ):
        raise FormatError(
            f"{path}: sentence_starts must begin with 0 in each document, rise, and stay within "
            "it: the file is damaged. Delete it and build the run again."
        )
    return sentences


def _joined(parts: Sequence[Sentences]) -> Sentences:
    before = np.cumsum([0, *(len(part.starts) for part in parts)])
    starts = np.concatenate([np.zeros(0, np.int32), *(part.starts for part in parts)])
    ends = [part.ends + base for part, base in zip(parts, before, strict=False)]
    return Sentences(starts, np.concatenate([np.zeros(0, np.int64), *ends]))


@numba.njit(cache=True, nogil=True)
def _shift(
    starts: NDArray[np.int32],
    ends: NDArray[np.int64],
    num_tokens: NDArray[np.int64],
    first_span: NDArray[np.int64],
    last_span: NDArray[np.int64],
    span_starts: NDArray[np.int64],
    span_stops: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    new_starts, new_ends = np.empty_like(starts), np.empty_like(ends)
    found = 0
    for i in range(len(ends)):
        span, gone, before = first_span[i], 0, -1
        for sentence in range(ends[i - 1] if i else 0, ends[i]):
            place = starts[sentence]
            while span < last_span[i] and span_stops[span] <= place:
                gone += span_stops[span] - span_starts[span]
                span += 1
            inside = span < last_span[i] and span_starts[span] <= place
            # In a span, a sentence begins where the span stops, if anything is left there.
            shifted = (span_starts[span] if inside else place) - gone
            stop = span_stops[span] if inside else place
            if shifted > before and stop < num_tokens[i]:
                new_starts[found] = before = shifted
                found += 1
        new_ends[i] = found
    return new_starts[:found], new_ends
