"""Where spaCy cuts English words, asked once for all words of a shape.

spaCy cuts a word by patterns that know kinds of characters (letters, capitals, digits) and by a
list of exceptions ("can't", "Mr.", ":)"). So it cuts words of one shape at the same places, and it
is the shape that is asked for:

    (GitHub's    ->   (Q's     cut to  (  Q  's    so  (  GitHub  's
    1999-2003,   ->   44-44,   cut to  44-44  ,    so  1999-2003  ,

In a shape a run of letters is "Q" and a run of two digits or more is "44". What spaCy may look at
in a run is kept:
- The whole run, if it stands by itself in an exception or in a pattern ("s", "Mr", "km", "8").
- In a word with a dot, which may end a sentence or be an address: up to four letters and their
  case (the first, whether there is a capital between, the last two), up to six digits, letters that
  are not ASCII; and all digits where three dots may make an IP address.
- The whole word, if it has a dot and more than 63 bytes: a part of an address has no more.
No pattern cuts inside a run, so each cut of a shape has its one place in the word.

The answers are kept for every shape up to 256 bytes, in a bounded table that starts anew when it is
full. One word in six that is new in web text has a new shape.
"""

from collections.abc import Mapping
from itertools import product
from string import ascii_lowercase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.rules.spacy_english import SpacyEnglish
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.instructions import address_of
from tokenmill.tokenizer.interning import intern_spans
from tokenmill.tokenizer.word_table import (
    MAX_BYTES,
    NOTHING,
    TableArrays,
    WordTable,
    find_number,
    intern,
    key_of,
    lookup_of,
)

MAX_SHAPES = 1 << 19
"""Shapes remembered; 95 MB of web text have 90,000."""
MAX_ADDRESS_BYTES = 63
"""Longer words with a dot have no shape: how long the parts of an address are may matter."""
NO_SHAPE = 0
"""In the place of a shape's number: the word is asked for itself, and not remembered."""
INSIDE_RUN = -1
SMALL, LARGE, DIGIT, DOT = 0x71, 0x51, 0x34, 0x2E  # q Q 4 .
LETTERS, DIGITS, OTHER = 0, 1, 2


