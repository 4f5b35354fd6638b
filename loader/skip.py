"""Leave rows or steps out of a training, or have steps again, without building anew.

    skip_rows(run, "phase1", "1024-2047", 7, 9)    rows of a damaged block become padding
    skip_steps(run, "phase1", 12_000, 12_050)      their data never come, what follows moves up
    replay_steps(run, "phase1", 900, 950)          their data come again, bit for bit

Each adds an entry to the run's overlay (shards/overlay.py) and says in words what it does. Training
takes it up where it is started next, from its newest checkpoint. What was read never changes: who
wants to skip steps that were read goes back to a checkpoint from before them.
"""

from pathlib import Path, PurePosixPath

from tokenmill.errors import RecipeError
from tokenmill.loader.plan import read_plan
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.overlay import (
    ReplayedSteps,
    SkippedRows,
    SkippedSteps,
    append_entry,
    entry_start,
    read_overlay,
)
from tokenmill.shards.run import pack_folder, read_run

Position = tuple[str, int]
"""A phase and its step."""


def skip_rows(
    run: Path,
    phase: str,
    bucket: str,
    first: int,
    last: int,
    *,
    start: Position | None = None,
    reached: Position | None = None,
) -> str:
    """Show rows as padding, in all phases over the phase's pack; only while nobody else changes the
    run.

    Args:
        bucket: the folder of its shards below the pack's, e.g. "0-1023" or "held-out/0-1023".
        first: rows are numbered in the bucket, from 0.
        last: included.
        start: the step from which on; None: where training stands.
        reached: where training stands; None: it has not begun.

    Raises:
        RecipeError: there are no such rows or steps, or training has read steps that would change.
    """
    info = read_run(run)
    phases = tuple(info.phases)
    pack = info.phase(phase).pack
    start = entry_start(phases, start, reached)
    folder = pack_folder(run, pack)
    shards = read_manifest(folder).shards
    num_rows = sum(s.rows for s in shards if str(PurePosixPath(s.path).parent) == bucket)
    if not 0 <= first <= last < num_rows:
        raise RecipeError(
            f"--rows {bucket}:{first}-{last}: expected rows of a bucket of {folder}, first and "
            f"last, from 0 on; {bucket} has {num_rows:,} rows."
        )
    skipped = read_overlay(run, phases).skipped_rows(phases, start[0], pack)
    known = [entry for entry, step in skipped if step <= start[1] and entry.bucket == bucket]
    if any(entry.first <= first and last <= entry.last for entry in known):
        return "nothing new: these rows are skipped, and the overlay stays as it is"
    append_entry(run, SkippedRows(*start, pack, bucket, first, last))
    rows = last - first + 1
    when = "at once" if bucket.startswith("held-out/") else f"from {start[0]} step {start[1]:,} on"
    return (
        f"{rows:,} of the {num_rows:,} rows of {pack}/{bucket}, {first:,} to {last:,}, are padding "
        f"{when}. Their shard is not read for them; all other rows stay where they are."
    )


def skip_steps(
    run: Path, phase: str, first: int, last: int, *, reached: Position | None = None
) -> str:
    """Never read the data of steps that are to come; only while nobody else changes the run.

    Args:
        first: steps are numbered as training counts them now, entries of before included.
        last: included.
        reached: where training stands; None: it has not begun.

    Raises:
        RecipeError: the phase has no such steps, or training has read some of them.
    """
    plan = read_plan(run, phase)
    if not 0 <= first <= last < plan.num_steps:
        raise RecipeError(
            f"--steps {first}-{last}: expected steps of {phase}, first and last; it has "
            f"{plan.num_steps:,}, from 0 on."
        )
    if reached and (plan.phases.index(reached[0]), reached[1]) > (plan.phases.index(phase), first):
        raise RecipeError(
            f"--steps {first}-{last}: training has read up to {reached[0]}:{reached[1]}, and what "
            "was read never changes. Skip later steps, or go back first: move checkpoints of "
            f"{phase} step {first + 1} and later away."
        )
    append_entry(run, SkippedSteps(phase, first, first, last))
    return (
        f"{phase} never reads the data of its steps {first:,} to {last:,}: step {first:,} reads "
        f"what step {last + 1:,} would have read, and so on. The phase keeps its "
        f"{plan.num_steps:,} steps and ends {last - first + 1:,} steps further in the order."
    )


def replay_steps(
    run: Path,
    phase: str,
    first: int,
    last: int,
    *,
    start: Position | None = None,
    reached: Position | None = None,
) -> str:
    """Read the data of past steps again, with the same masks; only while nobody else changes the
    run. What was taken out since stays out.

    Args:
        first: steps are numbered as training counts them now, entries of before included.
        last: included.
        start: the step that reads the first of them; None: where training stands.
        reached: where training stands; None: it has not begun.

    Raises:
        RecipeError: the steps are not past at the start, or training has read steps that would
            change.
    """
    plan = read_plan(run, phase)
    start = entry_start(plan.phases, start, reached)
    if start[0] != phase or not 0 <= first <= last < start[1] < plan.num_steps:
        raise RecipeError(
            f"--steps {first}-{last}: expected past steps of {phase}, first and last, to come "
            f"again at {start[0]}:{start[1]}; {phase} has {plan.num_steps:,} steps. Give "
            f"--from-step {phase}:STEP with a step of it after {last}."
        )
    append_entry(run, ReplayedSteps(*start, first, last))
    again = last - first + 1
    return (
        f"{phase} reads the data of its steps {first:,} to {last:,} again at steps {start[1]:,} to "
        f"{start[1] + again - 1:,}, with the same masks, and goes on at step {start[1] + again:,} "
        f"with what step {start[1]:,} would have read. The phase keeps its {plan.num_steps:,} "
        f"steps and ends {again:,} steps earlier in the order."
    )
