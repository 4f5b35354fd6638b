"""Which arm is asked what, and when: first losses of all, then timed windows in turns.

    F first losses, E first losses, ...      equal weights, rows and masks: losses must agree
    round 1: A window, B window, ...         in turns, so that no arm has the cooler device
    round 2: ...

An arm that fails is left out from then on, and the report says why. Getting warm takes as long as
compiling does: those that something is asked of on a GPU (`goals.py`) come first, and when half of
the time is gone the others are left out. What is left is shared out among the windows; a round that
would not fit into it is not begun.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from train_arms.setup import OURS, ArmSpec, Setup
from train_arms.worker import ArmError, FirstSteps, Source, Window, Worker

ALWAYS = ("F", "E", "B", "A")
"""They get warm first, and however long it takes."""
WARM_LOSSES = 8
"""First losses of arms that need not agree for longer: they only get warm."""
SLACK = 0.85
"""Share of the time left that is planned for; steps take as long as they take."""


@dataclass(kw_only=True)
class ArmResult:
    """What an arm came to."""

    spec: ArmSpec
    setup: Setup
    first: FirstSteps | None = None
    windows: list[Window] = field(default_factory=list)
    resident_windows: list[Window] = field(default_factory=list)
    """The same over batches that lie on the device: what is missing to them is the loader's."""
    error: str = ""

    @property
    def tokens_per_second(self) -> float:
        """Of the median window, padding left out; 0 where there is none."""
        return statistics.median([each.tokens_per_second for each in self.windows] or [0.0])

    @property
    def loader_share(self) -> float | None:
        """Speed with the loader, as a share of that over resident batches."""
        if not self.windows or not self.resident_windows:
            return None
        without = statistics.median(each.tokens_per_second for each in self.resident_windows)
        return self.tokens_per_second / without


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    guard_steps: int
    """First losses that are compared."""
    steps_ratio: float
    """Tokens of a measured step over those of a guard's step."""
    rounds: int
    seconds: float
    """For everything."""


def compare_arms(
    arms: Sequence[tuple[Setup, ArmSpec]], plan: Plan, say: Callable[[str], None]
) -> list[ArmResult]:
    """Measure all arms, each in its process."""
    began = monotonic()
    deadline = began + plan.seconds
    running = [_Running(setup, spec, say) for setup, spec in arms]
    try:
        for arm in sorted(running, key=_place_in_line):
            in_time = monotonic() < began + plan.seconds / 2
            if in_time or not arm.result.setup.compile or arm.result.spec.letter in ALWAYS:
                arm.first_losses(plan.guard_steps)
            else:
                say(f"{arm.result.spec.name} is left out: half of the time is gone.")
        with_resident = _loader_arm(running)
        for number in range(plan.rounds):
            alive = [arm for arm in running if arm.is_warm]
            turns: list[tuple[_Running, Source]] = [(arm, arm.source) for arm in alive]
            if with_resident in alive:
                turns.append((with_resident, "resident"))
            seconds = SLACK * (deadline - monotonic()) / (plan.rounds - number)
            # Each window has a step before it that is not timed.
            least = sum(2 * arm.step_seconds(plan) for arm, _ in turns)
            if number and least > seconds:
                say(f"The time is up after {number} of {plan.rounds} rounds.")
                break
            for arm, source in turns:
                arm.measure(source, seconds / len(turns), plan)
            say(f"Round {number + 1} of {plan.rounds} is done.")
    finally:
        for arm in running:
            arm.worker.close()
    return [arm.result for arm in running]


class _Running:
    """An arm's process and what it has answered."""

    def __init__(self, setup: Setup, spec: ArmSpec, say: Callable[[str], None]) -> None:
        self.worker, self._say = Worker(setup, spec), say
        self.result = ArmResult(spec=spec, setup=setup)
        self.source: Source = "loader" if spec.letter in OURS else "resident"

    def first_losses(self, guard_steps: int) -> None:
        compared = self.result.spec.letter in "ABDEF"
        steps = guard_steps if compared else min(guard_steps, WARM_LOSSES)
        first = self._ask("first_losses", steps)
        if first is not None:
            self.result.first = first
            last = f"loss {first.losses[0]:.3f} to {first.losses[-1]:.3f} in {steps} steps"
            self._say(f"{self.result.spec.name}: warm after {first.warm_seconds:.1f} s, {last}")

    @property
    def is_warm(self) -> bool:
        """Whether windows can be taken."""
        return self.result.first is not None and not self.result.error

    def step_seconds(self, plan: Plan) -> float:
        """About how long a measured step takes."""
        return self.result.first.step_seconds * plan.steps_ratio if self.result.first else 0.0

    def measure(self, source: Source, seconds: float, plan: Plan) -> None:
        step_seconds = max(self.step_seconds(plan), 1e-6)
        num_steps = max(round(seconds / step_seconds) - 1, 1)
        window = self._ask("measure", num_steps, source)
        if window is not None:
            to_list = source == self.source
            (self.result.windows if to_list else self.result.resident_windows).append(window)

    def _ask(self, question: str, *arguments: Any) -> Any:
        """The answer, or None where the arm failed."""
        if self.result.error:
            return None
        try:
            return self.worker.ask(question, *arguments)
        except ArmError as error:
            self.result.error = str(error)
            self._say(f"{self.result.spec.name} failed: {str(error).splitlines()[-1]}")
            return None


def _place_in_line(arm: _Running) -> int:
    letter = arm.result.spec.letter
    return ALWAYS.index(letter) if letter in ALWAYS else len(ALWAYS)


def _loader_arm(running: Sequence[_Running]) -> _Running | None:
    """Whose speed with and without the loader is compared: the fastest of ours."""
    ours = [arm for arm in running if arm.result.spec.letter in "DEF" and arm.is_warm]
    return max(ours, key=lambda arm: arm.result.spec.letter, default=None)
