"""Pack sequences into rows of a fixed number of tokens, ending each row by an exact sum.

Rows are filled with sequences in the order in which they were dealt, until about three are left
to come. Then the next one dealt is taken with one or two of exactly the length that is left,
wherever in the deal they stand; where there are none, others are tried in the place of the one
dealt. Only when nothing fits exactly is the largest smaller sum taken and the rest padded.

    row_tokens 10, dealt 3 4 2 5 1 5      [3 4 2 1] [5 5]      3 and 4 fill, then 3 left = 2 + 1

Plain best fit leaves 4.9 % padding where a row holds five sequences of 2048 to 4095 tokens; this
leaves next to nothing but the last row, as long as there are some hundred sequences to choose
from. Whether two lengths of a given sum are left is one pass over a byte for each length, so the
time grows with rows x row_tokens, not with the square of the sequences. Which lengths end rows
changes with what is left, so rows are shuffled at the end: the first are a sample like any other.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.deal import deal_order
from tokenmill.shards.ranges import ranges

THIRDS = 16
"""Lengths that are tried in the place of the sequence dealt."""
BLOCK = 128
"""Lengths that are looked at in one go."""


def pack_rows(
    lengths: NDArray[np.int32], row_tokens: int, max_sequences: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which sequences make up each row.

    Args:
        lengths: (sequences,) tokens, 1 to row_tokens, in the order of the deal.
        max_sequences: the most sequences in a row.

    Returns:
        order (sequences,): the sequences row after row; row_ends (rows,): how many come before
        the end of each row.
    """
    assert not len(lengths) or 0 < lengths.min() <= lengths.max() <= row_tokens
    if max_sequences == 1:
        return np.arange(len(lengths)), np.arange(1, len(lengths) + 1)
    order, row_ends = _pack(lengths.astype(np.int32), row_tokens, max_sequences)
    counts = np.diff(row_ends, prepend=0)
    rows = deal_order(np.arange(len(row_ends), dtype=np.uint64), np.zeros(len(row_ends), np.int32))
    return order[ranges((row_ends - counts)[rows], counts[rows])], np.cumsum(counts[rows])


class Pool(NamedTuple):
    """The lengths of the sequences that are in no row yet."""

    num: NDArray[np.int32]
    """(row_tokens + 1,) how many are left of each length."""
    has: NDArray[np.uint8]
    """1 where any is left."""
    mirrored: NDArray[np.uint8]
    """The same backwards: both lengths of a pair with a given sum stand side by side."""
    shortest: int
    longest: int


