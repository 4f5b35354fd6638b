"""Which phases a call of `train` is about, and how much of them is left."""

from collections.abc import Sequence
from pathlib import Path

from tokenmill.errors import RecipeError, ResumeError
from tokenmill.loader.plan import PhasePlan, read_plan
from tokenmill.shards.run import RunInfo
from tokenmill.training.checkpoint import Position
from tokenmill.training.encoder_config import EncoderConfig


def phases_in_order(run: Path, info: RunInfo, names: Sequence[str] | None) -> list[PhasePlan]:
    """Those asked for, in the run's order.

    Args:
        names: None: all.

    Raises:
        RecipeError: the run has no such phase.
    """
    wanted = list(info.phases if names is None else names)
    for name in wanted:
        info.phase(name)
    return [read_plan(run, name) for name in info.phases if name in wanted]


def refuse_rows_of_another_kind(plans: Sequence[PhasePlan], encoder: EncoderConfig) -> None:
    """Refuse a model that a phase's rows cannot teach; a recipe's check, for `train --set`.

    Raises:
        RecipeError: learned positions do not reach a sequence's end, or the next-sentence head gets
            no pairs.
    """
    for plan in plans:
        if encoder.longest is not None and plan.manifest.max_length > encoder.longest:
            raise RecipeError(
                f"{plan.name}: its sequences have up to {plan.manifest.max_length:,} tokens, and "
                f"the model has {encoder.longest:,} learned positions. Raise "
                "training.model.max_positions, or take another preset."
            )
        if encoder.next_sentence and plan.manifest.sequences != "pairs":
            raise RecipeError(
                f"{plan.name}: the model predicts whether two texts follow each other, and the "
                f"rows hold {plan.manifest.sequences}. Set training.model.next_sentence to false, "
                "or build with packing.sequences: pairs."
            )


def pairs_left_aside(plans: Sequence[PhasePlan], encoder: EncoderConfig) -> bool:
    """Whether rows have labels of pairs for which the model has no head."""
    return not encoder.next_sentence and any(p.manifest.sequences == "pairs" for p in plans)


def phases_left(
    run: Path, info: RunInfo, plans: list[PhasePlan], position: Position, out: Path
) -> list[PhasePlan]:
    """The phases behind a position, the one it stands in included while it is unfinished.

    Args:
        out: where the position is from, for the message.

    Raises:
        ResumeError: that one is not among `plans`.
    """
    if not position.phase:
        return plans
    current = read_plan(run, position.phase)
    unfinished = position.phase_step < current.num_steps
    if unfinished and all(plan.name != current.name for plan in plans):
        raise ResumeError(
            f"{out}: the newest checkpoint stands in {current.name} at step "
            f"{position.phase_step:,} of {current.num_steps:,}, and {current.name} is not among "
            "the phases asked for. Finish it first, or train into another folder."
        )
    names = list(info.phases)
    first = names.index(current.name) + (0 if unfinished else 1)
    return [plan for plan in plans if names.index(plan.name) >= first]


def tokens_left(plans: list[PhasePlan], position: Position) -> int:
    """Tokens of the rows that phases still read, padding included."""
    done = {position.phase: position.phase_step}
    return sum(
        plan.tokens_before(plan.num_steps) - plan.tokens_before(done.get(plan.name, 0))
        for plan in plans
    )
