"""What a phase can be told of its objective: which tokens are hidden, and behind what."""

from dataclasses import dataclass
from typing import Literal

from tokenmill.errors import RecipeError
from tokenmill.loader.shares import exact_fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskingConfig:
    """Which tokens are hidden from the model, and behind what.

    A chosen token that is neither masked nor replaced by a random one keeps its own id and is
    predicted all the same. With mask_share 0 and random_share 1 every chosen token is replaced by a
    random one, as a discriminator that tells them apart is trained on (ELECTRA's, without its
    generator, arXiv:2003.10555).
    """

    rate: float = 0.2
    """Share of the maskable tokens of each row that is chosen. 0.2 is NeoBERT's
    (arXiv:2502.19587)."""
    unit: Literal["token", "word", "span"] = "token"
    """What is chosen: single tokens, whole words (google-research/bert, 2019), or spans of whole
    words (SpanBERT, arXiv:1907.10529). Tokens are NeoBERT's and BERT's."""
    count: Literal["fixed", "bernoulli"] = "fixed"
    """fixed: rate times the row's maskable tokens, rounded, as BERT does for each sequence.
    bernoulli: each token by a throw of its own, as Hugging Face's collator does, and with it
    NeoBERT and ModernBERT; their mean is the same, and a fixed number needs fewer slots."""
    mask_share: float = 1.0
    """Share of the chosen that becomes [MASK]. NeoBERT takes all (arXiv:2502.19587), BERT 0.8
    (arXiv:1810.04805)."""
    random_share: float = 0.0
    """Share of the chosen that becomes a random ordinary token. NeoBERT takes none, BERT 0.1 (the
    same papers). A span is masked, replaced or kept as a whole, as SpanBERT does."""
    max_span_words: int = 10
    """The most words of a span as it is drawn; spans that touch become one. SpanBERT's 10."""
    span_p: float = 0.2
    """A span of k words is drawn with a probability that falls as (1 - span_p)**k, up to
    max_span_words. SpanBERT's 0.2, with a mean of 3.8 words."""

    def __post_init__(self) -> None:
        for name in ("rate", "mask_share", "random_share", "span_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(
                    f"masking.{name}: need a share of 0 to 1, got {getattr(self, name)}"
                )
        if exact_fraction(self.mask_share) + exact_fraction(self.random_share) > 1:
            raise RecipeError(
                "masking: mask_share and random_share together must not be above 1, "
                f"got {self.mask_share} + {self.random_share}"
            )
        if self.count == "bernoulli" and self.unit != "token":
            raise RecipeError(
                "masking.count: only single tokens are drawn one by one; with unit "
                f"{self.unit} the count is fixed, got {self.count}"
            )
        if self.max_span_words < 1:
            raise RecipeError(f"masking.max_span_words: need at least 1, got {self.max_span_words}")
