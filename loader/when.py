"""When a document is read: the inverse of the order.

    when(run, "phase1", doc_id)      all its uses in the phase, one for each piece and step

A document is looked for by its number in the doc_ids of all shards of the phase's pack: one pass
over 8 bytes a piece of the mapped files, 3 GB/s from the page cache, and 100 microseconds to open
each. From there on it is arithmetic. The inverse permutation says where a row stands on each visit
of its bucket, the inverse of the mixture which step of the order takes that place, the inverse of
the step map which steps of training read it. Nothing is remembered, and training is not needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import FormatError
from tokenmill.loader.plan import PhasePlan, read_plan
from tokenmill.shards.buckets import Buckets
from tokenmill.shards.mapped import MappedShard
from tokenmill.shards.overlay import SkippedRows
from tokenmill.shards.shard_list import ShardInfo


@dataclass(frozen=True, slots=True)
class Place:
    """A piece of a document in a row of a pack."""

    bucket: str
    is_held_out: bool
    row: int
    """Its number in the bucket, or among the bucket's held-out rows."""
    first: int
    """The piece's first token in the document, special tokens left out."""
    num_tokens: int
    """Without special tokens."""


@dataclass(frozen=True, slots=True)
class Use:
    """A step of training that reads a row with a piece of the document."""

    step: int
    visit: int
    """How often its bucket was seen whole before."""
    place_in_step: int
    """The row's place in the step's canonical order."""
    place: Place
    is_hidden: bool
    """Whether it is padding there: the document was taken back, or the row is skipped."""


def when(run: Path, phase: str, doc_id: int, *, until: int | None = None) -> list[Use]:
    """All uses of a document before a step, in the order of steps.

    Args:
        until: None: the phase's end.

    Raises:
        FormatError: the run is missing or damaged, or a shard is.
        RecipeError: there is no such phase.
    """
    plan = read_plan(run, phase)
    return uses_of(plan, doc_id, find_places(plan, doc_id), until=until)


def find_places(plan: PhasePlan, doc_id: int) -> list[Place]:
    """Where a document stands in a phase's pack, held-out rows last; a shard of which all rows are
    skipped is not looked at.

    Raises:
        FormatError: a shard is missing or damaged.
    """
    skipped = [entry for entry, _ in _skipped_rows(plan)]
    found = []
    for is_held_out in (False, True):
        for bucket in Buckets(plan.manifest.bucket_edges).names:
            first_row = 0
            for shard in plan.manifest.of_bucket(bucket, held_out=is_held_out):
                if not _is_covered(shard, first_row, skipped):
                    found += _places_in(plan, shard, first_row, doc_id)
                first_row += shard.rows
    return found


def uses_of(
    plan: PhasePlan, doc_id: int, places: list[Place], *, until: int | None = None
) -> list[Use]:
    """All uses of a document that stands at these places, before a step of training, in the order
    of steps.

    Args:
        until: None: the phase's end.
    """
    until = plan.num_steps if until is None else until
    doc_ids, first_steps = plan.overlay.first_steps(plan.phases, plan.name)
    retracted_from = int(first_steps[doc_ids == doc_id].min(initial=until))
    uses = []
    for place in (place for place in places if not place.is_held_out):
        inside = [
            step
            for entry, step in _skipped_rows(plan)
            if entry.bucket == place.bucket and entry.first <= place.row <= entry.last
        ]
        hidden_from = min([retracted_from, *inside])
        for step, visit, place_in_step in _reads(plan, place, until):
            uses.append(Use(step, visit, place_in_step, place, step >= hidden_from))
    return sorted(uses, key=lambda use: (use.step, use.place_in_step, use.place.first))


def _reads(plan: PhasePlan, place: Place, until: int) -> Iterator[tuple[int, int, int]]:
    """Step, visit and place in the step for each time that a row is read before a step."""
    names = [bucket.name for bucket in plan.buckets]
    bucket = names.index(place.bucket)
    before, order = plan.counts_before[bucket], plan.orders[bucket]
    order_end = plan.step_map.order_steps_until(until)
    row = np.array([place.row])
    for visit in count(order.visit_at(before)):
        position = int(order.positions_of(row, visit)[0])
        if position < before:
            continue  # an earlier phase has read it, or it joins on a later visit
        order_step = plan.order_step_of(bucket, position)
        if order_step is None or order_step >= order_end:
            return
        steps = [step for step in plan.step_map.steps_of(order_step) if step < until]
        if steps:
            place_in_step = _place_in(plan.rows_of(steps[0]), bucket, place.row, visit)
            yield from ((step, visit, place_in_step) for step in steps)


def _place_in(rows: tuple[NDArray[np.int64], ...], *wanted: int) -> int:
    """Where a bucket's row stands in a step, on a visit."""
    same = [column == value for column, value in zip(rows, wanted, strict=True)]
    return int(np.flatnonzero(np.logical_and.reduce(same))[0])


def _skipped_rows(plan: PhasePlan) -> list[tuple[SkippedRows, int]]:
    return plan.overlay.skipped_rows(plan.phases, plan.name, plan.manifest.pack)


def _is_covered(shard: ShardInfo, first_row: int, skipped: list[SkippedRows]) -> bool:
    """Whether all rows of a shard are skipped, so that it may be gone."""
    own = [entry for entry in skipped if entry.bucket == str(PurePosixPath(shard.path).parent)]
    covered = np.zeros(shard.rows if own else 1, np.bool_)
    for entry in own:
        covered[max(entry.first - first_row, 0) : max(entry.last + 1 - first_row, 0)] = True
    return bool(covered.all())


def _places_in(plan: PhasePlan, shard: ShardInfo, first_row: int, doc_id: int) -> list[Place]:
    path = plan.folder / shard.path
    try:
        rows = MappedShard(path, shard, plan.manifest.row_tokens, plan.manifest.dtype)
    except FormatError as error:
        raise FormatError(f"{path}: {error} Build the run again, or skip its rows.") from None
    pieces = np.flatnonzero(rows.doc_ids == np.uint64(doc_id))
    of_rows = np.searchsorted(rows.bounds, pieces, side="right") - 1
    return [
        Place(
            shard.bucket,
            shard.held_out,
            first_row + row,
            int(rows.starts[piece]),
            int(rows.lengths[piece]) - int(rows.num_special[piece]),
        )
        for piece, row in zip(pieces.tolist(), of_rows.tolist(), strict=True)
    ]
