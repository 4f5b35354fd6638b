"""Tables, logs and broken markup: hardly a letter in them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokenmill.errors import RecipeError
from tokenmill.pipeline.rules.checks import Breaks, Check, Signals
from tokenmill.pipeline.sources import Kind
from tokenmill.tokenizer.counts import count_characters
from tokenmill.tokenizer.words import Words


@dataclass(frozen=True, kw_only=True, slots=True)
class SymbolRule:
    """How much of a document may be symbols."""

    max_share: float = 0.3
    """Most symbols (neither letter, mark nor number) by characters without white space. English
    prose has 0.03 to 0.06, source code 0.15 to 0.3."""
    kinds: tuple[Kind, ...] = ("web", "science")
    """The kinds of text it judges."""

    checks: ClassVar[tuple[Check, ...]] = (Check("max_share", "symbol_share", Breaks.ABOVE),)

    def __post_init__(self) -> None:
        if not 0 <= self.max_share <= 1:
            raise RecipeError(f"max_share must be between 0 and 1, got {self.max_share}")


def measure_symbols(words: Words) -> Signals:
    """num_characters: code points that are no white space; symbol_share: symbols among them."""
    num_characters, num_symbols = count_characters(words)
    share = num_symbols / np.maximum(num_characters, 1)
    return {"num_characters": num_characters, "symbol_share": share}
