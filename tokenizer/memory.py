"""What is known of the units of a tokenizer, and how new ones are learnt.

    words ──> units ──new──> pieces ──> token ids
                └── token ids, by a gather

A unit with a word or gap that is not remembered, or glued from several pairs, has no number. It is
cut into pieces (piece_memory.py) each time that it comes.
"""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.shards.ranges import ranges
from tokenmill.tokenizer.fast_path import Unit
from tokenmill.tokenizer.find_words import LONG, LONG_INDEX
from tokenmill.tokenizer.pairs import MAX_PAIRS, PairTable
from tokenmill.tokenizer.piece_memory import PieceMemory
from tokenmill.tokenizer.pieces import GAP_ALONE, GAP_BINDS
from tokenmill.tokenizer.reference import Reference
from tokenmill.tokenizer.remembered import Tokens
from tokenmill.tokenizer.word_places import bytes_before, pass_over, take_pairs, token_bytes
from tokenmill.tokenizer.word_table import WordTable
from tokenmill.tokenizer.words import Words

LEARNT_UNITS = 1 << 14
"""Units that are learnt at once."""
NO_PAIRS = np.zeros(0, np.int64)


class UnitMemory:
    """The units of the words of one table, with their token ids."""

    def __init__(
        self,
        reference: Reference,
        settings: dict[str, Any],
        unit: Unit,
        dtype: type[np.uint16] | type[np.uint32],
        words: Words,
    ) -> None:
        self._reference, self._settings, self._unit = reference, settings, unit
        self._words = words.words
        self._gaps = words.gaps
        self._gap_kinds = np.zeros(0, np.uint8)
        self._pairs = PairTable()
        self._pieces = PieceMemory(reference, settings, unit, dtype)

    def serves(self, words: Words) -> bool:
        """Whether the words are numbered by the tables that this memory knows, and it has room."""
        return words.words is self._words and len(self._pairs) <= MAX_PAIRS

    def encode(
        self, words: Words, pairs: NDArray[np.int64] = NO_PAIRS
    ) -> tuple[Tokens, NDArray[np.int64]]:
        """The tokens of documents, learning what is new; and (k,) the token that the word of each
        of some pairs, rising, begins with."""
        store = self._pieces.store
        if self._unit is Unit.WORD:
            self._learn_words()
            long = self._pieces.encode(words.data, *words.long_words.T)
            tokens = store.write_units(words.word_ids, words.ends, long)
            return tokens, store.places_of_units(words.word_ids, long, pairs)
        found = self._pairs.find(words)
        self._learn_pairs()
        runs = self._pairs.fill(words, found, store.units)
        long = self._encode_runs(words, *runs)
        tokens = store.write(found.entries, words.ends, long)
        if not len(pairs):
            return tokens, pairs
        unit, size = bytes_before(words, pairs, runs, self._reference.tokenizer)
        places = store.places(found.entries, long, unit)
        pass_over(tokens[0], places, size, self._token_bytes)
        return tokens, places

    @cached_property
    def _token_bytes(self) -> NDArray[np.int64]:
        vocabulary = self._reference.tokenizer.get_vocab(with_added_tokens=True)
        return token_bytes(self._settings, max(vocabulary.values()) + 1)

    def _learn_words(self) -> None:
        store, table = self._pieces.store, self._words
        while store.num_units < len(table):
            starts = table.starts[store.num_units :][: LEARNT_UNITS + 1]
            data = table.arena[starts[0] : starts[-1]]
            bounds = starts - starts[0]
            store.add_units(*self._pieces.cut(data, bounds[:-1], bounds[1:]))

    def _learn_pairs(self) -> None:
        store = self._pieces.store
        if store.num_units < len(self._pairs):
            self._note_gaps()
        while store.num_units < len(self._pairs):
            first = store.num_units
            gap_ids, word_ids = self._pairs.pairs(first, LEARNT_UNITS)
            data, ends = _pairs(word_ids, gap_ids, self._words, self._gaps).write()
            starts = np.concatenate([[0], ends[:-1]])
            store.add_units(*self._pieces.cut(data, starts, ends, self._gap_kinds[gap_ids]))
            self._pairs.note(first, store.units[first : store.num_units])

    def _note_gaps(self) -> None:
        """Find the kinds of new gaps."""
        known, count = len(self._gap_kinds), len(self._gaps)
        kinds = np.full(count - known, GAP_BINDS, np.uint8)
        if self._pieces.added.in_gaps:
            for place, gap in enumerate(self._gaps.texts(np.arange(known, count))):
                kinds[place] = self._gap_kind(gap)
        self._gap_kinds = np.append(self._gap_kinds, kinds)

    def _gap_kind(self, gap: str) -> int:
        return GAP_ALONE if self._pieces.added.end_gap(gap) else GAP_BINDS

    def _encode_runs(
        self, words: Words, first: NDArray[np.int64], stop: NDArray[np.int64]
    ) -> Tokens:
        """The tokens of runs of pairs, (runs,) each from its first pair to before the stop."""
        data, pair_ends = take_pairs(words, ranges(first, stop - first)).write()
        ends = pair_ends[np.cumsum(stop - first) - 1]
        starts = np.concatenate([[0], ends])[:-1]
        return self._pieces.encode(data, starts, ends, self._kinds_of(words, words.gap_ids[first]))

    def _kinds_of(self, words: Words, gap_ids: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """The kinds of gaps that may have no number."""
        self._note_gaps()
        is_long = gap_ids >= LONG
        kinds = self._gap_kinds[np.where(is_long, 0, gap_ids)]
        if self._pieces.added.in_gaps:
            spans = words.long_gaps[gap_ids[is_long] & LONG_INDEX]
            gaps = [words.data[start:end].tobytes().decode() for start, end in spans]
            kinds[is_long] = [self._gap_kind(gap) for gap in gaps]
        return kinds


def _pairs(
    word_ids: NDArray[np.uint32],
    gap_ids: NDArray[np.uint32],
    words: WordTable,
    gaps: WordTable,
) -> Words:
    """Pairs of a table, none of them long, as Words."""
    no_data, no_spans = np.zeros(0, np.uint8), np.zeros((0, 2), np.int64)
    return Words(word_ids, gap_ids, no_spans[:, 0], words, gaps, no_data, no_spans, no_spans)
