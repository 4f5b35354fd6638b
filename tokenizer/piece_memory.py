"""The token ids of texts, piece by piece; each piece is answered for once and remembered.

    texts ──> parts ──> normalized ──> pieces ──new──> the model, or the library
                                          └── token ids ──┘

Texts that are cut here are new units, and those too long or too many to be remembered.
"""

import itertools
from array import array
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.byte_pairs import BytePairs
from tokenmill.tokenizer.characters import BertCharacters, ByteCharacters, Characters
from tokenmill.tokenizer.compiled import compiled
from tokenmill.tokenizer.fast_path import Unit, byte_letters, find_added_tokens
from tokenmill.tokenizer.long_texts import cut_apart
from tokenmill.tokenizer.normalize import find_forms, learn_characters, prepare
from tokenmill.tokenizer.pieces import PieceList, Rules, cut, end_of_head
from tokenmill.tokenizer.reference import Reference
from tokenmill.tokenizer.remembered import Ids, Tokens, TokenStore
from tokenmill.tokenizer.wordpiece import WordPiece

MAX_PIECES = 1 << 20
"""A list with more pieces starts anew; units that were made of them stay."""
SLICE_BYTES = 1 << 18
"""Bytes of parts that are cut at once."""
GIANT_BYTES = 512
"""A part of more bytes is answered for alone, and not remembered."""


