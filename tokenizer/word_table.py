"""A table of distinct byte strings: each gets the next number when it is first seen.

Open addressing over 64-bit hashes, with the bytes compared whole, so equal numbers mean equal
bytes. The bytes of all strings stand one after another in an arena:

    arena   b"thecatsat"    starts  [0, 0, 3, 6, 9]    number 0 is "", 1 "the", 2 "cat", 3 "sat"

A table only grows; numbers stay valid as long as it lives. What is kept for each word (letters,
hashes, sums) goes by `per_word`, or is extended from the number it has to `len(table)`.
The price is about 40 bytes a word besides its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline

MAX_BYTES = 256
"""The longest word or gap that is remembered. Longer ones hardly ever come again."""

KEY_BYTES = np.uint64(8)
"""A string of so many bytes is its own key: it is found without a look at the arena."""
CHUNK_BITS, BYTE_BITS, ONE = np.uint64(64), np.uint64(8), np.uint64(1)
FOLD_FACTOR = np.uint64(0x9E3779B97F4A7C15)
MIX_FACTOR = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT = np.uint64(29)
_HALF = np.uint64(32)
_LOW_HALF = np.uint64(0xFFFFFFFF)


class TableArrays(NamedTuple):
    """The table as compiled code sees it."""

    slots: NDArray[np.uint64]
    """(power of two, 2) a key; then the string's bytes and its number plus one, 0 where free."""
    hashes: NDArray[np.uint64]
    """(capacity,) the hash of each string."""
    starts: NDArray[np.int64]
    """(capacity + 1,) where each string starts in the arena; it ends where the next starts."""
    arena: NDArray[np.uint8]
    length: NDArray[np.int64]
    """(1,) how many strings the table holds."""


PerWord: TypeAlias = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[Any]]


