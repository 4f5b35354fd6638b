"""spaCy's exceptions, strings with tokens of their own, as compiled code finds them in a word.

    can't    ->   ca n't        a whole word, or what is left when signs are cut off
    x-a.     ->   x - a.        where the patterns have cut an exception into pieces: "a" and "."

A table by size and first byte says of most parts of a word that they are none.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.instructions import load_byte
from tokenmill.tokenizer.word_table import NOTHING, Lookup, TableArrays, find_number

MAX_EXCEPTION_BYTES = 32


class Exceptions(NamedTuple):
    """The exceptions as they are looked up; their numbers in the table begin at 1."""

    table: TableArrays
    stops: NDArray[np.int64]
    """The bytes of their exception at which tokens end, one exception after another."""
    ends: NDArray[np.int64]
    """(exceptions,) where the tokens of each end in `stops`."""
    piece_stops: NDArray[np.int64]
    piece_ends: NDArray[np.int64]
    """The same of the pieces that the patterns cut them into, where those are joined again."""
    may_be: NDArray[np.bool_]
    """(33, 256) whether there is one of so many bytes that begins with a byte."""
    may_join: NDArray[np.bool_]
    """(33, 256) whether one has a first piece of so many bytes and a second one that begins so."""


class Scratch(NamedTuple):
    """Room for the code points of one word and one more, for all words of a call."""

    points: NDArray[np.int32]
    offsets: NDArray[np.int32]
    """The byte of the word at which each starts, and where the last one ends."""
    tokens: NDArray[np.int32]
    """The code points at which tokens end."""
    behind: NDArray[np.int32]
    """How many are cut off the end, and the code points at which those end, the last first; then,
    by token, whether an exception has taken it."""
    pieces: NDArray[np.int32]
    """The tokens before exceptions in pieces are joined."""
    lengths: NDArray[np.int64]
    """For each token, a bit for each number of tokens that are an exception in pieces; then, below
    zero, how many are joined there."""


class Place(NamedTuple):
    """A word and what its parts are looked up in, as addresses."""

    word: np.uint64
    end: np.uint64
    """Where the bytes that it stands in end."""
    exceptions: Lookup
    units: Lookup
    may_be: np.uint64


@compiled_inline
def find_exception(place: Place, offsets: NDArray[np.int32], first: int, last: int) -> np.uint64:
    """The number of the exception that a part of the word is, or NOTHING."""
    begins = load_byte(place.word + np.uint64(offsets[first]))
    if not _is_marked(place.may_be, offsets[last] - offsets[first], begins):
        return NOTHING
    return find(place.exceptions, place, offsets, first, last)


@compiled_inline
def _is_marked(marks: np.uint64, size: int, byte: np.uint64) -> bool:
    """Whether a table (33, 256) at an address holds True for a size and a byte."""
    if size > MAX_EXCEPTION_BYTES:
        return False
    return bool(load_byte(marks + (np.uint64(size) << np.uint64(8) | np.uint64(byte))))


@compiled_inline
def find(
    table: Lookup, place: Place, offsets: NDArray[np.int32], first: int, last: int
) -> np.uint64:
    """The number that a part of the word has in a table, or NOTHING."""
    size = np.uint64(offsets[last] - offsets[first])
    return find_number(table, place.word + np.uint64(offsets[first]), size, place.end)


@compiled_inline
def may_join(
    place: Place,
    offsets: NDArray[np.int32],
    tokens: NDArray[np.int32],
    num: int,
    marks: np.uint64,
) -> bool:
    """Whether two tokens may be the first pieces of an exception."""
    start = 0
    for token in range(num - 1):
        stop = offsets[tokens[token]]
        if _is_marked(marks, stop - start, load_byte(place.word + np.uint64(stop))):
            return True
        start = stop
    return False


@compiled
def write_exception(
    exceptions: Exceptions,
    exception: np.uint64,
    offsets: NDArray[np.int32],
    first: int,
    tokens: NDArray[np.int32],
    num: int,
) -> int:
    """Write the ends of the tokens of an exception; how many tokens the word has now."""
    row = np.int64(exception) - 1
    at = first
    for place in range(exceptions.ends[row - 1] if row else 0, exceptions.ends[row]):
        while offsets[at] < offsets[first] + exceptions.stops[place]:
            at += 1
        tokens[num] = at
        num += 1
    return num


@compiled
def join_exceptions(place: Place, exceptions: Exceptions, scratch: Scratch, num: int) -> int:
    """Give exceptions whose pieces follow one another their own tokens; how many there are now.

    Of those that overlap the one of most pieces is taken, and then the first.
    """
    offsets, tokens, pieces, lengths, taken = (
        scratch.offsets, scratch.tokens, scratch.pieces, scratch.lengths, scratch.behind
    )  # fmt: skip
    most = 0
    for token in range(num):
        lengths[token] = taken[token] = 0
        pieces[token] = tokens[token]
        first = tokens[token - 1] if token else 0
        end = token + 1
        while end < num and offsets[tokens[end]] - offsets[first] <= MAX_EXCEPTION_BYTES:
            exception = find_exception(place, offsets, first, tokens[end])
            end += 1
            if exception != NOTHING and _is_in_pieces(
                exceptions, exception, offsets, tokens[token:end], first
            ):
                lengths[token] |= 1 << (end - token)
                most = max(most, end - token)
    for length in range(most, 1, -1):
        for token in range(num - length + 1):
            if lengths[token] > 0 and lengths[token] >> length & 1:
                is_free = not taken[token] and not taken[token + length - 1]
                taken[token : token + length] = 1
                lengths[token] = -length if is_free else lengths[token]
    num_pieces, num, token = num, 0, 0
    while token < num_pieces:
        if lengths[token] < 0:
            first = pieces[token - 1] if token else 0
            token -= lengths[token]
            exception = find_exception(place, offsets, first, pieces[token - 1])
            num = write_exception(exceptions, exception, offsets, first, tokens, num)
        else:
            tokens[num] = pieces[token]
            num += 1
            token += 1
    return num


@compiled_inline
def _is_in_pieces(
    exceptions: Exceptions,
    exception: np.uint64,
    offsets: NDArray[np.int32],
    tokens: NDArray[np.int32],
    first: int,
) -> bool:
    """Whether tokens are the pieces that the patterns cut an exception into."""
    row = np.int64(exception) - 1
    end = exceptions.piece_ends[row]
    if end - (exceptions.piece_ends[row - 1] if row else 0) != len(tokens):
        return False
    for number in range(len(tokens)):
        stop = exceptions.piece_stops[end - len(tokens) + number]
        if offsets[tokens[number]] - offsets[first] != stop:
            return False
    return True
