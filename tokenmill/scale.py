"""A recipe at a reduced size: the same phases, lengths and objectives, fewer of everything.

    small = scaled(load_recipe(Path("manifests/neobert.yaml")), 1e-6)

For a scale S of at most 1:

    tokens of a phase, of its warm-ups and decay    times S, at least five steps
    tokens of a step and of a micro-batch           times sqrt(S), at least a row
    parameters of the layers                        times sqrt(S): width and layers by S**(1/6) each

Published encoders see thousands of tokens for each parameter of their layers (NeoBERT 10,600), so
tokens may fall faster than parameters: at 1e-6 there are about ten left, near what is best for the
compute (arXiv:2203.15556). What makes a recipe what it is stays: max_length, masking, mixtures,
positions, vocabulary, and height and shape of the learning rate and of the weight decay. A rate
chosen for the whole size is low for a small model, which is safe, not best.

Rows become shorter with the step, never below the four longest sequences that fill one, so that a
step of few tokens still mixes. Sources, filters and token_budget are not touched: the corpus is
what one points at. A larger share of it is held out, because a thousandth of a small one is no
document. A scaled recipe computes in 32 bits, for CPUs. Changes by --set have the last word.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from tokenmill.errors import RecipeError
from tokenmill.loader.config import LoaderConfig
from tokenmill.pipeline.pack import RowShape
from tokenmill.recipe import PhaseConfig, Recipe, load_recipe, read_recipe
from tokenmill.shards.settings import to_mapping
from tokenmill.training.config import ScheduleConfig, TrainingConfig
from tokenmill.training.presets import encoder_config

LEAST_STEPS = 5
"""Of a phase. A row of ModernBERT's 8,192-token phases takes a CPU about ten seconds, so that below
3e-6 this decides how long they last; five still show a rate that falls and a mixture of fifths."""
ROWS_A_STEP = 8
"""Rows are halved while a step has fewer."""
EVALS_IN_A_RUN = 20
"""Held-out losses that would read as many tokens as are trained on: five of them cost little."""
LEAST_FOR_64 = 1e-3
"""The scale from which on heads have 64 numbers, else 32: NeoBERT is 256 wide there."""
MOST_HELD_OUT = 0.01
"""Share of documents that scaling may hold out."""
_NUMBER_OF_TOKENS = re.compile(r"phases\.[^.=]+\.(schedule\.\w*tokens|loader\.batch_\w+)\b")
"""A change of how much a phase or a step reads."""


def load_scaled(path: Path, changes: Sequence[str], scale: float) -> Recipe:
    """Read a recipe, scale it, and apply the changes to what came out.

    Changes are applied before too, so that another preset is scaled from its own size; but not
    numbers of tokens, which are the small run's and do not fit the whole recipe's.

    Raises:
        RecipeError: as of load_recipe and scaled.
    """
    if scale == 1:
        return load_recipe(path, changes)
    before = [change for change in changes if not _NUMBER_OF_TOKENS.match(change)]
    return read_recipe(to_mapping(scaled(load_recipe(path, before), scale)), path, changes)


def scaled(recipe: Recipe, scale: float) -> Recipe:
    """The recipe at a scale above 0 and at most 1; at 1 it is itself.

    Raises:
        RecipeError: the scale is outside of that.
    """
    if not 0 < scale <= 1:
        raise RecipeError(f"--scale {scale}: expected above 0 and at most 1, as in 1e-6.")
    if scale == 1:
        return recipe
    rows = _row_tokens(recipe, scale)
    phases = {
        name: _scaled_phase(phase, rows[phase.shape], scale)
        for name, phase in recipe.phases.items()
    }
    return replace(
        recipe,
        phases=phases,
        training=_scaled_training(recipe.training, phases, scale),
        held_out=min(max(recipe.held_out, MOST_HELD_OUT), recipe.held_out / math.sqrt(scale)),
    )


def _row_tokens(recipe: Recipe, scale: float) -> dict[RowShape, int]:
    """The new row of each shape; phases of one shape go on sharing their shards."""
    steps: dict[RowShape, float] = {}
    for phase in recipe.phases.values():
        tokens = phase.loader.batch_tokens * math.sqrt(scale)
        steps[phase.shape] = min(tokens, steps.get(phase.shape, tokens))
    rows = {}
    for shape, step_tokens in steps.items():
        least = min(4, recipe.packing.max_sequences) * shape.max_length
        row = shape.row_tokens
        while row % 2 == 0 and row // 2 >= least and step_tokens < ROWS_A_STEP * row:
            row //= 2
        rows[shape] = row
    return rows


def _scaled_phase(phase: PhaseConfig, row_tokens: int, scale: float) -> PhaseConfig:
    schedule = phase.schedule
    batch_tokens = max(row_tokens, int(phase.loader.batch_tokens * math.sqrt(scale)))
    tokens = max(int(schedule.tokens * scale), LEAST_STEPS * batch_tokens)
    share = Fraction(min(tokens, schedule.tokens), schedule.tokens)
    return replace(
        phase,
        row_tokens=row_tokens,
        loader=_scaled_loader(phase.loader, batch_tokens, row_tokens, share, scale),
        schedule=_scaled_schedule(schedule, share),
    )


def _scaled_loader(
    loader: LoaderConfig, batch_tokens: int, row_tokens: int, share: Fraction, scale: float
) -> LoaderConfig:
    """The loader of a phase that keeps this share of its tokens."""
    warmup = loader.batch_warmup
    if warmup is not None:
        start = max(row_tokens, int(warmup.start_tokens * math.sqrt(scale)))
        tokens = max(1, int(warmup.tokens * share))
        warmup = replace(warmup, start_tokens=min(start, batch_tokens), tokens=tokens)
    changes = tuple(
        replace(change, after_tokens=max(1, int(change.after_tokens * share)))
        for change in loader.changes
    )
    return replace(loader, batch_tokens=batch_tokens, batch_warmup=warmup, changes=changes)


def _scaled_schedule(schedule: ScheduleConfig, share: Fraction) -> ScheduleConfig:
    decay = schedule.decay_tokens
    return replace(
        schedule,
        tokens=int(schedule.tokens * share),
        warmup_tokens=int(schedule.warmup_tokens * share),
        stable_tokens=int(schedule.stable_tokens * share),
        decay_tokens=None if decay is None else max(1, int(decay * share)),
    )


def _scaled_training(
    training: TrainingConfig, phases: dict[str, PhaseConfig], scale: float
) -> TrainingConfig:
    steps = sum(phase.schedule.tokens // phase.loader.batch_tokens for phase in phases.values())
    fifth = max(1, steps // 5)  # so that a short run is evaluated and saved a few times
    checkpoint_every = min(training.checkpoint_every_steps, fifth)
    keep_every = training.keep_every_steps
    if keep_every is not None:
        keep_every = max(1, keep_every * checkpoint_every // training.checkpoint_every_steps)
    longest_row = max(phase.row_tokens for phase in phases.values())
    micro_batch_tokens = max(longest_row, int(training.micro_batch_tokens * math.sqrt(scale)))
    tokens = sum(phase.schedule.tokens for phase in phases.values())
    return replace(
        training,
        model={**training.model, **_scaled_model(training, scale)},
        micro_batch_tokens=min(training.micro_batch_tokens, micro_batch_tokens),
        dtype=None,
        log_every_steps=min(training.log_every_steps, max(1, steps // 50)),
        eval_every_steps=min(training.eval_every_steps, fifth),
        eval_tokens=min(training.eval_tokens, max(1, tokens // EVALS_IN_A_RUN)),
        checkpoint_every_steps=checkpoint_every,
        keep_every_steps=keep_every,
    )


def _scaled_model(training: TrainingConfig, scale: float) -> dict[str, Any]:
    """Fields of EncoderConfig: a width of whole 64s, and as many layers as end with a global one.

    The size of a head depends on the scale alone, so that a model can be tiled from a smaller one.
    """
    model = encoder_config(training.preset, training.model)
    side = scale ** (1 / 6)
    width = min(model.width, max(64, 64 * round(model.width * side / 64)))
    period = model.global_every
    layers = min(model.layers, 1 + period * max(1, round((model.layers * side - 1) / period)))
    heads = model.heads
    if width < model.width:
        is_large = scale >= LEAST_FOR_64 and model.width // model.heads >= 64
        heads = width // (64 if is_large else 32)
    hidden = max(8, 8 * round(model.hidden * width / model.width / 8))
    return {"width": width, "layers": layers, "heads": heads, "hidden": min(model.hidden, hidden)}
