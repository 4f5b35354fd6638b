"""What a phase's loader can be told: settings of a recipe, which its build writes into the run."""

from dataclasses import dataclass, field
from typing import Literal

from tokenmill.errors import RecipeError
from tokenmill.loader.masking_config import MaskingConfig
from tokenmill.loader.shares import exact_fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderConfig:
    """What a phase reads, how much of it a step, and what it hides."""

    mixture: dict[str, float | str]
    """Subset to its share, e.g. {"all": 0.2, "1024+": 0.8}. The shares are taken as the decimals or
    fractions that are written ("1/3" is one third) and must add up to exactly 1."""
    batch_tokens: int
    """Tokens of a step over all ranks, padding included; a step is batch_tokens // row_tokens rows,
    at least 1."""
    weights_by: Literal["rows", "tokens"] = "rows"
    """Whether a share is one of rows or of real tokens. They differ where padding does."""
    seed: int = 0
    """Seed of order and masks. Phases over one pack continue one order, so they have the same
    seed."""
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    """Which tokens are hidden, and behind what."""

    def __post_init__(self) -> None:
        if self.batch_tokens < 1:
            raise RecipeError(f"loader.batch_tokens: need at least 1, got {self.batch_tokens}")
        if not 0 <= self.seed < 1 << 64:
            raise RecipeError(f"loader.seed: need 0 to 2**64 - 1, got {self.seed}")
        shares = {subset: exact_fraction(share) for subset, share in self.mixture.items()}
        for subset, share in shares.items():
            if share <= 0:
                raise RecipeError(
                    f"loader.mixture: the share of {subset} must be above 0, "
                    f"got {self.mixture[subset]}"
                )
        if sum(shares.values()) != 1:
            raise RecipeError(
                f"loader.mixture: the shares must add up to 1, got {self.mixture}, "
                f"which is {float(sum(shares.values())):g}"
            )
