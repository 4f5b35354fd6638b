"""What a phase's loader can be told: settings of a recipe, which its build writes into the run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from tokenmill.errors import RecipeError
from tokenmill.loader.masking_config import MaskingConfig
from tokenmill.loader.shares import exact_fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchWarmup:
    """A batch that begins small and grows by its first size, with as many steps at each size."""

    start_tokens: int
    """Tokens of the first step over all ranks, padding included. Best a multiple of what all ranks
    hold in one micro-batch: then every size is one. ModernBERT: 768 sequences of 1,024, of 4,608
    (arXiv:2412.13663)."""
    tokens: int
    """Tokens over which the batch grows to batch_tokens. ModernBERT: 50 billion."""

    def __post_init__(self) -> None:
        for name in ("start_tokens", "tokens"):
            if getattr(self, name) < 1:
                raise RecipeError(
                    f"loader.batch_warmup.{name}: need at least 1, got {getattr(self, name)}"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureChange:
    """Another mixture from a place in the phase on. What was read counts on: no row comes again
    before its bucket was seen whole."""

    after_tokens: int
    """It holds from the first step before which the phase has read at least so many tokens, padding
    included."""
    mixture: dict[str, float | str]
    """As LoaderConfig.mixture."""

    def __post_init__(self) -> None:
        if self.after_tokens < 1:
            raise RecipeError(f"after_tokens: need at least 1, got {self.after_tokens}")
        _check_mixture("mixture", self.mixture)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderConfig:
    """What a phase reads, how much of it a step, and what it hides."""

    mixture: dict[str, float | str]
    """Subset to its share, e.g. {"all": 0.2, "1024+": 0.8}. The shares are taken as the decimals or
    fractions that are written ("1/3" is one third) and must add up to exactly 1."""
    batch_tokens: int
    """Tokens of a step over all ranks, padding included; a step is batch_tokens // row_tokens rows,
    at least 1."""
    batch_warmup: BatchWarmup | None = None
    """How the batch comes to that size; None: it has it from the first step on."""
    changes: tuple[MixtureChange, ...] = ()
    """Other mixtures later in the phase, in their order."""
    weights_by: Literal["rows", "tokens"] = "rows"
    """Whether a share is one of rows or of real tokens. They differ where padding does."""
    max_epochs: float | None = None
    """How often documents may be read, over all phases up to the end of this one; `mix` and `train`
    refuse more. None: as often as the mixture asks."""
    cohort_shards: int | None = None
    """Order for shards that are far away: so many shards of a bucket are read together, to their
    end, before others are needed (loader/cohorts.py). None: all rows of a bucket are shuffled."""
    seed: int = 0
    """Seed of order and masks. Phases over one pack continue one order, so they have the same seed
    and cohort_shards."""
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    """Which tokens are hidden, and behind what."""

    def __post_init__(self) -> None:
        if self.batch_tokens < 1:
            raise RecipeError(f"loader.batch_tokens: need at least 1, got {self.batch_tokens}")
        if self.batch_warmup and self.batch_warmup.start_tokens > self.batch_tokens:
            raise RecipeError(
                "loader.batch_warmup.start_tokens: need at most batch_tokens = "
                f"{self.batch_tokens}, got {self.batch_warmup.start_tokens}"
            )
        if not 0 <= self.seed < 1 << 64:
            raise RecipeError(f"loader.seed: need 0 to 2**64 - 1, got {self.seed}")
        if self.cohort_shards is not None and self.cohort_shards < 1:
            raise RecipeError(f"loader.cohort_shards: need at least 1, got {self.cohort_shards}")
        if self.max_epochs is not None and not self.max_epochs > 0:
            raise RecipeError(f"loader.max_epochs: need above 0, got {self.max_epochs}")
        _check_mixture("loader.mixture", self.mixture)
        for before, after in pairwise(change.after_tokens for change in self.changes):
            if before >= after:
                raise RecipeError(
                    f"loader.changes: after_tokens must rise, got {before} before {after}"
                )

    @property
    def mixtures(self) -> tuple[dict[str, float | str], ...]:
        """All mixtures of the phase, in their order."""
        return (self.mixture, *(change.mixture for change in self.changes))

    @property
    def subsets(self) -> tuple[str, ...]:
        """What the phase takes from, each once."""
        return tuple(dict.fromkeys(subset for mixture in self.mixtures for subset in mixture))


def _check_mixture(where: str, mixture: Mapping[str, float | str]) -> None:
    shares = {subset: exact_fraction(share) for subset, share in mixture.items()}
    for subset, share in shares.items():
        if share <= 0:
            raise RecipeError(
                f"{where}: the share of {subset} must be above 0, got {mixture[subset]}"
            )
    if sum(shares.values()) != 1:
        raise RecipeError(
            f"{where}: the shares must add up to 1, got {mixture}, "
            f"which is {float(sum(shares.values())):g}"
        )
