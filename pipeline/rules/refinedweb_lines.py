"""RefinedWeb's corrections of lines as one compiled loop over the bytes of a batch.

    "ABOUT US\nIt rains. Sign-in\n12 likes\n\nSign-in to read"    "It rains. Sign-in\n\nto read"

A line ends at "\n". It is written behind the lines that stay and corrected there; one that must go
is written over by the next. An empty line stays: it parts paragraphs.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.rules.lines import (
    TABLE_POINTS,
    before,
    code_point,
    copy_bytes,
    skip_space,
    skip_space_back,
    trim_start,
)
from tokenmill.pipeline.rules.phrases import reads
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.white_space import space_bytes
from tokenmill.tokenizer.word_table import NOTHING, ONE

UPPERCASE, NUMERIC, COUNTER, FEW_WORDS, EDITED, STAYS = range(6)
LINE_COUNTS = ("uppercase", "numeric", "counter", "short", "edited")
"""What became of lines, in the order in which it is looked at; all but the edited left."""
ANYWHERE, AT_THE_END, AT_THE_START = (
    np.frombuffer(phrase, np.uint8) for phrase in (b"items in cart", b"read more...", b"sign-in")
)
"""What is cut out of short lines, in either case, with the white space that joins it to the rest.
Source: the examples in RefinedWeb's appendix G.2, which are all that DCLM cuts."""
COUNTED = (
    "likes", "shares", "comments", "retweets", "reposts", "quotes", "bookmarks", "upvotes",
    "downvotes", "downloads", "views", "followers",
)  # fmt: skip
"""What counters count. Source: DCLM, counter_line_modifier."""

_UPPER, _DIGIT, _DECIMAL, _LETTER_OR_DIGIT, _SPACE, _ASCII_SPACE = 1, 2, 4, 8, 16, 32
"""What a code point is: isupper, isdigit, isdecimal, isalnum, isspace, in ASCII_SPACE."""
ASCII_SPACE = " \t\n\v\f\r\0"
"""What stands between the words that are counted: fastText's tokens, as DCLM counts them."""
_LINE_FEED, _UNDERSCORE = 10, 95


@cache
def point_bits() -> NDArray[np.uint8]:
    """(TABLE_POINTS,) what each code point is."""
    bits = np.zeros(TABLE_POINTS, np.uint8)
    for point in range(TABLE_POINTS):
        character = chr(point)
        bits[point] = (
            _UPPER * character.isupper()
            | _DIGIT * character.isdigit()
            | _DECIMAL * character.isdecimal()
            | _LETTER_OR_DIGIT * character.isalnum()
            | _SPACE * character.isspace()
            | _ASCII_SPACE * (character in ASCII_SPACE)
        )
    return bits


