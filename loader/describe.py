"""What a training step reads, in words: its rows, and the documents in them."""

from pathlib import Path

import numpy as np

from tokenmill.loader.loader import Loader
from tokenmill.shards.table import table


def describe_step(run: Path, phase: str, step: int) -> str:
    """A line for each row of the step: bucket, row, visit, documents, 0 for one that was taken back
    by then. Training is not needed."""
    with Loader(run, phase, prefetch=0) as loader:
        found = loader.rows_at(step)
        buckets, rows, visits = loader.plan.rows_of(step)
        names = [bucket.name for bucket in loader.plan.buckets]
        (batch,) = loader.batch_at(step)
    shown = np.where(found.pieces.is_hidden, np.uint64(0), found.pieces.doc_ids)
    documents = np.split(shown, found.pieces.row_ends[:-1])
    lines = [
        (f"{names[bucket]}:{row}", str(visit), str(targets), " ".join(map(str, inside)))
        for bucket, row, visit, targets, inside in zip(
            buckets, rows, visits, found.num_targets, documents, strict=True
        )
    ]
    total = f"{phase} step {step}: {batch.num_tokens:,} tokens, {batch.step_targets:,} masked"
    return f"{total}\n{table(('row', 'visit', 'masked', 'documents'), lines)}"
