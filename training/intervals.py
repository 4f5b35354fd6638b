"""A mean of a few values, and how far the true one may lie from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % confidence interval, by Student's t over the seeds."""

    mean: float
    half_width: float

    @property
    def without_zero(self) -> bool:
        return abs(self.mean) > self.half_width


def interval(values: Sequence[float]) -> Interval:
    """The mean of at least two values and the half width of its 95 % interval."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Interval(mean, t_quantile(0.975, len(values) - 1) * math.sqrt(variance / len(values)))


def t_quantile(probability: float, degrees: int) -> float:
    """Of Student's t with whole degrees of freedom, for a probability above one half.

    Source: the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4, inverted by halving.
    """
    low, high = 0.0, math.pi / 2  # of the angle atan(t / sqrt(degrees))
    for _ in range(60):
        middle = (low + high) / 2
        if _central_probability(middle, degrees) < 2 * probability - 1:
            low = middle
        else:
            high = middle
    return math.tan(low) * math.sqrt(degrees)


def _central_probability(angle: float, degrees: int) -> float:
    """Of |t| below tan(angle) sqrt(degrees)."""
    cosine = math.cos(angle)
    term = cosine if degrees % 2 else 1.0
    terms = 0.0
    for power in range(degrees % 2 + 2, degrees + 1, 2):
        terms += term
        term *= cosine * cosine * (power - 1) / power
    odd: float = math.sin(angle) * terms
    return 2 / math.pi * (angle + odd) if degrees % 2 else odd
