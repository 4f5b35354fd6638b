"""Many strings into a table at once, whatever their length."""

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled
from tokenmill.tokenizer.word_table import TableArrays, WordTable, intern, key_of

ROOM = 1 << 10
"""The fewest strings that a full table gets room for."""
ROOM_BYTES = 1 << 14


def intern_spans(
    table: WordTable,
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> NDArray[np.uint32]:
    """(n,) the number of each string in the table, which takes up those that are new.

    Args:
        starts: (n,) where each string starts in `data`.
        stops: (n,) where it ends.
    """
    numbers = np.empty(len(starts), np.uint32)
    done = _intern_spans(table.arrays, data, starts, stops, numbers, 0)
    while done < len(starts):
        num_bytes = max(len(table.arena), int(stops[done] - starts[done]), ROOM_BYTES)
        table.make_room(max(len(table), ROOM), num_bytes)
        done = _intern_spans(table.arrays, data, starts, stops, numbers, done)
    return numbers


@compiled
def _intern_spans(
    table: TableArrays,
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    numbers: NDArray[np.uint32],
    first: int,
) -> int:
    """Number the strings from the first on; where it stopped because the table is full."""
    length, table_starts = table.length, table.starts
    limit, arena_limit = len(table.hashes), len(table.arena)
    for row in range(first, len(starts)):
        start, stop = np.uint64(starts[row]), np.uint64(stops[row])
        size = stop - start
        if length[0] == limit or table_starts[length[0]] + np.int64(size) > arena_limit:
            return row
        numbers[row] = np.uint32(intern(table, data, start, size, key_of(data, start, stop)))
    return len(starts)
