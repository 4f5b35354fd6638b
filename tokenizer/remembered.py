"""The token ids of every unit seen so far, and the gather that turns units into tokens.

A unit has an entry of 64 bits: how many tokens it has, and the tokens themselves if they fit into
what is left, else where they stand in the store:

    the       3 tokens of 16 bits fit, or 1 of 32    | 1 | 1996           |
    cat's                                            | 3 | 4937 1005 1055 |
    Kafka's   10556 24316 1005 1055 in the store     | 4 | 512            |

The entries of a batch's units are looked up first, and then written out: a unit that is not
remembered has one of no tokens and its place among such units.
"""

from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.find_words import LONG, LONG_INDEX
from tokenmill.tokenizer.instructions import address_of, copy_16, store
from tokenmill.tokenizer.word_table import ONE

_COUNT_BITS = np.uint64(16)
_COUNT_MASK = np.uint64((1 << 16) - 1)
_PAYLOAD_BYTES = np.uint64(6)
_CHUNK_BYTES = np.uint64(16)
_BYTE_BITS = np.uint64(8)
SLACK = 8
"""Tokens past its end that the store has room for: they are copied in chunks."""
_ROOM = (1 << 16) + SLACK
"""Tokens past its end that a result has room for while it is written: those of one unit."""
_DOCUMENT, _UNIT, _TOKENS = range(3)

Number = TypeVar("Number", bound=np.generic)
Ids: TypeAlias = NDArray[np.uint16 | np.uint32]
Tokens: TypeAlias = tuple[Ids, NDArray[np.int64]]
"""Token ids of all documents one after another, and (documents,) where each document's end."""


