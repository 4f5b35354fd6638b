"""Number the pairs of gap and word that byte-level tokenizers encode as one.

Nearly all gaps are one space, so what is known of a word after one space is kept by word. Others
are found by a hash of their two numbers.

A pre-token of white space looks across the gap when the word before it ends with white space that
is no gap (U+00A0, U+3000, U+000B...). There the pair and the next are one unit, without a number:

    "a\\u00a0 b"    ("", "a\\u00a0") (" ", "b")    one unit "a\\u00a0 b"
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.find_words import LONG, LONG_INDEX, ONE_SPACE
from tokenmill.tokenizer.remembered import grown, long_entry
from tokenmill.tokenizer.word_table import ONE, TableArrays
from tokenmill.tokenizer.words import Words

MAX_PAIRS = 1 << 21
"""A table with so many takes no more: they have no number."""
KEPT_PAIRS = 1 << 20
"""Arrays for so many pairs are kept from batch to batch."""
GLUES = 1 << 30
"""Set in the number of a pair whose word ends with white space."""
_MIX_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_GAP_SHIFT = np.uint64(32)


class PairArrays(NamedTuple):
    """The table as compiled code sees it. Number 0 is no pair."""

    after_space: NDArray[np.uint32]
    """By word: the number of its pair with one space, 0 where it has none."""
    keys: NDArray[np.uint64]
    """(power of two,) the gap and the word of another pair."""
    numbers: NDArray[np.uint32]
    """(power of two,) its number, 0 where the place is free."""
    gaps: NDArray[np.uint32]
    """(capacity,) the gap of each pair."""
    words: NDArray[np.uint32]
    """(capacity,) the word of each pair."""
    ends_in_space: NDArray[np.bool_]
    """By word: whether it ends with white space."""
    length: NDArray[np.int64]
    """(1,) how many pairs the table holds, number 0 included."""


class FoundPairs(NamedTuple):
    """The pairs of a batch, until the next one is looked up."""

    entries: NDArray[np.uint64]
    """(n,) the entry (remembered.py) of each pair, 0 where it was not known by its word."""
    others: NDArray[np.uint32]
    """(k,) which pairs that are."""
    numbers: NDArray[np.uint32]
    """(k,) their numbers, with GLUES, or LONG where a pair has none."""


class PairTable:
    """Distinct pairs of a gap and a word, in the order in which they came."""

    def __init__(self) -> None:
        small = np.zeros(1 << 12, np.uint32)
        self.arrays = PairArrays(
            small, np.zeros(1 << 12, np.uint64), small.copy(), small.copy(), small.copy(),
            np.zeros(0, np.bool_), np.ones(1, np.int64),
        )  # fmt: skip
        self.after_space = np.zeros(1 << 12, np.uint64)
        """By word: the entry of its pair with one space, 0 where it is not known or glues."""

        self._entries = np.empty(KEPT_PAIRS, np.uint64)
        self._others = np.empty(KEPT_PAIRS, np.uint32)

    def __len__(self) -> int:
        return int(self.arrays.length[0])

    def pairs(self, first: int, count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """The gaps and the words of so many pairs, at most, from this number on."""
        stop = min(first + count, len(self))
        return self.arrays.gaps[first:stop], self.arrays.words[first:stop]

    def find(self, words: Words, max_pairs: int = MAX_PAIRS) -> FoundPairs:
        """The pairs of a batch, of which new ones get numbers."""
        self._note_words(words)
        entries, others = self._room(len(words.word_ids))
        count = _find_known(words.gap_ids, words.word_ids, self.after_space, entries, others)
        others = others[:count]
        numbers = np.empty(count, np.uint32)
        at = 0
        while True:
            at = _number(words.gap_ids, words.word_ids, others, numbers, at, self.arrays, max_pairs)
            if at == count:
                return FoundPairs(entries, others, numbers)
            self._grow()

    def note(self, first: int, entries: NDArray[np.uint64]) -> None:
        """Keep by word what is known now of the pairs from a number on: their entries."""
        _note(self.arrays, self.after_space, first, entries)

    def fill(
        self, words: Words, found: FoundPairs, of_pair: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Write the missing entries.

        Args:
            of_pair: the entry of each pair.

        Returns:
            (long units,) the first pair of each unit without a number, and the pair after its last.
        """
        starts = np.empty(len(found.others), np.int64)
        ends = np.empty(len(found.others), np.int64)
        count = _fill(
            words.word_ids, words.ends, words.data, words.long_words, self.arrays.ends_in_space,
            found, of_pair, starts, ends,
        )  # fmt: skip
        return starts[:count], ends[:count]

    def _room(self, size: int) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """Arrays of this size; small ones are used again, so that they stay in the cache."""
        if size > KEPT_PAIRS:
            return np.empty(size, np.uint64), np.empty(size, np.uint32)
        return self._entries[:size], self._others[:size]

    def _note_words(self, words: Words) -> None:
        known, wanted = len(self.arrays.ends_in_space), len(words.words)
        if wanted == known:
            return
        noted = np.empty(wanted, np.bool_)
        noted[:known] = self.arrays.ends_in_space
        _note_ends(words.words.arrays, noted, known)
        after_space = grown(self.arrays.after_space, wanted)
        self.after_space = grown(self.after_space, wanted)
        self.arrays = self.arrays._replace(after_space=after_space, ends_in_space=noted)

    def _grow(self) -> None:
        _, keys, numbers, gaps, words, _, _ = self.arrays
        wider = np.zeros(2 * len(keys), np.uint64), np.zeros(2 * len(keys), np.uint32)
        _move(*wider, keys, numbers)
        self.arrays = self.arrays._replace(
            keys=wider[0], numbers=wider[1],
            gaps=grown(gaps, 2 * len(gaps)), words=grown(words, 2 * len(words)),
        )  # fmt: skip


