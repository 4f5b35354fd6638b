"""The rules that let a document stay or go, and the signals they look at.

A rule is a comparison over arrays: signals are computed once for a batch and stored for every
document, kept or not, so that another threshold can be tried on what is stored.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.pipeline.sources import Kind


class Reason(StrEnum):
    """Why a document left. The value is what stands in the decisions and in the waterfall."""

    NONE = ""
    NO_TOKENS = "no_tokens"
    TOO_FEW_WORDS = "too_few_words"
    TOO_MANY_WORDS = "too_many_words"
    TOO_MANY_SYMBOLS = "too_many_symbols"
    EXACT_DUPLICATE = "exact_duplicate"


REASONS = tuple(Reason)
"""A reason's code is its place here."""


def code(reason: Reason) -> int:
    """The code of a reason in arrays of verdicts; 0 keeps the document."""
    return REASONS.index(reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthRule:
    """Too short to teach anything, or too long to be a text."""

    min_words: int = 50
    """Fewest words kept. 50 and 100,000 are Gopher's (arXiv:2112.11446, appendix A)."""
    max_words: int = 100_000
    """Most words kept."""
    kinds: tuple[Kind, ...] = ("web", "science")
    """The kinds of text it judges."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_words <= self.max_words:
            raise RecipeError(
                f"need 0 <= min_words <= max_words, got {self.min_words} and {self.max_words}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SymbolRule:
    """Tables, logs and broken markup: hardly a letter in them."""

    max_share: float = 0.3
    """Most symbols (neither letter, mark nor number) by characters without white space. English
    prose has 0.03 to 0.06, source code 0.15 to 0.3."""
    kinds: tuple[Kind, ...] = ("web", "science")
    """The kinds of text it judges."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_share <= 1:
            raise RecipeError(f"max_share must be between 0 and 1, got {self.max_share}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """The rules of a recipe; one left out is not applied."""

    length: LengthRule | None = None
    symbols: SymbolRule | None = None


@dataclass(frozen=True, slots=True)
class Signals:
    """What the rules look at, one entry a document, stored in the decisions under these names."""

    num_words: NDArray[np.int64]
    """Runs of characters between white space."""
    num_characters: NDArray[np.int64]
    """Code points that are no white space."""
    symbol_share: NDArray[np.float32]
    """Symbols among those characters."""


def judge(
    signals: Signals, num_tokens: NDArray[np.int64], filters: FilterConfig, kind: Kind
) -> NDArray[np.uint8]:
    """(documents,) the code of the first rule that a document breaks, 0 to keep it."""
    verdict = np.zeros(len(num_tokens), np.uint8)
    length, symbols = filters.length, filters.symbols
    # The last rule written wins, so the first in the recipe's order comes last here.
    if symbols is not None and kind in symbols.kinds:
        verdict[signals.symbol_share > symbols.max_share] = code(Reason.TOO_MANY_SYMBOLS)
    if length is not None and kind in length.kinds:
        verdict[signals.num_words > length.max_words] = code(Reason.TOO_MANY_WORDS)
        verdict[signals.num_words < length.min_words] = code(Reason.TOO_FEW_WORDS)
    verdict[num_tokens == 0] = code(Reason.NO_TOKENS)
    return verdict
