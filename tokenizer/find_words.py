"""Find the words of texts and their numbers: the loop that meets every byte.

The white space of 64 bytes is found in one compare; where it begins and ends are the edges of
words. The words between the edges of a block are then looked up step by step, and each step is a
loop over the block without surprises, so that the processor waits for the memory of many words at
once:

    "The cat\\n\\nsat. "    edges 0 3  4 7  9 13  14 14, two a pair
    gaps                  none or one space as a rule; others from their table
    keys                  the slot of each word is fetched ahead
    slots                 the number of the word with this key
    long words            above eight bytes a key is but a hash: the bytes are compared
    the rest              is new: it gets a number, or a span where it cannot be remembered

On English web text the edges cost 0.35 ns a byte and the rest 1.7 where all words are known.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled
from tokenmill.tokenizer.instructions import (
    ALL_BITS,
    BLOCK_BYTES,
    address_of,
    count_bits,
    gap_bits,
    lowest_bit,
    prefetch,
)
from tokenmill.tokenizer.word_table import (
    KEY_BYTES,
    MAX_BYTES,
    ONE,
    TableArrays,
    find_number,
    intern,
    is_full,
    is_string,
    key_at,
    key_of,
    lanes_of,
    line_of,
    lookup_of,
    mix,
    next_line,
    number_in,
)

BLOCK = 1024
"""Pairs of gap and word, at most, that are looked up together."""
LONG = 1 << 31
"""Set in the number of a word or gap that is not remembered."""
LONG_INDEX = LONG - 1
"""Takes the place in the list of spans out of such a number."""
NO_GAP = 0
ONE_SPACE = 1
"""The numbers of the two gaps that each table of gaps has from the start."""

DOCUMENT, AT, IN_WORD, WORD_START, PAIRS, LAST_END, LONG_WORDS, LONG_GAPS = range(8)
"""Where the search is: the next document and byte; whether that is in a word, after what gap, and
where the word starts; pairs that are done and where the last of them ended; words and gaps that are
spans."""
SCRATCH = (8, 2 * BLOCK)
"""The shape of the arrays of a block."""

_AFTER_A_SPACE, _AFTER_ODD_GAP = 1, 2
_EDGES, _ODD_PAIRS, _OTHERS, _OTHER_EDGES, _KEYS, _LINES, _LONG, _NEW = range(8)
_LANES = np.uint64(8)
"""Edges that are written before it is asked whether there are more."""
_LAST_EDGES = 2 * BLOCK - 64 - 2 - 8
"""With more, those of 64 bytes and of the end of a text might not fit."""
_ZERO, _TWO, _SIXTY_TWO, _SIXTY_THREE = np.uint64(0), np.uint64(2), np.uint64(62), np.uint64(63)
_ALL_GAPS, _ALL_LANES, _UNKNOWN = np.uint64(3), np.uint64(15), np.uint64(0xFFFFFFFF)


class Found(NamedTuple):
    """Where to write what is found; see Words."""

    word_ids: NDArray[np.uint32]
    gap_ids: NDArray[np.uint32]
    ends: NDArray[np.int64]
    long_words: NDArray[np.int64]
    long_gaps: NDArray[np.int64]


@compiled
def find_words(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    words: TableArrays,
    gaps: TableArrays,
    max_strings: int,
    found: Found,
    place: NDArray[np.int64],
) -> bool:
    """Go on from `place`.

    Args:
        data, offsets: the texts, and (documents + 1,) where each starts in them.
        words, gaps: the tables.
        max_strings: a table that holds so many takes no more.
        found: `word_ids` and `gap_ids` hold all that there may be.
        place: (8,) see DOCUMENT.

    Returns:
        False where a table or a list of spans needs room for a block before it can go on.
    """
    scratch = np.empty(SCRATCH, np.uint64)
    edges = scratch[_EDGES]
    edges[0] = place[WORD_START]
    while place[DOCUMENT] < len(found.ends):
        if not (
            _has_room(words, max_strings, found.long_words, place[LONG_WORDS])
            and _has_room(gaps, max_strings, found.long_gaps, place[LONG_GAPS])
        ):
            place[WORD_START] = edges[0]
            return False
        num_edges, num_odd = _find_edges(data, offsets, found.ends, place, scratch)
        num_pairs = num_edges // 2
        last_is_odd = num_odd > 0 and scratch[_ODD_PAIRS, num_odd - 1] == num_pairs
        first, end = place[PAIRS], place[PAIRS] + num_pairs
        _number_gaps(
            data, scratch, num_odd - last_is_odd, gaps, max_strings, found.gap_ids[first:end],
            found.long_gaps, place,
        )  # fmt: skip
        place[LONG_WORDS] = number_block(
            data, edges, scratch, words, max_strings, MAX_BYTES, found.word_ids[first:end],
            found.long_words, place[LONG_WORDS],
        )  # fmt: skip
        place[PAIRS] = end
        if num_pairs:
            place[LAST_END] = edges[2 * num_pairs - 1]
        place[IN_WORD] = 0
        if num_edges % 2:
            place[IN_WORD] = _AFTER_ODD_GAP if last_is_odd else _AFTER_A_SPACE
            edges[0] = edges[2 * num_pairs]
    return True


@compiled
def _has_room(
    table: TableArrays, max_strings: int, spans: NDArray[np.int64], num_spans: int
) -> bool:
    length = table.length[0]
    return bool(
        num_spans + BLOCK <= len(spans)
        and (
            length >= max_strings
            or (
                length + BLOCK <= len(table.hashes)
                and table.starts[length] + BLOCK * MAX_BYTES <= len(table.arena)
            )
        )
    )


@compiled
def _find_edges(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    ends: NDArray[np.int64],
    place: NDArray[np.int64],
    scratch: NDArray[np.uint64],
) -> tuple[int, int]:
    """The edges of the next words, and where documents end in pairs.

    Returns:
        How many edges there are now (the last of an odd number is half a word), and how many odd
        gaps: those that may be other than one space.
    """
    edges, odd_pairs = scratch[_EDGES], scratch[_ODD_PAIRS]
    count = np.uint64(place[IN_WORD] > 0)
    num_odd = np.uint64(place[IN_WORD] == _AFTER_ODD_GAP)
    odd_pairs[_ZERO] = _ZERO
    document = place[DOCUMENT]
    at = np.uint64(place[AT])
    base = address_of(data)
    data_end = base + np.uint64(len(data))
    # Of the two bytes before: which are white space, and whether the last is a space.
    gaps_before, space_before = _ALL_GAPS, _ZERO
    if at > np.uint64(offsets[document]):
        last_gaps, last_spaces = gap_bits(base + at - _TWO, data_end)
        gaps_before, space_before = last_gaps & _ALL_GAPS, last_spaces >> ONE & ONE
    while document < len(ends) and count <= _LAST_EDGES:
        stop = np.uint64(offsets[document + 1])
        while at < stop and count <= _LAST_EDGES:
            gaps, spaces = gap_bits(base + at, data_end)
            if stop - at < BLOCK_BYTES:
                gaps |= ALL_BITS << (stop - at)
            before = gaps << ONE | gaps_before >> ONE
            changes = gaps ^ before
            # A word is after one space if that is what stands before it, and no gap before that.
            odd = (
                changes & before & ((gaps << _TWO | gaps_before) | ~(spaces << ONE | space_before))
            )
            while odd != _ZERO:
                odd_pairs[num_odd] = (
                    count + count_bits(changes & (odd ^ (odd - ONE)) >> ONE)
                ) >> ONE
                num_odd += ONE
                odd &= odd - ONE
            end = count + count_bits(changes)
            while count < end:
                for lane in range(_LANES):
                    edges[count + lane] = at + lowest_bit(changes)
                    changes &= changes - ONE
                count += _LANES
            count = end
            gaps_before, space_before = gaps >> _SIXTY_TWO, spaces >> _SIXTY_THREE
            at += BLOCK_BYTES
        if at >= stop:
            if gaps_before < _TWO:  # The text ends in a word.
                edges[count] = stop
                count += ONE
            last = edges[count - ONE] if count > _ZERO else np.uint64(place[LAST_END])
            if last < stop:  # It ends with a gap: an empty word stands after it.
                odd_pairs[num_odd] = count >> ONE
                num_odd += ONE
                edges[count] = stop
                edges[count + ONE] = stop
                count += _TWO
            ends[document] = place[PAIRS] + (count >> ONE)
            document += 1
            at = stop
            gaps_before, space_before = _ALL_GAPS, _ZERO
    place[DOCUMENT] = document
    place[AT] = at
    return int(count), int(num_odd)


@compiled
def _number_gaps(
    data: NDArray[np.uint8],
    scratch: NDArray[np.uint64],
    num_odd: int,
    gaps: TableArrays,
    max_strings: int,
    gap_ids: NDArray[np.uint32],
    long_gaps: NDArray[np.int64],
    place: NDArray[np.int64],
) -> None:
    """The numbers of the gaps before the words of a block."""
    gap_ids[:] = ONE_SPACE
    edges, odd_pairs = scratch[_EDGES], scratch[_ODD_PAIRS]
    others, other_edges = scratch[_OTHERS], scratch[_OTHER_EDGES]
    num_others = _ZERO
    for row in range(np.uint64(num_odd)):
        pair = odd_pairs[row]
        start = edges[_TWO * pair - ONE] if pair > _ZERO else np.uint64(place[LAST_END])
        stop = edges[_TWO * pair]
        if start == stop:
            gap_ids[pair] = NO_GAP
        else:
            others[num_others] = pair
            other_edges[_TWO * num_others] = start
            other_edges[_TWO * num_others + ONE] = stop
            num_others += ONE
    other_ids = np.empty(num_others, np.uint32)
    place[LONG_GAPS] = number_block(
        data, other_edges, scratch, gaps, max_strings, MAX_BYTES, other_ids, long_gaps,
        place[LONG_GAPS],
    )  # fmt: skip
    for row in range(num_others):
        gap_ids[others[row]] = other_ids[row]


@compiled
def number_block(
    data: NDArray[np.uint8],
    edges: NDArray[np.uint64],
    scratch: NDArray[np.uint64],
    table: TableArrays,
    max_strings: int,
    max_bytes: int,
    ids: NDArray[np.uint32],
    spans: NDArray[np.int64],
    num_spans: int,
) -> int:
    """Number up to BLOCK strings; how many spans there are now.

    Args:
        data, edges: where each string starts and ends in the data.
        scratch: of the shape SCRATCH.
        table: with room for all.
        max_strings, max_bytes: beyond, a new string is not remembered but gets a span.
        ids: (strings,) where to write the numbers.
        spans, num_spans: where to write spans, and how many there are.
    """
    lookup = lookup_of(table)
    base = address_of(data)
    data_end = base + np.uint64(len(data))
    keys, lines = scratch[_KEYS], scratch[_LINES]
    long, new = scratch[_LONG], scratch[_NEW]
    num_long = num_new = _ZERO
    num_strings = np.uint64(len(ids))
    for row in range(num_strings):
        start = edges[_TWO * row]
        size = edges[_TWO * row + ONE] - start
        # What is too long for the table is not found there, whatever its key.
        key = key_at(base + start, size if size <= np.uint64(max_bytes) else _ZERO, data_end)
        line = line_of(lookup, mix(key, size))
        prefetch(line)
        keys[row] = key
        lines[row] = line
        long[num_long] = row
        num_long += np.uint64(size > KEY_BYTES)
    for row in range(num_strings):
        size = edges[_TWO * row + ONE] - edges[_TWO * row]
        line = lines[row]
        lanes = lanes_of(line, keys[row], size)
        while lanes == _ZERO and is_full(line):
            line = next_line(lookup, line)
            lanes = lanes_of(line, keys[row], size)
        ids[row] = number_in(line, lanes & _ALL_LANES) if lanes != _ZERO else _UNKNOWN
        new[num_new] = row
        num_new += np.uint64(lanes == _ZERO)
    for place in range(num_long):
        prefetch(lookup.heads + KEY_BYTES * np.uint64(ids[long[place]]))
    for place in range(num_long):
        row = long[place]
        number = np.uint64(ids[row])
        start = edges[_TWO * row]
        size = edges[_TWO * row + ONE] - start
        if number != _UNKNOWN and not is_string(lookup, number, base + start, size):
            new[num_new] = row
            num_new += ONE
    for place in range(num_new):
        row = new[place]
        ids[row] = _remember(
            table, data, edges[_TWO * row], edges[_TWO * row + ONE], max_strings, max_bytes, spans,
            num_spans,
        )  # fmt: skip
        num_spans += ids[row] >= LONG
    return num_spans


@compiled
def _remember(
    table: TableArrays,
    data: NDArray[np.uint8],
    start: np.uint64,
    stop: np.uint64,
    max_strings: int,
    max_bytes: int,
    spans: NDArray[np.int64],
    num_spans: int,
) -> int:
    """The number of a string, which may be new; or LONG and its place as the next span."""
    if stop - start <= np.uint64(max_bytes):
        size = stop - start
        if table.length[0] < max_strings:
            return int(intern(table, data, start, size, key_of(data, start, stop)))
        base = address_of(data)
        number = find_number(lookup_of(table), base + start, size, base + np.uint64(len(data)))
        if number != _ZERO or size == _ZERO:
            return int(number)
    spans[num_spans, 0] = start
    spans[num_spans, 1] = stop
    return int(LONG | num_spans)
