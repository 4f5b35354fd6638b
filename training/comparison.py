"""What a comparison of builds is told, and what it found.

    comparison.difference("filtered", "plain")    Interval(-0.0312, 0.0104), nats a masked token
    comparison.verdict("filtered", "plain")       "better"

Intervals are Student's t over the seeds, so they cover the chance of seeds alone: not which
documents are held out, and not that of many differences one in twenty looks real.
"""

from dataclasses import dataclass, field
from typing import Literal

from tokenmill.errors import RecipeError
from tokenmill.training.config import ScheduleConfig, TrainingConfig
from tokenmill.training.intervals import Interval, interval


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonConfig:
    """What all trainings share. The default is the tiny model for minutes on two cores; a question
    worth a GPU deserves at least ettin-17m."""

    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(preset="tiny", micro_batch_tokens=16_384)
    )
    """Its seed is counted up from training to training."""
    tokens: int = 4_000_000
    """Tokens of each training, padding included."""
    batch_tokens: int = 16_384
    """Tokens of a step, padding included."""
    learning_rate: float = 2e-3
    warmup_share: float = 0.1
    """Share of the tokens over which the rate rises; then it falls along a cosine to a tenth."""
    seeds: int = 3
    """Trainings of each build. Of two, an interval is 12.7 standard errors to each side and decides
    little; of three 4.3, of five 2.8."""

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise RecipeError(
                f"seeds: expected at least 2, found {self.seeds}. One training has no spread, so "
                "nothing could be told from chance."
            )
        if not 0 <= self.warmup_share <= 1:
            raise RecipeError(f"warmup_share: expected 0 to 1, found {self.warmup_share}.")

    @property
    def schedule(self) -> ScheduleConfig:
        return ScheduleConfig(
            tokens=self.tokens,
            learning_rate=self.learning_rate,
            warmup_tokens=round(self.tokens * self.warmup_share),
            decay="cosine",
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """The losses of all trainings."""

    losses: dict[str, dict[str, list[float]]]
    """Build, then whose held-out rows, to the loss of each seed in nats a masked token."""
    epochs: dict[str, float]
    """How often a training read what there is of a build; above 1 a smaller corpus repeats."""

    @property
    def first(self) -> str:
        """The build that others are compared with."""
        return next(iter(self.losses))

    @property
    def judges(self) -> list[str]:
        return list(self.losses[self.first])

    @property
    def num_seeds(self) -> int:
        return len(self.losses[self.first][self.judges[0]])

    def loss(self, build: str, judge: str) -> Interval:
        """The loss of a build's models on a judge's held-out rows."""
        return interval(self.losses[build][judge])

    def difference(self, build: str, judge: str) -> Interval:
        """To the first build, seed by seed: chance that both share drops out. Below 0 is better."""
        pairs = zip(self.losses[build][judge], self.losses[self.first][judge], strict=True)
        return interval([own - first for own, first in pairs])

    def verdict(
        self, build: str, judge: str
    ) -> Literal["better", "worse", "equal", "may be chance"]:
        """What the difference says, in words."""
        difference = self.difference(build, judge)
        if self.losses[build][judge] == self.losses[self.first][judge]:
            return "equal"
        if not difference.without_zero:
            return "may be chance"
        return "better" if difference.mean < 0 else "worse"
