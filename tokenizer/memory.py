"""What is known of the units of a tokenizer, and how new ones are learnt.

    words ──> units ──new──> pieces ──new──> the library
                │               └── token ids ──┘
                └── token ids, by a gather

A unit with a word or gap above 256 bytes, or glued from several pairs, has no number. Up to 512
bytes its pieces are remembered all the same; above, it goes to the library each time.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.fast_path import Unit, find_added_tokens
from tokenmill.tokenizer.pairs import SWALLOWED, PairTable
from tokenmill.tokenizer.pieces import (
    GAP_ALONE,
    GAP_BINDS,
    GAP_BREAKS,
    PieceList,
    UnitTexts,
    join_pieces,
)
from tokenmill.tokenizer.reference import PieceModel, Reference
from tokenmill.tokenizer.remembered import Tokens, TokenStore
from tokenmill.tokenizer.words import LONG, Words

MAX_UNITS = 1 << 22
"""A memory with more pairs or pieces starts anew."""
REMEMBERED_BYTES = 512
"""The longest unit without a number that is cut into pieces."""


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
        self._unit = unit
        self._reference = reference
        self._model = PieceModel(reference.tokenizer, settings, unit)
        self._added = find_added_tokens(reference.tokenizer, settings)
        self._words = words.words
        self._gaps = words.gaps
        self._gap_kinds = np.zeros(0, np.uint8)
        self._pairs = PairTable()
        self._pieces = PieceList()
        self._store = TokenStore(dtype)

    def serves(self, words: Words) -> bool:
        """Whether the words are numbered by the tables that this memory knows, and it has room."""
        full = max(len(self._pairs), len(self._pieces.table)) > MAX_UNITS
        return words.words is self._words and not full

    def encode(self, words: Words) -> Tokens:
        """The tokens of documents, learning what is new."""
        if self._unit is Unit.WORD:
            units = words.word_ids
            self._learn(self._new_words())
            data, spans = words.data, words.long_words
        else:
            units = self._pairs.number(words)
            self._learn(self._new_pairs())
            data, spans = _unnumbered(words, units)
        return self._store.gather(units, words.ends, *self._encode_spans(data, spans))

    def _new_words(self) -> UnitTexts:
        starts = self._words.starts[self._store.num_units :]
        no_gaps = np.zeros(len(starts) - 1, np.uint8)
        return UnitTexts(self._words.arena, starts[:-1], starts[:-1], starts[1:], no_gaps)

    def _new_pairs(self) -> UnitTexts:
        gap_ids, word_ids = self._pairs.pairs(self._store.num_units)
        kinds = map(
            self._gap_kind, self._gaps.texts(np.arange(len(self._gap_kinds), len(self._gaps)))
        )
        self._gap_kinds = np.append(self._gap_kinds, np.array(list(kinds), np.uint8))
        no_data, no_spans = np.zeros(0, np.uint8), np.zeros((0, 2), np.int64)
        new = Words(
            word_ids, gap_ids, no_spans[:, 0], self._words, self._gaps, no_data, no_spans, no_spans
        )
        data, ends = new.write()
        word_starts = ends - new.word_bytes()
        starts = word_starts - new.gap_bytes()
        return UnitTexts(data, starts, word_starts, ends, self._gap_kinds[gap_ids])

    def _gap_kind(self, gap: str) -> int:
        if self._added.end_gap(gap):
            return GAP_ALONE
        return GAP_BINDS if gap.endswith(" ") else GAP_BREAKS

    def _learn(self, units: UnitTexts) -> None:
        """Remember the next units."""
        if len(units.ends):
            self._store.add_units(*self._cut(units))

    def _encode_spans(self, data: NDArray[np.uint8], spans: NDArray[np.int64]) -> Tokens:
        """The tokens of units without a number, (k, 2) where each starts and ends in the data."""
        is_short = spans[:, 1] - spans[:, 0] <= REMEMBERED_BYTES
        starts, ends = spans[is_short].T
        no_gaps = np.zeros(len(starts), np.uint8)
        cut = self._cut(UnitTexts(data, starts, starts.copy(), ends, no_gaps))
        short_ids, short_ends = self._store.gather_pieces(*cut)
        long_ids, long_counts = self._reference.encode(
            [data[start:end].tobytes().decode() for start, end in spans[~is_short]]
        )
        counts = np.empty(len(spans), np.int64)
        counts[is_short] = np.diff(short_ends, prepend=0)
        counts[~is_short] = long_counts
        from_short = np.repeat(is_short, counts)
        ids = np.empty(len(from_short), np.uint32)
        ids[from_short] = short_ids
        ids[~from_short] = long_ids
        return ids, np.cumsum(counts)

    def _cut(self, units: UnitTexts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The pieces of units, none of which is new any more, and where each unit's end."""
        known = len(self._pieces.table)
        runs = self._unit is Unit.GAP_AND_WORD
        cut = self._pieces.cut(units, self._added.in_words, runs=runs)
        numbers = np.arange(known, len(self._pieces.table))
        is_simple = self._pieces.is_simple[numbers]
        if is_simple.any():
            simple = numbers[is_simple]
            joined, lengths = join_pieces(self._pieces.table, simple, self._model.letters)
            self._store.add_pieces(simple, *self._model.encode(joined, lengths))
        if not is_simple.all():
            others = numbers[~is_simple]
            texts = self._pieces.table.texts(others)
            self._store.add_pieces(others, *self._reference.encode_short(texts))
        return cut


def _unnumbered(
    words: Words, units: NDArray[np.uint32]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The texts of all units that are long or glued, and (k, 2) where each starts and ends."""
    taken = np.flatnonzero((units >= LONG) | (units == SWALLOWED))
    part = Words(
        words.word_ids[taken], words.gap_ids[taken], words.ends[:0], words.words, words.gaps,
        words.data, words.long_words, words.long_gaps,
    )  # fmt: skip
    data, pair_ends = part.write()
    starts = np.concatenate([[0], pair_ends])[:-1][units[taken] >= LONG]
    return data, np.stack([starts, np.append(starts[1:], pair_ends[-1:])], axis=1)
