"""Data written as text inside code: base64, hexadecimal bytes, escaped characters.

What counts as such are the runs that the three expressions of StarCoder2 match (arXiv:2402.19173,
section 2.1), read as ASCII:

    base64     [a-zA-Z0-9+/\\n=]{64,}
    bytes      (?:\\b(?:0x|\\\\x)?[0-9a-fA-F]{2}(?:,|\\b\\s*)){8,}
    escapes    (?:\\\\u[0-9a-fA-F]{4}){8,}

What they match has many characters of a few in a row, so only where such a row is are they looked
for; and rows are found by looking at every 23rd byte or less often, at 1 GB a second.
"""

import string

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline

ONE, TWO = np.uint64(1), np.uint64(2)
MIN_BASE64 = np.uint64(64)
MIN_BYTES = 8
MIN_BYTES_LENGTH = np.uint64(23)
"""Eight times two digits, and something between them."""
MIN_ESCAPES_LENGTH = np.uint64(48)
"""Eight escapes."""
ESCAPE_LENGTH = np.uint64(6)

# Sets of bytes: those that each kind of run is made of, and others.
_IN_BASE64, _IN_BYTES, _IN_ESCAPES, _HEX, _WORD, _SPACE = 1, 2, 4, 8, 16, 32
_COMMA, _ZERO, _BACKSLASH, _SMALL_U, _SMALL_X = 44, 48, 92, 117, 120


def _byte_sets() -> NDArray[np.uint8]:
    """(256,) a bit for each set that holds the byte."""
    sets = np.zeros(256, np.uint8)
    space = " \t\n\r\f\v"
    for bit, characters in (
        (_IN_BASE64, string.ascii_letters + string.digits + "+/\n="),
        (_IN_BYTES, string.hexdigits + "\\x," + space),
        (_IN_ESCAPES, string.hexdigits + "\\u"),
        (_HEX, string.hexdigits),
        (_WORD, string.ascii_letters + string.digits + "_"),
        (_SPACE, space),
    ):
        sets[list(characters.encode())] |= bit
    return sets


BYTE_SETS = _byte_sets()


@compiled
def measure_encoded(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], sets: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """(documents, 2) characters in encoded runs, each expression by itself, and the longest run.

    Args:
        sets: BYTE_SETS.
    """
    found = np.zeros((len(offsets) - 1, 2), np.int64)
    for row in range(len(found)):
        first, stop = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        start, end = _next_row(data, first, stop, sets, _IN_BASE64, MIN_BASE64)
        while start < end:
            _add(found[row], end - start)
            start, end = _next_row(data, end, stop, sets, _IN_BASE64, MIN_BASE64)
        start, end = _next_row(data, first, stop, sets, _IN_BYTES, MIN_BYTES_LENGTH)
        while start < end:
            _add_bytes(data, first, start, end, stop, sets, found[row])
            start, end = _next_row(data, end, stop, sets, _IN_BYTES, MIN_BYTES_LENGTH)
        start, end = _next_row(data, first, stop, sets, _IN_ESCAPES, MIN_ESCAPES_LENGTH)
        while start < end:
            _add_escapes(data, start, end, sets, found[row])
            start, end = _next_row(data, end, stop, sets, _IN_ESCAPES, MIN_ESCAPES_LENGTH)
    return found


@compiled
def _next_row(
    data: NDArray[np.uint8],
    at: np.uint64,
    stop: np.uint64,
    sets: NDArray[np.uint8],
    members: int,
    size: np.uint64,
) -> tuple[np.uint64, np.uint64]:
    """The next whole row of members of a set, `size` or more of them; an empty one at the end.

    Args:
        at: where a row may begin: no member stands right before it.
    """
    while at + size <= stop:
        ahead = size
        while ahead > 0 and sets[data[at + ahead - ONE]] & members:
            ahead -= ONE
        if ahead > 0:
            at += ahead  # a byte that is no member, and all before it, are behind us
            continue
        end = at + size
        while end < stop and sets[data[end]] & members:
            end += ONE
        return at, end
    return stop, stop


@compiled_inline
def _add(found: NDArray[np.int64], length: np.uint64) -> None:
    found[0] += np.int64(length)
    found[1] = max(found[1], np.int64(length))


@compiled
def _add_bytes(
    data: NDArray[np.uint8],
    first: np.uint64,
    at: np.uint64,
    end: np.uint64,
    stop: np.uint64,
    sets: NDArray[np.uint8],
    found: NDArray[np.int64],
) -> None:
    """A run that is too short is not tried again from its second byte: that would be shorter."""
    while at < end:
        start, count = at, 0
        after = _after_byte(data, first, at, stop, sets)
        while after > at:
            at = after
            count += 1
            after = _after_byte(data, first, at, stop, sets)
        if count >= MIN_BYTES:
            _add(found, at - start)
        if count == 0:
            at += ONE


@compiled_inline
def _after_byte(
    data: NDArray[np.uint8],
    first: np.uint64,
    at: np.uint64,
    stop: np.uint64,
    sets: NDArray[np.uint8],
) -> np.uint64:
    """Where the next byte of a run may start, if one stands at `at`; else `at`."""
    begin = at
    if at + ONE >= stop:
        return begin
    word_before = at > first and sets[data[at - ONE]] & _WORD != 0
    if data[at] == _BACKSLASH:
        if not word_before or data[at + ONE] != _SMALL_X:
            return begin
        at += TWO
    else:
        if word_before or not sets[data[at]] & _HEX:
            return begin
        if data[at] == _ZERO and data[at + ONE] == _SMALL_X:
            at += TWO
    if at + ONE >= stop or not sets[data[at]] & sets[data[at + ONE]] & _HEX:
        return begin
    at += TWO
    if at < stop and data[at] == _COMMA:
        return at + ONE
    if at < stop and sets[data[at]] & _WORD:
        return begin
    while at < stop and sets[data[at]] & _SPACE:
        at += ONE
    return at


@compiled
def _add_escapes(
    data: NDArray[np.uint8],
    at: np.uint64,
    end: np.uint64,
    sets: NDArray[np.uint8],
    found: NDArray[np.int64],
) -> None:
    while at < end:
        start = at
        while _is_escape(data, at, end, sets):
            at += ESCAPE_LENGTH
        if at - start >= MIN_ESCAPES_LENGTH:
            _add(found, at - start)
        if at == start:
            at += ONE


@compiled_inline
def _is_escape(
    data: NDArray[np.uint8], at: np.uint64, stop: np.uint64, sets: NDArray[np.uint8]
) -> np.bool_:
    """Whether a backslash, a u and four hexadecimal digits stand there."""
    if at + ESCAPE_LENGTH > stop or data[at] != _BACKSLASH or data[at + ONE] != _SMALL_U:
        return np.bool_(False)
    digits = np.uint8(_HEX)
    for place in range(2, 6):
        digits &= sets[data[at + np.uint64(place)]]
    return np.bool_(digits != 0)
