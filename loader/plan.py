"""A phase as arithmetic: which rows, of which bucket, on which visit, make up each of its steps.

    plan = read_plan(run, "phase2")
    bucket, row, visit = plan.rows_of(step=70_000)

Position j of a bucket of N rows is its visit j // N, and there the row at place j % N of that
visit's own permutation; so no row comes again before its bucket was seen whole. A phase over a pack
that an earlier phase has read goes on where that one ends. Nothing is read but run.json, the
manifest and the overlay, and nothing is remembered.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import FormatError, RecipeError
from tokenmill.loader.config import LoaderConfig
from tokenmill.loader.keys import derive_key, extend_key
from tokenmill.loader.mixture import BucketSize, bucket_weights, counts
from tokenmill.loader.order import rows_at
from tokenmill.shards.buckets import Buckets
from tokenmill.shards.manifest import Manifest, read_manifest
from tokenmill.shards.overlay import Overlay, read_overlay
from tokenmill.shards.run import PhaseInfo, RunInfo, TokenizerInfo, pack_folder, read_run
from tokenmill.shards.settings import read_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class PhasePlan:
    """What a phase reads, as numbers."""

    name: str
    config: LoaderConfig
    tokenizer: TokenizerInfo
    folder: Path
    """The pack's."""
    manifest: Manifest
    buckets: tuple[BucketSize, ...]
    weights: tuple[int, ...]
    """(buckets,) the shares in rows, as integers."""
    counts_before: tuple[int, ...]
    """(buckets,) rows that earlier phases over this pack have read."""
    rows_per_step: int
    num_steps: int
    """How long the phase is. The order goes on beyond it."""
    phases: tuple[str, ...]
    """All of the run, in the order in which they are trained."""
    overlay: Overlay
    """What was taken back after the build."""

    def counts_until(self, step: int) -> tuple[int, ...]:
        """(buckets,) rows read before this step, with those of earlier phases."""
        read = counts(step * self.rows_per_step, self.weights)
        return tuple(map(sum, zip(self.counts_before, read, strict=True)))

    def rows_of(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Bucket, row in the bucket, and visit of each of the step's rows, in canonical order; each
        (rows,)."""
        buckets, rows, visits = [], [], []
        bounds = zip(self.counts_until(step), self.counts_until(step + 1), strict=True)
        for bucket, (first, last) in enumerate(bounds):
            size = self.buckets[bucket]
            key = derive_key(self.config.seed, "order", self.manifest.pack, size.name)
            while first < last:
                visit, start = divmod(first, size.rows)
                end = min(size.rows, start + last - first)
                rows.append(rows_at(np.arange(start, end), size.rows, extend_key(key, visit)))
                buckets.append(np.full(end - start, bucket))
                visits.append(np.full(end - start, visit))
                first += end - start
        # Ranks and micro-batches take contiguous slices, so each should see all buckets.
        key = derive_key(self.config.seed, "step", self.name, step)
        shuffle = rows_at(np.arange(self.rows_per_step), self.rows_per_step, key)
        return (
            np.concatenate(buckets)[shuffle],
            np.concatenate(rows)[shuffle],
            np.concatenate(visits)[shuffle],
        )


def read_plan(run: Path, phase: str) -> PhasePlan:
    """The plan of a phase of a finished build.

    Raises:
        FormatError: the run or its pack is missing, damaged or of another tokenizer.
        RecipeError: there is no such phase, its mixture takes from a subset without rows, or its
            seed is another than that of an earlier phase over the same pack.
    """
    info = read_run(run)
    pack = info.phase(phase).pack
    folder = pack_folder(run, pack)
    manifest = read_manifest(folder)
    if manifest.tokenizer_sha256 != info.tokenizer.sha256:
        raise FormatError(
            f"{folder}: the shards were made with the tokenizer "
            f"{manifest.tokenizer_sha256[:12]}, the run has {info.tokenizer.sha256[:12]}. "
            "Build the run again."
        )
    overlay = read_overlay(run, tuple(info.phases))
    return _plan(info, phase, folder, manifest, _bucket_sizes(manifest), overlay)


def _plan(
    info: RunInfo,
    phase: str,
    folder: Path,
    manifest: Manifest,
    buckets: tuple[BucketSize, ...],
    overlay: Overlay,
) -> PhasePlan:
    """Walk through the phases over one pack up to the one wanted."""
    counts_before: tuple[int, ...] = (0,) * len(buckets)
    first: PhasePlan | None = None
    for name, settings in info.phases.items():
        if settings.pack != info.phases[phase].pack:
            continue
        config = read_settings(LoaderConfig, settings.loader, f"{name}.loader")
        rows_per_step = max(1, config.batch_tokens // manifest.row_tokens)
        plan = PhasePlan(
            name=name,
            config=config,
            tokenizer=info.tokenizer,
            folder=folder,
            manifest=manifest,
            buckets=buckets,
            weights=_weights(name, config, manifest, buckets),
            counts_before=counts_before,
            rows_per_step=rows_per_step,
            num_steps=_num_steps(settings, rows_per_step * manifest.row_tokens),
            phases=tuple(info.phases),
            overlay=overlay,
        )
        first = first or plan
        if config.seed != first.config.seed:
            raise RecipeError(
                f"{name}.loader.seed: {name} goes on with the pack {settings.pack} where "
                f"{first.name} ends, so it needs its seed {first.config.seed}, got {config.seed}."
            )
        if name == phase:
            return plan
        counts_before = plan.counts_until(plan.num_steps)
    raise AssertionError(f"{phase} is not among its own run's phases")


def _num_steps(phase: PhaseInfo, step_tokens: int) -> int:
    """Steps until a schedule's tokens are read; all tokens of the rows count, padding included."""
    return -(-int(phase.schedule["tokens"]) // step_tokens)


def _bucket_sizes(manifest: Manifest) -> tuple[BucketSize, ...]:
    sizes = []
    for name in Buckets(manifest.bucket_edges).names:
        shards = manifest.of_bucket(name)
        rows = sum(shard.rows for shard in shards)
        sizes.append(BucketSize(name, rows, sum(shard.real_tokens for shard in shards)))
    return tuple(sizes)


def _weights(
    phase: str, config: LoaderConfig, manifest: Manifest, buckets: tuple[BucketSize, ...]
) -> tuple[int, ...]:
    edges = Buckets(manifest.bucket_edges)
    return bucket_weights(
        config.mixture,
        {subset: edges.of_subset(subset) for subset in config.mixture},
        buckets,
        weights_by=config.weights_by,
        where=phase,
    )
