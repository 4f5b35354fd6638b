"""Whether torch.compile builds code again in the middle of training, where it should not.

All shapes of a phase are the same, so its first steps build what it needs. A graph that is built
later costs up to a minute, and comes from a shape or a setting that changes: a fault that shows in
nothing but the speed.
"""

import contextlib
from collections.abc import Callable, Iterator

WARM_STEPS = 3
"""Steps of a phase that may build graphs, in each process that works on it."""


class Recompilations:
    """Counts the graphs that training steps build; those of an evaluation do not count."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """
        Args:
            say: is told of the first ones, once.
        """
        self._say = say
        self._steps = 0
        """Of the phase, as far as this process has done them."""
        self.num_graphs = 0
        """Built after a phase's first steps."""

    def begin_phase(self) -> None:
        """A phase begins or goes on after a resume: its first steps here may build graphs."""
        self._steps = 0

    @contextlib.contextmanager
    def watch(self, step: int) -> Iterator[None]:
        """Around a step.

        Args:
            step: its number, for people.
        """
        # Here, because it brings torch's compiler along: a second that others need not wait.
        from torch._dynamo.utils import counters

        counted = counters["stats"]
        before = counted["unique_graphs"]
        yield
        new = counted["unique_graphs"] - before
        self._steps += 1
        if new and self._steps > WARM_STEPS:
            if not self.num_graphs:
                self._say(
                    f"Step {step:,} made torch.compile build {new} graphs, though no shape has "
                    "changed since the phase's first: training is slower than it could be. "
                    "TORCH_LOGS=recompiles says why."
                )
            self.num_graphs += new
