"""Strings of one document compared by 64-bit hashes, in a table that compiled loops reuse.

Equal hashes are taken for equal strings: among a million lines of one document, the chance that two
different ones agree is one in thirty million.

A set of strings has numbers, from the set's first on, that are above those of all sets before it.
So what earlier sets left in the table counts as free, and nothing is cleared between documents.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.word_table import FACTOR, ONE, fold, mix

NONE = np.uint64(0)
MAX_NUMBER = np.int64(np.iinfo(np.int32).max)
_1, _2, _3, _4, _5, _6, _7, EIGHT = (np.uint64(number) for number in range(1, 9))
_8, _16, _24, _32, _40, _48, _56 = (np.uint64(8 * number) for number in range(1, 8))


class FirstPlaces(NamedTuple):
    """Where in a document each string came first."""

    keys: NDArray[np.uint64]
    """(slots,) hashes."""
    numbers: NDArray[np.int32]
    """(slots,) the first number of a set plus the string's place in it."""
    next_first: NDArray[np.int64]
    """(1,) the first number of the next set."""


@compiled
def first_places(most: int) -> FirstPlaces:
    """A table for sets of up to so many strings."""
    slots = _num_slots(most)
    numbers = np.full(slots, np.int32(-1), np.int32)
    return FirstPlaces(np.empty(slots, np.uint64), numbers, np.zeros(1, np.int64))


@compiled_inline
def new_set(table: FirstPlaces, strings: int) -> tuple[np.uint64, np.int64]:
    """Forget what was; the mask and the first number that `put` takes for so many strings."""
    if table.next_first[0] > MAX_NUMBER - strings:
        table.numbers[:] = -1
        table.next_first[0] = 0
    first = table.next_first[0]
    table.next_first[0] += strings
    return np.uint64(_num_slots(strings) - 1), first


@compiled_inline
def _num_slots(strings: int) -> int:
    slots = 2
    while 3 * slots < 4 * strings:
        slots *= 2
    return slots


@compiled_inline
def put(
    keys: NDArray[np.uint64],
    numbers: NDArray[np.int32],
    mask: np.uint64,
    first: np.int64,
    key: np.uint64,
    place: int,
) -> int:
    """The place at which this key came first: `place` itself if it is new."""
    slot = (key * FACTOR) >> _32 & mask
    while numbers[slot] >= first:
        if keys[slot] == key:
            return int(numbers[slot] - first)
        slot = (slot + ONE) & mask
    keys[slot] = key
    numbers[slot] = first + place
    return place


@compiled_inline
def eight_bytes(data: NDArray[np.uint8], at: np.uint64) -> np.uint64:
    """Eight bytes as a number, the first lowest; the compiler makes it one load."""
    return (
        np.uint64(data[at])
        | np.uint64(data[at + _1]) << _8
        | np.uint64(data[at + _2]) << _16
        | np.uint64(data[at + _3]) << _24
        | np.uint64(data[at + _4]) << _32
        | np.uint64(data[at + _5]) << _40
        | np.uint64(data[at + _6]) << _48
        | np.uint64(data[at + _7]) << _56
    )


@compiled_inline
def write_eight_bytes(data: NDArray[np.uint8], at: np.uint64, value: np.uint64) -> None:
    """Write a number as eight bytes, the lowest first; the compiler makes it one store."""
    data[at] = np.uint8(value)
    data[at + _1] = np.uint8(value >> _8)
    data[at + _2] = np.uint8(value >> _16)
    data[at + _3] = np.uint8(value >> _24)
    data[at + _4] = np.uint8(value >> _32)
    data[at + _5] = np.uint8(value >> _40)
    data[at + _6] = np.uint8(value >> _48)
    data[at + _7] = np.uint8(value >> _56)


@compiled_inline
def hash_bytes(data: NDArray[np.uint8], start: np.uint64, stop: np.uint64) -> np.uint64:
    """The hash of some bytes."""
    key = mix(NONE, stop - start)
    at = start
    while at + EIGHT <= stop:
        key = fold(key, eight_bytes(data, at))
        at += EIGHT
    if at + EIGHT <= np.uint64(len(data)):
        last = eight_bytes(data, at) & ((ONE << (_8 * (stop - at))) - ONE)
    else:
        last = NONE
        while stop > at:
            stop -= ONE
            last = last << _8 | np.uint64(data[stop])
    return fold(key, last)
