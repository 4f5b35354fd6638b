"""The builds of a comparison: opened, refused where they do not compare, and linked for training.

    builds, judges = open_builds([Path("runs/plain"), Path("runs/filtered")], [], phase=None)
    refuse_unlike(builds, judges, config.training)
    link_run(builds[0], shared_settings(builds[0], config, seed=0), out / "plain/seed-0/run")

A linked run is a build's shards and tokenizer behind links under a run.json of its own, with one
phase. The build itself is never written to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import yaml

from tokenmill.errors import RecipeError
from tokenmill.loader.config import LoaderConfig
from tokenmill.shards.manifest import Manifest, read_manifest
from tokenmill.shards.overlay import (
    Retraction,
    SkippedRows,
    append_entry,
    overlay_path,
    read_overlay,
)
from tokenmill.shards.run import PhaseInfo, RunInfo, pack_folder, read_run, write_run
from tokenmill.shards.settings import read_settings, to_mapping
from tokenmill.training.comparison import ComparisonConfig
from tokenmill.training.config import TrainingConfig

PHASE = "compare"
"""The one phase of a linked run."""


@dataclass(frozen=True, slots=True)
class ComparedBuild:
    """A finished build, and the phase that is taken of it."""

    name: str
    run: Path
    info: RunInfo
    phase: str
    manifest: Manifest
    """Of the phase's rows."""
    taken_out: tuple[Retraction | SkippedRows, ...]
    """Documents and rows; skips and replays of steps are of another order and do not count."""

    @property
    def settings(self) -> PhaseInfo:
        return self.info.phase(self.phase)


def open_builds(
    runs: Sequence[Path], judges: Sequence[Path], phase: str | None
) -> tuple[list[ComparedBuild], list[ComparedBuild]]:
    """Those that are trained on, and those whose held-out rows are read."""
    places = [run.resolve() for run in runs]
    judging = list(dict.fromkeys(judge.resolve() for judge in judges or runs))
    others = [judge for judge in judging if judge not in places]
    places += others
    opened = [_open(name, run, phase) for name, run in zip(_names(places), places, strict=True)]
    of_place = {build.run: build for build in reversed(opened)}
    return opened[: len(runs)], [of_place[judge] for judge in judging]


def _open(name: str, run: Path, phase: str | None) -> ComparedBuild:
    info = read_run(run)
    phase = next(iter(info.phases)) if phase is None else phase
    if phase not in info.phases:
        raise RecipeError(f"{run}: has no phase {phase}, but {', '.join(info.phases)}.")
    settings = info.phase(phase)
    manifest = read_manifest(pack_folder(run, settings.pack)).up_to(settings.generation)
    entries = read_overlay(run, tuple(info.phases)).entries
    taken_out = tuple(entry for entry in entries if isinstance(entry, Retraction | SkippedRows))
    return ComparedBuild(name, run, info, phase, manifest, taken_out)


def _names(runs: Sequence[Path]) -> list[str]:
    """Each build's folder name, with the first free number where several have one."""
    names: list[str] = []
    for run in runs:
        numbered = (f"{run.name}-{number}" for number in count(2))
        names.append(next(name for name in chain([run.name], numbered) if name not in names))
    return names


def refuse_unlike(
    builds: Sequence[ComparedBuild], judges: Sequence[ComparedBuild], training: TrainingConfig
) -> None:
    """Refuse builds whose losses would not compare.

    Raises:
        RecipeError: they have several tokenizers, or a judge has no held-out rows, longer sequences
            than the model, or documents held out that a build trains on.
    """
    _refuse_other_tokenizers([*builds, *judges])
    for judge in judges:
        _refuse_no_judge(judge, training)
        for build in builds:
            _refuse_seen(build.run, judge.run)


def shared_settings(build: ComparedBuild, config: ComparisonConfig, seed: int) -> RunInfo:
    """The build's run with one phase and the comparison's settings."""
    where, row_tokens = f"{build.run}: {build.phase}", build.manifest.row_tokens
    if config.batch_tokens % row_tokens:
        raise RecipeError(
            f"{where} has rows of {row_tokens:,} tokens, and batch_tokens = "
            f"{config.batch_tokens:,} is no multiple of it, so steps would differ between builds."
        )
    loader = replace(
        read_settings(LoaderConfig, build.settings.loader, f"{where}.loader"),
        batch_tokens=config.batch_tokens,
        batch_warmup=None,
        changes=(),
        seed=seed,
    )
    phase = replace(build.settings, loader=to_mapping(loader), schedule=to_mapping(config.schedule))
    training = replace(config.training, seed=config.training.seed + seed)
    return replace(build.info, phases={PHASE: phase}, training=to_mapping(training))


def link_run(build: ComparedBuild, shared: RunInfo, link: Path) -> None:
    """The build behind links, with other settings, without what was taken out of it."""
    link.mkdir(parents=True, exist_ok=True)
    for folder in ("shards", "tokenizer"):
        (link / folder).unlink(missing_ok=True)  # the build may have been moved
        (link / folder).symlink_to(build.run / folder)
    overlay_path(link).unlink(missing_ok=True)
    for entry in build.taken_out:
        append_entry(link, replace(entry, phase=PHASE, step=0))
    write_run(link, shared)


def _refuse_other_tokenizers(builds: Sequence[ComparedBuild]) -> None:
    first = builds[0]
    for build in builds:
        if build.info.tokenizer.sha256 != first.info.tokenizer.sha256:
            raise RecipeError(
                f"{build.run}: its tokenizer is not that of {first.run}, and losses of a token "
                "compare for one tokenizer only. Build both with the same."
            )


def _refuse_no_judge(judge: ComparedBuild, training: TrainingConfig) -> None:
    """One without held-out rows, or with sequences that the model has no positions for."""
    if not judge.manifest.shards.column("held_out").any():
        raise RecipeError(
            f"{judge.run}: {judge.phase} has no held-out rows to be judged on. Build it with "
            "held_out above 0."
        )
    longest = training.encoder(judge.info.tokenizer).longest
    if longest is not None and judge.manifest.max_length > longest:
        raise RecipeError(
            f"{judge.run}: {judge.phase} has sequences of up to {judge.manifest.max_length:,} "
            f"tokens, and the model has {longest:,} learned positions. Raise "
            "training.model.max_positions, or judge on other builds (--on)."
        )


def _refuse_seen(build: Path, judge: Path) -> None:
    """A judge that holds out a larger share holds out documents that the build trains on."""
    own, larger = _held_out_share(build), _held_out_share(judge)
    if own is not None and larger is not None and own < larger:
        raise RecipeError(
            f"{build}: holds out {own:g} of its documents and {judge} {larger:g}, so it may train "
            "on what it is to be judged on. Build both with the same held_out, or judge on a "
            "build that holds out less."
        )


def _held_out_share(run: Path) -> float | None:
    """Of the run's documents; None for a copy that has no recipe.yaml."""
    path = run / "recipe.yaml"
    return float(yaml.safe_load(path.read_text())["held_out"]) if path.exists() else None
