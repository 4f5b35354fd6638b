"""Cut new units where the pre-tokenizer would, so that only new pieces are asked for.

Words are new more often than what they are made of:

    BERT    "(re-read)."     ->  "("  "re"  "-"  "read"  ")"  "."
    GPT-2   "\n  it's,"      ->  "\n "  " it"  "'s"  ","

Only words of simple characters are cut: printable ASCII; the dashes, quotes, bullets and dots from
U+2010 to U+2027; and for GPT-2 the letters from U+00C0 to U+017F and from U+0400 to U+045F (Latin,
Cyrillic). The normalizer leaves them alone but for their case, and what they are (letter, digit,
punctuation) never changed in Unicode. Any other unit, and one that holds an added token, is
one piece. The library answers for a piece as it does for a text, so a piece means the same wherever
it comes from.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.word_table import ONE, TableArrays, WordTable, intern, key_of

GAP_BINDS = 0
"""The last space of the gap goes with the word, the rest of the gap is a piece."""
GAP_ALONE = 1
"""The whole gap is a piece: it is no space that ends it, or an added token does."""
GAP_BREAKS = 2
"""The last character of the gap is a piece of its own, and so is what stands before it."""

LETTER, DIGIT, OTHER, NOT_SIMPLE = 0, 1, 2, 3
LINE_FEED, APOSTROPHE = 10, 39
TWO = np.uint64(2)


def _byte_classes() -> NDArray[np.uint8]:
    classes = np.full(256, NOT_SIMPLE, np.uint8)
    for byte in range(0x21, 0x7F):
        character = chr(byte)
        classes[byte] = LETTER if character.isalpha() else DIGIT if character.isdigit() else OTHER
    return classes


BYTE_CLASSES = _byte_classes()


class UnitTexts(NamedTuple):
    """The texts of new units, one after another or not."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    """(units,) where each begins in `data`."""
    word_starts: NDArray[np.int64]
    """(units,) where its gap ends and its word begins."""
    ends: NDArray[np.int64]
    gap_kinds: NDArray[np.uint8]
    """(units,) GAP_BINDS, GAP_ALONE or GAP_BREAKS; of no meaning where there is no gap."""


class PieceList:
    """Pieces of units: all that were ever cut, numbered, and which of them are simple."""

    def __init__(self) -> None:
        self.table = WordTable()
        self.is_simple = np.zeros(1 << 12, np.bool_)
        """By number: whether a piece is one pre-token, so that the model alone can answer."""

    def cut(
        self, units: UnitTexts, in_words: tuple[bytes, ...], *, runs: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The pieces of each unit.

        Args:
            units: texts without white space in their words, or with: those are not cut.
            in_words: added tokens, lower-cased; a unit that holds one is not cut.
            runs: whether punctuation stands in runs (GPT-2) or each alone (BERT).

        Returns:
            The numbers of all pieces, and (units,) where each unit's end.
        """
        sizes = units.ends - units.starts
        numbers = np.empty(sizes.sum(), np.int64)
        ends = np.empty(len(sizes), np.int64)
        # Every piece has a byte of the unit: so much is always enough.
        self.table.make_room(int(sizes.sum()), int(sizes.sum()))
        self._make_room(len(self.table.arrays.hashes))
        tokens = np.frombuffer(b"".join(in_words), np.uint8)
        token_ends = np.cumsum([len(token) for token in in_words], dtype=np.int64)
        _cut(units, self.table.arrays, self.is_simple, tokens, token_ends, numbers, ends, runs)
        return numbers[: ends[-1] if len(ends) else 0], ends

    def _make_room(self, pieces: int) -> None:
        if pieces > len(self.is_simple):
            grown = np.zeros(pieces, np.bool_)
            grown[: len(self.is_simple)] = self.is_simple
            self.is_simple = grown


@compiled
def _cut(
    units: UnitTexts,
    table: TableArrays,
    is_simple: NDArray[np.bool_],
    tokens: NDArray[np.uint8],
    token_ends: NDArray[np.int64],
    numbers: NDArray[np.int64],
    ends: NDArray[np.int64],
    runs: bool,
) -> None:
    data, starts, word_starts, stops, gap_kinds = units
    begins_token = np.zeros(256, np.bool_)
    begin = 0
    for end in token_ends:
        begins_token[tokens[begin]] = True
        begin = end
    count = 0
    for unit in range(len(ends)):
        start = np.uint64(starts[unit])
        word = np.uint64(word_starts[unit])
        stop = np.uint64(stops[unit])
        whole = word == stop or (
            len(tokens) > 0 and _holds_token(data, word, stop, tokens, token_ends, begins_token)
        )
        if not whole and word > start and _class_at(data, word, runs) != NOT_SIMPLE:
            head = word if gap_kinds[unit] == GAP_ALONE else word - ONE
            if start < head:
                numbers[count] = _number(table, is_simple, data, start, head, False)
                count += 1
            start = head
            if gap_kinds[unit] == GAP_BREAKS:
                numbers[count] = _number(table, is_simple, data, head, word, False)
                count += 1
                start = word
        if whole or not _is_simple(data, word, stop, runs):
            if start < stop:
                numbers[count] = _number(table, is_simple, data, start, stop, False)
                count += 1
        else:
            at = word
            while at < stop:
                at = _end_of_piece(data, at, stop, runs, start == at)
                numbers[count] = _number(table, is_simple, data, start, at, True)
                count += 1
                start = at
        ends[unit] = count


