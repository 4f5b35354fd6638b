"""Prefixes, suffixes and infixes of English words: what spaCy's patterns match of code points.

Where two of spaCy's alternatives match, a prefix or infix is the first of them, a suffix the one
that starts first. Signs with a meaning of their own stand here by name; for all others the tables
of spacy_english.py say what is cut off where.
"""

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.rules.english_exceptions import Place, find
from tokenmill.pipeline.rules.spacy_english import (
    AFTER_DOT,
    BEFORE_DOT,
    BEFORE_LAST_DOT,
    CAPITAL,
    INFIX,
    LETTER,
    PREFIX,
    SUFFIX,
)
from tokenmill.tokenizer.compiled import compiled_inline
from tokenmill.tokenizer.word_table import NOTHING

MAX_UNIT_CHARACTERS = 5
_DOT, _COMMA, _PLUS, _HYPHEN, _STAR, _CARET, _TILDE = (ord(sign) for sign in ".,+-*^~")
_COLON, _SLASH, _LESS, _GREATER = (ord(sign) for sign in ":/<>")
_SMALL_S, _S, _U, _C, _A, _DOLLAR, _APOSTROPHE = (ord(sign) for sign in "sSUCA$'")
_QUOTE, _EN_DASH, _EM_DASH, _ELLIPSIS, _DEGREE = 0x2019, 0x2013, 0x2014, 0x2026, 0xB0


@compiled_inline
def prefix_length(
    points: NDArray[np.int32], first: int, last: int, kinds: NDArray[np.uint16]
) -> int:
    """How many code points are cut off the start, 0 for none."""
    point, length = points[first], last - first
    following = points[first + 1] if length > 1 else -1
    if kinds[point] & PREFIX:
        return 0 if point == _PLUS and _is_0_to_9(following) else 1
    if point == _DOT and following == _DOT:
        return _run_of_dots(points, first, last)
    if length > 2 and point == _U and following == _S and points[first + 2] == _DOLLAR:
        return 3
    return 2 if point in (_C, _A) and following == _DOLLAR else 0


@compiled_inline
def _run_of_dots(points: NDArray[np.int32], first: int, last: int) -> int:
    end = first
    while end < last and points[end] == _DOT:
        end += 1
    return end - first


@compiled_inline
def _is_0_to_9(point: int) -> bool:
    return 0x30 <= point <= 0x39


@compiled_inline
def suffix_length(
    points: NDArray[np.int32],
    first: int,
    last: int,
    place: Place,
    offsets: NDArray[np.int32],
    kinds: NDArray[np.uint16],
) -> int:
    """How many code points are cut off the end, 0 for none: those of the longest suffix."""
    if first == last:
        return 0
    point = points[last - 1]
    before = points[last - 2] if last - first > 1 else -1
    second = points[last - 3] if last - first > 2 else -1
    if point == _DOT:
        if before == _DOT:
            dots = last - 1
            while dots > first and points[dots - 1] == _DOT:
                dots -= 1
            return last - dots
        if before < 0:
            return 0
        capitals = second >= 0 and kinds[before] & CAPITAL and kinds[second] & CAPITAL
        degree = second == _DEGREE and (before | 0x20) in (0x63, 0x66, 0x6B)
        return 1 if kinds[before] & BEFORE_LAST_DOT or capitals or degree else 0
    digit = last - 1
    while digit >= max(first, last - 1 - MAX_UNIT_CHARACTERS) and not _is_0_to_9(points[digit]):
        digit -= 1
    if first <= digit < last - 1 and _is_0_to_9(points[digit]):
        if find(place.units, place, offsets, digit + 1, last) != NOTHING:
            return last - 1 - digit
        if point == _PLUS and digit == last - 2:
            return 1
    if point == _ELLIPSIS and before == _ELLIPSIS:
        return 2
    if (point | 0x20) == _SMALL_S and before in (_APOSTROPHE, _QUOTE):
        return 2
    return 1 if kinds[point] & SUFFIX else 0


@compiled_inline
def infix_length(
    points: NDArray[np.int32], at: int, first: int, last: int, kinds: NDArray[np.uint16]
) -> int:
    """How many code points are cut out at a place inside, 0 for none."""
    point = points[at]
    if kinds[point] & INFIX:
        return 1
    if point > 0x7F:
        if point != _EN_DASH and point != _EM_DASH:
            return 0
    elif kinds[point] & LETTER or _is_0_to_9(point):
        return 0
    following = points[at + 1] if at + 1 < last else -1
    if point == _DOT and following == _DOT:
        return _run_of_dots(points, at, last)
    if at == first or following < 0:
        return 0
    before = points[at - 1]
    if point == _DOT:
        return 1 if kinds[before] & BEFORE_DOT and kinds[following] & AFTER_DOT else 0
    if point == _COMMA:
        return 1 if kinds[before] & LETTER and kinds[following] & LETTER else 0
    after_digit = _is_0_to_9(before)
    if (
        after_digit
        and point in (_PLUS, _HYPHEN, _STAR, _CARET)
        and (_is_0_to_9(following) or following == _HYPHEN)
    ):
        return 1
    if not after_digit and not kinds[before] & LETTER:
        return 0
    length = 1
    if point == _HYPHEN:
        while length < 3 and at + length < last and points[at + length] == _HYPHEN:
            length += 1
    elif point == _EM_DASH:
        length += following == _EM_DASH
    elif point not in (_EN_DASH, _TILDE, _SLASH, _COLON) and not _LESS <= point <= _GREATER:
        return 0
    end = at + length
    return length if end < last and kinds[points[end]] & LETTER else 0
