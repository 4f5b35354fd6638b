"""Cut words into English words as spaCy's tokenizer does, all of a batch in one compiled loop.

    (GitHub's   ->   ( GitHub 's        off the start, off the end, until nothing comes off
    re-read,    ->   re - read ,        then inside, unless what is left is a web address
    can't       ->   ca n't             an exception, also where only one is left
    x-a.        ->   x - a.             or where the patterns have cut one into pieces: "a" and "."

The steps and their order are those of `spacy.tokenizer.Tokenizer`; what belongs to which kind of
character is spaCy's, see spacy_english.py. Positions are code points of one word. A word of more
than a million bytes is cut at each million too. The time grows with the length alone, spaCy's with
its square.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.rules.english_affixes import infix_length, prefix_length, suffix_length
from tokenmill.pipeline.rules.english_exceptions import (
    MAX_EXCEPTION_BYTES,
    Exceptions,
    Place,
    Scratch,
    find_exception,
    join_exceptions,
    may_join,
    write_exception,
)
from tokenmill.pipeline.rules.lines import code_point
from tokenmill.pipeline.rules.spacy_english import EnglishPatterns, english_patterns
from tokenmill.pipeline.rules.web_address import is_web_address
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.instructions import address_of
from tokenmill.tokenizer.word_table import NOTHING, TableArrays, WordTable, lookup_of

MAX_WORD_BYTES = 1 << 20
"""A longer word is cut after so many bytes."""
HAS_DOT, HAS_SIGN = 1, 2
_DOT = ord(".")


class Cuts(NamedTuple):
    """Where words are cut."""

    stops: NDArray[np.int64]
    """(tokens,) where each token ends, word by word; it starts where the one before it ends."""
    ends: NDArray[np.int64]
    """(words,) where each word's tokens end in them."""


