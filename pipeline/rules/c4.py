"""C4: lines that are no sentences leave, and documents that keep too few.

    edited = edit_c4(texts, rule)            the lines that stay, for every document
    signals = edited.signals | measure_c4(english)      english: the words of edited.texts

Lines go first, so the rules for documents judge what is left of them. The text is edited as if no
document were dropped, so that other thresholds can be tried on what is stored. Equal to datatrove's
C4QualityFilter over lines and C4ParagraphFilter, but for one case: lines without words at either
end of a text (citations alone) and white space behind its last word are gone before sentences are
counted, which can only matter where lines need no terminal punctuation.

Left out: the list of bad words, which needs a download.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from tokenmill.errors import RecipeError
from tokenmill.pipeline.edits.edited import Edited
from tokenmill.pipeline.rules.c4_lines import (
    LINE_COUNTS,
    LineSettings,
    clean_lines,
    decimal_digits,
    phrases,
)
from tokenmill.pipeline.rules.checks import Breaks, Check, Signals
from tokenmill.pipeline.rules.english import EnglishWords
from tokenmill.pipeline.rules.lines import count_long_lines, string_array
from tokenmill.pipeline.rules.sentences import count_sentences
from tokenmill.pipeline.sources import Kind
from tokenmill.tokenizer.words import text_buffers

NO_LIMIT = 1 << 62


@dataclass(frozen=True, kw_only=True, slots=True)
class C4Rule:
    """Defaults are those of C4 (arXiv:1910.10683, section 2.2) as tensorflow_datasets has them in
    text/c4_utils.py, which are datatrove's too. FineWeb turns terminal punctuation off."""

    remove_citations: bool = True
    """Whether "[12]", "[]", "[edit]" and "[citation needed]" are cut out of lines."""
    keep_only_terminal_punctuation: bool = True
    """Whether lines leave that do not end in . ? ! " or ', or end in "..."."""
    min_words_per_line: int | None = 3
    """Fewest words, between white space, of a line that stays."""
    max_word_length: int | None = 1000
    """Most characters of a word; a line with a longer one leaves."""
    drop_javascript_lines: bool = True
    """Whether lines leave that name JavaScript."""
    drop_policy_lines: bool = True
    """Whether lines leave that speak of terms of use, privacy or the use of cookies."""
    min_long_paragraphs: int | None = None
    """Fewest lines of at least `paragraph_characters` in the text as it came; mC4 asks for 3."""
    paragraph_characters: int = 200
    """Characters that make a line a long paragraph. 200 is mC4's."""
    drop_lorem_ipsum: bool = True
    """Whether documents leave where a line that would stay says "lorem ipsum"."""
    drop_curly_bracket: bool = True
    """Whether documents leave where a line that would stay holds a "{"."""
    min_sentences: int | None = 5
    """Fewest sentences in the lines that stay."""
    kinds: tuple[Kind, ...] = ("web",)
    """The kinds of text it judges and edits."""

    checks: ClassVar[tuple[Check, ...]] = (
        Check("min_long_paragraphs", "c4_long_paragraphs", Breaks.BELOW),
        Check("drop_lorem_ipsum", "c4_lorem_ipsum", Breaks.SET),
        Check("drop_curly_bracket", "c4_curly_bracket", Breaks.SET),
        Check("min_sentences", "c4_sentences", Breaks.BELOW),
    )

    def __post_init__(self) -> None:
        for name in ("min_words_per_line", "min_sentences", "min_long_paragraphs"):
            number = getattr(self, name)
            if number is not None and number < 0:
                raise RecipeError(f"{name} must not be negative, got {number}")
        for name in ("max_word_length", "paragraph_characters"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise RecipeError(f"{name} must be positive, got {number}")


def edit_c4(texts: pa.LargeStringArray, rule: C4Rule) -> Edited:
    """What C4's rules for lines leave of each document, and what they found.

    Returns:
        signals: (documents,) c4_lorem_ipsum and c4_curly_bracket, 1 where that is what a document
            would be dropped for, the first in the order of its lines; c4_long_paragraphs; and
            lines with words that left, by the rule they broke: c4_long_word_lines,
            c4_unpunctuated_lines, c4_short_lines, c4_javascript_lines, c4_policy_lines.
    """
    offsets, data = text_buffers(texts)
    settings = LineSettings(
        rule.remove_citations,
        rule.keep_only_terminal_punctuation,
        0 if rule.min_words_per_line is None else rule.min_words_per_line,
        NO_LIMIT if rule.max_word_length is None else rule.max_word_length,
        rule.drop_javascript_lines,
        rule.drop_policy_lines,
        rule.drop_lorem_ipsum,
        rule.drop_curly_bracket,
    )
    out = np.empty(offsets[-1] - offsets[0], np.uint8)
    ends = np.empty(len(texts), np.int64)
    num_edits = np.empty(len(texts), np.int32)
    lines = np.zeros((len(texts), len(LINE_COUNTS)), np.int32)
    holds = np.zeros((len(texts), 2), np.uint8)
    clean_lines(
        data, offsets, settings, phrases(), decimal_digits(), out, ends, num_edits, lines, holds
    )
    signals: Signals = {
        "c4_lorem_ipsum": holds[:, 0],
        "c4_curly_bracket": holds[:, 1],
        "c4_long_paragraphs": count_long_lines(offsets, data, rule.paragraph_characters),
    }
    signals |= {f"c4_{name}_lines": lines[:, number] for number, name in enumerate(LINE_COUNTS)}
    return Edited(string_array(ends, out) if num_edits.any() else texts, num_edits, signals)


def measure_c4(english: EnglishWords) -> Signals:
    """c4_sentences of texts that `edit_c4` left."""
    return {"c4_sentences": count_sentences(english)}
