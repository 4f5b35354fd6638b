"""Keep articles, not what surrounds them: tables, broken formulas, lists of references.

    science_symbol_fraction       characters that are neither letters, marks nor numbers, by
                                  characters that are no white space
    science_letter_fraction       letters by characters that are no white space
    science_reference_fraction    characters in lines that look like references, by characters in
                                  lines; a line ends at LF or CR, line ends are not counted

A line looks like a reference if it has at most 600 characters, holds a year from 1800 to 2099, and
begins with a number as entries do, [12] or (12) or 12. or 12), or holds the initials of two names:
up to three capitals between a space, dot or hyphen and a dot or comma.

    [3] Mill, J. S., Taylor, H. (1859). On Liberty.

Of 5,844 references in JATS articles of the test data, written in Vancouver style, in APA's and
numbered, 86, 90 and 99 % look like it; of 35,963 lines in articles without their references, 27 do.
One pass over the bytes, at 500 MB a second.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.pipeline.rules.characters import (
    LETTER,
    SYMBOL,
    WHITE_SPACE,
    character_sets,
)
from tokenmill.pipeline.rules.checks import Breaks, Check, Signals
from tokenmill.pipeline.rules.lines import code_point
from tokenmill.pipeline.sources import Kind
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.words import text_buffers

ONE = np.uint64(1)
MAX_REFERENCE_LENGTH = 600
"""Characters in a reference. With all its authors one may have some hundred; paragraphs have
more."""
MIN_INITIALS = 2
MAX_CAPITALS = 3
MAX_NUMBER = 4
"""Digits in the number of a reference."""
_TAB, _LINE_FEED, _RETURN, _SPACE = 9, 10, 13, 32
_OPEN, _CLOSE, _COMMA, _HYPHEN, _DOT = 40, 41, 44, 45, 46
_OPEN_BRACKET, _CLOSE_BRACKET = 91, 93


@dataclass(frozen=True, kw_only=True, slots=True)
class ScienceRule:
    """Which scientific texts are kept. No published pipeline gives thresholds; of the 555 articles
    of the test data the defaults drop none."""

    max_symbol_fraction: float | None = 0.3
    """Most symbols. The articles have 0.02 to 0.07; the rest is room for formulas."""
    min_letter_fraction: float | None = 0.6
    """Least letters. The articles have 0.87 to 0.98."""
    max_reference_fraction: float | None = 0.5
    """Most references. The articles, which come without their lists, have 0 to 0.14, 99 of 100
    below 0.03; with its list one has 0.11 to 0.34 (5 to 95 % of 326)."""
    kinds: tuple[Kind, ...] = ("science",)
    """The kinds of text it judges."""

    checks: ClassVar[tuple[Check, ...]] = (
        Check("max_symbol_fraction", "science_symbol_fraction", Breaks.ABOVE),
        Check("min_letter_fraction", "science_letter_fraction", Breaks.BELOW),
        Check("max_reference_fraction", "science_reference_fraction", Breaks.ABOVE),
    )

    def __post_init__(self) -> None:
        for check in self.checks:
            fraction = getattr(self, check.setting)
            if fraction is not None and not 0 <= fraction <= 1:
                raise RecipeError(f"{check.setting} must be between 0 and 1, got {fraction}")


def measure_science(texts: pa.LargeStringArray) -> Signals:
    """The signals of the module's header; NaN where a document has no such characters."""
    offsets, data = text_buffers(texts)
    counts = _count(data, offsets, character_sets())
    visible, symbols, letters, in_lines, in_references = counts.T
    return {
        "science_symbol_fraction": _by(symbols, visible),
        "science_letter_fraction": _by(letters, visible),
        "science_reference_fraction": _by(in_references, in_lines),
    }


def _by(counts: NDArray[np.int64], totals: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)


@compiled
def _count(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], sets: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """(documents, 5) characters that are no white space, symbols, letters, characters in lines,
    characters in references."""
    counts = np.zeros((len(offsets) - 1, 5), np.int64)
    for row in range(len(counts)):
        at, stop = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        visible = symbols = letters = in_lines = in_references = 0
        while at < stop:
            start = at
            length = 0
            while at < stop:
                point, following = code_point(data, at)
                if point in (_LINE_FEED, _RETURN):
                    break
                bits = sets[point]
                visible += bits & WHITE_SPACE == 0
                symbols += bits & SYMBOL != 0
                letters += bits & LETTER
                length += 1
                at = following
            in_lines += length
            if 0 < length <= MAX_REFERENCE_LENGTH and _is_reference(data, start, at):
                in_references += length
            at += ONE
        counts[row] = (visible, symbols, letters, in_lines, in_references)
    return counts


@compiled
def _is_reference(data: NDArray[np.uint8], start: np.uint64, end: np.uint64) -> np.bool_:
    """Whether a line holds a year, and begins with a number or holds the initials of two names."""
    has_year: np.bool_ = np.bool_(False)
    num_initials = 0
    at = start
    while at < end:
        run = at
        if _is_digit(data[at]):
            while at < end and _is_digit(data[at]):
                at += ONE
            has_year |= at - run == 4 and (
                (data[run] == 49 and data[run + ONE] >= 56)  # 18 and 19
                or (data[run] == 50 and data[run + ONE] == 48)  # 20
            )
        elif _is_capital(data[at]):
            while at < end and _is_capital(data[at]):
                at += ONE
            if (
                at - run <= MAX_CAPITALS
                and run > start
                and data[run - ONE] in (_SPACE, _DOT, _HYPHEN)
                and at < end
                and data[at] in (_DOT, _COMMA)
            ):
                num_initials += 1
        else:
            at += ONE
    return has_year and np.bool_(num_initials >= MIN_INITIALS or _is_numbered(data, start, end))


@compiled
def _is_numbered(data: NDArray[np.uint8], at: np.uint64, end: np.uint64) -> np.bool_:
    """Whether a line begins with a number in brackets, or before a dot or a parenthesis, and a
    space."""
    while at < end and data[at] in (_SPACE, _TAB):
        at += ONE
    first = data[at] if at < end else np.uint8(0)
    if first in (_OPEN, _OPEN_BRACKET):
        at += ONE
    run = at
    while at < end and _is_digit(data[at]):
        at += ONE
    if (
        at == run
        or at - run > MAX_NUMBER
        or at + ONE >= end
        or data[at + ONE] not in (_SPACE, _TAB)
    ):
        return np.bool_(False)
    if first == _OPEN_BRACKET:
        return np.bool_(data[at] == _CLOSE_BRACKET)
    return np.bool_(data[at] == _CLOSE or (data[at] == _DOT and first != _OPEN))


@compiled_inline
def _is_digit(byte: np.uint8) -> np.bool_:
    return (byte >= 48) & (byte <= 57)


@compiled_inline
def _is_capital(byte: np.uint8) -> np.bool_:
    return (byte >= 65) & (byte <= 90)
