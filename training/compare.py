"""Does a filter help? The same small model on several builds, several times over, judged alike.

    comparison = compare([Path("runs/plain"), Path("runs/filtered")], out=Path("compared"), ...)

    OUT/compare.json                     what all trainings share; another comparison is refused
    OUT/<build>/seed-<n>/run/            the build, behind links, with one phase of these settings
    OUT/<build>/seed-<n>/training/       an ordinary training: log, curve, checkpoints
    OUT/<build>/seed-<n>/held-out.json   its losses on the held-out rows of every build

Model, tokens, batch and schedule are the same everywhere; the trainings of one seed begin with the
same weights and have the same keys of order and masks, so equal corpora give equal losses, to the
bit. Each model is then judged on the held-out rows of every build, behind the same masks. What the
build's own phase says of mixture and masking stays, so recipes can be compared too.

Losses in nats a masked token mean the same for one tokenizer only; builds of several are refused.
Held-out documents are chosen by the hash of their text as it was packed: builds that hold out the
same share hold out the same documents (another share is refused where it would be unfair), but a
document that one of them edits may be trained on there. `judges` names other builds to be judged
on, where that matters.

A comparison that was killed goes on where it was; trainings that are done are not done again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path

import torch
import yaml
from torch import nn

from tokenmill.errors import RecipeError, ResumeError
from tokenmill.loader.config import LoaderConfig
from tokenmill.loader.mixture_table import mixture_tables
from tokenmill.shards.files import read_json, write_json
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.overlay import (
    Retraction,
    SkippedRows,
    append_entry,
    overlay_path,
    read_overlay,
)
from tokenmill.shards.run import PhaseInfo, RunInfo, pack_folder, read_run, write_run
from tokenmill.shards.settings import read_settings, to_mapping
from tokenmill.training.checkpoint import newest_checkpoint
from tokenmill.training.config import ScheduleConfig, TrainingConfig
from tokenmill.training.evaluate import evaluate
from tokenmill.training.intervals import Interval, interval
from tokenmill.training.loop import train
from tokenmill.training.model import build_model
from tokenmill.training.resume import phase_rope

PHASE = "compare"


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonConfig:
    """What all trainings share. The default is the tiny model for minutes on two cores; a question
    worth a GPU deserves at least ettin-17m."""

    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(preset="tiny", micro_batch_tokens=16_384)
    )
    """Its seed is counted up from training to training."""
    tokens: int = 4_000_000
    """Tokens of each training, padding included."""
    batch_tokens: int = 16_384
    """Tokens of a step, padding included."""
    learning_rate: float = 2e-3
    warmup_share: float = 0.1
    """Share of the tokens over which the rate rises; then it falls along a cosine to a tenth."""
    seeds: int = 3
    """Trainings of each build."""

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise RecipeError(f"seeds: one training has no spread; expected 2, found {self.seeds}.")
        if not 0 <= self.warmup_share <= 1:
            raise RecipeError(f"warmup_share: expected 0 to 1, found {self.warmup_share}.")

    @property
    def schedule(self) -> ScheduleConfig:
        return ScheduleConfig(
            tokens=self.tokens,
            learning_rate=self.learning_rate,
            warmup_tokens=round(self.tokens * self.warmup_share),
            decay="cosine",
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """The losses of all trainings."""

    losses: dict[str, dict[str, list[float]]]
    """Build, then whose held-out rows, to the loss of each seed in nats a masked token."""
    epochs: dict[str, float]
    """How often a training read what there is of a build; above 1 a smaller corpus repeats."""

    @property
    def num_seeds(self) -> int:
        return len(next(iter(next(iter(self.losses.values())).values())))

    def loss(self, build: str, judge: str) -> Interval:
        """The loss of a build's models on a judge's held-out rows."""
        return interval(self.losses[build][judge])

    def difference(self, build: str, judge: str) -> Interval:
        """To the first build, seed by seed: chance that both share drops out. Below 0 is better."""
        first = next(iter(self.losses.values()))[judge]
        return interval([a - b for a, b in zip(self.losses[build][judge], first, strict=True)])


def compare(
    runs: Sequence[Path],
    *,
    out: Path,
    config: ComparisonConfig,
    device: str,
    phase: str | None = None,
    judges: Sequence[Path] = (),
    say: Callable[[str], None] = print,
) -> Comparison:
    """Train on each build and judge.

    Args:
        runs: finished builds of one tokenizer, the first the one that others are compared with.
        phase: whose pack, mixture and masking are taken in every build; None: each one's first.
        judges: builds whose held-out rows are read; none: those of `runs`.

    Raises:
        RecipeError: fewer than two builds, builds of several tokenizers, one without held-out rows,
            or one that does not fit the settings.
        ResumeError: `out` holds another comparison.
    """
    if len(runs) < 2:
        raise RecipeError("compare: expected at least two builds.")
    places = [run.resolve() for run in runs]
    places += [judge for judge in _resolved(judges) if judge not in places]
    names = _names(places)
    of_name = dict(zip(names, places, strict=True))
    builds = names[: len(runs)]
    judged = [names[places.index(judge)] for judge in _resolved(judges)] or builds
    infos = {name: read_run(run) for name, run in of_name.items()}
    _refuse_other_tokenizers(of_name, infos)
    for name in judged:
        _refuse_nothing_held_out(of_name[name], infos[name], phase)
        for build in builds:
            _refuse_seen(of_name[build], of_name[name])
    for name in builds:  # before anything is written
        _with_shared_settings(of_name[name], infos[name], phase, config, 0)
    _settle(out, of_name, infos, phase, config)
    losses: dict[str, dict[str, list[float]]] = {
        name: {judge: [] for judge in judged} for name in builds
    }
    for seed in range(config.seeds):
        for name in builds:
            folder = out / name / f"seed-{seed}"
            say(f"{name}, seed {seed}")
            info = _with_shared_settings(of_name[name], infos[name], phase, config, seed)
            linked = _linked_run(of_name[name], infos[name], info, folder / "run")
            summary = train(linked, out=folder / "training", device=device)
            if not summary.finished:
                raise KeyboardInterrupt
            found = _judged(folder, {judge: of_name[judge] for judge in judged}, phase, device)
            for judge in judged:
                losses[name][judge].append(found[judge])
    epochs = {name: _epochs(out / name / "seed-0" / "run") for name in builds}
    return Comparison(losses, epochs)


def _resolved(runs: Sequence[Path]) -> list[Path]:
    """Each once."""
    return list(dict.fromkeys(run.resolve() for run in runs))


def _names(runs: Sequence[Path]) -> list[str]:
    """Each build's folder name, with the first free number where several have one."""
    names: list[str] = []
    for run in runs:
        numbered = (f"{run.name}-{number}" for number in count(2))
        names.append(next(name for name in chain([run.name], numbered) if name not in names))
    return names


