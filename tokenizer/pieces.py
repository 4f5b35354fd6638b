"""Cut texts where the tokenizer's pre-tokenizer would, so that only new pieces are asked for.

Words are new more often than what they are made of:

    BERT    "(re-read)."     ->  "("  "re"  "-"  "read"  ")"  "."
    GPT-2   "\\n  it's,"      ->  "\\n "  " it"  "'s"  ","

BERT's cuts at white space and around each punctuation character. GPT-2's regular expression is

    's|'t|'re|'ve|'m|'ll|'d| ?letters| ?digits| ?others|white space(?!\\S)|white space

What a character is to either the library has said (characters.py). Such a piece is simple: neither
normalizer nor pre-tokenizer would change it, so the model alone answers. Other pieces are whole
texts, and gaps where there are added tokens of white space; for them the library answers.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.characters import KIND, OTHER, SPACE
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.find_words import BLOCK, SCRATCH, number_block
from tokenmill.tokenizer.remembered import grown
from tokenmill.tokenizer.word_table import ONE, TableArrays, WordTable

GAP_BINDS = 0
"""The last character of a gap is cut off: a space, which goes with the word, or a piece alone."""
GAP_ALONE = 1
"""The whole gap is a piece: an added token ends it."""

APOSTROPHE, BLANK = 39, 32
_ANY = 1 << 62
_TWO, _THREE, _SIX = np.uint64(2), np.uint64(3), np.uint64(6)


class Rules(NamedTuple):
    """How a tokenizer's texts are cut."""

    classes: NDArray[np.uint8]
    """By code point; see Characters."""
    runs: bool
    """Whether punctuation stands in runs (GPT-2), or each character alone (BERT)."""
    gaps_apart: bool
    """Whether gaps are pieces that are not simple."""
    max_characters: int
    """A simple piece of more than these is cut after one more: no model looks further."""


class Texts(NamedTuple):
    """Texts to cut."""

    data: NDArray[np.uint8]
    """The bytes of all, normalized but for the whole ones."""
    starts: NDArray[np.int64]
    """(texts,) where each starts in the data."""
    ends: NDArray[np.int64]
    whole: NDArray[np.bool_]
    """(texts,) whether a text is one piece that is not simple."""
    gap_kinds: NDArray[np.uint8]
    """(texts,) GAP_BINDS or GAP_ALONE for the gap it begins with, if gaps are apart."""


class PieceList:
    """All pieces that were ever cut, numbered, and which of them are simple."""

    def __init__(self) -> None:
        self.table = WordTable()
        self.is_simple = np.zeros(1 << 12, np.bool_)

    def cut(self, texts: Texts, rules: Rules) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The numbers of all pieces one after another, and (texts,) where those of each end."""
        edges, simple, ends = cut(texts, rules)
        numbers = np.empty(len(simple), np.uint32)
        done = 0
        while (done := _number(texts.data, edges, self.table.arrays, numbers, done)) < len(simple):
            block = edges[2 * done : 2 * (done + BLOCK)].astype(np.int64)
            self.table.make_room(BLOCK, int((block[1::2] - block[::2]).sum()))
        self.is_simple = grown(self.is_simple, len(self.table))
        self.is_simple[numbers] = simple
        return numbers, ends


@compiled
def cut(
    texts: Texts, rules: Rules
) -> tuple[NDArray[np.uint64], NDArray[np.bool_], NDArray[np.int64]]:
    """Cut texts into pieces.

    Returns:
        (2 pieces,) where each starts and where it ends, (pieces,) which are simple, and (texts,)
        where the pieces of each text end.
    """
    data, starts, stops, whole, gap_kinds = texts
    # Every piece has a byte of its text. Memory that is not written to costs nothing.
    most = (stops - starts).sum()
    edges, simple = np.empty(2 * most, np.uint64), np.empty(most, np.bool_)
    ends = np.empty(len(starts), np.int64)
    count = np.uint64(0)
    for text in range(len(starts)):
        at, stop = np.uint64(starts[text]), np.uint64(stops[text])
        head = at
        if whole[text]:
            head = stop
        elif rules.gaps_apart:
            head = end_of_head(data, at, stop, gap_kinds[text])
        if head > at:
            edges[_TWO * count] = at
            edges[_TWO * count + ONE] = head
            simple[count] = False
            count += ONE
            at = head
        while at < stop:
            start, end, at = _next_piece(data, at, stop, rules)
            if end > start:
                edges[_TWO * count] = start
                edges[_TWO * count + ONE] = end
                simple[count] = True
                count += ONE
        ends[text] = count
    return edges[: _TWO * count], simple[:count], ends


@compiled
def _number(
    data: NDArray[np.uint8],
    edges: NDArray[np.uint64],
    table: TableArrays,
    numbers: NDArray[np.uint32],
    done: int,
) -> int:
    """Number pieces from `done` on; how many are done when all are, or the table needs room."""
    scratch = np.empty(SCRATCH, np.uint64)
    spans = np.empty((0, 2), np.int64)
    while done < len(numbers):
        block = edges[2 * done : 2 * (done + BLOCK)]
        size = np.int64((block[1::2] - block[::2]).sum())
        length = table.length[0]
        if length + BLOCK > len(table.hashes) or table.starts[length] + size > len(table.arena):
            break
        number_block(
            data, block, scratch, table, _ANY, _ANY, numbers[done : done + BLOCK], spans, 0
        )
        done = min(done + BLOCK, len(numbers))
    return done


@compiled
def end_of_head(
    data: NDArray[np.uint8], start: np.uint64, stop: np.uint64, gap_kind: int
) -> np.uint64:
    """Where the first piece ends that the gap of a text gives."""
    at = start
    while at < stop and is_gap_byte(data[at]):
        at += ONE
    if gap_kind == GAP_ALONE or not start < at < stop:
        return at
    return at - ONE


@compiled_inline
def is_gap_byte(byte: np.uint8) -> bool:
    """Whether a byte is one of those that gaps are made of."""
    return bool(byte == BLANK or byte == 9 or byte == 10 or byte == 13)


@compiled_inline
def _next_piece(
    data: NDArray[np.uint8], at: np.uint64, stop: np.uint64, rules: Rules
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Where the next piece starts and ends, and where to go on; it is empty where none is left."""
    classes = rules.classes
    kind, next_at = kind_at(classes, data, at)
    if rules.runs:
        end = _end_of_match(classes, data, at, stop, kind, next_at)
        return at, end, end
    while kind == SPACE:
        at = next_at
        if at >= stop:
            return stop, stop, stop
        kind, next_at = kind_at(classes, data, at)
    if kind == OTHER:
        return at, next_at, next_at
    start = at
    end = at = next_at
    count = 1
    while at < stop:
        kind, next_at = kind_at(classes, data, at)
        if kind == OTHER:
            break
        if kind == SPACE:
            break
        at = next_at
        count += 1
        if count <= rules.max_characters + 1:
            end = at
    return start, end, at


