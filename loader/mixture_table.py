"""The dry run of a mixture: how much of each bucket and subset the phases read, and how often.

    tables = mixture_tables(run)                 a table for each phase, in their order
    tables["phase2"].subsets[0].epochs, tables["phase2"].subsets[0].first_repeat_step
    refuse_too_many_epochs(tables["phase2"])

All figures come from the plans, so batch warm-up, changes of the mixture and rows that join a grown
corpus are in them. A subset's figures are those of its buckets together, whichever subset's share
they are read for. Subsets overlap, so theirs do not add up; the buckets' do. They are figures
of the order: what `skip` leaves out counts as read, and what `replay` brings again counts once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenmill.errors import RecipeError
from tokenmill.loader.plan import PhasePlan, read_plans
from tokenmill.shards.buckets import Buckets


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureLine:
    """A bucket, or a subset of the mixture."""

    name: str
    share: str | None
    """A subset's share as its recipe has it, one after the other where it changes; None for a
    bucket."""
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
    epochs: float
    """How often its documents are read by all phases up to the end of this one, on average: the
    sum over their packs, for a document that is in each."""
    first_repeat_step: int | None
    """The first step of the phase that reads one of its rows again, perhaps beyond its end; None if
    none will."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureTable:
    """A phase's mixture, in figures."""

    phase: str
    num_steps: int
    rows_per_step: int
    """Of a full step."""
    first_rows: int
    """Rows of the first step."""
    warmup_steps: int
    """Steps before the first full one."""
    change_steps: tuple[int, ...]
    """The first step of each change of the mixture."""
    row_tokens: int
    max_epochs: float | None
    buckets: tuple[MixtureLine, ...]
    subsets: tuple[MixtureLine, ...]


def mixture_tables(run: Path | str) -> dict[str, MixtureTable]:
    """The figures of each phase of a finished build; reads no shard.

    Raises:
        FormatError, RecipeError: as read_plan.
    """
    tables = {}
    # How often each pack's buckets were read. Buckets of one name hold the same documents, but for
    # those that a token budget or a policy leaves out.
    of_packs: dict[str, list[float]] = {}
    for name, plan in read_plans(Path(run)).items():
        of_packs[plan.manifest.pack] = _epochs(plan, at_end=True)
        tables[name] = _table(
            plan, [sum(of_bucket) for of_bucket in zip(*of_packs.values(), strict=True)]
        )
    return tables


def refuse_too_many_epochs(table: MixtureTable) -> None:
    """Raises RecipeError where a phase brings documents above its max_epochs."""
    if table.max_epochs is None:
        return
    most = max((line for line in table.buckets if line.share_of_rows), key=lambda line: line.epochs)
    # Sums of quotients may be off in their last digits.
    if most.epochs > table.max_epochs + 1e-9:
        raise RecipeError(
            f"{table.phase}.loader.max_epochs: by the end of {table.phase} documents of the "
            f"bucket {most.name} are read {most.epochs:.4g} times in all phases, and "
            f"{table.max_epochs:g} is the most allowed. Lower the shares of the subsets with "
            "that bucket or the phase's tokens, build from more documents, or raise max_epochs."
        )


def _table(plan: PhasePlan, in_all: Sequence[float]) -> MixtureTable:
    edges = Buckets(plan.manifest.bucket_edges)
    figures = _Figures(plan, in_all)
    sizes = plan.batch_sizes
    return MixtureTable(
        phase=plan.name,
        num_steps=plan.num_steps,
        rows_per_step=sizes.full,
        first_rows=sizes.rows_of(0),
        warmup_steps=sizes.warmup_steps,
        change_steps=tuple(section.first_step for section in plan.sections[1:]),
        row_tokens=plan.manifest.row_tokens,
        max_epochs=plan.config.max_epochs,
        buckets=tuple(figures.line(name, None, [name]) for name in edges.names),
        subsets=tuple(
            figures.line(subset, _shares(plan, subset), edges.of_subset(subset))
            for subset in plan.config.subsets
        ),
    )


class _Figures:
    """What the lines of a phase are added up from."""

    def __init__(self, plan: PhasePlan, in_all: Sequence[float]) -> None:
        before, after = plan.counts_before, plan.counts_until(plan.num_steps)
        self.plan = plan
        self.epochs_before, self.epochs_after = _epochs(plan), _epochs(plan, at_end=True)
        self.in_all = in_all
        self.rows_read = [last - first for first, last in zip(before, after, strict=True)]
        self.tokens_read = [
            rows * bucket.tokens // max(1, bucket.rows)
            for rows, bucket in zip(self.rows_read, plan.buckets, strict=True)
        ]

    def line(self, name: str, share: str | None, members: Sequence[str]) -> MixtureLine:
        buckets = self.plan.buckets
        own = [index for index, bucket in enumerate(buckets) if bucket.name in members]
        rows = sum(buckets[index].rows for index in own)

        def mean(epochs: Sequence[float]) -> float:
            return sum(epochs[index] * buckets[index].rows for index in own) / max(1, rows)

        tokens_read = sum(self.tokens_read[index] for index in own)
        repeats = [step for index in own if (step := _first_repeat(self.plan, index)) is not None]
        return MixtureLine(
            name=name,
            share=share,
            rows=rows,
            tokens=sum(buckets[index].tokens for index in own),
            share_of_rows=sum(self.rows_read[index] for index in own) / sum(self.rows_read),
            share_of_tokens=tokens_read / max(1, sum(self.tokens_read)),
            tokens_read=tokens_read,
            epochs_before=mean(self.epochs_before),
            epochs_after=mean(self.epochs_after),
            epochs=mean(self.in_all),
            first_repeat_step=min(repeats, default=None),
        )


def _epochs(plan: PhasePlan, *, at_end: bool = False) -> list[float]:
    """(buckets,) how often each was seen, of this pack alone."""
    counts = plan.counts_until(plan.num_steps) if at_end else plan.counts_before
    return [order.epochs_at(count) for order, count in zip(plan.orders, counts, strict=True)]


def _shares(plan: PhasePlan, subset: str) -> str:
    """The subset's share in each mixture of the phase; what does not change stands once."""
    shares = [str(mixture.get(subset, 0)) for mixture in plan.config.mixtures]
    return " > ".join(shares if len(set(shares)) > 1 else shares[:1])


def _first_repeat(plan: PhasePlan, bucket: int) -> int | None:
    """The step of training that reads a row of the bucket which an earlier step has read."""
    position = plan.orders[bucket].first_repeat(plan.counts_before[bucket])
    order_step = plan.order_step_of(bucket, position)
    if order_step is None:
        return None
    while not (steps := plan.step_map.steps_of(order_step)):  # skipped: the next one repeats too
        order_step += 1
    return steps[0]