class WordCutter:
    """Cuts words by the patterns of the installed spaCy."""

    def __init__(self, patterns: EnglishPatterns | None = None) -> None:
        """
        Args:
            patterns: those of the installed spaCy by default.

        Raises:
            TokenmillError: the installed spaCy has other patterns than it should.
        """
        self.patterns = patterns or english_patterns()
        self._exceptions = _exceptions(self.patterns)

    def cut(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> Cuts:
        """Where spaCy cuts words.

        Args:
            data: the bytes that the words stand in, UTF-8.
            starts: (n,) where each word starts in them; none is empty or holds white space.
            stops: (n,) where it ends.
        """
        return _cut(data, starts, stops, self.patterns, self._exceptions)


def _exceptions(patterns: EnglishPatterns) -> Exceptions:
    """The exceptions, and what the patterns make of each if it was none."""
    num, data = len(patterns.ends), patterns.exceptions.arena
    starts, stops = patterns.exceptions.starts[1 : num + 1], patterns.exceptions.starts[2 : num + 2]
    no_stops, none = np.zeros(0, np.int64), np.zeros((MAX_EXCEPTION_BYTES + 1, 256), np.bool_)
    empty = WordTable().arrays
    nothing = Exceptions(empty, no_stops, no_stops, no_stops, no_stops, none, none)
    pieces = _cut(data, starts, stops, patterns, nothing)
    counts = np.diff(pieces.ends, prepend=0)
    are_joined = patterns.are_joined & (counts > 1)
    piece_stops = (pieces.stops - np.repeat(starts, counts))[np.repeat(are_joined, counts)]
    piece_ends = np.cumsum(counts * are_joined)
    may_be, joins = none.copy(), none.copy()
    may_be[stops - starts, data[starts]] = True
    first_stops = piece_stops[(piece_ends - counts)[are_joined]]
    joins[first_stops, data[starts[are_joined] + first_stops]] = True
    return Exceptions(
        patterns.exceptions,
        patterns.stops,
        patterns.ends,
        piece_stops,
        piece_ends,
        may_be,
        joins,
    )


def _cut(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    patterns: EnglishPatterns,
    exceptions: Exceptions,
) -> Cuts:
    longest = int((stops - starts).max(initial=0))
    room = min(longest, MAX_WORD_BYTES) + 1
    points, offsets, tokens, behind, pieces = np.empty((5, room), np.int32)
    scratch = Scratch(points, offsets, tokens, behind, pieces, np.empty(room, np.int64))
    tables = (patterns.kinds, patterns.units, exceptions, scratch)
    out = np.empty(4 * len(starts) + longest, np.int64)
    ends = np.empty(len(starts), np.int64)
    done = _cut_all(data, starts, stops, *tables, out, ends, 0)
    while done < len(starts):
        more = max(len(out), int(stops[done] - starts[done]))
        out = np.concatenate([out, np.empty(more, np.int64)])
        done = _cut_all(data, starts, stops, *tables, out, ends, done)
    return Cuts(out[: ends[-1] if len(ends) else 0], ends)


@compiled
def _cut_all(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    kinds: NDArray[np.uint16],
    units: TableArrays,
    exceptions: Exceptions,
    scratch: Scratch,
    out: NDArray[np.int64],
    ends: NDArray[np.int64],
    first: int,
) -> int:
    """Cut the words from the first on; where it stopped because there is no room left."""
    tables = lookup_of(exceptions.table), lookup_of(units), address_of(exceptions.may_be)
    begin, may_join_marks = address_of(data), address_of(exceptions.may_join)
    points, offsets, tokens, behind = (
        scratch.points, scratch.offsets, scratch.tokens, scratch.behind
    )  # fmt: skip
    num = ends[first - 1] if first else 0
    for word in range(first, len(starts)):
        start, stop = starts[word], stops[word]
        if num + stop - start > len(out):
            return word
        while start < stop:
            end = min(stop, start + MAX_WORD_BYTES)
            while end < stop and data[end] & 0xC0 == 0x80:
                end -= 1
            place = Place(begin + np.uint64(start), begin + np.uint64(len(data)), *tables)
            left, right, signs = 0, *_decode(data, start, end, points, offsets)
            count = behind[0] = 0
            if signs:
                left, right, count = _cut_off(
                    place, right, kinds, points, offsets, tokens, behind
                )  # fmt: skip
            exception = find_exception(place, offsets, left, right) if left < right else NOTHING
            if exception != NOTHING:
                count = write_exception(exceptions, exception, offsets, left, tokens, count)
            elif left < right and (
                not signs or (signs & HAS_DOT and is_web_address(points, left, right, kinds))
            ):
                tokens[count] = right
                count += 1
            else:
                count = _cut_inside(points, left, right, kinds, tokens, count)
            for number in range(behind[0], 0, -1):
                tokens[count] = behind[number]
                count += 1
            if may_join(place, offsets, tokens, count, may_join_marks):
                count = join_exceptions(place, exceptions, scratch, count)
            for token in range(count):
                out[num] = start + offsets[tokens[token]]
                num += 1
            start = end
        ends[word] = num
    return len(starts)


@compiled_inline
def _cut_off(
    place: Place,
    last: int,
    kinds: NDArray[np.uint16],
    points: NDArray[np.int32],
    offsets: NDArray[np.int32],
    tokens: NDArray[np.int32],
    behind: NDArray[np.int32],
) -> tuple[int, int, int]:
    """Cut prefixes and suffixes off a word; where what is left starts and ends, and how many
    prefixes there are, in `tokens`. The suffixes are in `behind` from 1 on, their number at 0."""
    first = num = num_behind = 0
    while first < last and find_exception(place, offsets, first, last) == NOTHING:
        before = prefix_length(points, first, last, kinds)
        rest = first + before
        if before and rest < last and find_exception(place, offsets, rest, last) != NOTHING:
            first = tokens[num] = rest
            num += 1
            break
        after = suffix_length(points, rest, last, place, offsets, kinds)
        is_exception = after and first < last - after and (
            find_exception(place, offsets, first, last - after) != NOTHING
        )  # fmt: skip
        if before and not is_exception:
            first = tokens[num] = rest
            num += 1
        if after:
            num_behind += 1
            behind[num_behind] = last
            last -= after
        if is_exception or not (before or after):
            break
    behind[0] = num_behind
    return first, last, num


@compiled_inline
def _cut_inside(
    points: NDArray[np.int32],
    first: int,
    last: int,
    kinds: NDArray[np.uint16],
    tokens: NDArray[np.int32],
    num: int,
) -> int:
    """Write the ends of the tokens of what is left; how many tokens the word has now."""
    at = start = first
    while at < last:
        length = infix_length(points, at, first, last, kinds)
        if length and at > first:
            if at > start:
                tokens[num] = at
                num += 1
            start = at + length
            tokens[num] = start
            num += 1
        at += max(length, 1)
    if start < last:
        tokens[num] = last
        num += 1
    return num


@compiled_inline
def _decode(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    points: NDArray[np.int32],
    offsets: NDArray[np.int32],
) -> tuple[int, int]:
    """Write the code points of a word and the byte at which each starts; how many, and whether
    there is a dot or anything else that is no letter of ASCII."""
    length, at, signs = 0, np.uint64(start), 0
    while at < stop:
        offsets[length] = at - np.uint64(start)
        point, at = code_point(data, at)
        points[length] = point
        if not 0x61 <= (point | np.uint64(0x20)) <= 0x7A:
            signs |= HAS_DOT if point == _DOT else HAS_SIGN
        length += 1
    offsets[length] = stop - start
    return length, signs
