"""What the commands around training do: load, call, print.

torch takes seconds to import that other commands need not wait, so what brings it along is imported
where it is used.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenmill.errors import RecipeError
from tokenmill.shards.run import read_run
from tokenmill.shards.settings import apply_change, read_settings, to_mapping
from tokenmill.shards.table import table

if TYPE_CHECKING:
    from tokenmill.training.comparison import Comparison
    from tokenmill.training.intervals import Interval
    from tokenmill.training.loop import Summary


def train(arguments: argparse.Namespace) -> int:
    from tokenmill.training.loop import train

    device = _device(arguments)
    out = arguments.out or arguments.folder / "training"
    settings = _training_settings(read_run(arguments.folder).training, arguments.set)
    phases = tuple(arguments.phase) if arguments.phase else None
    call: dict[str, Any] = {
        "out": out,
        "device": device,
        "phases": phases,
        "threads": arguments.threads,
        "settings": settings,
    }
    if arguments.ray:
        from tokenmill.training.ray_train import ray_train

        summary = ray_train(arguments.folder, workers=arguments.ray, **call)
    else:
        summary = train(arguments.folder, **call)
    if os.environ.get("RANK", "0") == "0":
        _print_summary(summary, out)
    return 0 if summary.finished else 130


def _device(arguments: argparse.Namespace) -> str:
    import torch

    has_gpu = torch.cuda.is_available()
    device: str = arguments.device or ("cuda" if has_gpu else "cpu")
    # With Ray, GPUs are the workers'.
    if device != "cpu" and not (device.startswith("cuda") and (has_gpu or arguments.ray)):
        raise RecipeError(f"--device {device}: expected cpu, or cuda where there is a GPU")
    return device


def _training_settings(training: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A run's training settings after `training.key=value` changes."""
    mapping: dict[str, Any] = {"training": training}
    for change in changes:
        apply_change(mapping, change)
    if len(mapping) > 1:
        raise RecipeError(
            f"--set {list(mapping)[1]}: expected training.KEY=VALUE. Everything else is the "
            "build's: change it there."
        )
    return training


def _print_summary(summary: "Summary", out: Path) -> None:
    position = summary.position
    print(
        f"{position.phase} step {position.phase_step:,}, {position.step:,} in all, "
        f"{position.real_tokens:,} tokens"
    )
    for subset, line in summary.held_out.items():
        print(
            f"held-out loss of {subset:6s} {line.loss:.3f} nats a masked token, after step "
            f"{line.step:,}"
        )
    print(f"log         {out / 'log.jsonl'}")
    print(f"loss curve  {out / 'loss.svg'}")
    if not summary.finished:
        print("stopped by a signal; the same command goes on")


def pretrain(arguments: argparse.Namespace) -> int:
    from tokenmill.build_commands import build
    from tokenmill.outline import training_outline
    from tokenmill.scale import load_scaled
    from tokenmill.tokenizer import load_tokenizer

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise RecipeError(
            "pretrain builds in one process, and here are several. Run `tokenmill build` first, "
            "then start `tokenmill train` with all of them, or give --ray."
        )
    recipe = load_scaled(arguments.recipe, arguments.set, arguments.scale)
    if "vocab_size" in recipe.training.model:  # a tokenizer of more is found before the build,
        recipe.training.encoder(load_tokenizer(recipe.tokenizer).special)
    _device(arguments)  # and a wrong device
    print(training_outline(recipe), end="\n\n", flush=True)
    built = build(arguments)
    print(flush=True)
    settings = {"folder": arguments.out, "out": None, "phase": None, "set": []}
    return train(argparse.Namespace(**{**vars(arguments), **settings})) or built


def export(arguments: argparse.Namespace) -> int:
    from tokenmill.training.export import export
    from tokenmill.training.hf.model_card import describe_weights

    origin = export(
        arguments.folder,
        arguments.to,
        run=arguments.build,
        steps=arguments.step,
        ema=arguments.ema,
    )
    print(f"{origin.architecture}, {origin.parameters:,} parameters, {describe_weights(origin)}")
    print(f"model  {arguments.to}")
    return 0


def compare(arguments: argparse.Namespace) -> int:
    from tokenmill.training.compare import compare as compare_builds
    from tokenmill.training.comparison import ComparisonConfig

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise RecipeError("compare trains in one process, and here are several.")
    mapping = to_mapping(ComparisonConfig())
    for change in arguments.set:
        apply_change(mapping, change)
    comparison = compare_builds(
        arguments.folders,
        out=arguments.out,
        config=read_settings(ComparisonConfig, mapping, "--set"),
        device=_device(arguments),
        threads=arguments.threads,
        phase=arguments.phase,
        judges=arguments.on or (),
    )
    verdicts = set()
    for judge in comparison.judges:
        print(f"\n{_comparison_table(comparison, judge)}")
        verdicts |= {comparison.verdict(build, judge) for build in comparison.losses}
    print(
        f"\nNats a masked token, means over {comparison.num_seeds} seeds with 95 % intervals "
        f"(Student's t);\ndifferences to {comparison.first} are taken seed by seed, below 0 is "
        "better."
    )
    if "may be chance" in verdicts:
        print(
            "May be chance: the interval has 0 in it. More seeds narrow it; the same command with\n"
            f"--set seeds={2 * comparison.num_seeds} trains only those that are new."
        )
    print(f"losses  {arguments.out / 'losses.json'}")
    return 0


def _comparison_table(comparison: "Comparison", judge: str) -> str:
    """Of all builds on one's held-out rows."""
    header = [f"on {judge}", "epochs", "loss", f"less {comparison.first}'s", ""]
    rows = []
    for build in comparison.losses:
        row = [build, f"{comparison.epochs[build]:.2f}", _shown(comparison.loss(build, judge))]
        if build != comparison.first:
            row.append(_shown(comparison.difference(build, judge), "+"))
            row.append(comparison.verdict(build, judge))
        rows.append(row + [""] * (len(header) - len(row)))
    return table(header, rows)


def _shown(interval: "Interval", sign: str = "") -> str:
    return f"{interval.mean:{sign}.4f} ± {interval.half_width:.4f}"
