"""What a phase's mixture comes to: how much of each bucket and subset it reads, and how often.

    table = mixture_table(run, "phase2")
    table.subsets[0].epochs_after, table.subsets[0].first_repeat_step

A subset's figures are those of its buckets together, whichever subset's share they are read for.
Subsets overlap, so theirs do not add up; the buckets' do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenmill.loader.mixture import rows_until
from tokenmill.loader.plan import PhasePlan, read_plan
from tokenmill.shards.buckets import Buckets


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureLine:
    """A bucket, or a subset of the mixture."""

    name: str
    share: str | None
    """A subset's share as its recipe has it; None for a bucket."""
    rows: int
    tokens: int
    """Real tokens."""
    share_of_rows: float
    """Of the rows that the phase reads."""
    share_of_tokens: float
    """Of the real tokens that the phase reads."""
    tokens_read: int
    """Real tokens that the phase reads, repeats counted."""
    epochs_before: float
    """How often its rows were read by earlier phases over the same pack, on average."""
    epochs_after: float
    """The same at the end of the phase."""
    first_repeat_step: int | None
    """The first step of the phase that reads one of its rows again, perhaps beyond its end; None if
    none will."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureTable:
    """A phase's mixture, in figures."""

    phase: str
    num_steps: int
    rows_per_step: int
    row_tokens: int
    buckets: tuple[MixtureLine, ...]
    subsets: tuple[MixtureLine, ...]


def mixture_table(run: Path | str, phase: str) -> MixtureTable:
    """The figures of a phase of a finished build; reads no shard.

    Raises:
        FormatError, RecipeError: as read_plan.
    """
    plan = read_plan(Path(run), phase)
    edges = Buckets(plan.manifest.bucket_edges)
    return MixtureTable(
        phase=phase,
        num_steps=plan.num_steps,
        rows_per_step=plan.rows_per_step,
        row_tokens=plan.manifest.row_tokens,
        buckets=tuple(_line(plan, name, None, [name]) for name in edges.names),
        subsets=tuple(
            _line(plan, subset, str(share), edges.of_subset(subset))
            for subset, share in plan.config.mixture.items()
        ),
    )


def _line(plan: PhasePlan, name: str, share: str | None, members: Sequence[str]) -> MixtureLine:
    own = [index for index, bucket in enumerate(plan.buckets) if bucket.name in members]
    after = plan.counts_until(plan.num_steps)
    tokens_read = [
        (after[index] - plan.counts_before[index]) * bucket.tokens // max(1, bucket.rows)
        for index, bucket in enumerate(plan.buckets)
    ]
    rows = sum(plan.buckets[index].rows for index in own)
    repeats = [step for index in own if (step := _first_repeat(plan, index)) is not None]
    return MixtureLine(
        name=name,
        share=share,
        rows=rows,
        tokens=sum(plan.buckets[index].tokens for index in own),
        share_of_rows=sum(plan.weights[index] for index in own) / sum(plan.weights),
        share_of_tokens=sum(tokens_read[index] for index in own) / max(1, sum(tokens_read)),
        tokens_read=sum(tokens_read[index] for index in own),
        epochs_before=sum(plan.counts_before[index] for index in own) / max(1, rows),
        epochs_after=sum(after[index] for index in own) / max(1, rows),
        first_repeat_step=min(repeats, default=None),
    )


def _first_repeat(plan: PhasePlan, bucket: int) -> int | None:
    """The step that reads the bucket's row number N + 1, counted from the first phase over the
    pack."""
    # Where earlier phases have seen the whole bucket, the next row of it is a repeat.
    fresh = max(0, plan.buckets[bucket].rows - plan.counts_before[bucket])
    rows = rows_until(fresh + 1, bucket, plan.weights)
    return None if rows is None else (rows - 1) // plan.rows_per_step
