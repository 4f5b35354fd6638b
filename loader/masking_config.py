"""What a phase can be told of its objective: which tokens are hidden, and behind what."""

from dataclasses import dataclass

from tokenmill.errors import RecipeError
from tokenmill.loader.shares import exact_fraction


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
