"""Pack sequences into rows of a fixed number of tokens, ending each row by an exact sum.

Rows are filled with sequences in the order in which they were dealt, until what is left could be
one or two sequences; then two (or one) of exactly that length are taken, wherever in the deal
they stand. Only when no such pair exists is the largest smaller sum taken and the rest padded.

    row_tokens 10, dealt 3 4 2 5 1 5      [3 4 2 1] [5 5]      3 and 4 fill, then 3 left = 2 + 1

Plain best fit leaves 4.9 % padding where a row holds five sequences of 2048 to 4095 tokens; this
leaves next to nothing but the last row, as long as there are some hundred sequences to choose
from. A row costs one scan over the possible lengths for each try, so the time grows with rows x
row_tokens, not with the square of the sequences.
"""

import numba
import numpy as np
from numpy.typing import NDArray

TRIES = 256
"""Sums below the exact one that are tried before a row is padded."""


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
    order, row_of = _pack(lengths.astype(np.int32), row_tokens, max_sequences)
    num_rows = int(row_of[-1]) + 1 if len(row_of) else 0
    return order, np.searchsorted(row_of, np.arange(num_rows), side="right").astype(np.int64)


@numba.njit(cache=True, nogil=True)
def _pack(
    lengths: NDArray[np.int32], row_tokens: int, max_sequences: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    n = len(lengths)
    order = np.empty(n, np.int64)
    row_of = np.empty(n, np.int64)
    # For each length a queue of its sequences in the order of the deal: head, then next_of.
    count = np.zeros(row_tokens + 1, np.int64)
    head = np.full(row_tokens + 1, -1, np.int64)
    next_of = np.empty(n, np.int64)
    for i in range(n - 1, -1, -1):
        next_of[i] = head[lengths[i]]
        head[lengths[i]] = i
        count[lengths[i]] += 1
    longest = row_tokens
    shortest = 1
    taken = np.zeros(n, np.bool_)
    cursor = placed = row = 0
    while placed < n:
        room, in_row = row_tokens, 0
        while placed < n and in_row < max_sequences:
            while count[longest] == 0:
                longest -= 1
            while count[shortest] == 0:
                shortest += 1
            if room < shortest:
                break
            slots, turn = max_sequences - in_row, row + in_row
            first = second = 0
            if room <= 2 * longest or slots <= 2:
                first, second = _best_sum(count, room, shortest, longest, slots > 1, turn)
                if first + second < room and slots > 2 and room > max(longest, 3 * shortest):
                    first = second = 0  # no exact end yet, but room to deal one more before it
            if first == 0:
                while taken[cursor]:
                    cursor += 1
                first = lengths[cursor]
                if first > room:
                    first, second = _best_sum(count, room, shortest, longest, slots > 1, turn)
            for length in (first, second):
                if length:
                    i = head[length]
                    head[length] = next_of[i]
                    count[length] -= 1
                    taken[i] = True
                    order[placed] = i
                    row_of[placed] = row
                    placed += 1
                    in_row += 1
                    room -= length
        row += 1
    return order, row_of


@numba.njit(cache=True, nogil=True)
def _best_sum(
    count: NDArray[np.int64], room: int, shortest: int, longest: int, pairs: bool, turn: int
) -> tuple[int, int]:
    """One length, or where `pairs` allows two, with the largest sum up to `room`."""
    for total in range(room, max(shortest, room - TRIES) - 1, -1):
        if total <= longest and count[total]:
            return total, 0
        low = max(shortest, total - longest)
        num_pairs = total // 2 - low + 1 if pairs else 0
        # Begin at another place each time: always taking the most unequal pair would use up the
        # shortest and longest sequences first.
        for k in range(num_pairs):
            a = low + (k + turn * 7919) % num_pairs
            b = total - a
            if count[a] and count[b] and (a != b or count[a] > 1):
                return b, a
    for total in range(min(room, longest), shortest - 1, -1):
        if count[total]:
            return total, 0
    return 0, 0
