"""Number the pairs of gap and word that byte-level tokenizers encode as one.

A pre-token of white space looks across the gap when the word before it ends with white space that
is no gap (U+00A0, U+3000, U+000B...). There the pair and the next are one unit, without a number:

    "a\u00a0 b"    ("", "a\u00a0") (" ", "b")    one unit "a\u00a0 b"
"""

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.word_table import ONE, TableArrays
from tokenmill.tokenizer.words import LONG, LONG_INDEX, ONE_SPACE, Words

GLUES = 1 << 30
"""Set in the number of a unit whose word ends with white space."""
SWALLOWED = 0
"""The number of the empty unit: the pair belongs to a unit that began before it."""
_MIX_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_GAP_SHIFT = np.uint64(32)


class PairTable:
    """Distinct pairs of a gap and a word; number 0 is the empty unit."""

    def __init__(self) -> None:
        self._after_space = np.zeros(1 << 12, np.uint32)
        """By word: the number of its pair with one space, 0 where there is none yet."""
        self._keys = np.zeros(1 << 12, np.uint64)
        self._numbers = np.zeros(1 << 12, np.uint32)
        self._gaps = np.zeros(1 << 12, np.uint32)
        self._words = np.zeros(1 << 12, np.uint32)
        self._ends_in_space = np.zeros(0, np.bool_)
        self._length = np.ones(1, np.int64)

    def __len__(self) -> int:
        return int(self._length[0])

    def pairs(self, first: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """The gaps and the words of all pairs from this number on."""
        return self._gaps[first : len(self)], self._words[first : len(self)]

    def number(self, words: Words) -> NDArray[np.uint32]:
        """(n,) the unit of each pair of a batch.

        A unit that is long or glued stands at its first pair as LONG and its place among them, and
        is SWALLOWED at its other pairs.
        """
        self._note_words(words)
        units = np.empty(len(words.word_ids), np.uint32)
        at = 0
        while at < len(units):
            at = _number_pairs(
                words.gap_ids, words.word_ids, units, at, self._ends_in_space, self._after_space,
                self._keys, self._numbers, self._gaps, self._words, self._length,
            )  # fmt: skip
            if at < len(units):
                self._grow()
        _glue(units, words.ends, words.word_ids, words.data, words.long_words, self._ends_in_space)
        return units

    def _note_words(self, words: Words) -> None:
        known, wanted = len(self._ends_in_space), len(words.words)
        if wanted > len(self._after_space):
            grown = np.zeros(1 << (wanted - 1).bit_length(), np.uint32)
            grown[: len(self._after_space)] = self._after_space
            self._after_space = grown
        if wanted > known:
            noted = np.zeros(wanted, np.bool_)
            noted[:known] = self._ends_in_space
            _note_ends(words.words.arrays, noted, known)
            self._ends_in_space = noted

    def _grow(self) -> None:
        slots = 2 * len(self._keys)
        keys, numbers = np.zeros(slots, np.uint64), np.zeros(slots, np.uint32)
        _fill(keys, numbers, self._keys, self._numbers)
        self._keys, self._numbers = keys, numbers
        self._gaps = np.concatenate([self._gaps, np.zeros_like(self._gaps)])
        self._words = np.concatenate([self._words, np.zeros_like(self._words)])


@compiled
def _number_pairs(
    gap_ids: NDArray[np.uint32],
    word_ids: NDArray[np.uint32],
    units: NDArray[np.uint32],
    first: int,
    ends_in_space: NDArray[np.bool_],
    after_space: NDArray[np.uint32],
    keys: NDArray[np.uint64],
    numbers: NDArray[np.uint32],
    pair_gaps: NDArray[np.uint32],
    pair_words: NDArray[np.uint32],
    length: NDArray[np.int64],
) -> int:
    """Number the pairs from the first on; where it stopped because the table is half full."""
    mask = np.uint64(len(keys) - 1)
    limit = len(keys) // 2
    at = np.uint64(first)
    while at < np.uint64(len(units)):
        gap = gap_ids[at]
        word = word_ids[at]
        if (gap | word) >= LONG:
            units[at] = LONG
            at += ONE
            continue
        unit = np.uint32(0)
        slot = np.uint64(0)
        key = (np.uint64(gap) << _GAP_SHIFT) | np.uint64(word)
        if gap == ONE_SPACE:
            unit = after_space[word]
        else:
            slot = _mix(key) & mask
            while numbers[slot] != 0 and keys[slot] != key:
                slot = (slot + ONE) & mask
            unit = numbers[slot]
        if unit == 0:
            new = np.uint64(length[0])
            if length[0] >= limit:
                break
            pair_gaps[new] = gap
            pair_words[new] = word
            length[0] += 1
            unit = np.uint32(new | np.uint64(GLUES)) if ends_in_space[word] else np.uint32(new)
            if gap == ONE_SPACE:
                after_space[word] = unit
            else:
                keys[slot] = key
                numbers[slot] = unit
        units[at] = unit
        at += ONE
    return int(at)


@compiled_inline
def _mix(key: np.uint64) -> np.uint64:
    mixed = key * _MIX_FACTOR
    return mixed ^ (mixed >> _GAP_SHIFT)


@compiled
def _fill(
    keys: NDArray[np.uint64],
    numbers: NDArray[np.uint32],
    old_keys: NDArray[np.uint64],
    old_numbers: NDArray[np.uint32],
) -> None:
    mask = np.uint64(len(keys) - 1)
    for old in range(len(old_keys)):
        if old_numbers[old] != 0:
            slot = _mix(old_keys[old]) & mask
            while numbers[slot] != 0:
                slot = (slot + ONE) & mask
            keys[slot] = old_keys[old]
            numbers[slot] = old_numbers[old]


@compiled
def _glue(
    units: NDArray[np.uint32],
    ends: NDArray[np.int64],
    word_ids: NDArray[np.uint32],
    data: NDArray[np.uint8],
    long_words: NDArray[np.int64],
    ends_in_space: NDArray[np.bool_],
) -> None:
    """Number what is long or glued, in place."""
    count = 0
    at = 0
    for end in ends:
        while at < end:
            if units[at] < GLUES:
                at += 1
                continue
            last = at
            while last + 1 < end and _looks_on(word_ids[last], ends_in_space, data, long_words):
                last += 1
            if last == at and units[at] < LONG:
                units[at] ^= np.uint32(GLUES)
            else:
                units[at : last + 1] = SWALLOWED
                units[at] = LONG | count
                count += 1
            at = last + 1


@compiled
def _looks_on(
    word: np.uint32,
    ends_in_space: NDArray[np.bool_],
    data: NDArray[np.uint8],
    long_words: NDArray[np.int64],
) -> bool:
    if word < LONG:
        return bool(ends_in_space[word])
    span = word & np.uint32(LONG_INDEX)
    return _ends_in_space(data, long_words[span, 0], long_words[span, 1])


@compiled
def _note_ends(words: TableArrays, ends_in_space: NDArray[np.bool_], first: int) -> None:
    starts = words.starts
    arena = words.arena
    for word in range(first, len(ends_in_space)):
        ends_in_space[word] = _ends_in_space(arena, starts[word], starts[word + 1])


@compiled
def _ends_in_space(data: NDArray[np.uint8], start: int, stop: int) -> bool:
    """Whether data[start:stop] ends with white space of Unicode, or with U+001C to U+001F."""
    if stop == start:
        return False
    last = data[stop - 1]
    if last < 0x80:
        return bool(last == 0x0B or last == 0x0C or (last >= 0x1C and last <= 0x20))
    if stop - start < 2:
        return False
    middle = data[stop - 2]
    if middle == 0xC2:
        return bool(last == 0x85 or last == 0xA0)
    if stop - start < 3:
        return False
    first = data[stop - 3]
    if first == 0xE2 and middle == 0x80:
        return bool(last <= 0x8A or last == 0xA8 or last == 0xA9 or last == 0xAF)
    return bool(
        (first == 0xE1 and middle == 0x9A and last == 0x80)
        or (first == 0xE2 and middle == 0x81 and last == 0x9F)
        or (first == 0xE3 and middle == 0x80 and last == 0x80)
    )
