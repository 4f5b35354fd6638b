"""Does a filter help? The same small model on several builds, several times over, judged alike.

    comparison = compare([Path("runs/plain"), Path("runs/filtered")], out=Path("compared"), ...)

    OUT/compare.json                     what all trainings share, and each build's rows
    OUT/<build>/seed-<n>/run/            the build, behind links, with one phase of these settings
    OUT/<build>/seed-<n>/training/       an ordinary training: log, curve, checkpoints
    OUT/<build>/seed-<n>/held-out.json   its losses on the held-out rows of every build
    OUT/losses.json                      all of these in one file, for a plot

Model, tokens, batch and schedule are the same everywhere; the trainings of one seed begin with the
same weights and have the same keys of order and masks, so equal corpora give equal losses, to the
bit. Each model is then judged on the held-out rows of every build, behind the same masks. What the
build's own phase says of mixture and masking stays, so recipes can be compared too.

Losses in nats a masked token mean the same for one tokenizer only; builds of several are refused.
Held-out documents are chosen by the hash of their text as it was packed: builds that hold out the
same share hold out the same documents (another share is refused where it would be unfair), but a
document that one of them edits may be trained on there. `judges` names other builds to be judged
on, where that matters.

A comparison that was killed goes on where it was. Seeds, builds and judges may join or be left out
later; a training that is done is not done again, nor is a model judged twice on the same rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenmill.errors import RecipeError, ResumeError
from tokenmill.loader.mixture_table import mixture_tables
from tokenmill.shards.files import read_json, write_json
from tokenmill.shards.overlay import Overlay
from tokenmill.shards.run import read_run
from tokenmill.shards.settings import read_settings, to_mapping
from tokenmill.training.checkpoint import newest_checkpoint
from tokenmill.training.compared_builds import (
    PHASE,
    ComparedBuild,
    link_run,
    open_builds,
    refuse_unlike,
    shared_settings,
)
from tokenmill.training.comparison import Comparison, ComparisonConfig
from tokenmill.training.config import TrainingConfig
from tokenmill.training.evaluate import evaluate
from tokenmill.training.loop import checked, train
from tokenmill.training.model import build_model
from tokenmill.training.process import exclusive, reproducible
from tokenmill.training.resume import MAY_CHANGE, ROUNDS, phase_rope

_MAY_CHANGE = {*MAY_CHANGE, *ROUNDS} - {"eval_tokens"}
"""Training's settings that may change while a comparison is under way: at most the last digits of a
loss depend on them."""


def compare(
    runs: Sequence[Path],
    *,
    out: Path,
    config: ComparisonConfig,
    device: str,
    threads: int | None = None,
    phase: str | None = None,
    judges: Sequence[Path] = (),
    say: Callable[[str], None] = print,
) -> Comparison:
    """Train on each build and judge.

    Args:
        runs: finished builds of one tokenizer, the first the one that others are compared with.
        threads: CPU threads; None leaves torch's own number.
        phase: whose pack, mixture and masking are taken in every build; None: each one's first.
        judges: builds whose held-out rows are read; none: those of `runs`.

    Raises:
        RecipeError: fewer than two builds, builds of several tokenizers, one without held-out rows,
            or one that does not fit the settings.
        ResumeError: `out` holds another comparison.
        RunError: another process works in `out`, or it cannot be written.
        KeyboardInterrupt: a signal ended a training, which is saved; the same call goes on.
    """
    if len(runs) < 2:
        raise RecipeError(f"expected at least two builds, found {len(runs)}.")
    builds, judging = open_builds(runs, judges, phase)
    refuse_unlike(builds, judging, config.training)
    trainings = [(seed, build) for seed in range(config.seeds) for build in builds]
    shared = [shared_settings(build, config, seed) for seed, build in trainings]
    losses: dict[str, dict[str, list[float]]] = {
        build.name: {judge.name: [] for judge in judging} for build in builds
    }
    everywhere = config.training.deterministic
    with exclusive(out), reproducible(torch.device(device), threads, everywhere):
        held = _held(out, [*builds, *judging], config)
        for (seed, build), settings in zip(trainings, shared, strict=True):
            link_run(build, settings, _folder(out, build, seed) / "run")
        for build in builds:  # before hours are spent on the first of them
            checked(_folder(out, build, 0) / "run", None, {})
        write_json(out / "compare.json", held)
        for number, (seed, build) in enumerate(trainings, 1):
            folder = _folder(out, build, seed)
            found = _losses(folder)
            if any(judge.name not in found for judge in judging):
                say(f"training {number} of {len(trainings)}: {build.name}, seed {seed}")
                summary = train(folder / "run", out=folder / "training", device=device)
                if not summary.finished:
                    raise KeyboardInterrupt
                found = _judged(folder, judging, device)
            for judge in judging:
                losses[build.name][judge.name].append(found[judge.name])
        epochs = {build.name: _epochs(_folder(out, build, 0) / "run") for build in builds}
        comparison = Comparison(losses, epochs)
        write_json(out / "losses.json", to_mapping(comparison))
    return comparison


def _held(out: Path, builds: Sequence[ComparedBuild], config: ComparisonConfig) -> dict[str, Any]:
    """What compare.json is to hold: these settings, and the rows of these builds and of all that
    were there before.

    Raises:
        ResumeError: it holds other settings, or other rows by one of these names.
    """
    shared = to_mapping(config)
    del shared["seeds"]
    shared["training"] = {
        name: value for name, value in shared["training"].items() if name not in _MAY_CHANGE
    }
    rows = {
        build.name: {
            "rows": build.manifest.root,
            "loader": build.settings.loader,
            "rope": build.settings.rope,
            "taken_out": Overlay(build.taken_out).digest(len(build.taken_out)),
        }
        for build in builds
    }
    path = out / "compare.json"
    if not path.exists():
        return {"settings": shared, "builds": rows}
    then = read_json(path)
    changed = _changed(then["settings"], shared)
    changed += _changed(then["builds"], {name: rows[name] for name in rows.keys() & then["builds"]})
    if changed:
        raise ResumeError(
            f"{out}: holds a comparison with another {', '.join(changed)} (compare.json has it). "
            "Take another folder, or remove this one."
        )
    return {"settings": shared, "builds": {**then["builds"], **rows}}


def _changed(then: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> list[str]:
    """The keys that differ, two levels deep."""
    changed = []
    for key, value in now.items():
        old = then.get(key)
        if old != value and not above and isinstance(old, dict) and isinstance(value, dict):
            changed += _changed(old, value, f"{key}.")
        elif old != value:
            changed.append(above + key)
    return changed


def _folder(out: Path, build: ComparedBuild, seed: int) -> Path:
    return out / build.name / f"seed-{seed}"


def _losses(folder: Path) -> dict[str, float]:
    """Of a training on the held-out rows of builds, as far as it was judged."""
    path = folder / "held-out.json"
    return dict(read_json(path)) if path.exists() else {}


def _judged(folder: Path, judges: Sequence[ComparedBuild], device: str) -> dict[str, float]:
    """A finished training's losses on held-out rows, by build; each is taken once."""
    losses = _losses(folder)
    model, config = _trained(folder, device)
    for judge in judges:
        if judge.name in losses:
            continue
        scores = evaluate(
            model,
            judge.run,
            judge.phase,
            subsets=["all"],
            micro_batch_rows=max(1, config.micro_batch_tokens // judge.manifest.row_tokens),
            max_tokens=config.eval_tokens,
            device=device,
        )
        of_all = [score.loss for score in scores or [] if score.subset == "all"]
        if not of_all:
            raise RecipeError(
                f"{judge.run}: no token of its held-out rows is masked, because their documents "
                "were taken back or training.eval_tokens is too low. Judge on other builds (--on)."
            )
        (losses[judge.name],) = of_all
    write_json(folder / "held-out.json", losses)
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
