"""The sum of a document's input vectors, put together from sums that are kept for each word.

fastText averages the vectors of every word, of every run of characters in it and of every run of
words. What a word adds by itself is always the same, so it is summed once, when the word first
comes; a document then is one kept row a word, and one row of the matrix a run of words.

    kept for "cat"    [v(cat) + v(<ca) + v(cat) + v(at>), 4]    the last: how many vectors

Words that fastText would cut further, or that end a text for it, are read anew each time they come.
So are those above 256 bytes, and those that come first when the memory for sums is full: the words
that come first come most often. The price is 4 * (dim + 1) + 5 bytes a word.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.fasttext.word_runs import add_runs_of_words
from tokenmill.pipeline.fasttext.word_vectors import (
    BLOCK,
    END_OF_LINE,
    NO_HASH,
    Input,
    add_word,
    frame,
    is_end_of_line,
    next_cut,
)
from tokenmill.tokenizer.compiled import compiled
from tokenmill.tokenizer.find_words import LONG, LONG_INDEX
from tokenmill.tokenizer.instructions import address_of, prefetch
from tokenmill.tokenizer.word_table import MAX_BYTES, TableArrays, WordTable
from tokenmill.tokenizer.words import Words

MAX_SUM_BYTES = 1 << 27
"""Memory for kept sums: 3.9 million words of 16 dimensions, 260,000 of 256."""
NEW, NO_WORD, WORD, READ_ANEW = range(4)
"""What is known of a word: nothing yet; that it is empty or a label; that its sum is kept; that it
has to be read."""
_AHEAD = np.uint64(8)
"""How many words before its turn the sums of a word are fetched from memory."""
_ONE = np.uint64(1)


class Kept(NamedTuple):
    """What is kept for each word of a table, by number, as compiled code sees it."""

    kinds: NDArray[np.uint8]
    hashes: NDArray[np.uint32]
    sums: NDArray[np.float32]
    """(words, dim + 1)"""


class DocumentSums:
    """Sums documents, with a memory of words that lasts as long as their table."""

    def __init__(self, model: Input, max_bytes: int = MAX_SUM_BYTES) -> None:
        self._model = model
        self._capacity = max_bytes // (4 * (model.matrix.dim + 1))
        self._table: WordTable | None = None

    def sums(self, words: Words) -> NDArray[np.float64]:
        """(documents, dim + 1) the sum of each document's vectors, and how many there are.

        Args:
            words: as Splitter gives them, not split further.
        """
        if words.words is not self._table:
            self._table, self._kept = words.words, self._nothing_kept()
        table = words.words.arrays
        _learn(_mark_new(words.word_ids, self._kept.kinds), table, self._model, self._kept)
        sums = np.zeros((len(words), self._model.matrix.dim + 1), np.float64)
        sequence, ends = self._room_for_hashes(words), np.zeros(len(words), np.int64)
        _sum_words(
            words.word_ids, words.ends, table, words.data, words.long_words,
            self._model, self._kept, sums, sequence, ends,
        )  # fmt: skip
        if len(sequence):
            add_runs_of_words(sums, sequence, ends, self._model)
        return sums

    def _room_for_hashes(self, words: Words) -> NDArray[np.uint32]:
        """For every word and the end of each document; none if the model has no runs of words."""
        if self._model.runs.max_words == 1:
            return np.zeros(0, np.uint32)
        most = (words.word_bytes() + 1) // 2  # at most every second byte cuts
        return np.empty(int(most.sum()) + len(words), np.uint32)

    def _nothing_kept(self) -> Kept:
        # Zeros take no memory before something else is written there.
        return Kept(
            np.zeros(self._capacity, np.uint8),
            np.zeros(self._capacity, np.uint32),
            np.zeros((self._capacity, self._model.matrix.dim + 1), np.float32),
        )


@compiled
def _mark_new(word_ids: NDArray[np.uint32], kinds: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The words that came for the first time, each once."""
    new = np.empty(min(len(word_ids), len(kinds)), np.uint32)
    count = 0
    for number in word_ids:
        if number < len(kinds) and kinds[np.uint64(number)] == NEW:
            kinds[np.uint64(number)] = READ_ANEW
            new[count] = number
            count += 1
    return new[:count]


