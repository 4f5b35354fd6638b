"""Bands: each document under a hash of each band of its signature, so that those with an equal band
come together.

    dedup/near/bands-00000.arrow        hash, number; dealt to partitions by the hash
    dedup/near/documents-00000.arrow    doc_id, num_tokens, sketch of every document of the group

A document's number is its place among all that the mill kept. A sketch is the lowest byte of each
entry of a signature: a fourth of its size, and two that differ are equal in 1 of 256 entries, which
the comparison takes off again (Li and König 2010, b-bit minwise hashing).

A task holds about 32 bytes for each band of a document.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.dedup.config import Bands, Keep, Scope
from tokenmill.pipeline.dedup.deal import deal, to_batch, to_numpy
from tokenmill.pipeline.dedup.kept import Group, Part, batches_of, decided, scope_keys
from tokenmill.pipeline.dedup.steps import find_removed, open_removals
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.receipts import Receipt, begin, finish
from tokenmill.pipeline.signatures import NO_RUN, mix
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.listing import Output
from tokenmill.tokenizer.compiled import compiled

VERSION = 1
BAND_BYTES = 32
"""Memory for a band of a document: its hash, partition and place, and those that are written."""
_SHIFT = np.uint64(32)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class BandTask:
    """The signatures of a group of parts."""

    run: Path
    group: Group
    bands: Bands
    scope: Scope
    keep: Keep
    num_partitions: int
    removals: tuple[Output, ...]
    """Of the steps before."""

    stage: ClassVar[str] = "near-bands"

    @property
    def name(self) -> str:
        return f"{self.group.number:05d}"

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "stage": VERSION,
            "bands": [self.bands.num, self.bands.rows],
            "scope": self.scope,
            "keep": self.keep,
            "partitions": self.num_partitions,
            "documents": self.group.upstream,
            "parts": self.group.parts,
            "removals": [output.sha256 for output in self.removals],
        }


def deal_bands(task: BandTask) -> Receipt:
    """Write the bands and sketches of a group, and the receipt."""
    started = begin(task)
    earlier = open_removals(task.run, task.removals)
    folder = task.run / "dedup" / "near"
    files = [part.signatures for part in task.group.parts]
    most = sum(batch.num_rows for file in files for batch in batches_of(task.run, file))
    hashes = np.empty((most, task.bands.num), np.uint64)
    partition = np.empty((most, task.bands.num), np.int32)
    numbers = np.empty(most, np.uint32)
    first = used = 0
    with Tables(task.run) as tables:
        for part in task.group.parts:
            for documents in _documents(task, part):
                tables.append(folder / f"documents-{task.name}.arrow", documents.described())
                removed, _, _ = find_removed(earlier, documents.doc_ids)
                chosen = np.flatnonzero(~removed & documents.has_words())
                rows = slice(used, used + len(chosen))
                hash_bands(
                    documents.signatures[chosen], documents.scopes[chosen], task.bands.rows,
                    task.num_partitions, hashes[rows], partition[rows],
                )  # fmt: skip
                numbers[rows] = first + chosen
                first, used = first + len(removed), rows.stop
        order, bounds = deal(partition[:used].ravel(), task.num_partitions)
        flat = hashes[:used].ravel()
        for start, stop in pairwise(bounds.tolist()):
            places = order[start:stop]
            records = {"hash": flat[places], "number": numbers[places // task.bands.num]}
            tables.append(folder / f"bands-{task.name}.arrow", to_batch(records))
    return finish(task, tables.described(), {"documents": first, "compared": used}, started)


@compiled
def hash_bands(
    signatures: NDArray[np.uint32],
    scopes: NDArray[np.uint64],
    rows: int,
    num_partitions: int,
    hashes: NDArray[np.uint64],
    partition: NDArray[np.int32],
) -> None:
    """Write the hash of each band of each signature, and the partition that it belongs to.

    Args:
        signatures: (documents, entries).
        scopes: (documents,) equal for those that are compared.
        hashes: (documents, bands) to be written.
        partition: the same.
    """
    for document in range(len(signatures)):
        for band in range(hashes.shape[1]):
            value = mix(scopes[document] + np.uint64(band) * _FACTOR)
            for entry in range(band * rows, band * rows + rows):
                value = (value ^ np.uint64(signatures[document, entry])) * _FACTOR
                value ^= value >> _SHIFT
            value = mix(value)
            hashes[document, band] = value
            partition[document, band] = (value >> _SHIFT) * np.uint64(num_partitions) >> _SHIFT


@dataclass(frozen=True, slots=True)
class _Documents:
    """A batch of a part."""

    doc_ids: NDArray[np.uint64]
    signatures: NDArray[np.uint32]
    scopes: NDArray[np.uint64]
    num_tokens: NDArray[np.uint32]

    def has_words(self) -> NDArray[np.bool_]:
        has_words: NDArray[np.bool_] = (self.signatures != NO_RUN).any(axis=1)
        return has_words

    def described(self) -> pa.RecordBatch:
        sketches = self.signatures.astype(np.uint8)
        return to_batch({"doc_id": self.doc_ids, "num_tokens": self.num_tokens, "sketch": sketches})


def _documents(task: BandTask, part: Part) -> Iterator[_Documents]:
    batches = list(batches_of(task.run, part.signatures))
    num_kept = sum(batch.num_rows for batch in batches)
    scopes = scope_keys(task.run, part, task.scope, num_kept)
    num_tokens = np.zeros(num_kept, np.uint32)  # all alike, where the first stays
    if task.keep == "longest":
        num_tokens = as_numpy(decided(task.run, part, "num_tokens", num_kept)).astype(np.uint32)
    start = 0
    for batch in batches:
        rows = slice(start, start + batch.num_rows)
        columns = to_numpy(batch)
        yield _Documents(columns["doc_id"], columns["signature"], scopes[rows], num_tokens[rows])
        start = rows.stop
