"""Documents that were taken back stay out of a later build, and so do their duplicates.

    retracted  B     exact: B is a duplicate of A     near: A is a duplicate of C
    leaves     C, reason retracted, duplicate_of B    A and B have left, as duplicates

The last step after the mill. Each document is followed through the steps before, to the one that
stands for it; that one leaves. Files of a recipe and the run's own overlay say which they are; a
doc_id names the same document in every run over the same files.

    removals/retracted/00000.arrow
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.pipeline.dedup.steps import (
    NO_DOCUMENT,
    Removals,
    RunStage,
    Step,
    find_removed,
    open_removals,
    removals_batch,
    removals_path,
)
from tokenmill.pipeline.filters import RETRACTED
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.receipts import Receipt, begin, finish
from tokenmill.shards.overlay import overlay_path, read_retracted

VERSION = 1


@dataclass(frozen=True, slots=True)
class RetractedTask:
    """Documents that were taken back, and the steps before."""

    run: Path
    doc_ids: NDArray[np.uint64]
    """Rising."""
    earlier: tuple[Step, ...]

    stage: ClassVar[str] = "retracted"
    name: ClassVar[str] = "all"

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "stage": VERSION,
            "documents": hashlib.sha256(self.doc_ids.tobytes()).hexdigest(),
            "earlier": [[o.sha256 for o in step.removals] for step in self.earlier],
        }


def retracted_documents(run: Path, files: Sequence[str]) -> NDArray[np.uint64]:
    """(documents,) that the run's own overlay and some files name, rising, each once.

    Args:
        files: each an overlay (*.jsonl), or a doc_id a line.

    Raises:
        RecipeError: a file is missing, or a line of it is no doc_id.
        FormatError: an overlay is damaged.
    """
    found = [read_retracted(overlay_path(run))]
    for path in map(Path, files):
        if not path.is_file():
            raise RecipeError(f"retracted: {path}: no such file. Correct the recipe.")
        found.append(read_retracted(path) if path.suffix == ".jsonl" else _read_numbers(path))
    return np.unique(np.concatenate(found))


def retracted(
    run: Path, stage: RunStage, doc_ids: NDArray[np.uint64], earlier: Sequence[Step]
) -> Step:
    """Let go what stands for documents that were taken back.

    Args:
        doc_ids: (documents,) rising, each once.
        earlier: all steps before, in the order in which they decide.
    """
    task = RetractedTask(run, doc_ids, tuple(earlier))
    receipt = stage(RetractedTask.stage, let_go, [task])[RetractedTask.name]
    return Step(RETRACTED, removals=receipt.outputs)


def let_go(task: RetractedTask) -> Receipt:
    """Write the removals, and the receipt."""
    started = begin(task)
    earlier = [open_removals(task.run, step.removals) for step in task.earlier]
    removals = what_leaves(task.doc_ids, earlier)
    with Tables(task.run) as tables:
        tables.append(removals_path(task.run, RETRACTED, 0), removals_batch(removals))
    counts = {"documents": len(task.doc_ids), "removed": len(removals.doc_ids)}
    return finish(task, tables.described(), counts, started)


def what_leaves(doc_ids: NDArray[np.uint64], earlier: Sequence[Sequence[Removals]]) -> Removals:
    """The documents that stand for some after all steps; none for one that left for no other's.

    Args:
        doc_ids: (documents,) each once.
        earlier: the removals of each step, in the order in which they decide.
    """
    stands = doc_ids.copy()
    similarity = np.ones(len(doc_ids), np.float32)
    for step in earlier:
        removed, original, alike = find_removed(step, stands)
        stands[removed] = original[removed]
        similarity[removed] = np.minimum(similarity[removed], alike[removed])
    of = np.where(stands == doc_ids, NO_DOCUMENT, doc_ids)
    # Of several documents that one stands for, itself comes first, and then the lowest.
    order = np.lexsort((of, stands))
    order = order[stands[order] != NO_DOCUMENT]
    _, first = np.unique(stands[order], return_index=True)
    chosen = order[first]
    return Removals(stands[chosen], of[chosen], similarity[chosen])


def _read_numbers(path: Path) -> NDArray[np.uint64]:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    numbers = []
    for place, line in enumerate(lines, 1):
        if line and not (line.isascii() and line.isdecimal() and 0 < int(line) < 1 << 64):
            raise RecipeError(
                f"retracted: {path}: line {place}: expected a doc_id, found {line[:40]!r}. "
                "`tokenmill retract` finds documents by the source's ids and addresses."
            )
        numbers += [int(line)] if line else []
    return np.array(numbers, np.uint64)
