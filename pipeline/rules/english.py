"""The words that datatrove's filters count in English text: those of spaCy's tokenizer.

    "It's sat."    words of white_space.py    "It's"       "sat."
                   here                       "It", "'s"   "sat", "."

spaCy looks at one word between white space at a time (but see below), so each distinct word is cut
once, by english_cuts.py, and its words are remembered by number; a document is a gather. The tables
are those of one table of words and start anew with it, or when they are full; the shapes, which
cost the most, stay.

Where this differs from datatrove:
- In "see: x.Size" spaCy finds the exception ":x" across the space, drops it, and so misses the "x."
  after it; here no exception reaches across. Source code has such places, web text hardly.
- spaCy makes the word "IS_ALPHA" once; then datatrove fails, or leaves it out of the text.
- A word above 2,000 characters that has no short shape is cut there too; see spacy_english.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.rules.english_cuts import WordCutter
from tokenmill.tokenizer.compiled import compiled
from tokenmill.tokenizer.find_words import LONG, LONG_INDEX
from tokenmill.tokenizer.interning import intern_spans
from tokenmill.tokenizer.white_space import (
    hold_white_space,
    spans_hold_white_space,
    split_at_white_space,
)
from tokenmill.tokenizer.word_table import WordTable
from tokenmill.tokenizer.words import MAX_WORDS, Words

CUT_TOGETHER = 1 << 17
"""Words that are cut before their words are numbered."""
MAX_TABLE_BYTES = 1 << 26
"""A table of English words with more bytes starts anew; long words may fill it."""


@dataclass(frozen=True, slots=True)
class EnglishWords:
    """spaCy's words of a batch of documents, without those that are white space."""

    ids: NDArray[np.uint32]
    """(n,) the number of each word in `table`, whatever its length."""
    ends: NDArray[np.int64]
    """(documents,) where each document ends in `ids`."""
    pair_ends: NDArray[np.int64]
    """(pairs,) where the words of each (gap, word) pair of `words` end in `ids`."""
    words: Words
    """The words between white space that these were cut from, those of `str.split`."""
    table: WordTable
    """The distinct words."""

    def __len__(self) -> int:
        return len(self.ends)


class EnglishSplitter:
    """Splits words into spaCy's English words, with tables that it keeps from call to call."""

    def __init__(self, cutter: WordCutter | None = None) -> None:
        self._cutter = cutter or WordCutter()
        self._start_anew(None)

    def _start_anew(self, source: WordTable | None) -> None:
        self._source = source
        self._table = WordTable()
        self._ids = np.zeros(0, np.uint32)
        """The words of each word of the source, one after another."""
        self._ends = np.zeros(1, np.int64)
        """(source words,) where they end; the empty word has none."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "EnglishSplitter":
        """A splitter that starts with what another had learnt, its `arrays`."""
        return cls(WordCutter.from_arrays(arrays))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What it has learnt from spaCy, for other processes."""
        return self._cutter.arrays()

    def split(self, words: Words) -> EnglishWords:
        """The English words of these documents.

        Args:
            words: cut at white space of any kind, or at gaps alone.
        """
        words = split_at_white_space(words)
        is_full = len(self._table) > MAX_WORDS or len(self._table.arena) > MAX_TABLE_BYTES
        if words.words is not self._source or is_full:
            self._start_anew(words.words)
        self._learn(words.words)
        is_word = ~spans_hold_white_space(words.data, words.long_words)
        long_ids, long_ends = self._cut(words.data, words.long_words, is_word)
        pair_ends = np.empty(len(words.word_ids), np.int64)
        ids = np.empty(_count(words.word_ids, self._ends, long_ends, pair_ends), np.uint32)
        _fill(ids, words.word_ids, self._ids, self._ends, long_ids, long_ends)
        ends = np.concatenate([[0], pair_ends])[words.ends]
        return EnglishWords(ids, ends, pair_ends, words, self._table)

    def _learn(self, source: WordTable) -> None:
        """Cut the words of the source that are new; those with white space are no document's."""
        starts = source.starts[len(self._ends) :]
        is_word = ~source.per_word(hold_white_space)[len(self._ends) :]
        ids, ends = self._cut(source.arena, np.stack([starts[:-1], starts[1:]], axis=1), is_word)
        self._ids = np.concatenate([self._ids, ids])
        self._ends = np.concatenate([self._ends, self._ends[-1] + ends])

    def _cut(
        self, data: NDArray[np.uint8], spans: NDArray[np.int64], is_word: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The numbers of the English words of strings, and (n,) where each string's end in them.

        Args:
            spans: (n, 2) where each starts and ends in `data`.
            is_word: (n,) which ones to cut; the others have no words.
        """
        starts, stops = spans[is_word, 0], spans[is_word, 1]
        ids, counts = [np.zeros(0, np.uint32)], np.zeros(len(spans), np.int64)
        cut_counts = [np.zeros(0, np.int64)]
        for first in range(0, len(starts), CUT_TOGETHER):
            chosen = slice(first, first + CUT_TOGETHER)
            token_stops, ends = self._cutter.cut(data, starts[chosen], stops[chosen])
            token_starts = np.concatenate([[0], token_stops[:-1]])
            token_starts[np.concatenate([[0], ends[:-1]])] = starts[chosen]
            ids.append(intern_spans(self._table, data, token_starts, token_stops))
            cut_counts.append(np.diff(ends, prepend=0))
        counts[is_word] = np.concatenate(cut_counts)
        return np.concatenate(ids), np.cumsum(counts)


@compiled
def _count(
    word_ids: NDArray[np.uint32],
    ends: NDArray[np.int64],
    long_ends: NDArray[np.int64],
    pair_ends: NDArray[np.int64],
) -> int:
    total = np.int64(0)
    for pair in range(len(word_ids)):
        number, table_ends = np.int64(word_ids[pair]), ends
        if number >= LONG:
            number &= LONG_INDEX
            table_ends = long_ends
        total += table_ends[number] - (table_ends[number - 1] if number else 0)
        pair_ends[pair] = total
    return int(total)


@compiled
def _fill(
    ids: NDArray[np.uint32],
    word_ids: NDArray[np.uint32],
    known: NDArray[np.uint32],
    ends: NDArray[np.int64],
    long_ids: NDArray[np.uint32],
    long_ends: NDArray[np.int64],
) -> None:
    size = 0
    for word in word_ids:
        if word < LONG:
            for at in range(ends[word - 1] if word else 0, ends[word]):
                ids[size] = known[at]
                size += 1
        else:
            place = word & np.uint32(LONG_INDEX)
            for at in range(long_ends[place - 1] if place else 0, long_ends[place]):
                ids[size] = long_ids[at]
                size += 1