def _refuse_other_tokenizers(runs: Mapping[str, Path], infos: Mapping[str, RunInfo]) -> None:
    first, *others = infos
    for name in others:
        if infos[name].tokenizer.sha256 != infos[first].tokenizer.sha256:
            raise RecipeError(
                f"{runs[name]}: its tokenizer is not that of {runs[first]}, and losses of a token "
                "compare for one tokenizer only. Build both with the same."
            )


def _phase(info: RunInfo, phase: str | None) -> tuple[str, PhaseInfo]:
    name = next(iter(info.phases)) if phase is None else phase
    return name, info.phase(name)


def _refuse_nothing_held_out(run: Path, info: RunInfo, phase: str | None) -> None:
    name, chosen = _phase(info, phase)
    manifest = read_manifest(pack_folder(run, chosen.pack)).up_to(chosen.generation)
    if not manifest.shards.column("held_out").any():
        raise RecipeError(
            f"{run}: {name} has no held-out rows to be judged on. Build it with held_out above 0."
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


def _settle(
    out: Path,
    runs: Mapping[str, Path],
    infos: Mapping[str, RunInfo],
    phase: str | None,
    config: ComparisonConfig,
) -> None:
    """Write down what is compared, or see that it is what `out` holds; more seeds may join."""
    shared = to_mapping(config)
    del shared["seeds"]
    roots = {}
    for name, run in runs.items():
        chosen = _phase(infos[name], phase)[1]
        manifest = read_manifest(pack_folder(run, chosen.pack)).up_to(chosen.generation)
        roots[name] = {"rows": manifest.root, "loader": chosen.loader, "rope": chosen.rope}
    now = {"settings": shared, "builds": roots}
    path = out / "compare.json"
    if path.exists() and read_json(path) != now:
        raise ResumeError(
            f"{out}: holds a comparison of other builds or settings (compare.json has them). Take "
            "another folder, or remove this one."
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, now)


def _with_shared_settings(
    run: Path, info: RunInfo, phase: str | None, config: ComparisonConfig, seed: int
) -> RunInfo:
    """The build's run with one phase and the comparison's settings."""
    name, chosen = _phase(info, phase)
    row_tokens = read_manifest(pack_folder(run, chosen.pack)).row_tokens
    if config.batch_tokens % row_tokens:
        raise RecipeError(
            f"{run}: {name} has rows of {row_tokens:,} tokens, and batch_tokens = "
            f"{config.batch_tokens:,} is no multiple of it, so steps would differ between builds."
        )
    loader = read_settings(LoaderConfig, chosen.loader, f"{run}: {name}.loader")
    loader = replace(
        loader, batch_tokens=config.batch_tokens, batch_warmup=None, changes=(), seed=seed
    )
    training = replace(config.training, seed=config.training.seed + seed)
    phases = {
        PHASE: replace(chosen, loader=to_mapping(loader), schedule=to_mapping(config.schedule))
    }
    return replace(info, phases=phases, training=to_mapping(training))


def _linked_run(run: Path, info: RunInfo, shared: RunInfo, link: Path) -> Path:
    """The build behind links, with other settings; skips and replays of steps are of another order
    and stay behind, documents and rows that were taken out do not."""
    link.mkdir(parents=True, exist_ok=True)
    for folder in ("shards", "tokenizer"):
        (link / folder).unlink(missing_ok=True)  # the build may have been moved
        (link / folder).symlink_to((run / folder).resolve())
    overlay_path(link).unlink(missing_ok=True)
    for entry in read_overlay(run, tuple(info.phases)).entries:
        if isinstance(entry, Retraction | SkippedRows):
            append_entry(link, replace(entry, phase=PHASE, step=0))
    write_run(link, shared)
    return link


def _judged(
    folder: Path, judges: Mapping[str, Path], phase: str | None, device: str
) -> dict[str, float]:
    """A finished training's losses on held-out rows, by build; each taken once."""
    path = folder / "held-out.json"
    losses: dict[str, float] = read_json(path) if path.exists() else {}
    missing = [name for name in judges if name not in losses]
    if missing:
        model, config = _trained(folder, device)
        for name in missing:
            run = judges[name]
            judged_phase, settings = _phase(read_run(run), phase)
            row_tokens = read_manifest(pack_folder(run, settings.pack)).row_tokens
            scores = evaluate(
                model,
                run,
                judged_phase,
                subsets=["all"],
                micro_batch_rows=max(1, config.micro_batch_tokens // row_tokens),
                max_tokens=config.eval_tokens,
                device=device,
            )
            of_all = [score.loss for score in scores or [] if score.subset == "all"]
            if not of_all:
                raise RecipeError(
                    f"{run}: no token of its held-out rows is masked, because their documents were "
                    "taken back or training.eval_tokens is too low. Judge on other builds (--on)."
                )
            (losses[name],) = of_all
        write_json(path, losses)
    return losses


def _trained(folder: Path, device: str) -> tuple[nn.Module, TrainingConfig]:
    """The model that a training ended with; with means of its weights where it kept them, as its
    own held-out losses are taken."""
    info = read_run(folder / "run")
    config = read_settings(TrainingConfig, info.training, f"{folder}: training")
    encoder = replace(config.encoder(info.tokenizer), rope=phase_rope(info, config, PHASE))
    checkpoint = newest_checkpoint(folder / "training" / "checkpoints", print)
    assert checkpoint is not None, "a finished training has one"
    dtype = config.dtype_on(torch.device(device).type)
    model = build_model(encoder, device, getattr(torch, dtype))
    model.load_state_dict(checkpoint.ema or checkpoint.model)
    return model, config


def _epochs(run: Path) -> float:
    buckets = mixture_tables(run)[PHASE].buckets
    return sum(line.tokens_read for line in buckets) / max(sum(b.tokens for b in buckets), 1)
