"""Gopher's rules for quality and repetition (Rae et al., arXiv:2112.11446, appendix A).

The measures are those of datatrove's GopherRepetitionFilter and GopherQualityFilter 0.10.1, which
made FineWeb: characters are code points, words are spaCy's, fractions of characters are fractions
of the whole text with its white space. All are measured for every document, the cheap ones in one
pass over its bytes, the others from the numbers of its words. The checks decide in the order of
FineWeb's pipeline, repetition before quality.
"""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import pyarrow as pa
from datatrove.utils.text import PUNCTUATION_SET
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.pipeline.rules.checks import Breaks, Check, Signals
from tokenmill.pipeline.rules.english import EnglishWords
from tokenmill.pipeline.rules.gopher_lines import count_lines
from tokenmill.pipeline.rules.lines import TABLE_POINTS, code_point, point_table
from tokenmill.pipeline.rules.repetition import (
    DUP_SIZES,
    MAX_WORDS,
    TOP_SIZES,
    count_repetition,
)
from tokenmill.pipeline.sources import Kind
from tokenmill.tokenizer.compiled import compiled
from tokenmill.tokenizer.words import text_buffers

STOP_WORDS = (b"the", b"be", b"to", b"of", b"and", b"that", b"have", b"with")
NO_SYMBOL, LETTER = 1 << 8, 1 << 9
"""Marks of a word above those for stop words: not all punctuation; a letter in it."""
CHARACTERS_SHIFT = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class GopherRule:
    """Defaults are Gopher's (tables A1 and the text of appendix A.1.1), as datatrove has them."""

    min_characters: int | None = 1
    """Fewest code points: an empty text has nothing to measure."""
    max_dup_paragraph_fraction: float | None = 0.3
    """Most paragraphs (between blank lines) that came before, by all paragraphs."""
    max_dup_paragraph_char_fraction: float | None = 0.2
    """Most characters in such paragraphs, by all characters."""
    max_dup_line_fraction: float | None = 0.3
    """Most lines that came before, by all lines."""
    max_dup_line_char_fraction: float | None = 0.2
    """Most characters in such lines, by all characters."""
    max_top_2_gram_fraction: float | None = 0.2
    """Most characters in the two words that come together most often, by all characters."""
    max_top_3_gram_fraction: float | None = 0.18
    max_top_4_gram_fraction: float | None = 0.16
    max_dup_5_gram_fraction: float | None = 0.15
    """Most characters in five words together that came before, none counted twice, by all."""
    max_dup_6_gram_fraction: float | None = 0.14
    max_dup_7_gram_fraction: float | None = 0.13
    max_dup_8_gram_fraction: float | None = 0.12
    max_dup_9_gram_fraction: float | None = 0.11
    max_dup_10_gram_fraction: float | None = 0.1
    min_words: int | None = 50
    """Fewest words that are not all punctuation."""
    max_words: int | None = 100_000
    """Most such words."""
    min_mean_word_length: float | None = 3
    """Fewest characters of such a word, on average."""
    max_mean_word_length: float | None = 10
    max_hash_ratio: float | None = 0.1
    """Most "#" signs for each word."""
    max_ellipsis_ratio: float | None = 0.1
    """Most ellipses ("..." or "…") for each word."""
    max_bullet_line_fraction: float | None = 0.9
    """Most lines that begin with "•" or "-"."""
    max_ellipsis_line_fraction: float | None = 0.3
    """Most lines that end in an ellipsis."""
    min_alpha_word_fraction: float | None = 0.8
    """Fewest words with a letter in them, by all words."""
    min_stop_words: int | None = 2
    """Fewest different words among the, be, to, of, and, that, have, with; lower case only."""
    kinds: tuple[Kind, ...] = ("web",)
    """The kinds of text it judges."""

    checks: ClassVar[tuple[Check, ...]] = (
        Check("min_characters", "gopher_characters", Breaks.BELOW),
        Check("max_dup_paragraph_fraction", "gopher_dup_paragraph_fraction", Breaks.ABOVE),
        Check(
            "max_dup_paragraph_char_fraction", "gopher_dup_paragraph_char_fraction", Breaks.ABOVE
        ),
        Check("max_dup_line_fraction", "gopher_dup_line_fraction", Breaks.ABOVE),
        Check("max_dup_line_char_fraction", "gopher_dup_line_char_fraction", Breaks.ABOVE),
        *(
            Check(f"max_top_{size}_gram_fraction", f"gopher_top_{size}_gram_fraction", Breaks.ABOVE)
            for size in TOP_SIZES
        ),
        *(
            Check(f"max_dup_{size}_gram_fraction", f"gopher_dup_{size}_gram_fraction", Breaks.ABOVE)
            for size in DUP_SIZES
        ),
        Check("min_words", "gopher_words", Breaks.BELOW),
        Check("max_words", "gopher_words", Breaks.ABOVE),
        Check("min_mean_word_length", "gopher_mean_word_length", Breaks.BELOW),
        Check("max_mean_word_length", "gopher_mean_word_length", Breaks.ABOVE),
        Check("max_hash_ratio", "gopher_hash_ratio", Breaks.ABOVE),
        Check("max_ellipsis_ratio", "gopher_ellipsis_ratio", Breaks.ABOVE),
        Check("max_bullet_line_fraction", "gopher_bullet_line_fraction", Breaks.ABOVE),
        Check("max_ellipsis_line_fraction", "gopher_ellipsis_line_fraction", Breaks.ABOVE),
        Check("min_alpha_word_fraction", "gopher_alpha_word_fraction", Breaks.BELOW),
        Check("min_stop_words", "gopher_stop_words", Breaks.BELOW),
    )

    def __post_init__(self) -> None:
        for check in self.checks:
            number = getattr(self, check.setting)
            if number is not None and number < 0:
                raise RecipeError(f"{check.setting} must not be negative, got {number}")
            if number is not None and check.setting.endswith("fraction") and number > 1:
                raise RecipeError(f"{check.setting} must be between 0 and 1, got {number}")