class PieceMemory:
    """All that was learnt of pieces, and the store that holds their tokens and those of units."""

    def __init__(
        self,
        reference: Reference,
        settings: dict[str, Any],
        unit: Unit,
        dtype: type[np.uint16] | type[np.uint32],
    ) -> None:
        self.store = TokenStore(dtype)
        self.pieces = PieceList()
        self.added = find_added_tokens(reference.tokenizer, settings)
        self._forms = find_forms(self.added)
        self._reference = reference
        self._settings = settings
        self._unit = unit

    @cached_property
    def _model(self) -> WordPiece | BytePairs:
        if self._unit is Unit.WORD:
            return WordPiece(self._settings["model"])
        return BytePairs(self._settings["model"], byte_letters())

    @cached_property
    def _characters(self) -> Characters:
        tokenizer, in_tokens = self._reference.tokenizer, self.added.characters
        if self._unit is Unit.WORD:
            return BertCharacters(tokenizer, self._settings, in_tokens)
        return ByteCharacters(tokenizer, in_tokens)

    @cached_property
    def _rules(self) -> Rules:
        return Rules(
            classes=self._characters.classes,
            runs=self._unit is Unit.GAP_AND_WORD,
            gaps_apart=self._forms.in_gaps,
            max_characters=self._model.max_characters,
        )

    def cut(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        gap_kinds: NDArray[np.uint8] | None = None,
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The pieces of texts, all with their tokens in the store, and where each text's end.

        Args:
            data, starts, ends: (texts,) where each starts and ends in the data; none longer than
                GIANT_BYTES.
            gap_kinds: (texts,) see Texts; none where texts begin with no gap.
        """
        if gap_kinds is None:
            gap_kinds = np.zeros(len(starts), np.uint8)
        if len(self.pieces.table) > MAX_PIECES:
            self.pieces = PieceList()
        known = len(self.pieces.table)
        texts = prepare(data, starts, ends, gap_kinds, self._characters, self._forms)
        numbers, number_ends = self.pieces.cut(texts, self._rules)
        new = np.arange(known, len(self.pieces.table))
        is_simple = self.pieces.is_simple[new]
        table = self.pieces.table
        if is_simple.any():
            simple = new[is_simple]
            ids, counts = self._model.encode(
                table.arena, table.starts[simple], table.starts[simple + 1]
            )
            self.store.add_pieces(simple, ids, counts)
        if not is_simple.all():
            whole = new[~is_simple]
            self.store.add_pieces(whole, *self._reference.encode_short(table.texts(whole)))
        return numbers, number_ends

    def encode(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        gap_kinds: NDArray[np.uint8] | None = None,
    ) -> Tokens:
        """The tokens of texts of any length, none of them empty, and where each text's end."""
        if not len(starts):
            return np.empty(0, self.store.tokens.dtype), np.empty(0, np.int64)
        learn_characters(data, starts, ends, self._characters)
        part_ends, num_parts = cut_apart(data, starts, ends, self._rules)
        firsts = np.cumsum(num_parts) - num_parts
        part_starts = np.concatenate([starts[:1], part_ends[:-1]])
        part_starts[firsts] = starts
        kinds = np.zeros(len(part_ends), np.uint8)
        if gap_kinds is not None:
            kinds[firsts] = gap_kinds
        results: list[Ids] = [np.empty(0, self.store.tokens.dtype)]
        counts = np.empty(len(part_ends), np.int64)
        for rows in _slices(part_ends - part_starts):
            ids, counts[rows] = self._encode_parts(
                data, part_starts[rows], part_ends[rows], kinds[rows]
            )
            results.append(ids)
        return np.concatenate(results), np.cumsum(counts)[firsts + num_parts - 1]

    def _encode_parts(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        gap_kinds: NDArray[np.uint8],
    ) -> Tokens:
        """The tokens of one giant or of other parts, and how many each has."""
        if ends[0] - starts[0] > GIANT_BYTES:
            ids = self._encode_giant(data[starts[0] : ends[0]], gap_kinds)
            return ids, np.array([len(ids)])
        packed, packed_ends = _pack(data, starts, ends)
        packed_starts = packed_ends - (ends - starts)
        cut = self.cut(packed, packed_starts, packed_ends, gap_kinds)
        ids, token_ends = self.store.write_pieces(*cut)
        return ids, np.diff(token_ends, prepend=0)

    def _encode_giant(self, data: NDArray[np.uint8], gap_kinds: NDArray[np.uint8]) -> Ids:
        """The tokens of one part."""
        zero, size = np.zeros(1, np.int64), np.array([len(data)])
        texts = prepare(data, zero, size, gap_kinds, self._characters, self._forms)
        dtype = self.store.tokens.dtype
        if texts.whole[0]:
            return self._reference.encode([data.tobytes().decode()])[0].astype(dtype)
        gap_ids: Ids = np.empty(0, dtype)
        if self._rules.gaps_apart:
            start, stop = np.uint64(texts.starts[0]), np.uint64(texts.ends[0])
            word = int(end_of_head(texts.data, start, stop, gap_kinds[0]))
            gap_ids = self._encode_gap(texts.data[int(start) : word].tobytes().decode())
            texts.starts[0] = word
        edges, _, _ = cut(texts, self._rules._replace(gaps_apart=False))
        pieces = edges.astype(np.int64)
        ids, _ = self._model.encode(texts.data, pieces[::2], pieces[1::2])
        return np.concatenate([gap_ids, ids.astype(dtype)])

    def _encode_gap(self, gap: str) -> Ids:
        """The tokens of white space in which added tokens may stand."""
        known: dict[str, list[int]] = {}
        ids = array("I")
        for part, is_token in self.added.cut_gap(gap):
            if part not in known:
                known[part] = self._encode_gap_part(part, is_token)
            ids.extend(known[part])
        return np.array(ids, self.store.tokens.dtype)

    def _encode_gap_part(self, part: str, is_token: bool) -> list[int]:
        if is_token:
            number = self._reference.tokenizer.token_to_id(part)
            assert number is not None
            return [number]
        data = np.frombuffer(part.encode(), np.uint8)
        ids, _ = self._model.encode(data, np.zeros(1, np.int64), np.array([len(data)]))
        return [int(number) for number in ids]


def _slices(sizes: NDArray[np.int64]) -> list[slice]:
    """Parts of these sizes in runs of about SLICE_BYTES; each giant is a run of its own."""
    if not len(sizes):
        return []
    run = np.cumsum(sizes) // SLICE_BYTES
    is_giant = sizes > GIANT_BYTES
    begins = (run[1:] != run[:-1]) | is_giant[1:] | is_giant[:-1]
    edges = [0, *(np.flatnonzero(begins) + 1).tolist(), len(sizes)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


@compiled
def _pack(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of texts one after another, and where each ends."""
    packed_ends = np.cumsum(ends - starts)
    packed = np.empty(packed_ends[-1], np.uint8)
    at = 0
    for row in range(len(starts)):
        packed[at : packed_ends[row]] = data[starts[row] : ends[row]]
        at = packed_ends[row]
    return packed, packed_ends
