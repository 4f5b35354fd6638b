"""What an overlay takes out of the rows of a phase: from a step on it is padding.

Rows, their order and the places of all other sequences stay, and so do the masks of other rows.
Documents that were taken back stand in their rows still; in such a row fewer tokens are maskable,
so fewer are masked, of the same ones. A row that is skipped is not looked for in its shard, which
may be damaged or gone: it has no pieces, and all of it is padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokenmill.shards.overlay import Overlay, SkippedRows


@dataclass(frozen=True, slots=True)
class Hidden:
    """Which documents and rows a phase does not show, and from when on."""

    doc_ids: NDArray[np.uint64]
    """(documents,) rising."""
    first_steps: NDArray[np.int64]
    """(documents,) the first step that leaves each out."""
    first_rows: NDArray[np.int64]
    """(ranges,) the first row of each range of skipped rows, as PackRows numbers rows."""
    last_rows: NDArray[np.int64]
    """(ranges,) the last one, included."""
    row_steps: NDArray[np.int64]
    """(ranges,) the first step that skips it."""

    def at(self, step: int, doc_ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """(documents,) which of these are left out at a step."""
        if not len(self.doc_ids):
            return np.zeros(len(doc_ids), np.bool_)
        place = np.minimum(np.searchsorted(self.doc_ids, doc_ids), len(self.doc_ids) - 1)
        hidden: NDArray[np.bool_] = self.doc_ids[place] == doc_ids
        return hidden & (self.first_steps[place] <= step)

    def skipped(self, step: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(rows,) which of these, as PackRows numbers them, are skipped at a step. At NEVER: which
        of them are at any step, of this phase or a later one."""
        own = rows[:, None]
        inside = (self.first_rows <= own) & (own <= self.last_rows) & (self.row_steps <= step)
        skipped: NDArray[np.bool_] = np.logical_or.reduce(
            inside, axis=1
        )  # (rows, ranges) -> (rows,)
        return skipped


def hidden_of(
    overlay: Overlay,
    phases: Sequence[str],
    phase: str,
    pack: str,
    buckets: Sequence[str],
    bucket_starts: NDArray[np.int64],
) -> Hidden:
    """What a phase does not show.

    Args:
        phases: all of the run, in the order in which they are trained.
        buckets: those that the phase reads.
        bucket_starts: (buckets + 1,) the first row of each as PackRows numbers rows, and the end.
    """
    skipped = overlay.skipped_rows(phases, phase, pack)
    ranges = _numbered(skipped, buckets, bucket_starts)
    return Hidden(*overlay.first_steps(phases, phase), *ranges)


def hidden_held_out(
    overlay: Overlay,
    phases: Sequence[str],
    pack: str,
    buckets: Sequence[str],
    bucket_starts: NDArray[np.int64],
) -> Hidden:
    """What held-out rows do not show: all that any entry takes out, at once."""
    doc_ids = overlay.doc_ids()
    skipped = [(entry, 0) for entry, _ in overlay.skipped_rows(phases, phases[0], pack)]
    ranges = _numbered(skipped, [f"held-out/{bucket}" for bucket in buckets], bucket_starts)
    return Hidden(doc_ids, np.zeros(len(doc_ids), np.int64), *ranges)


def _numbered(
    skipped: Sequence[tuple[SkippedRows, int]],
    buckets: Sequence[str],
    bucket_starts: NDArray[np.int64],
) -> NDArray[np.int64]:
    """(3, ranges) first row, last row and first step of what is skipped in these buckets, cut to
    the rows that they have: a later generation may have more."""
    ranges = []
    for entry, step in skipped:
        if entry.bucket in buckets:
            start, end = bucket_starts[buckets.index(entry.bucket) :][:2].tolist()
            ranges.append((start + entry.first, min(start + entry.last, end - 1), step))
    return np.array(ranges, np.int64).reshape(-1, 3).T
