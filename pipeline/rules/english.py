"""The words that datatrove's filters count in English text: those of spaCy's tokenizer.

    "It's sat."    words of white_space.py    "It's"       "sat."
                   here                       "It", "'s"   "sat", "."

spaCy looks at one word between white space at a time (but see below), so each distinct word is cut
once, by english_cuts.py, and its words are remembered by number; a document is a gather. The tables
are those of one table of words and start anew with it, or when they are full.

Where this differs from datatrove:
- In "see: x.Size" spaCy finds the exception ":x" across the space, drops it, and so misses the "x."
  after it; here no exception reaches across. Source code has such places, web text hardly.
- spaCy makes the word "IS_ALPHA" once; then datatrove fails, or leaves it out of the text.
- A word of more than a million bytes is cut at each million too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.rules.english_cuts import WordCutter
from tokenmill.pipeline.rules.spacy_english import EnglishPatterns
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
SEVERAL = np.uint32(1 << 31)


class Lists(NamedTuple):
    """The English words of each of some words."""

    codes: NDArray[np.uint32]
    """(words,) the only one's number, or from SEVERAL on, where in `several` there are others."""
    several: NDArray[np.uint32]
    """How many, and then the number of each."""


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
        self._cutter = cutter
        """Made for the first words: asking spaCy takes a second."""
        self._start_anew(None)

    def _start_anew(self, source: WordTable | None) -> None:
        self._source = source
        self._table = WordTable()
        self._known = _list(np.zeros(0, np.uint32), np.zeros(1, np.int64), 0)
        """The words of each word of the source; the empty word has none."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "EnglishSplitter":
        """A splitter that knows what another does, its `arrays`; it does without spaCy."""
        return cls(WordCutter(EnglishPatterns.from_arrays(arrays)))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What it knows from spaCy, for other processes; nothing if it has not met a word."""
        return self._cutter.patterns.to_arrays() if self._cutter else {}

    def split(self, words: Words) -> EnglishWords:
        """The English words of these documents.

        Args:
            words: cut at white space of any kind, or at gaps alone.
        """
        self.forget_if_full()
        words = split_at_white_space(words)
        if words.words is not self._source:
            self._start_anew(words.words)
        self._learn(words.words)
        is_word = ~spans_hold_white_space(words.data, words.long_words)
        starts, stops = words.long_words.T
        long_words = _list(*self._cut(words.data, starts, stops, is_word), 0)
        pair_ends = np.empty(len(words.word_ids), np.int64)
        ids = np.empty(len(pair_ends) + len(pair_ends) // 2, np.uint32)
        pairs = size = 0
        while True:
            pairs, size = _gather(
                words.word_ids, self._known, long_words, ids, pair_ends, pairs, size
            )  # fmt: skip
            if pairs == len(pair_ends):
                break
            ids = np.concatenate([ids, np.empty_like(ids)])
        ends = np.concatenate([[0], pair_ends])[words.ends]
        return EnglishWords(ids[:size], ends, pair_ends, words, self._table)

    def forget_if_full(self) -> None:
        """Start anew if the tables are full. `split` does; before that it frees memory."""
        if len(self._table) > MAX_WORDS or len(self._table.arena) > MAX_TABLE_BYTES:
            self._start_anew(None)

    def _learn(self, source: WordTable) -> None:
        """Cut the words of the source that are new; those with white space are no document's."""
        num_known = len(self._known.codes)
        starts = source.starts[num_known:]
        is_word = ~source.per_word(hold_white_space)[num_known:]
        cut = self._cut(source.arena, starts[:-1], starts[1:], is_word)
        new = _list(*cut, len(self._known.several))
        self._known = Lists(*map(np.concatenate, zip(self._known, new, strict=True)))

    def _cut(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
        is_word: NDArray[np.bool_],
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The numbers of the English words of strings, and (n,) where each string's end in them.

        Args:
            starts: (n,) where each starts in `data`.
            stops: (n,) where it ends.
            is_word: (n,) which ones to cut; the others have no words.
        """
        self._cutter = self._cutter or WordCutter()
        ids, counts = [np.zeros(0, np.uint32)], np.zeros(len(starts), np.int64)
        for first in range(0, len(starts), CUT_TOGETHER):
            chosen = first + np.flatnonzero(is_word[first : first + CUT_TOGETHER])
            if not len(chosen):
                continue
            token_stops, ends = self._cutter.cut(data, starts[chosen], stops[chosen])
            token_starts = np.concatenate([[0], token_stops[:-1]])
            counts[chosen] = np.diff(ends, prepend=0)
            token_starts[ends - counts[chosen]] = starts[chosen]
            ids.append(intern_spans(self._table, data, token_starts, token_stops))
        return np.concatenate(ids), np.cumsum(counts)


@compiled
def _list(ids: NDArray[np.uint32], ends: NDArray[np.int64], num_before: int) -> Lists:
    """Lists of the words that end at `ends`, to stand behind so many numbers of `several`."""
    codes = np.empty(len(ends), np.uint32)
    several = np.empty(len(ids) + len(ends), np.uint32)
    start = size = 0
    for word in range(len(ends)):
        count = ends[word] - start
        if count == 1:
            codes[word] = ids[start]
        else:
            codes[word] = SEVERAL | (num_before + size)
            several[size] = count
            several[size + 1 : size + 1 + count] = ids[start : start + count]
            size += 1 + count
        start = ends[word]
    return Lists(codes, several[:size].copy())


@compiled
def _gather(
    word_ids: NDArray[np.uint32],
    known: Lists,
    long_words: Lists,
    ids: NDArray[np.uint32],
    pair_ends: NDArray[np.int64],
    pair: int,
    size: int,
) -> tuple[int, int]:
    """Write the English words of the pairs from one on; where it stopped because `ids` is full, and
    how many there are now."""
    codes, several, long_codes, long_several = (
        known.codes, known.several, long_words.codes, long_words.several
    )  # fmt: skip
    while pair < len(word_ids):
        word = word_ids[pair]
        is_long = word >= LONG
        code = long_codes[word & LONG_INDEX] if is_long else codes[np.uint64(word)]
        if code < SEVERAL:
            if size == len(ids):
                break
            ids[np.uint64(size)] = code
            size += 1
        else:
            at = np.int64(code & ~SEVERAL)
            count = np.int64(long_several[at] if is_long else several[at])
            if size + count > len(ids):
                break
            for place in range(at + 1, at + 1 + count):
                ids[size] = long_several[place] if is_long else several[place]
                size += 1
        pair_ends[pair] = size
        pair += 1
    return pair, size
