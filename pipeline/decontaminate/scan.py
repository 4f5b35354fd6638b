"""Scan: where in a unit's documents runs of evaluation items stand, from their tokens alone.

    decontamination/hits/<unit>-000.arrow    a row for each run found; no file where none is

Every document is asked one question for each of its words, whether the run of words that ends there
is an item's; the few that have one are read again for the places. The price is one pass over the
tokens, mapped: 40 to 60 million a second and core.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.decontaminate.index import (
    PREFIX,
    RunIndex,
    find_run,
    open_index,
    slot_shift,
)
from tokenmill.pipeline.decontaminate.words import (
    WORD_FACTOR,
    TokenTable,
    fill_words,
    power,
    run_hash,
    words_of,
)
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.receipts import Receipt, begin, finish
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.listing import Output
from tokenmill.tokenizer.compiled import compiled

VERSION = 1


@dataclass(frozen=True, slots=True)
class ScanTask:
    """A unit's tokens, and the index to ask."""

    run: Path
    unit: str
    token_files: tuple[str, ...]
    index: Output
    upstream: str
    """The key of the unit's mill receipt."""

    stage: ClassVar[str] = "decontaminate"

    @property
    def name(self) -> str:
        return self.unit

    @property
    def parts(self) -> dict[str, Any]:
        return {"stage": VERSION, "sets": self.index.sha256, "documents": self.upstream}


class Hits(NamedTuple):
    """Runs found in a batch of documents, by document and place. One entry a run."""

    documents: NDArray[np.int64]
    """Which document of the batch, rising."""
    runs: NDArray[np.int32]
    """The run's number."""
    words: NDArray[np.int32]
    """The first word of it in the document."""
    num_words: NDArray[np.int32]
    starts: NDArray[np.int32]
    """The token in which the first word begins."""
    stops: NDArray[np.int32]
    """The token in which the word after the last one begins, or the document's number of tokens."""


def scan(task: ScanTask) -> Receipt:
    """Write the hits of a unit, and its receipt."""
    started = begin(task)
    table, index = open_index(task.run / task.index.path, task.index.sha256)
    folder = task.run / "decontamination" / "hits"
    for stale in (folder / task.unit).parent.glob(f"{task.unit.split('/')[-1]}-*"):
        stale.unlink()
    path = folder / f"{task.unit}-000.arrow"
    documents = tokens = found = 0
    with Tables(task.run) as tables:
        for file in task.token_files:
            for doc_ids, values, offsets in token_batches(task.run / file):
                hits = find_hits(table, index, values, offsets)
                documents += len(doc_ids)
                tokens += int(offsets[-1] - offsets[0])
                found += len(hits.documents)
                if len(hits.documents):
                    tables.append(path, _batch(doc_ids, np.diff(offsets), hits))
    counts = {"documents": documents, "tokens": tokens, "runs_found": found}
    return finish(task, tables.described(), counts, started)


def token_batches(
    path: Path,
) -> Iterator[tuple[NDArray[np.uint64], NDArray[Any], NDArray[np.int64]]]:
    """A file of milled tokens, mapped: (documents,) ids, all tokens, (documents + 1,) bounds."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        lists = batch["tokens"]
        yield as_numpy(batch["doc_id"]), as_numpy(lists.values), as_numpy(lists.offsets)


def find_hits(
    table: TokenTable, index: RunIndex, tokens: NDArray[Any], bounds: NDArray[np.int64]
) -> Hits:
    """The runs of the index that stand in a batch of documents.

    Args:
        bounds: (documents + 1,) where each document's tokens start and end.
    """
    chosen = np.flatnonzero(has_run(table, index, tokens, bounds))
    found = [_hits_of(table, index, tokens[bounds[i] : bounds[i + 1]]) for i in chosen]
    counts = [len(hits[0]) for hits in found]
    columns = [np.concatenate([np.zeros(0, np.int32), *c]) for c in zip(*found, strict=True)]
    return Hits(np.repeat(chosen, counts), *(columns or [np.zeros(0, np.int32)] * 5))


@compiled
def has_run(
    table: TokenTable, index: RunIndex, tokens: NDArray[Any], bounds: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(documents,) which hold a run of an item, or what begins one of a short item."""
    shift = slot_shift(len(index.slots))
    length, prefix = index.lengths[-1], index.min_words[0]
    factor, prefix_factor = power(WORD_FACTOR, length), power(WORD_FACTOR, prefix)
    polynomials, firsts = np.zeros(1 << 12, np.uint64), np.zeros(1 << 12, np.int64)
    answers = np.zeros(len(bounds) - 1, np.bool_)
    for document in range(len(answers)):
        own = tokens[bounds[document] : bounds[document + 1]]
        count = fill_words(table, own, polynomials, firsts)
        while count < 0:
            size = max(2 * len(firsts), len(own) + 2)
            polynomials, firsts = np.zeros(size, np.uint64), np.zeros(size, np.int64)
            count = fill_words(table, own, polynomials, firsts)
        for start in range(count - length + 1):
            found, _ = find_run(index, run_hash(polynomials, start, start + length, factor), shift)
            if found:
                answers[document] = True
                break
        if prefix == 0 or answers[document]:
            continue
        for start in range(count - prefix + 1):
            value = run_hash(polynomials, start, start + prefix, prefix_factor)
            found, _ = find_run(index, value, shift)
            if found:
                answers[document] = True
                break
    return answers


def _hits_of(
    table: TokenTable, index: RunIndex, tokens: NDArray[Any]
) -> tuple[NDArray[np.int32], ...]:
    """Hits of one document, without its number."""
    polynomials, firsts = words_of(table, tokens)
    rows = np.empty((3, _list_hits(index, polynomials, np.zeros((3, 0), np.int32))), np.int32)
    _list_hits(index, polynomials, rows)
    runs, words, num_words = rows
    stops = firsts[words + num_words]
    return runs, words, num_words, firsts[words].astype(np.int32), stops.astype(np.int32)


@compiled
def _list_hits(index: RunIndex, polynomials: NDArray[np.uint64], rows: NDArray[np.int32]) -> int:
    """Fill (3, hits) rows, as far as there is room; the number of hits."""
    shift = slot_shift(len(index.slots))
    factors = np.array([power(WORD_FACTOR, length) for length in index.lengths])
    hits = 0
    for start in range(len(polynomials)):
        for place in range(len(index.lengths)):
            stop = start + index.lengths[place]
            if stop >= len(polynomials):
                break
            value = run_hash(polynomials, start, stop, factors[place])
            found, number = find_run(index, value, shift)
            if found and number != PREFIX:
                if hits < rows.shape[1]:
                    rows[0, hits], rows[1, hits], rows[2, hits] = number, start, stop - start
                hits += 1
    return hits


def _batch(
    doc_ids: NDArray[np.uint64], num_tokens: NDArray[np.int64], hits: Hits
) -> pa.RecordBatch:
    columns = {
        "doc_id": doc_ids[hits.documents],
        "num_tokens": num_tokens[hits.documents].astype(np.int32),
        "run": hits.runs,
        "word": hits.words,
        "num_words": hits.num_words,
        "start": hits.starts,
        "stop": hits.stops,
    }
    return pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()})
