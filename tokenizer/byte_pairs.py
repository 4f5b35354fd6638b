"""Byte-level BPE for pieces that need no normalizer and no pre-tokenizer any more.

Of all pairs of neighbours that the vocabulary merges, the one of lowest rank goes first, the
leftmost of these; until none is left:

    t h e   ->   th e   ->   the

As models/bpe/word.rs of `tokenizers` does it, at a twentieth of the time of a call.

A long piece (a text without spaces or punctuation) is first cut where no token reaches across, of
which each two or three neighbouring bytes tell a part: a token of two bytes is these two, a longer
one holds three of them. What still is long, because it repeats itself, is merged rank by rank, all
pairs of a rank in one pass. This takes merges whose parts come before them, as trainers make them.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.instructions import address_of, load
from tokenmill.tokenizer.word_table import ONE

Answers = tuple[NDArray[np.uint32], NDArray[np.int64]]
"""Token ids of all pieces one after another, and (pieces,) how many each has."""

LONG_PIECE = 256
"""Bytes of a piece that is merged pair by pair, in time that grows with their square."""
_MIX_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_ZERO, _WIDTH, _HALF = np.uint64(0), np.uint64(8), np.uint64(32)


class Merges(NamedTuple):
    """The merges of a model, and where its tokens can be."""

    letters: NDArray[np.uint32]
    """(256,) the token of each byte."""
    pairs: NDArray[np.uint64]
    """(power of two,) the two tokens of a merge in one number."""
    results: NDArray[np.uint64]
    """(power of two,) the rank plus one of that merge, then the token; 0 where there is none."""
    two_bytes: NDArray[np.bool_]
    """(1 << 16,) which two bytes are a token."""
    three_bytes: NDArray[np.uint8]
    """(1 << 21,) a bit for each three bytes: whether a token holds them."""


class BytePairs:
    """The model of a tokenizer.json."""

    max_characters = 1 << 62
    """A piece is never too long."""

    def __init__(self, model: dict[str, Any], letters: list[str]) -> None:
        """
        Args:
            model: its settings.
            letters: by which each of the 256 bytes is written.
        """
        vocabulary: dict[str, int] = model["vocab"]
        merges = {(first, second): rank for rank, (first, second) in enumerate(model["merges"])}
        rows = [
            (vocabulary[first], vocabulary[second], rank, vocabulary[first + second])
            for (first, second), rank in merges.items()
        ]
        table = np.array(rows, np.uint64).reshape(-1, 4)
        slots = 1 << (2 * len(rows)).bit_length()
        pairs, results = np.zeros(slots, np.uint64), np.zeros(slots, np.uint64)
        _fill(pairs, results, table)
        ids = np.array([vocabulary.get(letter, 0) for letter in letters], np.uint32)
        self._merges = Merges(ids, pairs, results, *_neighbours(vocabulary, letters))

    def encode(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> Answers:
        """The tokens of pieces, (pieces,) where each starts and ends in the data."""
        ids = np.empty((ends - starts).sum(), np.uint32)
        counts = np.empty(len(starts), np.int64)
        size = _encode(data, starts, ends, self._merges, ids, counts)
        return ids[:size], counts


def _neighbours(
    vocabulary: dict[str, int], letters: list[str]
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    byte_of = {letter: byte for byte, letter in enumerate(letters)}
    tokens = [
        bytes(map(byte_of.__getitem__, token)) for token in vocabulary if byte_of.keys() >= {*token}
    ]
    data = np.frombuffer(b"".join(tokens), np.uint8).astype(np.int64)
    ends = np.cumsum([len(token) for token in tokens])
    owner = np.repeat(np.arange(len(tokens)), [len(token) for token in tokens])
    two = np.zeros(1 << 16, np.bool_)
    starts_of_two = ends[[len(token) == 2 for token in tokens]] - 2
    two[data[starts_of_two] << 8 | data[starts_of_two + 1]] = True
    three = np.zeros(1 << 24, np.bool_)
    inside = np.flatnonzero(owner[:-2] == owner[2:])
    three[data[inside] << 16 | data[inside + 1] << 8 | data[inside + 2]] = True
    return two, np.packbits(three, bitorder="little")


@compiled
def _fill(
    pairs: NDArray[np.uint64], results: NDArray[np.uint64], table: NDArray[np.uint64]
) -> None:
    mask = np.uint64(len(pairs) - 1)
    for row in range(len(table)):
        pair = table[row, 0] << _HALF | table[row, 1]
        slot = _mix(pair) & mask
        while results[slot] != 0:
            slot = (slot + ONE) & mask
        pairs[slot] = pair
        results[slot] = (table[row, 2] + ONE) << _HALF | table[row, 3]


@compiled_inline
def _mix(pair: np.uint64) -> np.uint64:
    mixed = pair * _MIX_FACTOR
    return mixed ^ (mixed >> _HALF)


class _Lookup(NamedTuple):
    """Where the merges lie: numbers, which cost nothing to hand on."""

    pairs: np.uint64
    results: np.uint64
    mask: np.uint64


@compiled_inline
def _result(merges: _Lookup, first: np.uint32, second: np.uint32) -> np.uint64:
    """The rank plus one, and the token, of two neighbours; 0 if they do not merge."""
    pair = np.uint64(first) << _HALF | np.uint64(second)
    slot = _mix(pair) & merges.mask
    while True:
        result: np.uint64 = load(merges.results + slot * _WIDTH)
        if result == _ZERO or load(merges.pairs + slot * _WIDTH) == pair:
            return result
        slot = (slot + ONE) & merges.mask


@compiled
def _encode(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    merges: Merges,
    ids: NDArray[np.uint32],
    counts: NDArray[np.int64],
) -> int:
    letters, pairs, results = merges.letters, merges.pairs, merges.results
    lookup = _Lookup(address_of(pairs), address_of(results), np.uint64(len(pairs) - 1))
    scratch = np.empty(LONG_PIECE, np.uint64)
    total = 0
    for piece in range(len(starts)):
        begin = total
        at, stop = starts[piece], ends[piece]
        while at < stop:
            end = stop if stop - at <= LONG_PIECE else _end_of_part(data, at, stop, merges)
            size = end - at
            for place in range(size):
                ids[total + place] = letters[data[at + place]]
            if size <= LONG_PIECE:
                total += _merge(ids, total, size, lookup, scratch)
            else:
                total += _merge_by_rank(ids[total : total + size], lookup)
            at = end
        counts[piece] = total - begin
    return total


@compiled
def _end_of_part(data: NDArray[np.uint8], start: int, stop: int, merges: Merges) -> int:
    """The last place of LONG_PIECE bytes, or else the first one, that no token reaches across."""
    for end in range(start + LONG_PIECE, start, -1):
        if _is_apart(data, start, end, stop, merges):
            return end
    for end in range(start + LONG_PIECE + 1, stop):
        if _is_apart(data, start, end, stop, merges):
            return end
    return stop


@compiled
def _is_apart(data: NDArray[np.uint8], start: int, at: int, stop: int, merges: Merges) -> bool:
    """Whether no token of data[start:stop] can hold both data[at - 1] and data[at]."""
    left, right = int(np.int64(data[at - 1])), int(np.int64(data[at]))
    if merges.two_bytes[left << 8 | right]:
        return False
    if at - 2 >= start and _holds(merges, int(np.int64(data[at - 2])), left, right):
        return False
    return not (at + 1 < stop and _holds(merges, left, right, int(np.int64(data[at + 1]))))


@compiled_inline
def _holds(merges: Merges, first: int, second: int, third: int) -> bool:
    place = first << 16 | second << 8 | third
    return bool(merges.three_bytes[place >> 3] >> (place & 7) & 1)


@compiled_inline
def _merge(
    ids: NDArray[np.uint32], start: int, size: int, merges: _Lookup, scratch: NDArray[np.uint64]
) -> int:
    """Merge ids[start : start + size] in place, pair by pair; how many are left."""
    for place in range(size - 1):
        scratch[place] = _result(merges, ids[start + place], ids[start + place + 1])
    while size > 1:
        best = 0
        for place in range(1, size - 1):
            if scratch[place] - ONE < scratch[best] - ONE:  # 0 becomes the largest of all.
                best = place
        if scratch[best] == 0:
            break
        ids[start + best] = np.uint32(scratch[best])
        size -= 1
        for place in range(best + 1, size):
            ids[start + place] = ids[start + place + 1]
            scratch[place - 1] = scratch[place]
        if best > 0:
            scratch[best - 1] = _result(merges, ids[start + best - 1], ids[start + best])
        if best < size - 1:
            scratch[best] = _result(merges, ids[start + best], ids[start + best + 1])
    return size


@compiled
def _merge_by_rank(ids: NDArray[np.uint32], merges: _Lookup) -> int:
    """As `_merge`, all pairs of the lowest rank in each pass."""
    size = len(ids)
    while True:
        best = _ZERO
        for place in range(size - 1):
            result = _result(merges, ids[place], ids[place + 1])
            if result - ONE < best - ONE:
                best = result
        if best == _ZERO:
            return size
        place = kept = 0
        while place < size:
            if place + 1 < size and _result(merges, ids[place], ids[place + 1]) == best:
                ids[kept] = np.uint32(best)
                place += 2
            else:
                ids[kept] = ids[place]
                place += 1
            kept += 1
        size = kept
