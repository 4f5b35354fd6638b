"""Settle: the last word on every document of a unit, the mill's and the dedup's together.

decisions/<unit>-000.parquet
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenmill.pipeline.decisions import reason_column, verdict_of
from tokenmill.pipeline.duplicates import find_removed, open_removals
from tokenmill.pipeline.filters import EXACT_DUPLICATE
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.receipts import Receipt, begin, finish
from tokenmill.shards.arrays import as_numpy

VERSION = 1


@dataclass(frozen=True, slots=True)
class SettleTask:
    """A unit's decisions, and the removals of all partitions."""

    run: Path
    unit: str
    decision_files: tuple[str, ...]
    removal_files: tuple[str, ...]
    held_out: float
    """Share of documents that no training row holds, chosen by content hash."""
    upstream: tuple[str, ...]

    stage: ClassVar[str] = "settle"

    @property
    def name(self) -> str:
        return self.unit

    @property
    def parts(self) -> dict[str, Any]:
        return {"stage": VERSION, "held_out": self.held_out, "documents": self.upstream}


def settle(task: SettleTask) -> Receipt:
    """Write a unit's final decisions, and its receipt."""
    started = begin(task)
    removals = open_removals([task.run / path for path in task.removal_files])
    counts: Counter[str] = Counter()
    for stale in (task.run / "decisions" / task.unit).parent.glob(f"{task.unit.split('/')[-1]}-*"):
        stale.unlink()
    with Tables(task.run) as tables:
        for path in task.decision_files:
            part = Path(path).stem.removeprefix("decisions-")
            out = task.run / "decisions" / f"{task.unit}-{part}.parquet"
            with pq.ParquetFile(task.run / path) as decisions:
                for batch in decisions.iter_batches():
                    settled = _settle_batch(batch, removals, task.held_out)
                    _count(counts, settled)
                    tables.append(out, settled)
            tables.close_part()
    return finish(task, tables.described(), counts, started)


def is_held_out(hashes: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """(documents,) chosen by the first 8 bytes of the content hash: the same ones in every run."""
    return hashes < np.uint64(min(int(share * 2**64), 2**64 - 1))


def first_8_bytes(hashes: pa.Array) -> NDArray[np.uint64]:
    """(documents,) the upper half of each 16-byte content hash."""
    data = np.frombuffer(hashes.buffers()[1], np.uint8).reshape(-1, 16)
    return (
        data[hashes.offset : hashes.offset + len(hashes), :8]
        .copy()
        .view(">u8")[:, 0]
        .astype(np.uint64)
    )


def _settle_batch(
    batch: pa.RecordBatch,
    removals: list[tuple[NDArray[np.uint64], NDArray[np.uint64]]],
    held_out: float,
) -> pa.RecordBatch:
    verdict = verdict_of(batch["reason"])
    duplicate, originals = find_removed(removals, as_numpy(batch["doc_id"]))
    verdict.drop(duplicate, EXACT_DUPLICATE)
    hold = is_held_out(first_8_bytes(batch["content_hash"]), held_out) & verdict.kept
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["reason"] = reason_column(verdict)
    columns["duplicate_of"] = pa.array(np.where(duplicate, originals, np.uint64(0)))
    columns["held_out"] = pa.array(hold)
    return pa.RecordBatch.from_pydict(columns, batch.schema)


def _count(counts: Counter[str], settled: pa.RecordBatch) -> None:
    verdict = verdict_of(settled["reason"])
    num_tokens = as_numpy(settled["num_tokens"])
    counts["documents"] += len(num_tokens)
    counts["tokens"] += int(num_tokens.sum(dtype=np.int64))
    chosen = {
        reason or "kept": verdict.codes == code for code, reason in enumerate(verdict.reasons)
    }
    chosen["held_out"] = as_numpy(settled["held_out"])
    for name, documents in chosen.items():
        if documents.any():
            counts[f"documents.{name}"] += int(documents.sum())
            counts[f"tokens.{name}"] += int(num_tokens[documents].sum(dtype=np.int64))