class WordTable:
    """Distinct byte strings, numbered in the order in which they came; number 0 is b""."""

    def __init__(self, capacity: int = 1 << 12) -> None:
        slots = 1 << (2 * capacity - 1).bit_length()
        self.arrays = TableArrays(
            np.zeros((slots, 2), np.uint64),
            np.zeros(slots // 2, np.uint64),
            np.zeros(slots // 2 + 1, np.int64),
            np.zeros(8 * slots, np.uint8),
            np.zeros(1, np.int64),
        )
        self._per_word: dict[PerWord, NDArray[Any]] = {}
        self.add(b"")

    def __len__(self) -> int:
        return int(self.arrays.length[0])

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """(len,) a 64-bit hash of each string, the same in every process and run."""
        return self.arrays.hashes[: len(self)]

    @property
    def starts(self) -> NDArray[np.int64]:
        """(len + 1,) where each string starts in `arena`."""
        return self.arrays.starts[: len(self) + 1]

    @property
    def arena(self) -> NDArray[np.uint8]:
        """The bytes of all strings, one after another."""
        return self.arrays.arena[: self.starts[-1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(len,) bytes in each string."""
        return np.diff(self.starts)

    def __getitem__(self, number: int) -> bytes:
        if not 0 <= number < len(self):
            raise IndexError(number)
        start, stop = self.starts[number : number + 2]
        return self.arena[start:stop].tobytes()

    def texts(self, numbers: NDArray[np.int64]) -> list[str]:
        """Strings that are UTF-8, many at once."""
        if not len(numbers):
            return []
        first = int(self.starts[numbers.min()])
        data = self.arena[first : self.starts[numbers.max() + 1]].tobytes()
        starts = (self.starts[numbers] - first).tolist()
        ends = (self.starts[numbers + 1] - first).tolist()
        return [data[start:end].decode() for start, end in zip(starts, ends, strict=True)]

    def add(self, word: bytes) -> int:
        """The number of one string, for callers that have a few."""
        self.make_room(1, len(word))
        return int(_intern_one(self.arrays, np.frombuffer(word, np.uint8)))

    def per_word(self, compute: PerWord) -> NDArray[Any]:
        """What a function gives for each string, which it is asked for once.

        Args:
            compute: from an arena and (n + 1,) where strings start in it, to an array of n rows.
        """
        known = self._per_word.get(compute)
        if known is None or len(known) < len(self):
            first = 0 if known is None else len(known)
            new = compute(self.arena, self.starts[first:])
            known = new if known is None else np.concatenate([known, new])
            self._per_word[compute] = known
        return known

    def make_room(self, words: int, num_bytes: int) -> None:
        """Grow, so that so many more strings of so many bytes together fit."""
        slots, hashes, starts, arena, length = self.arrays
        words += len(self)
        num_bytes += int(starts[len(self)])
        if words > len(hashes):
            wanted = 1 << (words - 1).bit_length()
            hashes = _grown(hashes, wanted)
            starts = _grown(starts, wanted + 1)
            old, slots = slots, np.zeros((2 * wanted, 2), np.uint64)
            _move_slots(slots, old)
        if num_bytes > len(arena):
            arena = _grown(arena, 1 << (num_bytes - 1).bit_length())
        self.arrays = TableArrays(slots, hashes, starts, arena, length)


Array = TypeVar("Array", bound=np.generic)


def _grown(array: NDArray[Array], length: int) -> NDArray[Array]:
    new = np.zeros(length, array.dtype)
    new[: len(array)] = array
    return new


@compiled_inline
def mix(key: np.uint64, size: np.uint64) -> np.uint64:
    """The 64-bit hash of a string with this key (MurmurHash3's last step)."""
    value = (key ^ size) * FOLD_FACTOR
    value = (value ^ (value >> _SHIFT)) * MIX_FACTOR
    return value ^ (value >> _SHIFT)


@compiled_inline
def fold(key: np.uint64, chunk: np.uint64) -> np.uint64:
    """The key of a string so far, with its next eight bytes."""
    value = (key ^ chunk) * FOLD_FACTOR
    return value ^ (value >> _SHIFT)


@compiled_inline
def key_of(data: NDArray[np.uint8], start: np.uint64, stop: np.uint64) -> np.uint64:
    """Eight bytes or fewer as they are, the last one uppermost; more of them folded."""
    key = chunk = np.uint64(0)
    shift = np.uint64(0)
    at = start
    while at < stop:
        if shift == CHUNK_BITS:
            key = fold(key, chunk)
            chunk = shift = np.uint64(0)
        chunk |= np.uint64(data[at]) << shift
        shift += BYTE_BITS
        at += ONE
    return fold(key, chunk) if stop - start > KEY_BYTES else chunk


@compiled_inline
def intern(
    table: TableArrays,
    data: NDArray[np.uint8],
    start: np.uint64,
    size: np.uint64,
    key: np.uint64,
) -> np.uint64:
    """The number of the `size` bytes from `start`, whose key is `key`.

    There must be room for it: a caller in compiled code compares `length` and `starts` with limits
    that it reads before its loop (a look through the tuple in the loop costs more than the search).
    """
    slots, hashes, starts, arena, length = table
    mask = np.uint64(len(slots) - 1)
    value = mix(key, size)
    slot = value & mask
    while slots[slot, 1] != 0:
        if slots[slot, 0] == key and slots[slot, 1] >> _HALF == size:
            number: np.uint64 = (slots[slot, 1] & _LOW_HALF) - ONE
            if size <= KEY_BYTES:
                return number
            begin = np.uint64(starts[number])
            at = np.uint64(0)
            while at < size and arena[begin + at] == data[start + at]:
                at += ONE
            if at == size:
                return number
        slot = (slot + ONE) & mask
    number = np.uint64(length[0])
    begin = np.uint64(starts[number])
    at = np.uint64(0)
    while at < size:
        arena[begin + at] = data[start + at]
        at += ONE
    hashes[number] = value
    starts[number + ONE] = begin + size
    slots[slot, 0] = key
    slots[slot, 1] = (size << _HALF) | (number + ONE)
    length[0] = number + ONE
    return number


@compiled
def _intern_one(table: TableArrays, data: NDArray[np.uint8]) -> np.uint64:
    size = np.uint64(len(data))
    return intern(table, data, np.uint64(0), size, key_of(data, np.uint64(0), size))


@compiled
def _move_slots(slots: NDArray[np.uint64], old: NDArray[np.uint64]) -> None:
    mask = np.uint64(len(slots) - 1)
    for row in range(len(old)):
        if old[row, 1] != 0:
            slot = mix(old[row, 0], old[row, 1] >> _HALF) & mask
            while slots[slot, 1] != 0:
                slot = (slot + ONE) & mask
            slots[slot, 0] = old[row, 0]
            slots[slot, 1] = old[row, 1]