@compiled
def _learn(new: NDArray[np.uint32], table: TableArrays, model: Input, kept: Kept) -> None:
    kinds, hashes, sums = kept
    framed = np.empty(MAX_BYTES + 2, np.uint8)
    rows = np.empty(BLOCK + model.runs.max_chars, np.uint64)
    total = np.zeros(sums.shape[1], np.float64)
    for number in new:
        word = np.uint64(number)
        start, stop = np.uint64(table.starts[word]), np.uint64(table.starts[word + _ONE])
        if start == stop:
            kinds[word] = NO_WORD
            continue
        if next_cut(table.arena, start, stop) < stop:
            continue
        size = frame(framed, table.arena, start, stop)
        if is_end_of_line(framed, size):
            continue
        value = add_word(total, framed, size, model, rows)
        kinds[word] = NO_WORD if value == NO_HASH else WORD
        hashes[word] = np.uint32(value)
        for place in range(len(total)):
            sums[word, place] = total[place]
            total[place] = 0


@compiled
def _sum_words(
    word_ids: NDArray[np.uint32],
    ends: NDArray[np.int64],
    table: TableArrays,
    data: NDArray[np.uint8],
    long_words: NDArray[np.int64],
    model: Input,
    kept: Kept,
    sums: NDArray[np.float64],
    sequence: NDArray[np.uint32],
    sequence_ends: NDArray[np.int64],
) -> None:
    """Add the sums of words; write the hashes of a document's words, if there is room for any."""
    kinds, hashes, sums_of_words = kept
    width = sums.shape[1]
    end_of_line = END_OF_LINE.copy()
    num_hashes = 0
    at = np.uint64(0)
    last = np.uint64(max(len(word_ids) - 1, 0))
    base, row_bytes = address_of(sums_of_words), np.uint64(4 * width)
    for document in range(len(ends)):
        total = sums[document]
        end = np.uint64(ends[document])
        goes_on = True
        while at < end and goes_on:
            word = np.uint64(word_ids[at])
            ahead = np.uint64(word_ids[min(at + _AHEAD, last)])
            if ahead < len(kinds):
                prefetch(base + ahead * row_bytes)
                prefetch(base + ahead * row_bytes + np.uint64(64))
            at += _ONE
            kind = READ_ANEW
            if word < len(kinds):
                kind = kinds[word]
            if kind != READ_ANEW:
                for place in range(width):
                    total[place] += sums_of_words[word, place]
                if kind == WORD and len(sequence):
                    sequence[num_hashes] = hashes[word]
                    num_hashes += 1
                continue
            if word < LONG:
                read, start, stop = table.arena, table.starts[word], table.starts[word + _ONE]
            else:
                read = data
                start, stop = long_words[word & np.uint64(LONG_INDEX)]
            goes_on, num_hashes = _read(total, read, start, stop, model, sequence, num_hashes)
        if goes_on:
            size = len(end_of_line)
            _, num_hashes = _read(total, end_of_line, 0, size, model, sequence, num_hashes)
        sequence_ends[document] = num_hashes
        at = end


@compiled
def _read(
    total: NDArray[np.float64],
    data: NDArray[np.uint8],
    first: int,
    last: int,
    model: Input,
    sequence: NDArray[np.uint32],
    num_hashes: int,
) -> tuple[bool, int]:
    """Add the words of a string without gaps; whether the text goes on, and the hashes it has."""
    framed = np.empty(last - first + 2, np.uint8)
    rows = np.empty(BLOCK + model.runs.max_chars, np.uint64)
    start, end = np.uint64(first), np.uint64(last)
    while start < end:
        stop = next_cut(data, start, end)
        if stop > start:
            size = frame(framed, data, start, stop)
            value = add_word(total, framed, size, model, rows)
            if value != NO_HASH and len(sequence):
                sequence[num_hashes] = np.uint32(value)
                num_hashes += 1
            if is_end_of_line(framed, size):
                return False, num_hashes
        start = stop + _ONE
    return True, num_hashes