@cache
def counted_table() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(words, longest) the bytes of COUNTED, and (words,) how many each has."""
    table = np.zeros((len(COUNTED), max(map(len, COUNTED))), np.uint8)
    for number, word in enumerate(COUNTED):
        table[number, : len(word)] = list(word.encode())
    return table, np.array([len(word) for word in COUNTED])


class LineSettings(NamedTuple):
    """RefinedWebRule as compiled code sees it."""

    max_uppercase_fraction: float
    drop_numeric: bool
    drop_counters: bool
    min_words: int
    max_edited_words: int


@compiled
def correct_lines(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    settings: LineSettings,
    bits: NDArray[np.uint8],
    counted: NDArray[np.uint8],
    counted_bytes: NDArray[np.int64],
    out: NDArray[np.uint8],
    ends: NDArray[np.int64],
    num_words: NDArray[np.int64],
    lines: NDArray[np.int32],
) -> None:
    """Write the lines that stay, and what was counted.

    Args:
        bits: `point_bits()`.
        counted, counted_bytes: `counted_table()`.
        out: room for all bytes of the batch.
        ends: (documents,) gets where each document's text ends in `out`.
        num_words: (documents, 2) gets words that begin with a letter or digit, and how many of
            them are gone.
        lines: (documents, 5) gets lines by LINE_COUNTS.
    """
    to = NOTHING
    for document in range(len(ends)):
        at, stop = np.uint64(offsets[document]), np.uint64(offsets[document + 1])
        begin = to
        is_first = same = True
        while True:
            start = at
            at, characters, upper, digits, words, names = _look(data, start, stop, bits)
            num_words[document, 0] += names
            reason = STAYS
            if at > start:
                if upper / characters > settings.max_uppercase_fraction:
                    reason = UPPERCASE
                elif settings.drop_numeric and digits == characters:
                    reason = NUMERIC
                elif settings.drop_counters and _is_counter(
                    data, start, at, bits, counted, counted_bytes
                ):
                    reason = COUNTER
                elif words < settings.min_words:
                    reason = FEW_WORDS
            if reason == STAYS:
                line = to if is_first else to + ONE
                end = copy_bytes(data, start, at, out, line)
                if 0 < words <= settings.max_edited_words:
                    end = _cut_phrases(out, line, end)
                    if end - line != at - start:
                        reason = EDITED
                        _, _, _, _, words, left = _look(out, line, end, bits)
                        num_words[document, 1] += names - left
                if words > 0 or reason == STAYS:
                    if not is_first:
                        out[to] = _LINE_FEED
                    is_first = False
                    to = end
            else:
                num_words[document, 1] += names
            if reason != STAYS:
                lines[document, reason] += 1
                same = False
            if at == stop:
                break
            at += ONE
        if not same:
            to = trim_start(out, begin, skip_space_back(out, begin, to))
        ends[document] = to


@compiled_inline
def _look(
    data: NDArray[np.uint8], at: np.uint64, stop: np.uint64, bits: NDArray[np.uint8]
) -> tuple[np.uint64, int, int, int, int, int]:
    """Where a line ends; its characters, uppercase letters, digits and words; and of those between
    ASCII_SPACE the ones that begin with a letter or digit."""
    characters = upper = digits = words = names = 0
    after_space = after_ascii_space = True
    while at < stop and data[at] != _LINE_FEED:
        point, at = code_point(data, at)
        kind = bits[point] if point < len(bits) else np.uint8(0)
        characters += 1
        upper += kind & _UPPER != 0
        digits += kind & _DIGIT != 0
        is_space = kind & _SPACE != 0
        words += after_space and not is_space
        names += after_ascii_space and kind & _LETTER_OR_DIGIT != 0
        after_space, after_ascii_space = is_space, kind & _ASCII_SPACE != 0
    return at, characters, upper, digits, words, names


@compiled_inline
def _is(data: NDArray[np.uint8], at: np.uint64, bits: NDArray[np.uint8], kind: int) -> bool:
    point, _ = code_point(data, at)
    return bool(point < len(bits) and bits[point] & kind != 0)


@compiled
def _is_counter(
    data: NDArray[np.uint8],
    at: np.uint64,
    stop: np.uint64,
    bits: NDArray[np.uint8],
    counted: NDArray[np.uint8],
    counted_bytes: NDArray[np.int64],
) -> bool:
    """Whether a line is a number, which may hold , and . and end in k, m or b, white space and one
    of COUNTED, in either case, with no letter, digit or underscore around them."""
    while at < stop and not _is(data, at, bits, _LETTER_OR_DIGIT) and data[at] != _UNDERSCORE:
        _, at = code_point(data, at)
    if at == stop or not _is(data, at, bits, _DECIMAL):
        return False
    last = before(data, stop)
    while not _is(data, last, bits, _LETTER_OR_DIGIT) and data[last] != _UNDERSCORE:
        last = before(data, last)
    if data[last] | 0x20 != 115:  # all of them end in s
        return False
    stop = last + ONE
    while _is(data, at, bits, _DECIMAL) or data[at] == 44 or data[at] == 46:
        _, at = code_point(data, at)
    lower = data[at] | 0x20
    if lower == 107 or lower == 109 or lower == 98:
        at += ONE
    word = skip_space(data, at, stop)
    if word == at:
        return False
    for number in range(len(counted)):
        size = counted_bytes[number]
        if stop - word == size and reads(data, word, stop, counted[number, :size]):
            return True
    return False


@compiled
def _cut_phrases(line: NDArray[np.uint8], start: np.uint64, stop: np.uint64) -> np.uint64:
    """Cut the phrases out of a line in its place; where it ends then."""
    at = to = start
    while at < stop:
        phrase = at + space_bytes(line, at)
        if reads(line, phrase, stop, ANYWHERE):
            at = phrase + np.uint64(len(ANYWHERE))
        else:
            line[to] = line[at]
            to += ONE
            at += ONE
    stop = to
    last = skip_space_back(line, start, stop)
    size = np.uint64(len(AT_THE_END))
    if last - start >= size and reads(line, last - size, last, AT_THE_END):
        stop = last - size
        if stop > start:
            last = before(line, stop)
            stop = last if space_bytes(line, last) != NOTHING else stop
    first = skip_space(line, start, stop)
    if reads(line, first, stop, AT_THE_START):
        first += np.uint64(len(AT_THE_START))
        if first < stop:
            first += space_bytes(line, first)
        stop = copy_bytes(line, first, stop, line, start)
    return stop
