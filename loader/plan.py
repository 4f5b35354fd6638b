"""A phase as arithmetic: which rows, of which bucket, on which visit, make up each of its steps.

    plan = read_plan(run, "phase2")
    bucket, row, visit = plan.rows_of(step=70_000)

A step of training is a step of the order (step_map.py), that is a range of the phase's rows
(batch_size.py). The mixture deals them to buckets (mixture.py), and each bucket has one order,
through all phases over the pack (bucket_order.py): a phase goes on where the one before it ends,
and so does a section of a phase, from one change of its mixture to the next. All of it is
arithmetic on a few integers; nothing is read but run.json, the manifest and the overlay.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import FormatError, RecipeError
from tokenmill.loader.batch_size import BatchSizes
from tokenmill.loader.bucket_order import BucketOrder
from tokenmill.loader.config import LoaderConfig
from tokenmill.loader.keys import derive_key
from tokenmill.loader.mixture import BucketSize, RowMixture, bucket_weights
from tokenmill.loader.order import rows_at
from tokenmill.loader.step_map import StepMap, step_map
from tokenmill.shards.buckets import Buckets
from tokenmill.shards.manifest import Manifest, read_manifest
from tokenmill.shards.overlay import Overlay, read_overlay
from tokenmill.shards.run import RunInfo, TokenizerInfo, pack_folder, read_run
from tokenmill.shards.settings import read_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """The steps of a phase that have one mixture."""

    first_step: int
    """Of the order."""
    first_row: int
    """Rows of the phase before it."""
    mixture: RowMixture
    counts_before: tuple[int, ...]
    """(buckets,) rows read before it, with those of earlier phases over the pack."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PhasePlan:
    """What a phase reads, as numbers."""

    name: str
    config: LoaderConfig
    tokenizer: TokenizerInfo
    folder: Path
    """The pack's."""
    manifest: Manifest
    """Of the shards that the phase sees: those of its generation and before."""
    buckets: tuple[BucketSize, ...]
    orders: tuple[BucketOrder, ...]
    """(buckets,)"""
    sections: tuple[Section, ...]
    batch_sizes: BatchSizes
    num_steps: int
    """How long the phase is. The order goes on beyond it."""
    step_map: StepMap
    """From the steps of training, in which all else here counts, to those of the order."""
    phases: tuple[str, ...]
    """All of the run, in the order in which they are trained."""
    overlay: Overlay
    """What was changed after the build."""

    @property
    def rows_per_step(self) -> int:
        """Rows of a full step; while the batch warms up there are fewer."""
        return self.batch_sizes.full

    @property
    def counts_before(self) -> tuple[int, ...]:
        """(buckets,) rows that earlier phases over this pack have read."""
        return self.sections[0].counts_before

    @property
    def buckets_read(self) -> tuple[int, ...]:
        """The buckets that a mixture of the phase takes from."""
        weights = zip(*(section.mixture.weights for section in self.sections), strict=True)
        return tuple(bucket for bucket, of_sections in enumerate(weights) if any(of_sections))

    def num_rows(self, step: int) -> int:
        """Rows of a step over all ranks."""
        return self.batch_sizes.rows_of(self.step_map.order_step(step))

    def tokens_before(self, step: int) -> int:
        """Tokens of the rows of all steps before this one, padding included, as a schedule counts
        them: as if none were skipped or replayed."""
        return self.batch_sizes.rows_before(step) * self.manifest.row_tokens

    def counts_until(self, step: int) -> tuple[int, ...]:
        """(buckets,) how far each bucket's order is used up before a step, by earlier phases
        too."""
        return self.counts_at(self.step_map.order_steps_until(step))

    def counts_at(self, order_step: int) -> tuple[int, ...]:
        """(buckets,) the position in its order at which each bucket stands when a step of the order
        begins."""
        section = self.section_at(order_step)
        read = section.mixture.counts(self.batch_sizes.rows_before(order_step) - section.first_row)
        return tuple(map(sum, zip(section.counts_before, read, strict=True)))

    def section_at(self, order_step: int) -> Section:
        """The section that a step of the order belongs to."""
        place = bisect_right(self.sections, order_step, key=lambda section: section.first_step)
        return self.sections[place - 1]

    def order_step_of(self, bucket: int, position: int) -> int | None:
        """The step of the order that reads a position of a bucket; None if an earlier phase does,
        or none ever."""
        for section in reversed(self.sections):
            count = position + 1 - section.counts_before[bucket]
            if count > 0:
                rows = section.mixture.rows_until(count, bucket)
                if rows is None:
                    return None
                return self.batch_sizes.steps_until(section.first_row + rows) - 1
        return None

    def rows_of(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Bucket, row in the bucket, and visit of each of the step's rows, in canonical order; each
        (rows,)."""
        return self.rows_at(self.step_map.order_step(step))

    def rows_at(
        self, order_step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The same of a step of the order."""
        buckets, rows, visits = [], [], []
        bounds = zip(self.counts_at(order_step), self.counts_at(order_step + 1), strict=True)
        for bucket, (first, last) in enumerate(bounds):
            if first < last:
                found, on_visits = self.orders[bucket].rows_at(first, last)
                buckets.append(np.full(last - first, bucket))
                rows.append(found)
                visits.append(on_visits)
        # Ranks and micro-batches take contiguous slices, so each should see all buckets.
        key = derive_key(self.config.seed, "step", self.name, order_step)
        num_rows = self.batch_sizes.rows_of(order_step)
        shuffle = rows_at(np.arange(num_rows), num_rows, key)
        return (
            np.concatenate(buckets)[shuffle],
            np.concatenate(rows)[shuffle],
            np.concatenate(visits)[shuffle],
        )


def read_plan(run: Path, phase: str) -> PhasePlan:
    """The plan of a phase of a finished build.

    Raises:
        FormatError: the run or its pack is missing, damaged or of another tokenizer.
        RecipeError: there is no such phase, its mixture takes from a subset without rows, or it
            cannot go on with the order of an earlier phase over the same pack.
    """
    info = read_run(run)
    plans = _plans_over(run, info, info.phase(phase).pack)
    return next(plan for plan in plans if plan.name == phase)


def read_plans(run: Path) -> dict[str, PhasePlan]:
    """The plans of all phases, in their order; errors as of read_plan."""
    info = read_run(run)
    packs = dict.fromkeys(settings.pack for settings in info.phases.values())
    plans = {plan.name: plan for pack in packs for plan in _plans_over(run, info, pack)}
    return {name: plans[name] for name in info.phases}


def _plans_over(run: Path, info: RunInfo, pack: str) -> Iterator[PhasePlan]:
    """Of the phases over one pack, in their order."""
    folder = pack_folder(run, pack)
    manifest = read_manifest(folder)
    if manifest.tokenizer_sha256 != info.tokenizer.sha256:
        raise FormatError(
            f"{folder}: the shards were made with the tokenizer "
            f"{manifest.tokenizer_sha256[:12]}, the run has {info.tokenizer.sha256[:12]}. "
            "Build the run again."
        )
    overlay = read_overlay(run, tuple(info.phases))
    shards = [_BucketShards.of(manifest, name) for name in Buckets(manifest.bucket_edges).names]
    plan = None
    for name, settings in info.phases.items():
        if settings.pack == pack:
            plan = _plan(info, name, folder, manifest, shards, overlay, before=plan)
            yield plan


def _plan(
    info: RunInfo,
    name: str,
    folder: Path,
    manifest: Manifest,
    shards: Sequence["_BucketShards"],
    overlay: Overlay,
    *,
    before: PhasePlan | None,
) -> PhasePlan:
    """The plan of a phase that goes on where another one over its pack ends."""
    settings = info.phases[name]
    config = read_settings(LoaderConfig, settings.loader, f"{name}.loader")
    sizes = tuple(each.size(settings.generation) for each in shards)
    shard_rows = [each.rows_until(settings.generation) for each in shards]
    if before is None:
        counts_before: tuple[int, ...] = (0,) * len(shards)
        keys = [derive_key(config.seed, "order", manifest.pack, size.name) for size in sizes]
        orders = [
            BucketOrder.new(key, rows, config.cohort_shards)
            for key, rows in zip(keys, shard_rows, strict=True)
        ]
    else:
        _check_goes_on(info, before, name, config)
        counts_before = before.counts_until(before.num_steps)
        orders = [
            order.grown(count, rows)
            for order, count, rows in zip(before.orders, counts_before, shard_rows, strict=True)
        ]
    batch_sizes = batch_sizes_of(config, manifest.row_tokens)
    edges = Buckets(manifest.bucket_edges)
    subsets = {subset: edges.of_subset(subset) for subset in config.subsets}
    weights = [
        bucket_weights(mixture, subsets, sizes, weights_by=config.weights_by, where=name)
        for mixture in config.mixtures
    ]
    return PhasePlan(
        name=name,
        config=config,
        tokenizer=info.tokenizer,
        folder=folder,
        manifest=manifest.up_to(settings.generation),
        buckets=sizes,
        orders=tuple(orders),
        sections=_sections(config, weights, batch_sizes, manifest.row_tokens, counts_before),
        batch_sizes=batch_sizes,
        num_steps=batch_sizes.steps_until(
            _rows(int(settings.schedule["tokens"]), manifest.row_tokens)
        ),
        step_map=step_map(overlay, name),
        phases=tuple(info.phases),
        overlay=overlay,
    )


def _check_goes_on(info: RunInfo, before: PhasePlan, name: str, config: LoaderConfig) -> None:
    """RecipeError where a phase would break the order that an earlier one has begun."""
    for setting in ("seed", "cohort_shards"):
        then, now = getattr(before.config, setting), getattr(config, setting)
        if then != now:
            raise RecipeError(
                f"{name}.loader.{setting}: {name} goes on with the pack {info.phases[name].pack} "
                f"where {before.name} ends, so it needs its {setting} {then}, got {now}."
            )
    then, now = info.phases[before.name].generation, info.phases[name].generation
    if then > now:
        raise RecipeError(
            f"{name}.generation: {before.name} before it reads the pack {info.phases[name].pack} "
            f"with generation {then}, so {name} needs at least that, got {now}."
        )


def _sections(
    config: LoaderConfig,
    weights: Sequence[Sequence[int]],
    batch_sizes: BatchSizes,
    row_tokens: int,
    counts_before: tuple[int, ...],
) -> tuple[Section, ...]:
    """One section for each of the phase's mixtures, given as weights."""
    after_tokens = [0, *(change.after_tokens for change in config.changes)]
    sections: list[Section] = []
    for tokens, of_buckets in zip(after_tokens, weights, strict=True):
        step = batch_sizes.steps_until(_rows(tokens, row_tokens))
        first_row = batch_sizes.rows_before(step)
        if sections:
            read = sections[-1].mixture.counts(first_row - sections[-1].first_row)
            counts_before = tuple(map(sum, zip(counts_before, read, strict=True)))
        sections.append(
            Section(
                first_step=step,
                first_row=first_row,
                mixture=RowMixture(of_buckets),
                counts_before=counts_before,
            )
        )
    return tuple(sections)


def batch_sizes_of(config: LoaderConfig, row_tokens: int) -> BatchSizes:
    """The steps of a phase, as its settings have them."""
    full = max(1, config.batch_tokens // row_tokens)
    if config.batch_warmup is None:
        return BatchSizes(full, full)
    start = max(1, config.batch_warmup.start_tokens // row_tokens)
    return BatchSizes(start, full, _rows(config.batch_warmup.tokens, row_tokens))


def _rows(tokens: int, row_tokens: int) -> int:
    """The least number of rows that hold so many tokens, padding included."""
    return -(-tokens // row_tokens)


@dataclass(frozen=True, slots=True)
class _BucketShards:
    """The shards of a bucket that are to be trained on, generation by generation."""

    name: str
    rows: NDArray[np.int64]
    tokens: NDArray[np.int64]
    """Real ones."""
    generations: NDArray[np.int64]

    @staticmethod
    def of(manifest: Manifest, name: str) -> "_BucketShards":
        shards = manifest.of_bucket(name)
        return _BucketShards(
            name,
            shards.column("rows"),
            shards.column("real_tokens"),
            shards.column("generation"),
        )

    def rows_until(self, generation: int) -> NDArray[np.int64]:
        """(shards,) rows of each shard up to and with a generation."""
        return self.rows[: np.searchsorted(self.generations, generation, side="right")]

    def size(self, generation: int) -> BucketSize:
        num_shards = len(self.rows_until(generation))
        rows, tokens = self.rows[:num_shards], self.tokens[:num_shards]
        return BucketSize(self.name, int(rows.sum()), int(tokens.sum()))
