"""Exact duplicates: of documents with one content hash the first in the plan stays.

The hashes are dealt to partitions by their first byte, so that a task holds at most about 16
million documents, 40 bytes each. Texts are not read; a 128-bit hash stands for them (a chance of
about 1e-21 for a false pair among a billion).

    removals/exact_duplicate/00000.arrow
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.dedup.steps import (
    MilledUnit,
    Removals,
    RunStage,
    Step,
    removals_batch,
    removals_path,
)
from tokenmill.pipeline.filters import EXACT_DUPLICATE
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.receipts import Receipt, begin, finish, paths
from tokenmill.shards.arrays import as_numpy

VERSION = 1
PARTITION_DOCUMENTS = 16_000_000


@dataclass(frozen=True, slots=True)
class ExactTask:
    """The hashes of one partition, over all units."""

    run: Path
    partition: int
    num_partitions: int
    token_files: tuple[str, ...]
    """All milled token files in the order of the plan; the first of two equal documents stays."""
    upstream: tuple[str, ...]
    """The keys of the mill receipts, in the order of the plan."""

    stage: ClassVar[str] = "exact"

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


def exact_duplicates(run: Path, stage: RunStage, units: Sequence[MilledUnit]) -> Step:
    """Find the documents whose text is an earlier one's."""
    documents = sum(unit.receipt.counts.get("documents", 0) for unit in units)
    num = min(256, max(1, -(-documents // PARTITION_DOCUMENTS)))
    files = tuple(path for unit in units for path in paths(unit.receipt, "tokens-"))
    keys = tuple(unit.receipt.key for unit in units)
    tasks = [ExactTask(run, number, num, files, keys) for number in range(num)]
    receipts = stage("exact", find_exact_duplicates, tasks)
    outputs = [output for receipt in receipts.values() for output in receipt.outputs]
    return Step(EXACT_DUPLICATE, removals=tuple(outputs))


def find_exact_duplicates(task: ExactTask) -> Receipt:
    """Write the removals of one partition, and its receipt."""
    started = begin(task)
    doc_ids, high, low = _hashes_of_partition(task)
    removed, kept = later_equals(high, low)
    equal = np.ones(len(removed), np.float32)
    batch = removals_batch(Removals(doc_ids[removed], doc_ids[kept], equal))
    with Tables(task.run) as tables:
        tables.append(removals_path(task.run, EXACT_DUPLICATE, task.partition), batch)
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


_NONE = np.zeros(0, np.uint64)


def _hashes_of_partition(
    task: ExactTask,
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    found = [_NONE], [_NONE], [_NONE]
    for doc_ids, hashes in _hashes(task):
        chosen = hashes[:, 0].astype(np.int64) * task.num_partitions // 256 == task.partition
        words = np.ascontiguousarray(hashes[chosen]).view(">u8").astype(np.uint64)
        for column, values in zip(found, (doc_ids[chosen], words[:, 0], words[:, 1]), strict=True):
            column.append(values)
    doc_ids, high, low = (np.concatenate(column) for column in found)
    return doc_ids, high, low


def _hashes(task: ExactTask) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint8]]]:
    for path in task.token_files:
        reader = pa.ipc.open_file(pa.memory_map(str(task.run / path)))
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            data = np.frombuffer(batch["content_hash"].buffers()[1], np.uint8)
            hashes = data.reshape(-1, 16)[: batch.num_rows]
            yield as_numpy(batch["doc_id"]), hashes
