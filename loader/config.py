"""What a phase's loader can be told: settings of a recipe, which its build writes into the run."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from tokenmill.errors import RecipeError


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskingConfig:
    """Which tokens are hidden from the model, and behind what.

    A chosen token that is neither masked nor replaced by a random one keeps its own id and is
    predicted all the same.
    """

    rate: float = 0.2
    """Share of the maskable tokens of each row that is chosen. 0.2 is NeoBERT's
    (arXiv:2502.19587)."""
    mask_share: float = 1.0
    """Share of the chosen that becomes [MASK]. NeoBERT takes all (arXiv:2502.19587), BERT 0.8
    (arXiv:1810.04805)."""
    random_share: float = 0.0
    """Share of the chosen that becomes a random ordinary token. NeoBERT takes none, BERT 0.1 (the
    same papers)."""

    def __post_init__(self) -> None:
        for name in ("rate", "mask_share", "random_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(
                    f"masking.{name}: need a share of 0 to 1, got {getattr(self, name)}"
                )
        if exact_fraction(self.mask_share) + exact_fraction(self.random_share) > 1:
            raise RecipeError(
                "masking: mask_share and random_share together must not be above 1, "
                f"got {self.mask_share} + {self.random_share}"
            )


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


def exact_fraction(share: float | str) -> Fraction:
    """The number as it is written: 0.2 and "0.2" are 1/5, not the nearest binary fraction."""
    try:
        return Fraction(str(share))
    except (ValueError, ZeroDivisionError):
        raise RecipeError(
            f'{share!r} is no share: write a number like 0.2, or a fraction like "1/3"'
        ) from None
