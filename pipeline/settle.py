"""Settle: the last word on every document of a unit, the mill's and that of each step after it.

decisions/<unit>-000.parquet
spans/settled/<unit>-000.arrow    tokens that are left out of documents, if any are
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenmill.pipeline.decisions import reason_column, verdict_of
from tokenmill.pipeline.dedup.steps import (
    Removals,
    Spans,
    Step,
    find_removed,
    find_spans,
    open_removals,
    open_spans,
    spans_batch,
    tokens_in_spans,
)
from tokenmill.pipeline.filters import DUPLICATES
from tokenmill.pipeline.licences import UnitLicences
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.receipts import Receipt, begin, finish
from tokenmill.shards.arrays import as_numpy

VERSION = 2


@dataclass(frozen=True, slots=True)
class SettleTask:
    """A unit's decisions, and what the steps after the mill say of all documents."""

    run: Path
    unit: str
    decision_files: tuple[str, ...]
    steps: tuple[Step, ...]
    """In the order in which they decide."""
    held_out: float
    """Share of documents that no training row holds, chosen by content hash."""
    upstream: tuple[str, ...]
    """The key of the unit's mill receipt."""

    stage: ClassVar[str] = "settle"

    @property
    def name(self) -> str:
        return self.unit

    @property
    def parts(self) -> dict[str, Any]:
        steps = [
            (step.reason, [output.sha256 for output in (*step.removals, *step.spans)])
            for step in self.steps
        ]
        return {
            "stage": VERSION,
            "held_out": self.held_out,
            "documents": self.upstream,
            "steps": steps,
        }


def settle(task: SettleTask) -> Receipt:
    """Write a unit's final decisions, and its receipt."""
    started = begin(task)
    steps = [
        _OpenStep(
            step.reason, open_removals(task.run, step.removals), open_spans(task.run, step.spans)
        )
        for step in task.steps
    ]
    counts: Counter[str] = Counter()
    licences = UnitLicences()
    cuts = task.run / "spans" / "settled"
    for folder in (task.run / "decisions", cuts):
        for stale in (folder / task.unit).parent.glob(f"{task.unit.split('/')[-1]}-*"):
            stale.unlink()
    with Tables(task.run) as tables:
        for path in task.decision_files:
            part = Path(path).stem.removeprefix("decisions-")
            out = task.run / "decisions" / f"{task.unit}-{part}.parquet"
            with pq.ParquetFile(task.run / path) as decisions:
                for batch in decisions.iter_batches():
                    settled, spans = _settle_batch(batch, steps, task.held_out)
                    _count(counts, settled)
                    licences.add(settled)
                    tables.append(out, settled)
                    if len(spans.doc_ids):
                        tables.append(cuts / f"{task.unit}-{part}.arrow", spans_batch(spans))
            tables.close_part()
    details = {"licences": licences.details()}
    return finish(task, tables.described(), counts, started, details)


@dataclass(frozen=True, slots=True)
class _OpenStep:
    reason: str
    removals: list[Removals]
    spans: list[Spans]


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
    batch: pa.RecordBatch, steps: Sequence[_OpenStep], held_out: float
) -> tuple[pa.RecordBatch, Spans]:
    """The final decisions, and the spans of the documents that stay."""
    verdict = verdict_of(batch["reason"])
    doc_ids, num_tokens = as_numpy(batch["doc_id"]), as_numpy(batch["num_tokens"])
    originals = np.zeros(len(doc_ids), np.uint64)
    similarity = np.zeros(len(doc_ids), np.float32)
    kept_spans = []
    for step in steps:
        if step.reason in DUPLICATES:  # what stands for a document may leave for another's sake
            moved, stands_for, alike = find_removed(step.removals, originals)
            originals[moved] = stands_for[moved]
            similarity[moved] = np.minimum(similarity[moved], alike[moved])
        removed, stands_for, alike = find_removed(step.removals, doc_ids)
        removed &= verdict.kept
        originals[removed], similarity[removed] = stands_for[removed], alike[removed]
        verdict.drop(removed, step.reason)
        kept_spans += step.spans
        # A document of which the spans so far leave nothing leaves by the step that took the rest.
        if step.spans:
            cut = tokens_in_spans(find_spans(kept_spans, doc_ids), doc_ids)
            verdict.drop((cut >= num_tokens) & (num_tokens > 0), step.reason)
    spans = find_spans(kept_spans, doc_ids[verdict.kept])
    cut = tokens_in_spans(spans, doc_ids)
    hold = is_held_out(first_8_bytes(batch["content_hash"]), held_out) & verdict.kept
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["reason"] = reason_column(verdict)
    columns["num_tokens"] = pa.array((num_tokens - cut).astype(np.int32))
    columns["duplicate_of"] = pa.array(originals)
    columns["similarity"] = pa.array(similarity)
    columns["tokens_cut"] = pa.array(cut.astype(np.int32))
    columns["held_out"] = pa.array(hold)
    return pa.RecordBatch.from_pydict(columns, batch.schema), spans


def _count(counts: Counter[str], settled: pa.RecordBatch) -> None:
    verdict = verdict_of(settled["reason"])
    num_tokens = as_numpy(settled["num_tokens"])
    counts["documents"] += len(num_tokens)
    counts["tokens"] += int(num_tokens.sum(dtype=np.int64))
    counts["tokens_cut"] += int(as_numpy(settled["tokens_cut"]).sum(dtype=np.int64))
    chosen = {
        reason or "kept": verdict.codes == code for code, reason in enumerate(verdict.reasons)
    }
    chosen["held_out"] = as_numpy(settled["held_out"])
    for name, documents in chosen.items():
        if documents.any():
            counts[f"documents.{name}"] += int(documents.sum())
            counts[f"tokens.{name}"] += int(num_tokens[documents].sum(dtype=np.int64))
