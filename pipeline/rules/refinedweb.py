"""RefinedWeb's line-wise corrections: what pages say besides their text leaves, line by line.

    edited = edit_refinedweb(texts, rule)

Lines of capitals, of digits, counters ("3 likes") and single words leave; a few phrases are cut out
of short lines. A document that loses too many of its words that way is no text and leaves whole.
The rules are those of RefinedWeb (arXiv:2306.01116, appendix G.2) with the thresholds, words and
order of DCLM, the only published code for them. Other than DCLM's: the dots of "Read more..." are
dots, not any three characters; phrases at a line's ends are found behind white space too; and a
document without a line to correct keeps the white space at its ends.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from tokenmill.errors import RecipeError
from tokenmill.pipeline.edits.edited import Edited
from tokenmill.pipeline.rules.checks import Breaks, Check, Signals
from tokenmill.pipeline.rules.lines import string_array
from tokenmill.pipeline.rules.refinedweb_lines import (
    LINE_COUNTS,
    LineSettings,
    correct_lines,
    counted_table,
    point_bits,
)
from tokenmill.pipeline.sources import Kind
from tokenmill.tokenizer.words import text_buffers


@dataclass(frozen=True, kw_only=True, slots=True)
class RefinedWebRule:
    """Defaults are DCLM's for RefinedWeb (dclm_baseline_refinedweb.yaml); the paper names the rules
    and gives the numbers 10 words and 5 %."""

    max_uppercase_fraction: float | None = 0.5
    """Most uppercase letters by all characters of a line that stays."""
    drop_numeric_lines: bool = True
    """Whether lines of digits alone leave."""
    drop_counter_lines: bool = True
    """Whether lines leave that are a number and what it counts: "1.2K followers"."""
    min_words_per_line: int | None = 2
    """Fewest words, between white space, of a line that stays; an empty line always does."""
    max_edited_line_words: int | None = 10
    """Most words of a line out of which "items in cart", "Read more..." at its end and "Sign-in" at
    its start are cut."""
    max_words_removed_fraction: float | None = 0.05
    """Most words that a document may lose; those that begin with a letter or digit are counted."""
    kinds: tuple[Kind, ...] = ("web",)
    """The kinds of text it judges and edits."""

    checks: ClassVar[tuple[Check, ...]] = (
        Check("max_words_removed_fraction", "refinedweb_words_removed_fraction", Breaks.ABOVE),
    )

    def __post_init__(self) -> None:
        for name in ("max_uppercase_fraction", "max_words_removed_fraction"):
            fraction = getattr(self, name)
            if fraction is not None and not 0 <= fraction <= 1:
                raise RecipeError(f"{name} must be between 0 and 1, got {fraction}")
        for name in ("min_words_per_line", "max_edited_line_words"):
            number = getattr(self, name)
            if number is not None and number < 0:
                raise RecipeError(f"{name} must not be negative, got {number}")


def edit_refinedweb(texts: pa.LargeStringArray, rule: RefinedWebRule) -> Edited:
    """What the corrections leave of each document, and what they found.

    Returns:
        num_edits: lines that left or were cut.
        signals: (documents,) refinedweb_words_removed_fraction, 0 without words; and lines by what
            became of them: refinedweb_uppercase_lines, refinedweb_numeric_lines,
            refinedweb_counter_lines and refinedweb_short_lines, which left, and
            refinedweb_edited_lines.
    """
    offsets, data = text_buffers(texts)
    settings = LineSettings(
        1.0 if rule.max_uppercase_fraction is None else rule.max_uppercase_fraction,
        rule.drop_numeric_lines,
        rule.drop_counter_lines,
        0 if rule.min_words_per_line is None else rule.min_words_per_line,
        0 if rule.max_edited_line_words is None else rule.max_edited_line_words,
    )
    out = np.empty(offsets[-1] - offsets[0], np.uint8)
    ends = np.empty(len(texts), np.int64)
    num_words = np.zeros((len(texts), 2), np.int64)
    lines = np.zeros((len(texts), len(LINE_COUNTS)), np.int32)
    correct_lines(
        data, offsets, settings, point_bits(), *counted_table(), out, ends, num_words, lines
    )
    num_edits = lines.sum(axis=1, dtype=np.int32)
    signals: Signals = {
        "refinedweb_words_removed_fraction": num_words[:, 1] / np.maximum(num_words[:, 0], 1)
    }
    signals |= {
        f"refinedweb_{name}_lines": lines[:, number] for number, name in enumerate(LINE_COUNTS)
    }
    return Edited(string_array(ends, out) if num_edits.any() else texts, num_edits, signals)
