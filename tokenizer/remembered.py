"""The token ids of every unit seen so far, and the gather that turns units into tokens.

units     [the, cat's, ...]        each a span of the store below
tokens    [1996, 4937, 1005, ...]  a unit of several pieces has its own run, one piece is shared
"""

from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled
from tokenmill.tokenizer.word_table import ONE
from tokenmill.tokenizer.words import LONG, LONG_INDEX

COUNT_BITS = 16
"""A span is where its tokens start, shifted by this, and how many they are."""
_COUNT_BITS = np.uint64(COUNT_BITS)
_COUNT_MASK = np.uint64((1 << COUNT_BITS) - 1)

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
        """By number: where the tokens of a piece are."""
        self.units = np.zeros(1 << 12, np.uint64)
        """By number: where the tokens of a unit are."""
        self.num_units = 0

    def add_pieces(
        self, numbers: NDArray[np.int64], ids: NDArray[np.uint32], counts: NDArray[np.int64]
    ) -> None:
        """The answers for pieces, in the order of these numbers."""
        self.tokens = grown(self.tokens, self._num_tokens + len(ids))
        self.tokens[self._num_tokens : self._num_tokens + len(ids)] = ids
        starts = self._num_tokens + np.cumsum(counts) - counts
        self.pieces = grown(self.pieces, int(numbers.max(initial=-1)) + 1)
        self.pieces[numbers] = (starts << COUNT_BITS) | counts
        self._num_tokens += len(ids)

    def add_units(self, pieces: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        """The next units, each made of the pieces up to its end."""
        most = int((self.pieces[pieces] & _COUNT_MASK).sum())
        self.tokens = grown(self.tokens, self._num_tokens + most)
        self.units = grown(self.units, self.num_units + len(ends))
        spans = self.units[self.num_units : self.num_units + len(ends)]
        self._num_tokens = _concatenate(
            self.tokens, self._num_tokens, self.pieces, pieces, ends, spans
        )
        self.num_units += len(ends)

    def gather_pieces(self, pieces: NDArray[np.int64], ends: NDArray[np.int64]) -> Tokens:
        """The tokens of texts made of pieces; see `gather`."""
        none = np.zeros(0, np.int64)
        return self._gather(self.pieces, pieces.astype(np.uint32), ends, none, none)

    def gather(
        self,
        units: NDArray[np.uint32],
        ends: NDArray[np.int64],
        long_ids: NDArray[np.integer],
        long_ends: NDArray[np.int64],
    ) -> Tokens:
        """The tokens of documents.

        Args:
            units: (n,) numbers of units, or LONG and a place among the long ones.
            ends: (documents,) where each document ends in units.
            long_ids: token ids of the long units one after another.
            long_ends: (long units,) where each ends in them.

        Returns:
            (tokens,) ids and (documents,) where each document ends in them.
        """
        return self._gather(self.units, units, ends, long_ids.astype(np.int64), long_ends)

    def _gather(
        self,
        spans: NDArray[np.uint64],
        units: NDArray[np.uint32],
        ends: NDArray[np.int64],
        long_ids: NDArray[np.int64],
        long_ends: NDArray[np.int64],
    ) -> Tokens:
        token_ends = np.empty(len(ends), np.int64)
        total = _count(units, ends, spans, long_ends, token_ends)
        out = np.empty(total, self.tokens.dtype)
        _fill(out, units, spans, self.tokens, long_ids, long_ends)
        return out, token_ends


def grown(array: NDArray[Number], length: int) -> NDArray[Number]:
    """The array, or a copy of at least twice its length if it is shorter than asked for."""
    if length <= len(array):
        return array
    new = np.zeros(max(length, 2 * len(array)), array.dtype)
    new[: len(array)] = array
    return new


@compiled
def _concatenate(
    tokens: NDArray[np.generic],
    num_tokens: int,
    piece_spans: NDArray[np.uint64],
    pieces: NDArray[np.int64],
    ends: NDArray[np.int64],
    spans: NDArray[np.uint64],
) -> int:
    """Write the tokens of units that are several pieces; a unit of one piece shares its span."""
    first = 0
    for unit in range(len(ends)):
        if ends[unit] - first == 1:
            spans[unit] = piece_spans[pieces[first]]
        else:
            start = num_tokens
            for piece in range(first, ends[unit]):
                span = piece_spans[pieces[piece]]
                begin = np.int64(span >> _COUNT_BITS)
                for token in range(begin, begin + np.int64(span & _COUNT_MASK)):
                    tokens[num_tokens] = tokens[token]
                    num_tokens += 1
            spans[unit] = (np.uint64(start) << _COUNT_BITS) | np.uint64(num_tokens - start)
        first = ends[unit]
    return num_tokens


@compiled
def _count(
    units: NDArray[np.uint32],
    ends: NDArray[np.int64],
    spans: NDArray[np.uint64],
    long_ends: NDArray[np.int64],
    token_ends: NDArray[np.int64],
) -> int:
    total = np.uint64(0)
    at = np.uint64(0)
    for document in range(len(ends)):
        while at < np.uint64(ends[document]):
            unit = units[at]
            if unit < LONG:
                total += spans[np.uint64(unit)] & _COUNT_MASK
            else:
                place = unit & np.uint32(LONG_INDEX)
                total += np.uint64(long_ends[place] - (long_ends[place - 1] if place else 0))
            at += ONE
        token_ends[document] = total
    return int(total)


@compiled
def _fill(
    out: NDArray[np.generic],
    units: NDArray[np.uint32],
    spans: NDArray[np.uint64],
    tokens: NDArray[np.generic],
    long_ids: NDArray[np.int64],
    long_ends: NDArray[np.int64],
) -> None:
    size = np.uint64(0)
    for unit in units:
        if unit < LONG:
            span = spans[np.uint64(unit)]
            token = span >> _COUNT_BITS
            last = token + (span & _COUNT_MASK)
            while token < last:
                out[size] = tokens[token]
                size += ONE
                token += ONE
        else:
            place = unit & np.uint32(LONG_INDEX)
            for at in range(long_ends[place - 1] if place else 0, long_ends[place]):
                out[size] = long_ids[at]
                size += ONE
