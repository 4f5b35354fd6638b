"""Lines, words and white space of UTF-8 bytes as Python's str methods see them.

The rules for lines are defined by code over `str.splitlines`, `str.split` and `str.strip`; these
helpers find the same boundaries in bytes, so that a rule is one compiled loop over a batch and no
document becomes a Python object. All of them expect valid UTF-8.

White space is every character that `str.isspace` is true for; a line break is one of the boundaries
of `str.splitlines`, of which "\n" is only the most frequent.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.white_space import space_bytes
from tokenmill.tokenizer.word_table import NOTHING, ONE

TWO = np.uint64(2)
THREE = np.uint64(3)

PLAIN = 0
"""The kind of a byte that no white space begins with."""
MAYBE_SPACE = 1
"""The kind of a byte that white space begins with, alone or as the first of a character."""
TABLE_POINTS = 0x40000
"""A table of what code points are goes so far: no letter, digit or punctuation lies above."""


def byte_kinds(kinds: dict[str, int]) -> NDArray[np.uint8]:
    """(256,) the kind of each byte: MAYBE_SPACE, what is given for an ASCII character, or PLAIN."""
    table = np.full(256, PLAIN, np.uint8)
    table[[*range(0x09, 0x0E), *range(0x1C, 0x21), 0xC2, 0xE1, 0xE2, 0xE3]] = MAYBE_SPACE
    for character, kind in kinds.items():
        table[ord(character)] = kind
    return table


def point_table(points: Iterable[int]) -> NDArray[np.bool_]:
    """(TABLE_POINTS,) which code points are among these."""
    table = np.zeros(TABLE_POINTS, np.bool_)
    table[list(points)] = True
    return table


def string_array(ends: NDArray[np.int64], data: NDArray[np.uint8]) -> pa.LargeStringArray:
    """The texts that end at these places in the bytes; each starts where the one before ends."""
    offsets = np.concatenate([[0], ends])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[: offsets[-1]])]
    return pa.Array.from_buffers(pa.large_string(), len(ends), buffers)


@compiled_inline
def break_bytes(data: NDArray[np.uint8], at: np.uint64, stop: np.uint64) -> np.uint64:
    """Bytes of the line break at `at`, where white space begins; 0 where the line goes on."""
    byte = data[at]
    if byte == 13:
        return TWO if at + ONE < stop and data[at + ONE] == 10 else ONE
    if byte < 0x80:
        return ONE if 10 <= byte <= 12 or 28 <= byte <= 30 else NOTHING
    if byte == 0xC2:
        return TWO if data[at + ONE] == 0x85 else NOTHING
    if byte == 0xE2:  # U+2028, U+2029
        third = data[at + TWO]
        return THREE if data[at + ONE] == 0x80 and 0xA8 <= third <= 0xA9 else NOTHING
    return NOTHING


@compiled_inline
def before(data: NDArray[np.uint8], at: np.uint64) -> np.uint64:
    """Where the character that ends at `at` begins."""
    at -= ONE
    while data[at] & 0xC0 == 0x80:
        at -= ONE
    return at


@compiled_inline
def code_point(data: NDArray[np.uint8], at: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The character that begins at `at`, and where the next one does."""
    point = np.uint64(data[at])
    if point < 0x80:
        return point, at + ONE
    following = ONE if point < 0xE0 else TWO if point < 0xF0 else THREE
    point &= np.uint64(0x3F) >> following
    stop = at + following
    while at < stop:
        at += ONE
        point = (point << np.uint64(6)) | np.uint64(data[at] & 0x3F)
    return point, at + ONE


@compiled_inline
def num_characters(data: NDArray[np.uint8], start: np.uint64, stop: np.uint64) -> np.uint64:
    """Code points in some bytes."""
    count = NOTHING
    for at in range(start, stop):
        count += np.uint64(data[at] & 0xC0 != 0x80)
    return count


@compiled_inline
def skip_space(data: NDArray[np.uint8], at: np.uint64, stop: np.uint64) -> np.uint64:
    """Where the first character after `at` begins that is no white space; else `stop`."""
    while at < stop:
        width = space_bytes(data, at)
        if width == NOTHING:
            break
        at += width
    return at


@compiled_inline
def skip_space_back(data: NDArray[np.uint8], start: np.uint64, stop: np.uint64) -> np.uint64:
    """Where the last character before `stop` ends that is no white space; else `start`."""
    while stop > start:
        last = before(data, stop)
        if space_bytes(data, last) == NOTHING:
            break
        stop = last
    return stop


@compiled_inline
def copy_bytes(
    data: NDArray[np.uint8],
    start: np.uint64,
    stop: np.uint64,
    out: NDArray[np.uint8],
    to: np.uint64,
) -> np.uint64:
    """Write some bytes at `to`; where they end."""
    size = stop - start
    at = NOTHING
    while at < size:
        out[to + at] = data[start + at]
        at += ONE
    return to + size


@compiled
def trim_start(out: NDArray[np.uint8], start: np.uint64, stop: np.uint64) -> np.uint64:
    """Move what follows white space to the start; where it ends then."""
    first = skip_space(out, start, stop)
    return copy_bytes(out, first, stop, out, start) if first > start else stop


def count_long_lines(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], characters: int
) -> NDArray[np.int32]:
    """(documents,) lines, split at "\n" alone, of at least so many code points."""
    counts = np.empty(len(offsets) - 1, np.int32)
    _count_long_lines(offsets, data, characters, counts)
    return counts


@compiled
def _count_long_lines(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    characters: int,
    counts: NDArray[np.int32],
) -> None:
    for document in range(len(counts)):
        count = length = 0
        for byte in data[offsets[document] : offsets[document + 1]]:
            if byte == 10:
                count += length >= characters
                length = 0
            else:
                length += byte & 0xC0 != 0x80
        counts[document] = count + (length >= characters)
