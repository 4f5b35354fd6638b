"""The learning rate as a pure function of the tokens that a phase has seen.

    learning_rate        ____
                      ../    \\_           warm-up from 0, a fall of the shape that `decay` names,
    floor          ../         \\______    then the floor, final_fraction of the peak
                 0   warmup      decay_tokens    tokens

Each phase counts from 0 and has its own schedule, so a constant phase and a phase of 1-sqrt behind
it are the warm-up, stable, decay of ModernBERT. A step is given the rate of the tokens at its end:
the first step already moves, and the last one stands at the floor.
"""

import math

from tokenmill.training.config import ScheduleConfig


def learning_rate(schedule: ScheduleConfig, tokens: int) -> float:
    """The rate when the phase has seen this many tokens."""
    if tokens < schedule.warmup_tokens:
        return schedule.learning_rate * tokens / schedule.warmup_tokens
    if schedule.decay == "constant":
        return schedule.learning_rate
    length = schedule.decay_tokens or max(schedule.tokens - schedule.warmup_tokens, 1)
    progress = min((tokens - schedule.warmup_tokens) / length, 1.0)
    floor = schedule.final_fraction
    return schedule.learning_rate * (floor + (1 - floor) * _remaining(schedule.decay, progress))


def _remaining(decay: str, progress: float) -> float:
    """How much of the fall is still to come: 1 at its begin, 0 at its end."""
    if decay == "linear":
        return 1 - progress
    if decay == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    assert decay == "1-sqrt"
    return 1 - math.sqrt(progress)
