"""Which step of the order each step of training reads: the same one, until an overlay says
otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenmill.shards.overlay import Overlay


@dataclass(frozen=True, slots=True)
class StepMap:
    """From the steps of a phase to the steps of its order."""

    def order_step(self, step: int) -> int:
        """The step of the order that a step of training reads."""
        return step

    def steps_of(self, order_step: int) -> tuple[int, ...]:
        """The steps of training that read a step of the order, rising."""
        return (order_step,)

    def order_steps_until(self, step: int) -> int:
        """How many steps of the order are used up by the training steps before this one: what the
        next phase over the same pack goes on from."""
        return step


def step_map(overlay: Overlay, phases: Sequence[str], phase: str) -> StepMap:
    """The map that a run's overlay makes for a phase."""
    return StepMap()