@compiled
def _find_known(
    gap_ids: NDArray[np.uint32],
    word_ids: NDArray[np.uint32],
    after_space: NDArray[np.uint64],
    entries: NDArray[np.uint64],
    others: NDArray[np.uint32],
) -> int:
    """Write what is known by word; the pairs that are not, and how many."""
    count = np.uint64(0)
    for pair in range(np.uint64(len(word_ids))):
        is_known = (gap_ids[pair] == ONE_SPACE) & (word_ids[pair] < LONG)
        entry = after_space[np.uint64(word_ids[pair]) if is_known else np.uint64(0)]
        entry = entry if is_known else np.uint64(0)
        entries[pair] = entry
        others[count] = pair
        count += np.uint64(entry == 0)
    return int(count)


@compiled
def _number(
    gap_ids: NDArray[np.uint32],
    word_ids: NDArray[np.uint32],
    pairs: NDArray[np.uint32],
    found: NDArray[np.uint32],
    first: int,
    table: PairArrays,
    max_pairs: int,
) -> int:
    """Number pairs from the first on; where it stopped because the table is half full."""
    after_space, keys, numbers, pair_gaps, pair_words, ends_in_space, length = table
    mask = np.uint64(len(keys) - 1)
    for at in range(first, len(pairs)):
        gap, word = gap_ids[pairs[at]], word_ids[pairs[at]]
        if (gap | word) >= LONG:
            found[at] = LONG
            continue
        slot = np.uint64(0)
        key = (np.uint64(gap) << _GAP_SHIFT) | np.uint64(word)
        if gap == ONE_SPACE:
            number = after_space[word]
        else:
            slot = _mix(key) & mask
            while numbers[slot] != 0 and keys[slot] != key:
                slot = (slot + ONE) & mask
            number = numbers[slot]
        if number == 0:
            if length[0] >= max_pairs:
                found[at] = LONG
                continue
            if 2 * length[0] >= len(keys):
                return at
            number = np.uint32(length[0])
            pair_gaps[number] = gap
            pair_words[number] = word
            length[0] += 1
            if gap == ONE_SPACE:
                after_space[word] = number
            else:
                keys[slot] = key
                numbers[slot] = number
        found[at] = (number | np.uint32(GLUES)) if ends_in_space[word] else number
    return len(pairs)


@compiled_inline
def _mix(key: np.uint64) -> np.uint64:
    mixed = key * _MIX_FACTOR
    return mixed ^ (mixed >> _GAP_SHIFT)


@compiled
def _move(
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
def _note(
    table: PairArrays, after_space: NDArray[np.uint64], first: int, entries: NDArray[np.uint64]
) -> None:
    for row in range(len(entries)):
        word = table.words[first + row]
        if table.gaps[first + row] == ONE_SPACE and not table.ends_in_space[word]:
            after_space[word] = entries[row]


@compiled
def _fill(
    word_ids: NDArray[np.uint32],
    ends: NDArray[np.int64],
    data: NDArray[np.uint8],
    long_words: NDArray[np.int64],
    ends_in_space: NDArray[np.bool_],
    found: FoundPairs,
    of_pair: NDArray[np.uint64],
    long_starts: NDArray[np.int64],
    long_ends: NDArray[np.int64],
) -> int:
    """Write the missing entries, and where long units start and end; how many there are."""
    entries, others, numbers = found
    count = 0
    document = 0
    done = 0
    for row in range(len(others)):
        pair = int(np.int64(others[row]))
        if pair < done:  # It belongs to a long unit that began before it.
            continue
        number = numbers[row]
        if number < GLUES:
            entries[pair] = of_pair[number]
            continue
        while ends[document] <= pair:
            document += 1
        done = pair + 1
        while done < ends[document] and _looks_on(
            word_ids[done - 1], ends_in_space, data, long_words
        ):
            done += 1
        if done == pair + 1 and number < LONG:
            entries[pair] = of_pair[number ^ np.uint32(GLUES)]
        else:
            long_starts[count] = pair
            long_ends[count] = done
            entries[pair:done] = 0
            entries[pair] = long_entry(count)
            count += 1
    return count


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
