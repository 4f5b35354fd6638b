"""Whether all arms compute the same: the guard against a fast arm that computes something else.

From equal weights, over equal rows and masks, the first losses must be the same but for rounding.
They hardly show what is wrong in attention, such as another window, which changes them by less than
16 bits round them; the first gradient of its matrices shows it a hundred times more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train_arms.measure import ArmResult
from train_arms.setup import OURS, modernbert_of_size

LOSS_TOLERANCE = {"bfloat16": 0.01, "float32": 1e-4}
"""Relative, over 50 steps."""
GRADIENT_TOLERANCE = {"bfloat16": 0.02, "float32": 1e-4}
"""Relative. Of a small model, bfloat16 changes it by 2e-4, a window of 63 in place of 64 by 5e-4,
and one of 32, another theta, or layers that see everything by 1e-2 to 8e-2."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far an arm's first steps are from those of our reference arm; both are relative."""

    name: str
    reference: str
    steps: int
    loss: float
    """The largest difference of a step's losses."""
    gradient: float
    """Of the first gradient's share in attention."""
    agrees: bool


def agreements(results: Sequence[ArmResult]) -> list[Agreement]:
    """Of all arms with the model, weights and rows of the first of ours."""
    same = [result for result in results if _comparable(result)]
    ours = [result for result in same if result.spec.letter in OURS]
    return [_agreement(result, ours[0]) for result in same if ours and result is not ours[0]]


def _agreement(result: ArmResult, reference: ArmResult) -> Agreement:
    assert result.first
    assert reference.first
    steps = min(len(result.first.losses), len(reference.first.losses))
    ratios = np.divide(result.first.losses[:steps], reference.first.losses[:steps])
    loss = float(abs(ratios - 1).max())  # no number where one is none, which agrees with nothing
    gradient = abs(result.first.attention_gradient / reference.first.attention_gradient - 1)
    dtype = reference.setup.dtype
    return Agreement(
        name=result.spec.name,
        reference=reference.spec.name,
        steps=steps,
        loss=loss,
        gradient=gradient,
        agrees=loss <= LOSS_TOLERANCE[dtype] and gradient <= GRADIENT_TOLERANCE[dtype],
    )


def _comparable(result: ArmResult) -> bool:
    encoder = result.setup.encoder
    if result.first is None or result.spec.letter == "G":
        return False
    return result.spec.letter not in ("C", "Cg") or encoder == modernbert_of_size(encoder)
