"""Too short to teach anything, or too long to be a text."""

from dataclasses import dataclass
from typing import ClassVar

from tokenmill.errors import RecipeError
from tokenmill.pipeline.rules.checks import Breaks, Check, Signals
from tokenmill.pipeline.sources import Kind
from tokenmill.tokenizer.counts import count_words
from tokenmill.tokenizer.words import Words


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthRule:
    """How many words a document may have."""

    min_words: int = 50
    """Fewest words kept. 50 and 100,000 are Gopher's (arXiv:2112.11446, appendix A)."""
    max_words: int = 100_000
    """Most words kept."""
    kinds: tuple[Kind, ...] = ("web", "science")
    """The kinds of text it judges."""

    checks: ClassVar[tuple[Check, ...]] = (
        Check("min_words", "num_words", Breaks.BELOW),
        Check("max_words", "num_words", Breaks.ABOVE),
    )

    def __post_init__(self) -> None:
        if not 0 <= self.min_words <= self.max_words:
            raise RecipeError(
                f"need 0 <= min_words <= max_words, got {self.min_words} and {self.max_words}"
            )


def measure_length(words: Words) -> Signals:
    """num_words: runs of characters between gaps."""
    return {"num_words": count_words(words)}
