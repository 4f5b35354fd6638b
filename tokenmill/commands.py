"""What each command does: load, call, print."""

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenmill.errors import RecipeError, RunError
from tokenmill.loader.mixture_table import (
    MixtureLine,
    MixtureTable,
    mixture_tables,
    refuse_too_many_epochs,
)
from tokenmill.loader.skip import replay_steps, skip_rows, skip_steps
from tokenmill.pipeline import build as building
from tokenmill.pipeline import inspection
from tokenmill.pipeline import retract as retracting
from tokenmill.pipeline.documents import SetAside
from tokenmill.pipeline.engine import Engine, InlineEngine
from tokenmill.pipeline.forecast import plan_report
from tokenmill.pipeline.generations import Growth
from tokenmill.pipeline.lock import locked
from tokenmill.pipeline.plan import Unreadable
from tokenmill.pipeline.report import report
from tokenmill.pipeline.sample import Sample, parse_share
from tokenmill.pipeline.sample_run import build_sample, compared, forecast_table
from tokenmill.pipeline.texts import source_texts
from tokenmill.pipeline.whatif import what_if
from tokenmill.pipeline.why import why as explain_why
from tokenmill.recipe import dump_recipe, load_recipe
from tokenmill.scale import load_scaled
from tokenmill.seeing import describe_step, describe_when
from tokenmill.shards.listing import read_listing
from tokenmill.shards.listing import verify as find_damage
from tokenmill.shards.run import read_run
from tokenmill.shards.table import table
from tokenmill.tokenizer.train import train_tokenizer as train_on
from tokenmill.training.position import newest_position


def build(arguments: argparse.Namespace) -> int:
    keep = arguments.keep_downloads
    changes = [*arguments.set, *([f"downloads.keep={keep}"] if keep else [])]
    recipe = load_scaled(arguments.recipe, changes, arguments.scale)
    corpus, resolved = recipe.corpus(), dump_recipe(recipe)
    workers = 1 if arguments.engine == "inline" else arguments.workers or os.cpu_count() or 1
    if arguments.sample is not None:
        sample = Sample(share=parse_share(arguments.sample))
        built, forecast = build_sample(
            corpus, arguments.out, lambda: _engine(arguments), recipe=resolved, sample=sample
        )
        print(report(built), forecast_table(forecast, workers), sep="\n")
        return 1 if built.num_set_aside else 0
    growth = None
    if arguments.grow is not None:
        reached = newest_position(arguments.out / "training" / "checkpoints")
        growth = Growth(phase=arguments.grow, reached=reached)
    built = building.build(
        corpus, arguments.out, lambda: _engine(arguments), recipe=resolved, growth=growth
    )
    print(report(built))
    beside = compared(corpus, built, resolved)
    if beside:
        print(forecast_table(beside, workers))
    elif (arguments.out / "forecast.json").exists():
        print(f"{arguments.out / 'forecast.json'} is of another recipe and was not compared")
    return 1 if built.num_set_aside or built.changed else 0


def plan(arguments: argparse.Namespace) -> int:
    recipe = load_scaled(arguments.recipe, arguments.set, arguments.scale)
    print(plan_report(recipe.corpus(), arguments.out))
    return 0


def train_tokenizer(arguments: argparse.Namespace) -> int:
    recipe = load_recipe(arguments.recipe, arguments.set)
    if recipe.tokenizer_training is None:
        raise RecipeError(
            f"{arguments.recipe}: tokenizer_training is missing. Give its kind and vocab_size."
        )
    lost: list[SetAside | Unreadable] = []
    with writable(arguments.out):
        texts = source_texts(recipe.sources, arguments.out, lost)
        train_on(texts, recipe.tokenizer_training, arguments.out)
    print(f"tokenizer  {arguments.out / 'tokenizer.json'}")
    if lost:
        first = f"{lost[0].source}/{lost[0].file}: {lost[0].error}"
        print(f"{len(lost):,} records or files could not be read, for instance {first}")
    return 1 if lost else 0


def mix(arguments: argparse.Namespace) -> int:
    tables = mixture_tables(arguments.folder)
    if arguments.phase:
        read_run(arguments.folder).phase(arguments.phase)
        tables = {arguments.phase: tables[arguments.phase]}
    header = ("subset or bucket", "share", "rows", "tokens", "of rows", "of tokens", "tokens read",
              "epochs", "in all phases", "first repeat")  # fmt: skip
    for mixture in tables.values():
        print(_mixture_title(mixture))
        subsets = sorted(mixture.subsets, key=lambda line: -line.rows)
        print(table(header, [_mixture_row(line) for line in (*subsets, *mixture.buckets)]))
    sys.stdout.flush()
    for mixture in tables.values():
        refuse_too_many_epochs(mixture)
    return 0


def inspect(arguments: argparse.Namespace) -> int:
    run = arguments.folder
    if arguments.step is None and (arguments.text or arguments.world_size):
        raise RecipeError("--text and --world-size are of a step: give --step with them")
    if arguments.document is not None:
        print(inspection.describe_document(run, arguments.document))
    elif arguments.row is not None:
        print(inspection.describe_row(run, _phase(arguments), arguments.row))
    elif arguments.step is not None:
        print(
            describe_step(
                run,
                _phase(arguments),
                arguments.step,
                world_size=arguments.world_size or 1,
                whole_text=arguments.text,
            )
        )
    else:
        print(inspection.describe_run(run))
    return 0