@compiled_inline
def _number(
    table: TableArrays,
    is_simple: NDArray[np.bool_],
    data: NDArray[np.uint8],
    start: np.uint64,
    stop: np.uint64,
    simple: bool,
) -> np.uint64:
    known = table.length[0]
    number: np.uint64 = intern(table, data, start, stop - start, key_of(data, start, stop))
    if table.length[0] > known:
        is_simple[number] = simple
    return number


@compiled
def _end_of_piece(
    data: NDArray[np.uint8], at: np.uint64, stop: np.uint64, runs: bool, may_contract: bool
) -> np.uint64:
    """Where the piece of simple characters ends that begins at `at`, past its leading space."""
    kind = _class_at(data, at, runs)
    if not runs and kind == OTHER:
        return at + _width(data[at])
    if runs and may_contract and data[at] == APOSTROPHE:
        length = _contraction(data, at, stop)
        if length > 0:
            at += length
            return at
    while at < stop and _same_run(kind, _class_at(data, at, runs), runs):
        at += _width(data[at])
    return at


@compiled_inline
def _same_run(first: int, second: int, runs: bool) -> bool:
    return first == second or (not runs and first != OTHER and second != OTHER)


@compiled
def _contraction(data: NDArray[np.uint8], at: np.uint64, stop: np.uint64) -> np.uint64:
    """Bytes of 's, 't, 'm, 'd, 're, 've or 'll at `at`; 0 where there is none."""
    if at + ONE >= stop:
        return np.uint64(0)
    first = data[at + ONE]
    if first == ord("s") or first == ord("t") or first == ord("m") or first == ord("d"):
        return np.uint64(2)
    if at + TWO >= stop:
        return np.uint64(0)
    second = data[at + TWO]
    if (first == ord("r") or first == ord("v")) and second == ord("e"):
        return np.uint64(3)
    if first == ord("l") and second == ord("l"):
        return np.uint64(3)
    return np.uint64(0)


@compiled
def _is_simple(data: NDArray[np.uint8], start: np.uint64, stop: np.uint64, runs: bool) -> bool:
    at = start
    while at < stop:
        if _class_at(data, at, runs) == NOT_SIMPLE:
            return False
        at += _width(data[at])
    return True


@compiled_inline
def _class_at(data: NDArray[np.uint8], at: np.uint64, runs: bool) -> int:
    byte = data[at]
    if byte < 0x80:
        return int(BYTE_CLASSES[byte])
    following = data[at + ONE]
    if byte == 0xE2:  # U+2010 to U+2027 are E2 80 90 to E2 80 A7.
        known = following == 0x80 and data[at + TWO] >= 0x90 and data[at + TWO] <= 0xA7
        return OTHER if known else NOT_SIMPLE
    if runs and byte == 0xC3:  # U+00C0 to U+00FF: letters, and the signs of times and division.
        return OTHER if following == 0x97 or following == 0xB7 else LETTER
    if runs and (byte == 0xC4 or byte == 0xC5 or byte == 0xD0):
        return LETTER
    return LETTER if runs and byte == 0xD1 and following <= 0x9F else NOT_SIMPLE


@compiled_inline
def _width(byte: np.uint8) -> np.uint64:
    """Bytes of the simple character that begins with this byte."""
    return np.uint64(1) if byte < 0x80 else np.uint64(3) if byte == 0xE2 else np.uint64(2)


@compiled
def _holds_token(
    data: NDArray[np.uint8],
    start: np.uint64,
    stop: np.uint64,
    tokens: NDArray[np.uint8],
    token_ends: NDArray[np.int64],
    begins_token: NDArray[np.bool_],
) -> bool:
    """Whether an added token stands in data[start:stop], upper and lower case being the same."""
    for at in range(start, stop):
        if not begins_token[_lower(data[at])]:
            continue
        begin = 0
        for end in token_ends:
            if _lower(data[at]) == tokens[begin] and end - begin <= stop - at:
                same = 1
                while same < end - begin and _lower(data[at + same]) == tokens[begin + same]:
                    same += 1
                if same == end - begin:
                    return True
            begin = end
    return False


@compiled_inline
def _lower(byte: np.uint8) -> int:
    return int(byte + 32 if 65 <= byte <= 90 else byte)


def join_pieces(
    table: WordTable, numbers: NDArray[np.int64], letters: Sequence[bytes]
) -> tuple[bytes, NDArray[np.int64]]:
    """The pieces written in a model's letters, a line feed after each, and the bytes of each."""
    lengths = table.lengths[numbers]
    most = max(len(letter) for letter in letters)
    written = np.zeros((256, most), np.uint8)
    for byte, letter in enumerate(letters):
        written[byte, : len(letter)] = list(letter)
    widths = np.array([len(letter) for letter in letters], np.uint8)
    out = np.empty(most * int(lengths.sum()) + len(numbers), np.uint8)
    size = _join(out, table.arrays.starts, table.arrays.arena, numbers, written, widths)
    return out[:size].tobytes(), lengths


@compiled
def _join(
    out: NDArray[np.uint8],
    starts: NDArray[np.int64],
    arena: NDArray[np.uint8],
    numbers: NDArray[np.int64],
    written: NDArray[np.uint8],
    widths: NDArray[np.uint8],
) -> int:
    size = 0
    for number in numbers:
        for at in range(starts[number], starts[number + 1]):
            byte = arena[at]
            for part in range(widths[byte]):
                out[size] = written[byte, part]
                size += 1
        out[size] = LINE_FEED
        size += 1
    return size
