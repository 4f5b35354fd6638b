"""Exact duplicates: of documents with one content hash the first in the plan stays.

The hashes are dealt to partitions by their first byte, so that a task holds at most about 16
million documents, 40 bytes each. Texts are not read; a 128-bit hash stands for them (a chance of
about 1e-21 for a false pair among a billion).

    removals/00000.arrow        doc_id, duplicate_of; sorted by doc_id
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.receipts import Receipt, begin, finish
from tokenmill.pipeline.signatures import SignatureConfig
from tokenmill.shards.arrays import as_numpy

VERSION = 1
PARTITION_DOCUMENTS = 16_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class DedupConfig:
    """Which duplicates leave."""

    exact: bool = True
    """Documents whose cleaned text is equal to an earlier one's, byte by byte."""
    signatures: SignatureConfig | None = None
    """MinHash signatures that the mill stores of kept documents, to find near duplicates by; null:
    none."""


@dataclass(frozen=True, slots=True)
class DedupTask:
    """The hashes of one partition, over all units."""

    run: Path
    partition: int
    num_partitions: int
    token_files: tuple[str, ...]
    """All milled token files in the order of the plan; the first of two equal documents stays."""
    upstream: tuple[str, ...]
    """The keys of the mill receipts, in the order of the plan."""

    stage: ClassVar[str] = "dedup"

    @property
    def name(self) -> str:
        return f"{self.partition:05d}"

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "stage": VERSION,
            "partition": [self.partition, self.num_partitions],
            "documents": self.upstream,
        }


def find_duplicates(task: DedupTask) -> Receipt:
    """Write the removals of one partition, and its receipt."""
    started = begin(task)
    doc_ids, high, low = _hashes_of_partition(task)
    removed, kept = later_equals(high, low)
    by_id = np.argsort(doc_ids[removed])
    batch = pa.RecordBatch.from_pydict(
        {"doc_id": doc_ids[removed][by_id], "duplicate_of": doc_ids[kept][by_id]}
    )
    with Tables(task.run) as tables:
        tables.append(removals_path(task.run, task.partition), batch)
    return finish(
        task, tables.described(), {"documents": len(doc_ids), "removed": len(removed)}, started
    )


def later_equals(
    high: NDArray[np.uint64], low: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (later, first) of places that hold the same 128-bit hash."""
    order = np.lexsort((low, high))  # stable: equal hashes stay in the order of the plan
    same = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    starts = np.concatenate([[True], ~same])[: len(order)]
    first = order[np.flatnonzero(starts)][np.cumsum(starts) - 1]
    return order[~starts], first[~starts]


def num_partitions(num_documents: int) -> int:
    return min(256, max(1, -(-num_documents // PARTITION_DOCUMENTS)))


def removals_path(run: Path, partition: int) -> Path:
    return run / "removals" / f"{partition:05d}.arrow"


def open_removals(paths: list[Path]) -> list[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """(removed, rising; the document that stands for each) of each partition, mapped from disk."""
    batches = [pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0) for path in paths]
    return [(as_numpy(batch["doc_id"]), as_numpy(batch["duplicate_of"])) for batch in batches]


def find_removed(
    partitions: list[tuple[NDArray[np.uint64], NDArray[np.uint64]]], doc_ids: NDArray[np.uint64]
) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
    """(documents,) which were removed, and (documents,) what stands for those.

    Only the pages around a unit's own ids are read, however many removals there are.
    """
    is_removed = np.zeros(len(doc_ids), np.bool_)
    original = doc_ids.copy()
    for removed, kept in partitions:
        place = np.searchsorted(removed, doc_ids)
        hit = np.flatnonzero(place < len(removed))
        hit = hit[removed[place[hit]] == doc_ids[hit]]
        is_removed[hit] = True
        original[hit] = kept[place[hit]]
    return is_removed, original


_NONE = np.zeros(0, np.uint64)


def _hashes_of_partition(
    task: DedupTask,
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    found = [_NONE], [_NONE], [_NONE]
    for doc_ids, hashes in _hashes(task):
        chosen = hashes[:, 0].astype(np.int64) * task.num_partitions // 256 == task.partition
        words = np.ascontiguousarray(hashes[chosen]).view(">u8").astype(np.uint64)
        for column, values in zip(found, (doc_ids[chosen], words[:, 0], words[:, 1]), strict=True):
            column.append(values)
    doc_ids, high, low = (np.concatenate(column) for column in found)
    return doc_ids, high, low


def _hashes(task: DedupTask) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint8]]]:
    for path in task.token_files:
        reader = pa.ipc.open_file(pa.memory_map(str(task.run / path)))
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            data = np.frombuffer(batch["content_hash"].buffers()[1], np.uint8)
            hashes = data.reshape(-1, 16)[: batch.num_rows]
            yield as_numpy(batch["doc_id"]), hashes