class TokenStore:
    """Token ids of pieces, and of units that are one piece or several."""

    def __init__(self, dtype: type[np.uint16] | type[np.uint32]) -> None:
        self.tokens = np.zeros(1 << 14, dtype)
        self._num_tokens = 0
        self.pieces = np.zeros(1 << 12, np.uint64)
        """By number: the entry of a piece."""
        self.units = np.zeros(1 << 12, np.uint64)
        """By number: the entry of a unit."""
        self.num_units = 0

    def add_pieces(
        self, numbers: NDArray[np.int64], ids: NDArray[np.uint32], counts: NDArray[np.int64]
    ) -> None:
        """The answers for pieces, in the order of these numbers."""
        self.tokens = grown(self.tokens, self._num_tokens + len(ids) + SLACK)
        self.pieces = grown(self.pieces, int(numbers.max(initial=-1)) + 1)
        self._num_tokens = _add_pieces(
            self.tokens, self._num_tokens, self.pieces, numbers, ids, counts
        )

    def add_units(self, pieces: NDArray[np.uint32], ends: NDArray[np.int64]) -> None:
        """The next units, each made of the pieces up to its end."""
        most = int((self.pieces[pieces] & _COUNT_MASK).sum())
        self.tokens = grown(self.tokens, self._num_tokens + most + SLACK)
        self.units = grown(self.units, self.num_units + len(ends))
        entries = self.units[self.num_units : self.num_units + len(ends)]
        self._num_tokens = _add_units(
            self.tokens, self._num_tokens, self.pieces, pieces, ends, entries
        )
        self.num_units += len(ends)

    def write_pieces(self, pieces: NDArray[np.uint32], ends: NDArray[np.int64]) -> Tokens:
        """The tokens of texts made of pieces; see `write`."""
        no_ids, no_ends = np.zeros(0, self.tokens.dtype), np.zeros(0, np.int64)
        return self._write(self.pieces, pieces, ends, (no_ids, no_ends))

    def write_units(
        self, units: NDArray[np.uint32], ends: NDArray[np.int64], long: Tokens
    ) -> Tokens:
        """The tokens of documents of numbered units, or LONG and a place; see `write`."""
        return self._write(self.units, units, ends, long)

    def write(self, entries: NDArray[np.uint64], ends: NDArray[np.int64], long: Tokens) -> Tokens:
        """The tokens of documents.

        Args:
            entries: (n,) the entries of their units; see `long_entry`.
            ends: (documents,) where each document ends in units.
            long: token ids of the long units one after another, and where each ends.

        Returns:
            (tokens,) ids and (documents,) where each document ends in them.
        """
        return self._write(entries, np.zeros(0, np.uint32), ends, long)

    def places(
        self, entries: NDArray[np.uint64], long: Tokens, chosen: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """(k,) the first token of some units, as `write` writes them; `chosen` rises."""
        places = np.empty(len(chosen), np.int64)
        _find_places(entries, np.zeros(0, np.uint32), long[1], chosen, places)
        return places

    def places_of_units(
        self, units: NDArray[np.uint32], long: Tokens, chosen: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The same, as `write_units` writes them."""
        places = np.empty(len(chosen), np.int64)
        _find_places(self.units, units, long[1], chosen, places)
        return places

    def _write(
        self,
        entries: NDArray[np.uint64],
        units: NDArray[np.uint32],
        ends: NDArray[np.int64],
        long: Tokens,
    ) -> Tokens:
        long_ids, long_ends = long
        # Two tokens a unit are enough nearly always. Memory that is not written to costs nothing.
        num_units = int(ends[-1]) if len(ends) else 0
        out = np.empty(2 * num_units + len(long_ids) + _ROOM, self.tokens.dtype)
        token_ends = np.empty(len(ends), np.int64)
        place = np.zeros(3, np.int64)
        while not _write(
            out, token_ends, entries, units, ends, self.tokens, long_ids, long_ends, place
        ):
            out.resize(2 * len(out), refcheck=False)
        out.resize(int(place[_TOKENS]), refcheck=False)
        return out, token_ends


def grown(array: NDArray[Number], length: int) -> NDArray[Number]:
    """The array, or a copy of at least twice its length if it is shorter than asked for."""
    if length <= len(array):
        return array
    new = np.zeros(max(length, 2 * len(array)), array.dtype)
    new[: len(array)] = array
    return new


@compiled
def _add_pieces(
    tokens: NDArray[np.generic],
    num_tokens: int,
    entries: NDArray[np.uint64],
    numbers: NDArray[np.int64],
    ids: NDArray[np.uint32],
    counts: NDArray[np.int64],
) -> int:
    first = 0
    for place in range(len(numbers)):
        count = counts[place]
        tokens[num_tokens : num_tokens + count] = ids[first : first + count]
        first += count
        entry = _entry(tokens, num_tokens, count)
        entries[numbers[place]] = entry
        num_tokens += 0 if _is_inside(entry, tokens.itemsize) else count
    return num_tokens


@compiled
def _add_units(
    tokens: NDArray[np.generic],
    num_tokens: int,
    piece_entries: NDArray[np.uint64],
    pieces: NDArray[np.uint32],
    ends: NDArray[np.int64],
    entries: NDArray[np.uint64],
) -> int:
    width = np.uint64(tokens.itemsize)
    source = address_of(tokens)
    first = 0
    for unit in range(len(ends)):
        if ends[unit] - first == 1:  # It shares the tokens of its piece.
            entries[unit] = piece_entries[pieces[first]]
        else:
            at = begin = source + np.uint64(num_tokens) * width
            for piece in pieces[first : ends[unit]]:
                at = _copy(at, piece_entries[piece], source, width)
            count = int(np.int64((at - begin) // width))
            entries[unit] = _entry(tokens, num_tokens, count)
            num_tokens += 0 if _is_inside(entries[unit], tokens.itemsize) else count
        first = ends[unit]
    return num_tokens


@compiled_inline
def _is_inside(entry: np.uint64, width: int) -> bool:
    """Whether the tokens stand in the entry itself."""
    return bool((entry & _COUNT_MASK) * np.uint64(width) <= _PAYLOAD_BYTES)


@compiled
def _entry(tokens: NDArray[np.generic], start: int, count: int) -> np.uint64:
    """The entry of the tokens that stand in the store from `start` on."""
    entry = np.uint64(count)
    if not _is_inside(entry, tokens.itemsize):
        return entry | np.uint64(start) << _COUNT_BITS
    shift = _COUNT_BITS
    for token in tokens[start : start + count]:
        entry |= np.uint64(token) << shift
        shift += _BYTE_BITS * np.uint64(tokens.itemsize)
    return entry


@compiled_inline
def _copy(at: np.uint64, entry: np.uint64, source: np.uint64, width: np.uint64) -> np.uint64:
    """Write the tokens of an entry at an address, and up to 14 bytes more; where they end."""
    size = (entry & _COUNT_MASK) * width
    payload = entry >> _COUNT_BITS
    if size <= _PAYLOAD_BYTES:
        store(at, payload)
        return at + size
    start = source + payload * width
    done = np.uint64(0)
    while done < size:
        copy_16(at + done, start + done)
        done += _CHUNK_BYTES
    return at + size


@compiled_inline
def long_entry(number: int) -> np.uint64:
    """The entry of a unit that is not remembered: the place of its tokens among such units."""
    return (np.uint64(number) + ONE) << _COUNT_BITS


@compiled
def _write(
    out: NDArray[np.generic],
    token_ends: NDArray[np.int64],
    entries: NDArray[np.uint64],
    units: NDArray[np.uint32],
    ends: NDArray[np.int64],
    tokens: NDArray[np.generic],
    long_ids: NDArray[np.generic],
    long_ends: NDArray[np.int64],
    place: NDArray[np.int64],
) -> bool:
    """Go on from `place`: the next document and unit, and the tokens so far. False: `out` is full.

    With units, the entries are those of their numbers; without, those of the documents.
    """
    width = np.uint64(out.itemsize)
    source, begin = address_of(tokens), address_of(out)
    at = begin + np.uint64(place[_TOKENS]) * width
    last = begin + np.uint64(len(out) - _ROOM) * width
    unit = np.uint64(place[_UNIT])
    for document in range(place[_DOCUMENT], len(ends)):
        end = np.uint64(ends[document])
        while unit < end and at <= last:
            if not len(units):
                entry = entries[unit]
            elif units[unit] < LONG:
                entry = entries[np.uint64(units[unit])]
            else:
                entry = long_entry(units[unit] & np.uint32(LONG_INDEX))
            if entry & _COUNT_MASK or entry == 0:
                at = _copy(at, entry, source, width)
            else:
                number = np.int64(entry >> _COUNT_BITS) - 1
                ids = long_ids[long_ends[number - 1] if number else 0 : long_ends[number]]
                if at + np.uint64(len(ids)) * width > last:
                    break
                for long_id in ids:
                    out[(at - begin) // width] = long_id
                    at += width
            unit += ONE
        place[_TOKENS] = (at - begin) // width
        if unit < end:
            place[_DOCUMENT], place[_UNIT] = document, unit
            return False
        token_ends[document] = place[_TOKENS]
    return True


@compiled
def _find_places(
    entries: NDArray[np.uint64],
    units: NDArray[np.uint32],
    long_ends: NDArray[np.int64],
    chosen: NDArray[np.int64],
    places: NDArray[np.int64],
) -> None:
    """How many tokens come before each of some units; entries and units are as for `_write`."""
    unit = tokens = np.uint64(0)
    for row in range(len(chosen)):
        while unit < np.uint64(chosen[row]):
            if not len(units):
                entry = entries[unit]
            elif units[unit] < LONG:
                entry = entries[np.uint64(units[unit])]
            else:
                entry = long_entry(units[unit] & np.uint32(LONG_INDEX))
            if entry & _COUNT_MASK or entry == 0:
                tokens += entry & _COUNT_MASK
            else:
                number = np.int64(entry >> _COUNT_BITS) - 1
                before = long_ends[number - 1] if number else np.int64(0)
                tokens += np.uint64(long_ends[number] - before)
            unit += ONE
        places[row] = tokens
