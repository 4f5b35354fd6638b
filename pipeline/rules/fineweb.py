"""FineWeb's rules: lines that end like sentences, short lines, repeated lines, lists.

A line is what stands between "\n"; one of white space alone is none, others are not stripped. One
compiled pass over the bytes counts characters and hashes each line; a line is compared with the
earlier ones of its document that share its place in a hash table, byte for byte.
"""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import pyarrow as pa
from datatrove.utils.text import TERMINAL_PUNCTUATION
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.pipeline.rules.checks import Breaks, Check, Signals
from tokenmill.pipeline.rules.english import EnglishWords
from tokenmill.pipeline.rules.lines import before, code_point, point_table, skip_space
from tokenmill.pipeline.sources import Kind
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.word_table import FACTOR, NOTHING, ONE, mix
from tokenmill.tokenizer.words import text_buffers

FREE = np.int64(-1)
SMALLEST_TABLE = 1 << 10
LINES, PUNCTUATED, SHORT, REPEATED_CHARACTERS, CHARACTERS, LINE_FEEDS = range(6)


@dataclass(frozen=True, kw_only=True, slots=True)
class FineWebRule:
    """Defaults are those of datatrove's FineWebQualityFilter, with which FineWeb was made
    (arXiv:2406.17557)."""

    min_lines: int | None = 1
    """Fewest lines that are not blank; a text without any has no fractions to judge."""
    min_line_punctuation_fraction: float | None = 0.12
    """Fewest lines that end in a mark that ends a sentence, in any script."""
    max_short_line_fraction: float | None = 0.67
    """Most lines of at most `short_line_characters`."""
    short_line_characters: int = 30
    """Characters up to which a line is short."""
    max_char_duplicate_fraction: float | None = 0.01
    """Most characters in lines that stand earlier in the document too, by all characters but line
    feeds. 0.01 is datatrove's; what is quoted from the paper is 0.1."""
    max_new_line_ratio: float | None = 0.3
    """Most line feeds for each of spaCy's words: a list."""
    kinds: tuple[Kind, ...] = ("web",)
    """The kinds of text it judges."""

    checks: ClassVar[tuple[Check, ...]] = (
        Check("min_lines", "fineweb_lines", Breaks.BELOW),
        Check("min_line_punctuation_fraction", "fineweb_line_punctuation_fraction", Breaks.BELOW),
        Check("max_short_line_fraction", "fineweb_short_line_fraction", Breaks.ABOVE),
        Check("max_char_duplicate_fraction", "fineweb_char_duplicate_fraction", Breaks.ABOVE),
        Check("max_new_line_ratio", "fineweb_new_line_ratio", Breaks.ABOVE),
    )

    def __post_init__(self) -> None:
        for name in ("min_lines", "max_new_line_ratio", "short_line_characters"):
            number = getattr(self, name)
            if number is not None and number < 0:
                raise RecipeError(f"{name} must not be negative, got {number}")
        for name in (
            "min_line_punctuation_fraction",
            "max_short_line_fraction",
            "max_char_duplicate_fraction",
        ):
            fraction = getattr(self, name)
            if fraction is not None and not 0 <= fraction <= 1:
                raise RecipeError(f"{name} must be between 0 and 1, got {fraction}")


def measure_fineweb(
    texts: pa.LargeStringArray, english: EnglishWords, rule: FineWebRule
) -> Signals:
    """What FineWeb's rules compare; fractions of a text without lines are 0.

    Args:
        english: the words of these texts.
    """
    offsets, data = text_buffers(texts)
    counts = np.zeros((len(texts), 6), np.int64)
    _count_lines(data, offsets, rule.short_line_characters, _terminal_punctuation(), counts)
    lines = np.maximum(counts[:, LINES], 1)
    num_words = np.diff(english.ends, prepend=0)
    return {
        "fineweb_lines": counts[:, LINES],
        "fineweb_line_punctuation_fraction": counts[:, PUNCTUATED] / lines,
        "fineweb_short_line_fraction": counts[:, SHORT] / lines,
        "fineweb_char_duplicate_fraction": (
            counts[:, REPEATED_CHARACTERS] / np.maximum(counts[:, CHARACTERS], 1)
        ),
        "fineweb_new_line_ratio": counts[:, LINE_FEEDS] / np.maximum(num_words, 1),
    }


@cache
def _terminal_punctuation() -> NDArray[np.bool_]:
    return point_table(map(ord, TERMINAL_PUNCTUATION))


@compiled
def _count_lines(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    short_line_characters: int,
    terminal: NDArray[np.bool_],
    counts: NDArray[np.int64],
) -> None:
    """(documents, 6) LINES, PUNCTUATED, SHORT, REPEATED_CHARACTERS, CHARACTERS, LINE_FEEDS."""
    # Where lines start; one before the document at hand is left from another and counts as free.
    table = np.full(SMALLEST_TABLE, FREE)
    for document in range(len(counts)):
        begin, stop = offsets[document], np.uint64(offsets[document + 1])
        distinct = 0
        at = np.uint64(begin)
        while at < stop:
            start = at
            characters = 0
            key = NOTHING
            while at < stop and data[at] != 10:
                key = (key ^ np.uint64(data[at])) * FACTOR
                characters += data[at] & 0xC0 != 0x80
                at += ONE
            counts[document, CHARACTERS] += characters
            if skip_space(data, start, at) < at:
                counts[document, LINES] += 1
                counts[document, SHORT] += characters <= short_line_characters
                last, _ = code_point(data, before(data, at))
                counts[document, PUNCTUATED] += last < len(terminal) and terminal[last]
                if _is_repeated(table, data, begin, start, at, key):
                    counts[document, REPEATED_CHARACTERS] += characters
                else:
                    distinct += 1
                    if 2 * distinct > len(table):
                        table = _grown(table, data, begin, stop)
            if at < stop:
                counts[document, LINE_FEEDS] += 1
                at += ONE


@compiled_inline
def _is_repeated(
    table: NDArray[np.int64],
    data: NDArray[np.uint8],
    begin: np.int64,
    start: np.uint64,
    stop: np.uint64,
    key: np.uint64,
) -> bool:
    """Whether a line of the document that starts at `begin` is in the table; now it is."""
    size = stop - start
    mask = np.uint64(len(table) - 1)
    slot = mix(key, size) & mask
    while table[slot] >= begin:
        earlier = np.uint64(table[slot])
        same = NOTHING
        while same < size and data[earlier + same] == data[start + same]:
            same += ONE
        if same == size and data[earlier + size] == 10:
            return True
        slot = (slot + ONE) & mask
    table[slot] = start
    return False


@compiled
def _grown(
    table: NDArray[np.int64], data: NDArray[np.uint8], begin: np.int64, stop: np.uint64
) -> NDArray[np.int64]:
    """A table of twice the size with the lines of the document that starts at `begin`."""
    larger = np.full(2 * len(table), FREE)
    for start in table:
        if start >= begin:
            at = np.uint64(start)
            key = NOTHING
            while at < stop and data[at] != 10:
                key = (key ^ np.uint64(data[at])) * FACTOR
                at += ONE
            _is_repeated(larger, data, begin, np.uint64(start), at, key)
    return larger