def measure_gopher(texts: pa.LargeStringArray, english: EnglishWords) -> Signals:
    """What Gopher's rules compare.

    A fraction or mean of nothing is NaN: those of characters in an empty text, those of lines in
    it, those of words in a text of white space. A text with fewer words than an n-gram has 0 in
    repeated ones, one with more than 2 million words NaN.

    Args:
        english: the words of these texts.
    """
    lines = count_lines(*text_buffers(texts))
    of_word = english.table.per_word(_describe)  # (words known,)
    top, dup = count_repetition(english, of_word >> CHARACTERS_SHIFT)  # (documents, 3), (.., 6)
    num_words = np.diff(english.ends, prepend=0)
    words = np.empty((4, len(english)), np.int64)
    _sum(english.ids, english.ends, of_word, words)
    no_symbols, characters, with_letters, stop_words = words
    signals: Signals = {"gopher_characters": lines.characters}
    with np.errstate(invalid="ignore"):
        signals |= {
            "gopher_dup_paragraph_fraction": lines.repeated_paragraphs / lines.paragraphs,
            "gopher_dup_paragraph_char_fraction": (
                lines.repeated_paragraph_characters / lines.characters
            ),
            "gopher_dup_line_fraction": lines.repeated_parts / lines.parts,
            "gopher_dup_line_char_fraction": lines.repeated_part_characters / lines.characters,
        }
        measured = np.where(num_words > MAX_WORDS, np.nan, lines.characters)
        for row, size in enumerate(TOP_SIZES):
            signals[f"gopher_top_{size}_gram_fraction"] = top[:, row] / measured
        for row, size in enumerate(DUP_SIZES):
            signals[f"gopher_dup_{size}_gram_fraction"] = dup[:, row] / measured
        signals |= {
            "gopher_words": no_symbols,
            "gopher_mean_word_length": characters / no_symbols,
            "gopher_hash_ratio": lines.hashes / num_words,
            "gopher_ellipsis_ratio": lines.ellipses / num_words,
            "gopher_bullet_line_fraction": lines.bullet_lines / lines.lines,
            "gopher_ellipsis_line_fraction": lines.ellipsis_lines / lines.lines,
            "gopher_alpha_word_fraction": with_letters / num_words,
            "gopher_stop_words": stop_words.astype(np.uint8),
        }
    return signals


@cache
def _point_tables() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(TABLE_POINTS,) which code points are punctuation to datatrove, and which are letters."""
    letters = (point for point in range(TABLE_POINTS) if chr(point).isalpha())
    return point_table(map(ord, PUNCTUATION_SET)), point_table(letters)


def _describe(data: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each word's code points, shifted by CHARACTERS_SHIFT, and its marks."""
    stop_words = np.array([int.from_bytes(word, "little") for word in STOP_WORDS], np.uint64)
    of_word = np.empty(len(starts) - 1, np.int64)
    _describe_words(data, starts, *_point_tables(), stop_words, of_word)
    return of_word


@compiled
def _describe_words(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    punctuation: NDArray[np.bool_],
    letters: NDArray[np.bool_],
    stop_words: NDArray[np.uint64],
    of_word: NDArray[np.int64],
) -> None:
    for word in range(len(of_word)):
        at, stop = np.uint64(starts[word]), np.uint64(starts[word + 1])
        characters = marks = 0
        if stop - at <= 4:
            key = np.int64(0)
            for place in range(stop - at):
                key |= np.int64(data[at + np.uint64(place)]) << (8 * place)
            for number in range(len(stop_words)):
                if np.uint64(key) == stop_words[number]:
                    marks = 1 << number
        while at < stop:
            point, at = code_point(data, at)
            known = point < TABLE_POINTS
            if not (known and punctuation[point]):
                marks |= NO_SYMBOL
            if known and letters[point]:
                marks |= LETTER
            characters += 1
        of_word[word] = characters << CHARACTERS_SHIFT | marks


@compiled
def _sum(
    ids: NDArray[np.uint32],
    ends: NDArray[np.int64],
    of_word: NDArray[np.int64],
    sums: NDArray[np.int64],
) -> None:
    """Write (4, documents): words not all punctuation, their characters, words with a letter in
    them, different stop words."""
    first = 0
    for document in range(len(ends)):
        no_symbols = characters = with_letters = np.int64(0)
        seen = 0
        for word in ids[first : ends[document]]:
            marks = of_word[np.uint64(word)]
            if marks & NO_SYMBOL:
                no_symbols += 1
                characters += marks >> CHARACTERS_SHIFT
            if marks & LETTER:
                with_letters += 1
            seen |= int(marks) & 0xFF
        first = ends[document]
        sums[0, document] = no_symbols
        sums[1, document] = characters
        sums[2, document] = with_letters
        stop_words = np.int64(0)
        for number in range(len(STOP_WORDS)):
            stop_words += seen >> number & 1
        sums[3, document] = stop_words