@compiled_inline
def _end_of_match(
    classes: NDArray[np.uint8],
    data: NDArray[np.uint8],
    at: np.uint64,
    stop: np.uint64,
    kind: int,
    next_at: np.uint64,
) -> np.uint64:
    """Where GPT-2's regular expression ends a match that begins at `at`."""
    if data[at] == APOSTROPHE:
        length = _contraction(data, at, stop)
        if length > 0:
            return at + length
    if data[at] == BLANK and next_at < stop:
        after, after_next = kind_at(classes, data, next_at)
        if after != SPACE:
            kind, next_at = after, after_next
    last = at
    while next_at < stop:
        after, after_next = kind_at(classes, data, next_at)
        if after != kind:
            break
        last = next_at
        next_at = after_next
    # White space leaves its last character to what stands after it.
    return last if kind == SPACE and next_at < stop and last > at else next_at


@compiled_inline
def _contraction(data: NDArray[np.uint8], at: np.uint64, stop: np.uint64) -> np.uint64:
    """Bytes of 's, 't, 'm, 'd, 're, 've or 'll at `at`; 0 where there is none."""
    if at + ONE >= stop:
        return np.uint64(0)
    first = data[at + ONE]
    if first == ord("s") or first == ord("t") or first == ord("m") or first == ord("d"):
        return _TWO
    if at + _TWO >= stop:
        return np.uint64(0)
    second = data[at + _TWO]
    if (first == ord("r") or first == ord("v")) and second == ord("e"):
        return _THREE
    return _THREE if first == ord("l") and second == ord("l") else np.uint64(0)


@compiled_inline
def kind_at(
    classes: NDArray[np.uint8], data: NDArray[np.uint8], at: np.uint64
) -> tuple[int, np.uint64]:
    """The kind of the character at `at`, and where the next one begins."""
    point, next_at = point_at(data, at)
    return int(np.int64(classes[point])) & KIND, next_at


@compiled_inline
def point_at(data: NDArray[np.uint8], at: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The code point of the character at `at`, and where the next one begins."""
    byte = np.uint64(data[at])
    if byte < 0x80:
        return byte, at + ONE
    second = np.uint64(data[at + ONE]) & np.uint64(0x3F)
    if byte < 0xE0:
        return (byte & np.uint64(0x1F)) << _SIX | second, at + _TWO
    third = np.uint64(data[at + _TWO]) & np.uint64(0x3F)
    if byte < 0xF0:
        return (byte & np.uint64(0x0F)) << np.uint64(12) | second << _SIX | third, at + _THREE
    fourth = np.uint64(data[at + _THREE]) & np.uint64(0x3F)
    point = (byte & np.uint64(0x07)) << np.uint64(18) | second << np.uint64(12)
    return point | third << _SIX | fourth, at + np.uint64(4)
