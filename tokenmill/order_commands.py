"""What the commands do that show or change what training reads at which step.

The command line imports this file when one of them is called; what only one of them needs is
imported where it is used.
"""

import argparse
import sys
from pathlib import Path

from tokenmill.errors import RecipeError
from tokenmill.loader.mixture_table import (
    MixtureLine,
    MixtureTable,
    mixture_tables,
    refuse_too_many_epochs,
)
from tokenmill.loader.skip import replay_steps, skip_rows, skip_steps
from tokenmill.pipeline.lock import locked
from tokenmill.run_commands import chosen_phase
from tokenmill.shards.run import read_run
from tokenmill.shards.table import table
from tokenmill.training.position import newest_position


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


def when(arguments: argparse.Namespace) -> int:
    from tokenmill.seeing import describe_when

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
    run, phase, reached = arguments.folder, chosen_phase(arguments), _reached(arguments)
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
    run, phase, reached = arguments.folder, chosen_phase(arguments), _reached(arguments)
    read_run(run).phase(phase)
    with locked(run):
        start = arguments.from_step
        print(replay_steps(run, phase, *arguments.steps, start=start, reached=reached))
    return 0


def retract(arguments: argparse.Namespace) -> int:
    from tokenmill.pipeline import retract as retracting

    retracted = retracting.retract(
        arguments.folder,
        ids=arguments.ids,
        texts=arguments.texts,
        start=arguments.from_step,
        reached=_reached(arguments),
    )
    print(retracting.describe(retracted))
    return 1 if retracted.missing else 0


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
