"""A table of distinct byte strings: each gets the next number when it is first seen.

The bytes of all strings stand one after another in an arena:

    arena   b"thecatsat"    starts  [0, 0, 3, 6, 9]    number 0 is "", 1 "the", 2 "cat", 3 "sat"

They are found by open addressing over lines of memory, each with four keys, four sizes and four
numbers, which are compared at once. Up to eight bytes are their own key; of more it is a hash, and
the bytes are compared whole in the arena. So equal numbers mean equal bytes.

A table only grows; numbers stay valid as long as it lives. What is kept for each word (letters,
hashes, sums) goes by `per_word`, or is extended from the number it has to `len(table)`.
The price is 42 to 68 bytes a word besides its own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.instructions import (
    address_of,
    equal_4_halves,
    equal_4_words,
    load,
    load_bytes,
    load_half,
    lowest_bit,
    prefetch,
    store,
    store_half,
)

MAX_BYTES = 256
"""The longest word or gap that is remembered. Longer ones hardly ever come again."""

KEY_BYTES = np.uint64(8)
"""A string of so many bytes is its own key: it is found without a look at the arena."""
NOTHING, ONE, BYTE_BITS, TWO_KEYS = np.uint64(0), np.uint64(1), np.uint64(8), np.uint64(16)
LINE_BYTES, HALF_BYTES = np.uint64(64), np.uint64(4)
SIZES, LAST_SIZE, NUMBERS = np.uint64(32), np.uint64(44), np.uint64(48)
"""Where the sizes of a line begin, the last one of them, and the numbers, in bytes."""
FACTOR = np.uint64(0x9E3779B97F4A7C15)
MIX_FACTOR = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT, _HALF = np.uint64(29), np.uint64(32)
_AHEAD = 32
"""Strings whose lines are fetched before they are filled."""


class TableArrays(NamedTuple):
    """The table as compiled code sees it."""

    lines: NDArray[np.uint64]
    """(power of two, 8), each row a line of memory: four keys; four halves with the sizes plus one,
    0 where a lane is free; four halves with the numbers."""
    hashes: NDArray[np.uint64]
    """(capacity,) the hash of each string."""
    starts: NDArray[np.int64]
    """(capacity + 1,) where each string starts in the arena; it ends where the next starts."""
    arena: NDArray[np.uint8]
    length: NDArray[np.int64]
    """(1,) how many strings the table holds."""
    heads: NDArray[np.uint64]
    """(capacity,) the first eight bytes of each string of more."""


PerWord: TypeAlias = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[Any]]


class WordTable:
    """Distinct byte strings, numbered in the order in which they came; number 0 is b""."""

    def __init__(self, capacity: int = 1 << 12) -> None:
        lines = _num_lines(capacity)
        capacity = _capacity(lines)
        self.arrays = TableArrays(
            _free_lines(lines),
            np.zeros(capacity, np.uint64),
            np.zeros(capacity + 1, np.int64),
            np.zeros(16 * capacity, np.uint8),
            np.zeros(1, np.int64),
            np.zeros(capacity, np.uint64),
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
        return int(self.add_all([word])[0])

    def add_all(self, words: Sequence[bytes]) -> NDArray[np.int64]:
        """The numbers of many strings."""
        data = np.frombuffer(b"".join(words), np.uint8)
        ends = np.cumsum([len(word) for word in words], dtype=np.int64)
        self.make_room(len(words), len(data))
        numbers = np.empty(len(words), np.int64)
        _intern_all(self.arrays, data, ends, numbers)
        return numbers

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
        lines, hashes, starts, arena, length, heads = self.arrays
        words += len(self)
        num_bytes += int(starts[len(self)])
        if words > len(hashes):
            lines = _free_lines(_num_lines(words))
            hashes = _grown(hashes, _capacity(len(lines)))
            heads = _grown(heads, _capacity(len(lines)))
            starts = _grown(starts, _capacity(len(lines)) + 1)
            _fill_lines(lines, hashes, starts, arena, len(self))
        if num_bytes > len(arena):
            arena = _grown(arena, 1 << (num_bytes - 1).bit_length())
        self.arrays = TableArrays(lines, hashes, starts, arena, length, heads)


def _num_lines(capacity: int) -> int:
    """How many lines hold so many strings, five in two of them: few are ever full then."""
    return 1 << (-(-2 * capacity // 5) - 1).bit_length()


def _capacity(lines: int) -> int:
    return 5 * lines // 2


def _free_lines(lines: int) -> NDArray[np.uint64]:
    """Lines that begin where lines of memory do."""
    padded = np.zeros(8 * lines + 8, np.uint64)
    first = -padded.ctypes.data % 64 // 8
    return padded[first : first + 8 * lines].reshape(lines, 8)


Array = TypeVar("Array", bound=np.generic)


def _grown(array: NDArray[Array], length: int) -> NDArray[Array]:
    new = np.zeros(length, array.dtype)
    new[: len(array)] = array
    return new


class Lookup(NamedTuple):
    """Where a table's arrays lie: numbers, which cost nothing to hand on. The table must not grow
    while it is in use."""

    lines: np.uint64
    mask: np.uint64
    starts: np.uint64
    arena: np.uint64
    heads: np.uint64


@compiled_inline
def mix(key: np.uint64, size: np.uint64) -> np.uint64:
    """The 64-bit hash of a string with this key (MurmurHash3's last step)."""
    value = (key ^ size) * FACTOR
    value = (value ^ (value >> _SHIFT)) * MIX_FACTOR
    return value ^ (value >> _HALF)


@compiled_inline
def fold(key: np.uint64, chunk: np.uint64) -> np.uint64:
    """The key of a string so far, with its next eight bytes."""
    value = (key ^ chunk) * FACTOR
    return value ^ (value >> _SHIFT)


@compiled_inline
def key_at(address: np.uint64, size: np.uint64, end: np.uint64) -> np.uint64:
    """The key of the bytes at an address, in an array that ends at `end`: eight or fewer as they
    are, the last one uppermost, more of them folded."""
    return load_bytes(address, size, end) if size <= KEY_BYTES else _fold_all(address, size)


@compiled_inline
def _fold_all(address: np.uint64, size: np.uint64) -> np.uint64:
    key = NOTHING
    while size > KEY_BYTES:
        key = fold(key, load(address))
        address += KEY_BYTES
        size -= KEY_BYTES
    # The last bytes are the upper ones of the last eight.
    return fold(key, load(address + size - KEY_BYTES) >> (BYTE_BITS * (KEY_BYTES - size)))


@compiled_inline
def key_of(data: NDArray[np.uint8], start: np.uint64, stop: np.uint64) -> np.uint64:
    """The key of data[start:stop]."""
    address = address_of(data)
    return key_at(address + start, stop - start, address + np.uint64(len(data)))


@compiled_inline
def same_bytes(first: np.uint64, second: np.uint64, size: np.uint64) -> bool:
    """Whether two addresses hold the same bytes, eight of them or more."""
    last = first + size - KEY_BYTES
    while first < last:
        if load(first) != load(second):
            return False
        first += KEY_BYTES
        second += KEY_BYTES
    # Some of the last eight bytes may have been compared before.
    return bool(load(last) == load(second + last - first))


@compiled_inline
def lookup_of(table: TableArrays) -> Lookup:
    """The lookup of a table as it is now."""
    return Lookup(
        address_of(table.lines),
        np.uint64(len(table.lines) - 1),
        address_of(table.starts),
        address_of(table.arena),
        address_of(table.heads),
    )


@compiled_inline
def line_of(lookup: Lookup, hash_: np.uint64) -> np.uint64:
    """The address of the line where a string of this hash stands, if it is not full."""
    return lookup.lines + (hash_ & lookup.mask) * LINE_BYTES


@compiled_inline
def next_line(lookup: Lookup, line: np.uint64) -> np.uint64:
    """The address of the line after a full one."""
    return lookup.lines + ((line - lookup.lines + LINE_BYTES) & (lookup.mask * LINE_BYTES))


@compiled_inline
def lanes_of(line: np.uint64, key: np.uint64, size: np.uint64) -> np.uint64:
    """A bit for each of the four lanes of a line that holds a string of this key and size."""
    lanes: np.uint64 = equal_4_words(line, key) & equal_4_halves(line + SIZES, size + ONE)
    return lanes


@compiled_inline
def is_full(line: np.uint64) -> bool:
    """Whether a line has no free lane."""
    return bool(load_half(line + LAST_SIZE) != NOTHING)


@compiled_inline
def number_in(line: np.uint64, lanes: np.uint64) -> np.uint64:
    """The number in the first of some lanes."""
    number: np.uint64 = load_half(line + NUMBERS + HALF_BYTES * lowest_bit(lanes))
    return number


@compiled_inline
def is_string(lookup: Lookup, number: np.uint64, address: np.uint64, size: np.uint64) -> bool:
    """Whether a string of the same key and size is that of the bytes at an address, more than
    eight of them."""
    if load(lookup.heads + number * KEY_BYTES) != load(address):
        return False
    # Up to 16 bytes the key and the first eight leave no choice.
    if size <= TWO_KEYS:
        return True
    return same_bytes(lookup.arena + load(lookup.starts + number * KEY_BYTES), address, size)


@compiled_inline
def find_number(lookup: Lookup, address: np.uint64, size: np.uint64, end: np.uint64) -> np.uint64:
    """The number of the bytes at an address, in an array that ends at `end`; 0, which is b"", if
    the table has none."""
    key = key_at(address, size, end)
    line = line_of(lookup, mix(key, size))
    while True:
        lanes = lanes_of(line, key, size)
        while lanes != NOTHING:
            number = number_in(line, lanes)
            if size <= KEY_BYTES or is_string(lookup, number, address, size):
                return number
            lanes &= lanes - ONE
        if not is_full(line):
            return NOTHING
        line = next_line(lookup, line)


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
    address = address_of(data)
    lookup = lookup_of(table)
    number = find_number(lookup, address + start, size, address + np.uint64(len(data)))
    if number != NOTHING:
        return number
    _, hashes, starts, arena, length, heads = table
    if size == NOTHING and length[0] > 0:
        return NOTHING
    number = np.uint64(length[0])
    begin = np.uint64(starts[number])
    for at in range(size):
        arena[begin + at] = data[start + at]
    hashes[number] = mix(key, size)
    starts[number + ONE] = begin + size
    if size > KEY_BYTES:
        heads[number] = load(address + start)
    length[0] = number + ONE
    _fill_lane(lookup, hashes[number], key, size, number)
    return number


@compiled_inline
def _fill_lane(
    lookup: Lookup, hash_: np.uint64, key: np.uint64, size: np.uint64, number: np.uint64
) -> None:
    """Write a string into the first free lane."""
    line = line_of(lookup, hash_)
    while is_full(line):
        line = next_line(lookup, line)
    lane = lowest_bit(equal_4_halves(line + SIZES, NOTHING))
    store(line + lane * KEY_BYTES, key)
    store_half(line + SIZES + lane * HALF_BYTES, size + ONE)
    store_half(line + NUMBERS + lane * HALF_BYTES, number)


@compiled
def _intern_all(
    table: TableArrays,
    data: NDArray[np.uint8],
    ends: NDArray[np.int64],
    numbers: NDArray[np.int64],
) -> None:
    start = NOTHING
    for row in range(len(ends)):
        stop = np.uint64(ends[row])
        numbers[row] = intern(table, data, start, stop - start, key_of(data, start, stop))
        start = stop


@compiled
def _fill_lines(
    lines: NDArray[np.uint64],
    hashes: NDArray[np.uint64],
    starts: NDArray[np.int64],
    arena: NDArray[np.uint8],
    length: int,
) -> None:
    """Write all strings into free lines."""
    base = address_of(arena)
    end = base + np.uint64(len(arena))
    lookup = Lookup(address_of(lines), np.uint64(len(lines) - 1), address_of(starts), base, base)
    for number in range(np.uint64(length)):
        ahead = min(number + np.uint64(_AHEAD), np.uint64(length - 1))
        prefetch(line_of(lookup, hashes[ahead]))
        start = np.uint64(starts[number])
        size = np.uint64(starts[number + ONE]) - start
        key = key_at(base + start, size, end)
        _fill_lane(lookup, hashes[number], key, size, np.uint64(number))