class WordCutter:
    """Cuts words as spaCy does, and remembers the shapes that it was asked for."""

    def __init__(self) -> None:
        self._spacy: SpacyEnglish | None = None
        self._letters = np.zeros(0, np.bool_)
        """(0x10000,) the code points that spaCy treats as nothing but letters."""
        self._runs = WordTable()
        """Runs of letters or digits that spaCy knows."""
        self._start_anew()

    def _start_anew(self) -> None:
        self._shapes = WordTable()
        self._stops = np.zeros(0, np.int64)
        """The bytes of their shape at which tokens end, shape by shape."""
        self._ends = np.zeros(1, np.int64)
        """(shapes,) where the tokens of each shape end in them."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "WordCutter":
        """The cutter whose `arrays` these are."""
        cutter = cls()
        cutter._letters = arrays["letters"]
        for table, name in ((cutter._runs, "runs"), (cutter._shapes, "shapes")):
            starts = arrays[f"{name}_starts"]
            intern_spans(table, arrays[f"{name}_bytes"], starts[:-1], starts[1:])
        cutter._stops, cutter._ends = arrays["stops"], arrays["ends"]
        return cutter

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it has learnt: with it another process need not ask again."""
        return {
            "letters": self._letters,
            "runs_bytes": self._runs.arena,
            "runs_starts": self._runs.starts,
            "shapes_bytes": self._shapes.arena,
            "shapes_starts": self._shapes.starts,
            "stops": self._stops,
            "ends": self._ends,
        }

    def cut(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where spaCy cuts words.

        Args:
            data: the bytes that the words stand in, UTF-8.
            starts: (n,) where each word starts in them; none is empty or holds white space.
            stops: (n,) where it ends.

        Returns:
            (tokens,) where each token ends in `data`, and (n,) where each word's tokens end in
            them. A token starts where the one before it ends.
        """
        if not len(starts):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        if len(self._shapes) > MAX_SHAPES:
            self._start_anew()
        if not len(self._letters):
            self._learn_runs()
        shapes = self._number_shapes(data, starts, stops)  # (n,)
        new = range(len(self._ends), len(self._shapes))
        if new:
            new_stops, new_ends = self._asked().cut(self._shapes.texts(np.array(new)))
            self._stops = np.concatenate([self._stops, new_stops])
            self._ends = np.concatenate([self._ends, self._ends[-1] + new_ends])
        alone = np.flatnonzero(shapes == NO_SHAPE)
        texts = [data[starts[word] : stops[word]].tobytes().decode() for word in alone]
        alone_stops, alone_ends = self._asked().cut(texts) if texts else (alone, alone)
        counts = np.diff(self._ends, prepend=0)[shapes]
        counts[alone] = np.diff(alone_ends, prepend=0)
        ends = np.cumsum(counts)
        out = np.empty(ends[-1], np.int64)
        ok = _place(
            data, starts, stops, self._letters, self._runs.arrays, shapes,
            self._stops, self._ends, alone_stops, out, ends,
        )  # fmt: skip
        assert ok, "spaCy cuts inside a run of letters or digits"
        return out, ends

    def _learn_runs(self) -> None:
        self._letters = self._asked().letters()
        runs = self._asked().runs()
        forms = {"".join(form) for n in range(1, 5) for form in product("qQ", repeat=n)}
        # A small letter by itself is always kept, so "q" stands for no other.
        assert set(ascii_lowercase) <= runs
        assert not (forms | {"4" * n for n in range(2, 7)}) & (runs - set(ascii_lowercase))
        for run in sorted(runs):
            self._runs.add(run.encode())

    def _asked(self) -> SpacyEnglish:
        if self._spacy is None:
            self._spacy = SpacyEnglish()
        return self._spacy

    def _number_shapes(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> NDArray[np.uint32]:
        """(n,) the number of each word's shape, or NO_SHAPE."""
        numbers = np.empty(len(starts), np.uint32)
        words = (data, starts, stops, self._letters, self._runs.arrays)
        done = _number_shapes(*words, self._shapes.arrays, numbers, 0)
        while done < len(starts):
            self._shapes.make_room(len(self._shapes), max(len(self._shapes.arena), MAX_BYTES))
            done = _number_shapes(*words, self._shapes.arrays, numbers, done)
        return numbers


@compiled
def _number_shapes(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    letters: NDArray[np.bool_],
    runs: TableArrays,
    shapes: TableArrays,
    numbers: NDArray[np.uint32],
    first: int,
) -> int:
    """Number the shapes from the first on; where it stopped because the table is full."""
    shape = np.empty(4 * MAX_BYTES, np.uint8)
    origins = np.empty(4 * MAX_BYTES, np.int64)
    limit, arena_limit = len(shapes.hashes), len(shapes.arena) - MAX_BYTES
    for word in range(first, len(starts)):
        if shapes.length[0] == limit or shapes.starts[shapes.length[0]] > arena_limit:
            return word
        size = _write_shape(data, starts[word], stops[word], letters, runs, shape, origins)
        if size > MAX_BYTES:
            numbers[word] = NO_SHAPE
        else:
            end = np.uint64(size)
            key = key_of(shape, np.uint64(0), end)
            numbers[word] = np.uint32(intern(shapes, shape, np.uint64(0), end, key))
    return len(starts)


@compiled
def _place(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    letters: NDArray[np.bool_],
    runs: TableArrays,
    shapes: NDArray[np.uint32],
    shape_stops: NDArray[np.int64],
    shape_ends: NDArray[np.int64],
    alone_stops: NDArray[np.int64],
    out: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> bool:
    """Write where the tokens of each word end. False: a cut of a shape has no place in a word."""
    shape = np.empty(4 * MAX_BYTES, np.uint8)
    origins = np.empty(4 * MAX_BYTES, np.int64)
    at = num_alone = 0
    for word in range(len(starts)):
        number = shapes[word]
        if number == NO_SHAPE:
            while at < ends[word]:
                out[at] = starts[word] + alone_stops[num_alone]
                num_alone += 1
                at += 1
            continue
        size = _write_shape(data, starts[word], stops[word], letters, runs, shape, origins)
        origins[size] = stops[word]
        for cut in range(shape_ends[number - 1], shape_ends[number]):
            out[at] = origins[shape_stops[cut]]
            if out[at] == INSIDE_RUN:
                return False
            at += 1
    return True


@compiled
def _write_shape(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    letters: NDArray[np.bool_],
    runs: TableArrays,
    shape: NDArray[np.uint8],
    origins: NDArray[np.int64],
) -> int:
    """Write the shape of a word, and where each of its bytes comes from; its length.

    More than MAX_BYTES: there is no shape.
    """
    num_dots = 0
    for byte in data[start:stop]:
        num_dots += byte == DOT
    if num_dots and stop - start > MAX_ADDRESS_BYTES:
        return _write_bytes(data, start, stop, shape, origins, 0)
    size = 0
    at = start
    while at < stop and size <= MAX_BYTES:
        kind, end = _run(data, at, stop, letters, num_dots > 0)
        length = end - at
        if kind == OTHER or _is_kept(data, at, end, kind, runs, num_dots):
            size = _write_bytes(data, at, end, shape, origins, size)
        else:
            origins[size] = at
            if num_dots == 0:
                new = 1 if kind == LETTERS else 2
                shape[size : size + new] = LARGE if kind == LETTERS else DIGIT
            elif kind == DIGITS:
                new = min(length, 6)
                shape[size : size + new] = DIGIT
            else:
                new = min(length, 4)
                for place in range(new):
                    source = at + place if place < 2 else end - new + place
                    shape[size + place] = SMALL if data[source] >= 0x61 else LARGE
                for source in range(at + 1, end - 2):
                    if data[source] < 0x61:
                        shape[size + 1] = LARGE
            origins[size + 1 : size + new] = INSIDE_RUN
            size += new
        at = end
    return size


@compiled_inline
def _run(
    data: NDArray[np.uint8], at: int, stop: int, letters: NDArray[np.bool_], dotted: bool
) -> tuple[int, int]:
    """What kind of run begins here and where it ends; what is neither goes by characters."""
    end = at
    while end < stop and 0x30 <= data[end] <= 0x39:
        end += 1
    if end > at:
        return DIGITS, end
    while end < stop:
        byte = np.int64(data[end])
        if byte < 0x80:
            point, width = byte, 1
        elif byte < 0xE0:
            point, width = (byte & 0x1F) << 6 | (data[end + 1] & 0x3F), 2
        elif byte < 0xF0:
            point = (byte & 0x0F) << 12 | (data[end + 1] & 0x3F) << 6 | (data[end + 2] & 0x3F)
            width = 3
        else:
            break
        if not letters[point] or (dotted and byte >= 0x80):
            break
        end += width
    if end > at:
        return LETTERS, end
    end += 1
    while end < stop and data[end] & 0xC0 == 0x80:
        end += 1
    return OTHER, end


@compiled_inline
def _is_kept(
    data: NDArray[np.uint8], at: int, end: int, kind: int, runs: TableArrays, num_dots: int
) -> bool:
    """Whether spaCy may look at what the run is, and not only at its kind."""
    if kind == DIGITS and (end - at == 1 or num_dots >= 3):
        return True
    address = address_of(data)
    start, size = address + np.uint64(at), np.uint64(end - at)
    number = find_number(lookup_of(runs), start, size, address + np.uint64(len(data)))
    return bool(number != NOTHING)


@compiled_inline
def _write_bytes(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    shape: NDArray[np.uint8],
    origins: NDArray[np.int64],
    size: int,
) -> int:
    """Write bytes as they are, or the first of too many; how long the shape is now."""
    for at in range(start, min(stop, start + 2 * MAX_BYTES)):
        shape[size] = data[at]
        origins[size] = at
        size += 1
    return size
