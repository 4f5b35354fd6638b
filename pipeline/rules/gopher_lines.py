"""Lines, paragraphs and marks of documents, as Gopher's rules count them.

Repeated lines are those between runs of "\n"; repeated paragraphs those between runs of two or more
in the text without white space at its ends. Bullets and ellipses are looked for in the lines of
`str.splitlines`, at their ends without white space.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.rules.hashing import FirstPlaces, first_places, hash_bytes, new_set, put
from tokenmill.pipeline.rules.lines import (
    break_bytes,
    num_characters,
    skip_space,
    skip_space_back,
)
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.word_table import ONE

LINE_FEED, HASH, DOT, HYPHEN = 0x0A, 0x23, 0x2E, 0x2D
TWO, THREE = np.uint64(2), np.uint64(3)


class LineCounts(NamedTuple):
    """(documents,) each."""

    characters: NDArray[np.int64]
    hashes: NDArray[np.int64]
    """"#" signs."""
    ellipses: NDArray[np.int64]
    """Characters "…", and "..." that do not overlap."""
    lines: NDArray[np.int64]
    """Lines of `str.splitlines`."""
    bullet_lines: NDArray[np.int64]
    """Those that begin with "•" or "-"."""
    ellipsis_lines: NDArray[np.int64]
    """Those that end in "..." or "…"."""
    parts: NDArray[np.int64]
    """Lines between runs of line feeds; like the next five, empty ones count."""
    repeated_parts: NDArray[np.int64]
    repeated_part_characters: NDArray[np.int64]
    paragraphs: NDArray[np.int64]
    repeated_paragraphs: NDArray[np.int64]
    repeated_paragraph_characters: NDArray[np.int64]


def count_lines(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> LineCounts:
    """Count what the rules for lines compare.

    Args:
        offsets: (documents + 1,) where each text starts in `data`.
    """
    counts = LineCounts(*np.zeros((len(LineCounts._fields), len(offsets) - 1), np.int64))
    _count(data, offsets, _kinds(), counts)
    return counts


def _kinds() -> NDArray[np.bool_]:
    """(256,) the bytes that a line break, an ellipsis or "#" begins with."""
    kinds = np.zeros(256, np.bool_)
    kinds[[*range(0x0A, 0x0E), 0x1C, 0x1D, 0x1E, HASH, DOT, 0xC2, 0xE2]] = True
    return kinds


@compiled
def _count(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    kinds: NDArray[np.bool_],
    counts: LineCounts,
) -> None:
    most = 0
    for document in range(len(offsets) - 1):
        num_feeds = 0
        for byte in data[offsets[document] : offsets[document + 1]]:
            num_feeds += byte == LINE_FEED
        most = max(most, num_feeds + 1)
    spans = np.empty((most, 2), np.uint64)
    table = first_places(most)
    for document in range(len(offsets) - 1):
        start, stop = np.uint64(offsets[document]), np.uint64(offsets[document + 1])
        counts.characters[document] = num_characters(data, start, stop)
        _scan(data, start, stop, kinds, document, counts)
        number = _cut(data, start, stop, 1, spans)
        counts.parts[document] = number
        repeated, characters = _count_repeated(data, spans[:number], table)
        counts.repeated_parts[document] = repeated
        counts.repeated_part_characters[document] = characters
        start = skip_space(data, start, stop)
        number = _cut(data, start, skip_space_back(data, start, stop), 2, spans)
        counts.paragraphs[document] = number
        repeated, characters = _count_repeated(data, spans[:number], table)
        counts.repeated_paragraphs[document] = repeated
        counts.repeated_paragraph_characters[document] = characters


@compiled_inline
def _scan(
    data: NDArray[np.uint8],
    start: np.uint64,
    stop: np.uint64,
    kinds: NDArray[np.bool_],
    document: int,
    counts: LineCounts,
) -> None:
    """Count "#", ellipses and the lines of `str.splitlines`."""
    at = start
    while at < stop:
        if not kinds[data[at]]:
            at += ONE
            continue
        if data[at] == HASH:
            counts.hashes[document] += 1
            at += ONE
        elif _is_ellipsis(data, at, stop):
            counts.ellipses[document] += 1
            at += THREE
        else:
            width = break_bytes(data, at, stop)
            if width:
                _note_line(data, start, at, document, counts)
                start = at + width
            at += max(width, ONE)
    if start < stop:
        _note_line(data, start, stop, document, counts)


@compiled_inline
def _is_ellipsis(data: NDArray[np.uint8], at: np.uint64, stop: np.uint64) -> bool:
    """Whether "..." or "…" stands at this place; both have three bytes."""
    if at + TWO >= stop:
        return False
    first, second, third = data[at], data[at + ONE], data[at + TWO]
    return bool(
        (first == DOT and second == DOT and third == DOT)
        or (first == 0xE2 and second == 0x80 and third == 0xA6)
    )


@compiled_inline
def _note_line(
    data: NDArray[np.uint8], start: np.uint64, stop: np.uint64, document: int, counts: LineCounts
) -> None:
    counts.lines[document] += 1
    first = skip_space(data, start, stop)
    last = skip_space_back(data, first, stop)
    if first < last:
        is_dot = data[first] == 0xE2 and data[first + ONE] == 0x80 and data[first + TWO] == 0xA2
        counts.bullet_lines[document] += data[first] == HYPHEN or is_dot
    if last - first >= THREE:
        counts.ellipsis_lines[document] += _is_ellipsis(data, last - THREE, last)


@compiled_inline
def _cut(
    data: NDArray[np.uint8],
    start: np.uint64,
    stop: np.uint64,
    least: int,
    spans: NDArray[np.uint64],
) -> int:
    """Where the parts between runs of at least so many line feeds start and end; how many."""
    number = 0
    at = start
    while at < stop:
        if data[at] != LINE_FEED:
            at += ONE
            continue
        feeds = at
        while at < stop and data[at] == LINE_FEED:
            at += ONE
        if at - feeds >= least:
            spans[number, 0] = start
            spans[number, 1] = feeds
            number += 1
            start = at
    spans[number, 0] = start
    spans[number, 1] = stop
    return number + 1


@compiled_inline
def _count_repeated(
    data: NDArray[np.uint8],
    spans: NDArray[np.uint64],
    table: FirstPlaces,
) -> tuple[int, int]:
    """How many parts came before, and their characters."""
    keys, numbers = table.keys, table.numbers
    mask, first = new_set(table, len(spans))
    repeated = characters = 0
    for number in range(len(spans)):
        start, stop = spans[number]
        if put(keys, numbers, mask, first, hash_bytes(data, start, stop), number) < number:
            repeated += 1
            characters += int(num_characters(data, start, stop))
    return repeated, characters
