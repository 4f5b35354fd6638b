"""WordPiece for pieces that need no normalizer and no pre-tokenizer any more.

From its beginning, always the longest token that fits; inside a word tokens are those that the
vocabulary marks (##). A piece that does not come out, or is too long, is one unknown token:

    "milling"    "mill" "##ing"

As models/wordpiece/mod.rs of `tokenizers` does it, at a tenth of the time of a call.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.instructions import address_of, load_byte
from tokenmill.tokenizer.word_table import (
    ONE,
    Lookup,
    TableArrays,
    WordTable,
    find_number,
    lookup_of,
)

Answers = tuple[NDArray[np.uint32], NDArray[np.int64]]
"""Token ids of all pieces one after another, and (pieces,) how many each has."""


_ZERO = np.uint64(0)


class WordPiece:
    """The model of a tokenizer.json."""

    def __init__(self, model: dict[str, Any]) -> None:
        vocabulary: dict[str, int] = model["vocab"]
        prefix: str = model["continuing_subword_prefix"]
        inside = {
            token.removeprefix(prefix): number
            for token, number in vocabulary.items()
            if token.startswith(prefix)
        }
        self._first, self._first_ids = _table(vocabulary)
        self._inside, self._inside_ids = _table(inside)
        self._unknown = vocabulary[model["unk_token"]]
        self.max_characters: int = model["max_input_chars_per_word"]
        """A piece of more characters is unknown."""

    def encode(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> Answers:
        """The tokens of pieces, (pieces,) where each starts and ends in the data."""
        ids = np.empty((ends - starts).sum(), np.uint32)
        counts = np.empty(len(starts), np.int64)
        size = _encode(
            data, starts, ends, self._first.arrays, self._first_ids,
            self._inside.arrays, self._inside_ids, self._unknown, self.max_characters, ids, counts,
        )  # fmt: skip
        return ids[:size], counts


def _table(tokens: dict[str, int]) -> tuple[WordTable, NDArray[np.uint32]]:
    """The tokens, and the id of each number."""
    table = WordTable(len(tokens))
    numbers = table.add_all([token.encode() for token in tokens])
    ids = np.zeros(len(table), np.uint32)
    ids[numbers] = list(tokens.values())
    return table, ids


@compiled
def _encode(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    first: TableArrays,
    first_ids: NDArray[np.uint32],
    inside: TableArrays,
    inside_ids: NDArray[np.uint32],
    unknown: int,
    max_characters: int,
    ids: NDArray[np.uint32],
    counts: NDArray[np.int64],
) -> int:
    of_first, of_inside = lookup_of(first), lookup_of(inside)
    base = address_of(data)
    data_end = base + np.uint64(len(data))
    total = 0
    for piece in range(len(starts)):
        at, stop = base + np.uint64(starts[piece]), base + np.uint64(ends[piece])
        begin = total
        number = _ZERO
        if _num_characters(at, stop) <= max_characters:
            at, number = _longest(of_first, at, stop, data_end)
            ids[total] = first_ids[number]
            total += 1
            while number > 0 and at < stop:
                at, number = _longest(of_inside, at, stop, data_end)
                ids[total] = inside_ids[number]
                total += 1
        if number == _ZERO:
            ids[begin] = unknown
            total = begin + 1
        counts[piece] = total - begin
    return total


@compiled_inline
def _longest(
    lookup: Lookup, start: np.uint64, stop: np.uint64, data_end: np.uint64
) -> tuple[np.uint64, np.uint64]:
    """Where the longest token ends that begins at `start`, and its number; 0 if there is none."""
    while stop > start:
        number = find_number(lookup, start, stop - start, data_end)
        if number != _ZERO:
            return stop, number
        stop -= ONE
        while stop > start and _is_inside_character(load_byte(stop)):
            stop -= ONE
    return start, _ZERO


@compiled_inline
def _num_characters(start: np.uint64, stop: np.uint64) -> int:
    count = 0
    while start < stop:
        count += not _is_inside_character(load_byte(start))
        start += ONE
    return count


@compiled_inline
def _is_inside_character(byte: np.uint8) -> bool:
    """Whether a byte of UTF-8 goes on with a character."""
    return bool(byte & 0xC0 == 0x80)