@numba.njit(cache=True, nogil=True)
def _pack(
    lengths: NDArray[np.int32], row_tokens: int, max_sequences: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    n = len(lengths)
    order = np.empty(n, np.int64)
    row_ends = np.empty(n, np.int64)
    # For each length a queue of its sequences in the order of the deal: head, then next_of.
    head = np.full(row_tokens + 1, -1, np.int32)
    next_of = np.empty(n, np.int32)
    num = np.zeros(row_tokens + 1, np.int32)
    tokens = 0
    for i in range(n - 1, -1, -1):
        next_of[i] = head[lengths[i]]
        head[lengths[i]] = i
        num[lengths[i]] += 1
        tokens += lengths[i]
    has = (num > 0).astype(np.uint8)
    mirrored = has[::-1].copy()
    shortest, longest = 1, row_tokens
    taken = np.zeros(n, np.bool_)
    cursor = placed = row = in_row = 0
    room = row_tokens
    while placed < n:
        while num[longest] == 0:
            longest -= 1
        while num[shortest] == 0:
            shortest += 1
        slots = max_sequences - in_row
        if room < shortest or slots == 0:
            row_ends[row] = placed
            row += 1
            room, in_row = row_tokens, 0
            continue
        while taken[cursor]:
            cursor += 1
        dealt = int(lengths[cursor])
        chosen = (dealt, 0, 0)
        mean = tokens // (n - placed)
        if (room <= 3 * mean or slots <= 3 or dealt > room) and room < slots * longest:
            pool = Pool(num, has, mirrored, shortest, longest)
            turn = 7919 * row + in_row
            exact = _exact_end(pool, room, slots, dealt, turn)
            if exact[0]:
                chosen = exact
            # With room for one more after the one dealt, there is another chance after it.
            elif dealt > room - shortest or slots <= 2 or room <= 2 * mean:
                chosen = _largest_end(pool, room, slots, dealt, turn)
        for length in chosen:
            if length:
                i = head[length]
                head[length] = next_of[i]
                num[length] -= 1
                if num[length] == 0:
                    has[length] = mirrored[row_tokens - length] = 0
                taken[i] = True
                order[placed] = i
                placed += 1
                in_row += 1
                room -= length
                tokens -= length
    if n:
        row_ends[row] = placed
        row += 1
    return order, row_ends[:row]


@numba.njit(cache=True, nogil=True)
def _exact_end(pool: Pool, room: int, slots: int, dealt: int, turn: int) -> tuple[int, int, int]:
    """Up to three lengths with this sum, with the one dealt if that can be; 0 for none."""
    if dealt == room:
        return dealt, 0, 0
    if slots > 1 and dealt + pool.shortest <= room:
        first, second = _two_without(pool, dealt, room - dealt, slots - 1, turn)
        if first:
            return dealt, first, second
    first, second = _two(pool, room, slots, turn)
    if first or slots < 3 or room > 3 * pool.longest:
        return first, second, 0
    for k in range(THIRDS):
        third = _third(pool, turn, k)
        if third + 2 * pool.shortest <= room:
            first, second = _two_without(pool, third, room - third, slots - 1, turn)
            if first:
                return third, first, second
    return 0, 0, 0


@numba.njit(cache=True, nogil=True)
def _largest_end(pool: Pool, room: int, slots: int, dealt: int, turn: int) -> tuple[int, int, int]:
    """Up to three lengths with the largest sum up to room that some tries find; at least one."""
    first, second = _largest_two(pool, room, slots)
    best = (first, second, 0)
    for k in range(-1, THIRDS):
        third = dealt if k < 0 else _third(pool, turn, k)
        if third <= room and slots > 1:
            pool.num[third] -= 1
            pool.has[third] = pool.num[third] > 0
            first, second = _largest_two(pool, room - third, slots - 1)
            pool.num[third] += 1
            pool.has[third] = 1
            if third + first + second > best[0] + best[1] + best[2]:
                best = (third, first, second)
    return best


@numba.njit(cache=True, nogil=True)
def _third(pool: Pool, turn: int, k: int) -> int:
    """A length that is left, another one for each k, begun at another place each turn."""
    span = pool.longest - pool.shortest + 1
    length = pool.shortest + (turn + k * (span // THIRDS + 1)) % span
    while not pool.has[length]:
        length += 1  # the longest is left, at least
    return length


@numba.njit(cache=True, nogil=True)
def _largest_two(pool: Pool, room: int, slots: int) -> tuple[int, int]:
    """One length, or where slots allow two, with the largest sum up to room; 0 for none."""
    high, low = min(room, pool.longest), pool.shortest
    while high > 0 and not pool.has[high]:
        high -= 1
    best = (high, 0)
    while slots > 1 and low <= high:
        if not pool.has[high] or low + high > room:
            high -= 1
        else:
            both = pool.has[low] and (low < high or pool.num[low] > 1)
            if both and low + high > best[0] + best[1]:
                best = (high, low)
            low += 1
    return best


@numba.njit(cache=True, nogil=True)
def _two_without(pool: Pool, spoken_for: int, total: int, slots: int, turn: int) -> tuple[int, int]:
    """_two, with one sequence less of a length."""
    mirror = len(pool.has) - 1 - spoken_for
    pool.num[spoken_for] -= 1
    pool.has[spoken_for] = pool.mirrored[mirror] = pool.num[spoken_for] > 0
    first, second = _two(pool, total, slots, turn)
    pool.num[spoken_for] += 1
    pool.has[spoken_for] = pool.mirrored[mirror] = 1
    return first, second


@numba.njit(cache=True, nogil=True)
def _two(pool: Pool, total: int, slots: int, turn: int) -> tuple[int, int]:
    """One length, or where slots allow two, with this sum; 0 for none."""
    if total <= pool.longest and pool.has[total]:
        return total, 0
    low, high = max(pool.shortest, total - pool.longest), total // 2
    if slots < 2 or low > high:
        return 0, 0
    shift = len(pool.has) - 1 - total
    blocks = (high - low) // BLOCK + 1
    # Begin at another place each time: always taking the most unequal pair would use up the
    # shortest and longest sequences first.
    for k in range(blocks):
        begin = low + (turn + k) % blocks * BLOCK
        end = min(begin + BLOCK, high + 1)
        shorter, longer = pool.has[begin:end], pool.mirrored[shift + begin : shift + end]
        found = np.uint8(0)
        for place in range(len(shorter)):
            found |= shorter[place] & longer[place]
        for place in range(len(shorter) if found else 0):
            length = begin + place
            if shorter[place] & longer[place] and (2 * length < total or pool.num[length] > 1):
                return total - length, length
    return 0, 0
