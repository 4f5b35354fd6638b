"""What a training step reads, without training: each document of each row, and what is masked.

    shown = step_documents(run, "phase2", 70_000, world_size=8)
    shown.tokens_of(17)      the tokens of its 17th piece, as they stood before they were masked

It is the step's own batch, made on one rank, so it costs what a batch costs.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokenmill.loader.loader import Loader
from tokenmill.loader.masking import NO_TARGET
from tokenmill.loader.micro_batches import rows_per_rank


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StepDocuments:
    """The pieces of documents in a step's rows, in canonical order."""

    rows: tuple[str, ...]
    """(rows,) BUCKET:NUMBER."""
    visits: NDArray[np.int64]
    """(rows,) how often the bucket was seen whole before."""
    ranks: NDArray[np.int64]
    """(rows,) which rank takes it."""
    is_skipped: NDArray[np.bool_]
    """(rows,) all of it is padding, and nothing of it was read."""
    row_of: NDArray[np.int64]
    """(pieces,) the row that it stands in."""
    doc_ids: NDArray[np.uint64]
    """(pieces,)"""
    firsts: NDArray[np.int32]
    """(pieces,) its first token in the document, special tokens left out."""
    lengths: NDArray[np.int32]
    """(pieces,) tokens, special tokens counted."""
    num_special: NDArray[np.uint8]
    """(pieces,)"""
    num_masked: NDArray[np.int64]
    """(pieces,) tokens to predict."""
    is_hidden: NDArray[np.bool_]
    """(pieces,) taken back by then: padding."""
    starts: NDArray[np.int64]
    """(pieces,) where it begins in `tokens`."""
    tokens: NDArray[np.int32]
    """(tokens,) of all rows, nothing masked."""

    def tokens_of(self, piece: int) -> NDArray[np.int32]:
        """The tokens of a piece; padding where its document was taken back."""
        start = int(self.starts[piece])
        return self.tokens[start : start + int(self.lengths[piece])]


def step_documents(run: Path, phase: str, step: int, *, world_size: int = 1) -> StepDocuments:
    """The documents of a step over all ranks.

    Raises:
        FormatError: the run is missing or damaged.
        RecipeError: there is no such phase.
    """
    with Loader(run, phase, prefetch_bytes=0) as loader:
        found = loader.rows_at(step)
        buckets, rows, visits = loader.plan.rows_of(step)
        names = [bucket.name for bucket in loader.plan.buckets]
        (batch,) = loader.batch_at(step)
    num_rows = len(rows)
    tokens, used = batch.input_ids.copy(), batch.targets != NO_TARGET
    tokens[batch.masked_positions[used]] = batch.targets[used]
    pieces, starts = found.pieces, found.pieces.starts(loader.row_tokens)
    owners = np.searchsorted(starts, batch.masked_positions[used], side="right") - 1
    return StepDocuments(
        rows=tuple(f"{names[bucket]}:{row}" for bucket, row in zip(buckets, rows, strict=True)),
        visits=visits,
        ranks=np.arange(num_rows) // rows_per_rank(num_rows, world_size),
        is_skipped=found.is_skipped,
        row_of=np.repeat(np.arange(num_rows), np.diff(pieces.row_ends, prepend=0)),
        doc_ids=pieces.doc_ids,
        firsts=pieces.doc_starts,
        lengths=pieces.lengths,
        num_special=pieces.num_special,
        num_masked=np.bincount(owners, minlength=len(starts)),
        is_hidden=pieces.is_hidden,
        starts=starts,
        tokens=tokens[: num_rows * loader.row_tokens],
    )