def whatif(arguments: argparse.Namespace) -> int:
    read_run(arguments.folder)
    path = arguments.folder / "recipe.yaml"
    old, new = load_recipe(path), load_recipe(path, arguments.set)
    if dataclasses.replace(new, filters=old.filters) != old:
        raise RecipeError(
            f"--set {' '.join(arguments.set)}: only filters.* can be tried on a finished run. "
            "Build another run for the rest."
        )
    print(what_if(arguments.folder, old.corpus(), new.filters))
    return 0


def why(arguments: argparse.Namespace) -> int:
    read_run(arguments.folder)
    recipe = load_recipe(arguments.folder / "recipe.yaml")
    print(explain_why(arguments.folder, recipe.corpus(), arguments.document))
    return 0


def when(arguments: argparse.Namespace) -> int:
    print(
        describe_when(
            arguments.folder,
            arguments.document,
            phase=arguments.phase,
            world_size=arguments.world_size,
            reached=_reached(arguments),
        )
    )
    return 0


def skip(arguments: argparse.Namespace) -> int:
    run, phase, reached = arguments.folder, _phase(arguments), _reached(arguments)
    read_run(run).phase(phase)  # before a lock is made where there is no run
    if arguments.rows is None and arguments.from_step:
        raise RecipeError("--from-step: steps are skipped from the first of them on. Leave it out.")
    with locked(run):
        if arguments.rows is not None:
            start = arguments.from_step
            print(skip_rows(run, phase, *arguments.rows, start=start, reached=reached))
        else:
            print(skip_steps(run, phase, *arguments.steps, reached=reached))
    return 0


def replay(arguments: argparse.Namespace) -> int:
    run, phase, reached = arguments.folder, _phase(arguments), _reached(arguments)
    read_run(run).phase(phase)
    with locked(run):
        start = arguments.from_step
        print(replay_steps(run, phase, *arguments.steps, start=start, reached=reached))
    return 0


def retract(arguments: argparse.Namespace) -> int:
    retracted = retracting.retract(
        arguments.folder,
        ids=arguments.ids,
        texts=arguments.texts,
        start=arguments.from_step,
        reached=_reached(arguments),
    )
    print(retracting.describe(retracted))
    return 1 if retracted.missing else 0


def verify(arguments: argparse.Namespace) -> int:
    damage = list(find_damage(arguments.folder))
    for line in damage:
        print(line)
    listing = read_listing(arguments.folder)
    print(f"{len(listing.outputs):,} files checked, {len(damage)} wrong")
    if damage:
        print("Delete what is wrong and build again; what is whole is kept.", file=sys.stderr)
        return 1
    print(listing.root)
    return 0


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn what the system says of a folder that cannot be written into one of our errors."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{folder}: cannot write there ({error.strerror}). Choose another --out."
        ) from None


def _engine(arguments: argparse.Namespace) -> Engine:
    if arguments.engine == "inline":
        return InlineEngine()
    from tokenmill.pipeline.ray_engine import RayEngine  # Ray takes a second to import

    return RayEngine(workers=arguments.workers, address=arguments.address)


def _phase(arguments: argparse.Namespace) -> str:
    return arguments.phase or next(iter(read_run(arguments.folder).phases))


def _reached(arguments: argparse.Namespace) -> tuple[str, int] | None:
    """Where the run's training stands."""
    training: Path = arguments.training or arguments.folder / "training"
    if arguments.training and not training.exists():
        raise RecipeError(f"--training {training}: no such folder. Name that of the checkpoints.")
    reached = newest_position(training / "checkpoints")
    if reached and reached[0] not in (phases := read_run(arguments.folder).phases):
        raise RecipeError(
            f"{training}: its newest checkpoint is of phase {reached[0]}, the run has "
            f"{', '.join(phases)}. Give --training with the folder where this run is trained."
        )
    return reached


def _mixture_title(mixture: MixtureTable) -> str:
    """How many steps of how many rows, and where that changes."""
    parts = [
        f"{mixture.phase}: {mixture.num_steps:,} steps of {mixture.rows_per_step:,} rows "
        f"x {mixture.row_tokens:,} tokens"
    ]
    if mixture.warmup_steps:
        parts.append(f"from {mixture.first_rows:,} rows up over {mixture.warmup_steps:,} steps")
    if mixture.change_steps:
        steps = ", ".join(f"{step:,}" for step in mixture.change_steps)
        parts.append(f"another mixture from step {steps} on")
    return "; ".join(parts)


def _mixture_row(line: MixtureLine) -> tuple[str, ...]:
    repeat = "never" if line.first_repeat_step is None else f"step {line.first_repeat_step:,}"
    return (
        line.name,
        line.share or "",
        f"{line.rows:,}",
        f"{line.tokens:,}",
        f"{line.share_of_rows:.1%}",
        f"{line.share_of_tokens:.1%}",
        f"{line.tokens_read:,}",
        f"{line.epochs_after:.2f}",
        f"{line.epochs:.2f}",
        repeat,
    )
