"""The two tables of a partition: which anchors stand twice, and where each window stood first.

Both are filled by reading values once in the order of the plan. The first is of two-bit counters
without keys: it may call an anchor common that is not, one in COUNTERS, which costs some windows
that are looked at in vain and never a wrong answer. The second compares all 96 bits.
"""

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled

COUNTERS = 32
"""For each anchor."""
MAX_COUNTERS = 1 << 32
"""What a value of 32 bits can tell apart."""
WINDOW_BYTES = 27
"""Of memory for each window: 18 and a third of the places empty."""

_ONE, _TWO, _THREE = np.uint64(1), np.uint64(2), np.uint64(3)
_HALF = np.uint64(32)
_LOWER = np.uint64(0xFFFFFFFF)


class AnchorTable:
    """Counts anchors up to two."""

    def __init__(self, num_anchors: int, memory_bytes: int) -> None:
        self._size = max(1, min(COUNTERS * num_anchors, 4 * memory_bytes, MAX_COUNTERS))
        self._table = np.zeros(-(-self._size // 4), np.uint8)

    def add(self, anchors: NDArray[np.uint32]) -> None:
        _count(anchors, np.uint64(self._size), self._table)

    def is_common(self, anchors: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """(anchors,) those that were added twice, and a few more."""
        common = np.empty(len(anchors), np.bool_)
        _is_common(anchors, np.uint64(self._size), self._table, common)
        return common


class WindowTable:
    """The first of all windows that have one hash."""

    def __init__(self, num_windows: int) -> None:
        size = num_windows * 3 // 2 + 1
        self._keys = np.empty((size, 2), np.uint64)
        self._groups = np.zeros(size, np.uint16)  # 0: empty

    def find_or_add(
        self, windows: NDArray[np.uint64], group: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
        """(windows,) which were known before, and where each of those stood first.

        Args:
            windows: (windows, 2) 64 bits of the hash; 32 more and the document, counted in the
                group.

        Returns:
            (windows,) true or false; (windows that are true,) group and document, 32 bits each.
        """
        known = np.empty(len(windows), np.bool_)
        places = np.empty(len(windows), np.uint64)
        _find_or_add(windows, np.uint16(group + 1), self._keys, self._groups, known, places)
        return known, places[known]


@compiled
def _count(anchors: NDArray[np.uint32], size: np.uint64, table: NDArray[np.uint8]) -> None:
    for anchor in anchors:
        slot = (np.uint64(anchor) * size) >> _HALF
        shift = (slot & _THREE) * _TWO
        if (np.uint64(table[slot >> _TWO]) >> shift) & _THREE < _TWO:
            table[slot >> _TWO] += np.uint8(_ONE << shift)


@compiled
def _is_common(
    anchors: NDArray[np.uint32],
    size: np.uint64,
    table: NDArray[np.uint8],
    common: NDArray[np.bool_],
) -> None:
    for i in range(len(anchors)):
        slot = (np.uint64(anchors[i]) * size) >> _HALF
        count = np.uint64(table[slot >> _TWO]) >> ((slot & _THREE) * _TWO)
        common[i] = count & _THREE == _TWO


@compiled
def _find_or_add(
    windows: NDArray[np.uint64],
    group: np.uint16,
    keys: NDArray[np.uint64],
    groups: NDArray[np.uint16],
    known: NDArray[np.bool_],
    places: NDArray[np.uint64],
) -> None:
    size = np.uint64(len(groups))
    for i in range(len(windows)):
        low, high = windows[i, 0], windows[i, 1]
        slot = ((high >> _HALF) * size) >> _HALF
        known[i] = False
        while groups[slot] != 0:
            if keys[slot, 0] == low and (keys[slot, 1] ^ high) >> _HALF == 0:
                known[i] = True
                places[i] = np.uint64(groups[slot] - 1) << _HALF | keys[slot, 1] & _LOWER
                break
            slot = slot + _ONE if slot + _ONE < size else np.uint64(0)
        if not known[i]:
            keys[slot, 0], keys[slot, 1], groups[slot] = low, high, group
