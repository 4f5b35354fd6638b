"""The learning rate as a pure function of the tokens that a phase has seen.

    learning_rate         ________
                       ../        \\_          warm-up from 0, a stretch at the top, a fall of the
    floor           ../             \\_____   shape that `decay` names, then the floor
                  0    warmup   stable  decay   tokens

Each phase counts from 0 and has its own schedule, so a constant phase and a phase of 1-sqrt behind
it are the warm-up, stable, decay of ModernBERT. A step is given the rate of the tokens at its end:
the first step already moves, and the last one stands at the floor.
"""

import math

from tokenmill.training.config import ScheduleConfig


def learning_rate(schedule: ScheduleConfig, tokens: int) -> float:
    """The rate when the phase has seen this many tokens."""
    return schedule.learning_rate * share_of_peak(schedule, tokens)


def share_of_peak(schedule: ScheduleConfig, tokens: int) -> float:
    """The rate as a share of the phase's highest, 0 to 1."""
    if tokens < schedule.warmup_tokens:
        return tokens / schedule.warmup_tokens
    begin = schedule.warmup_tokens + schedule.stable_tokens
    if schedule.decay == "constant" or tokens <= begin:
        return 1.0  # also where the phase ends here, and nothing is left to fall in
    length = schedule.decay_tokens or schedule.tokens - begin
    progress = min((tokens - begin) / length, 1.0)
    floor = schedule.final_fraction
    return floor + (1 - floor) * _remaining(schedule.decay, progress)


def _remaining(decay: str, progress: float) -> float:
    """How much of the fall is still to come: 1 at its begin, 0 at its end."""
    if decay == "linear":
        return 1 - progress
    if decay == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    assert decay == "1-sqrt"
    return 1 - math.sqrt(progress)
