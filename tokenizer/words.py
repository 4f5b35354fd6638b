"""Texts become words and gaps, once; every later step is a gather or a sum over their numbers.

A gap is a run of space, tab, line feed and carriage return and nothing else; a word is the run of
bytes up to the next gap. Nothing is lost: a document is the gaps and words one after another, each
gap before its word. The first gap may be empty, and so may the last word; an empty document has
none.

    "The cat\n\nsat. "    gaps "", " ", "\n\n", " "    words "The", "cat", "sat.", ""

Words and gaps are numbered by tables that stay from batch to batch. One above 256 bytes is not
remembered: its number has the top bit set, and the rest is its place in the batch's list of spans.
The tables are bounded: a batch that finds them full gets new ones, and Words hold on to theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.errors import SourceError
from tokenmill.tokenizer.compiled import compiled
from tokenmill.tokenizer.find_words import (
    AT,
    BLOCK,
    LAST_END,
    LONG,
    LONG_GAPS,
    LONG_INDEX,
    LONG_WORDS,
    ONE_SPACE,
    PAIRS,
    Found,
    find_words,
)
from tokenmill.tokenizer.word_table import MAX_BYTES, TableArrays, WordTable

MAX_WORDS = 1 << 21
"""A table with more words starts anew; English web text of some GB has so many."""

Texts: TypeAlias = Sequence[str] | pa.Array | pa.ChunkedArray


@dataclass(frozen=True, slots=True)
class Words:
    """The words and gaps of a batch of documents."""

    word_ids: NDArray[np.uint32]
    """(n,) the number of each word in `words`, or LONG and its place in `long_words`."""
    gap_ids: NDArray[np.uint32]
    """(n,) the number of the gap before each word, in `gaps` or `long_gaps` likewise."""
    ends: NDArray[np.int64]
    """(documents,) where each document ends in the two arrays."""
    words: WordTable
    gaps: WordTable
    data: NDArray[np.uint8]
    """The bytes of the batch, which the spans point into."""
    long_words: NDArray[np.int64]
    """(k, 2) where each word that is not remembered starts and ends in `data`."""
    long_gaps: NDArray[np.int64]
    """(k, 2) the same for gaps."""

    def __len__(self) -> int:
        return len(self.ends)

    def word_bytes(self) -> NDArray[np.int64]:
        """(n,) bytes in each word."""
        return _num_bytes(self.word_ids, self.words, self.long_words)

    def gap_bytes(self) -> NDArray[np.int64]:
        """(n,) bytes in each gap."""
        return _num_bytes(self.gap_ids, self.gaps, self.long_gaps)

    def join(self) -> pa.LargeStringArray:
        """The documents' texts again, byte for byte."""
        data, pair_ends = self.write()
        offsets = np.zeros(len(self.ends) + 1, np.int64)
        offsets[1:] = np.concatenate([[0], pair_ends])[self.ends]
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        return pa.Array.from_buffers(pa.large_string(), len(self.ends), buffers)

    def write(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The bytes of all gaps and words, and (n,) where each pair of them ends."""
        pair_ends = np.cumsum(self.gap_bytes() + self.word_bytes())
        out = np.empty(pair_ends[-1] if len(pair_ends) else 0, np.uint8)
        _write_texts(
            out, self.word_ids, self.gap_ids, self.words.arrays, self.gaps.arrays,
            self.data, self.long_words, self.long_gaps,
        )  # fmt: skip
        return out, pair_ends


class Splitter:
    """Splits texts into words with tables that it keeps from call to call."""

    def __init__(self, max_words: int = MAX_WORDS) -> None:
        self._max_words = max_words
        self._start_anew()

    def _start_anew(self) -> None:
        self.words = WordTable()
        self.gaps = WordTable()
        assert self.gaps.add(b" ") == ONE_SPACE

    def split(self, texts: Texts) -> Words:
        """The words and gaps of these texts.

        Raises:
            SourceError: a text is null or not UTF-8.
        """
        return self.split_bytes(*text_buffers(texts))

    def split_bytes(self, offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Words:
        """The words and gaps of texts in UTF-8, (documents + 1,) where each starts in the data."""
        if max(len(self.words), len(self.gaps)) > self._max_words:
            self._start_anew()
        # Every pair but the last of a document has at least a byte of word and one of gap.
        most = int(offsets[-1] - offsets[0]) // 2 + len(offsets)
        found = Found(
            word_ids=np.empty(most, np.uint32),
            gap_ids=np.empty(most, np.uint32),
            ends=np.zeros(len(offsets) - 1, np.int64),
            long_words=np.empty((BLOCK, 2), np.int64),
            long_gaps=np.empty((BLOCK, 2), np.int64),
        )
        place = np.zeros(8, np.int64)
        place[AT] = place[LAST_END] = offsets[0]
        while not find_words(
            data, offsets, self.words.arrays, self.gaps.arrays, 2 * self._max_words,
            found, place,
        ):  # fmt: skip
            self._make_room(self.words)
            self._make_room(self.gaps)
            found = found._replace(
                long_words=_with_room(found.long_words, int(place[LONG_WORDS])),
                long_gaps=_with_room(found.long_gaps, int(place[LONG_GAPS])),
            )
        num_pairs = int(place[PAIRS])
        found.word_ids.resize(num_pairs, refcheck=False)
        found.gap_ids.resize(num_pairs, refcheck=False)
        return Words(
            found.word_ids, found.gap_ids, found.ends, self.words, self.gaps, data,
            found.long_words[: place[LONG_WORDS]].copy(),
            found.long_gaps[: place[LONG_GAPS]].copy(),
        )  # fmt: skip

    def _make_room(self, table: WordTable) -> None:
        if len(table) < 2 * self._max_words:
            table.make_room(BLOCK, BLOCK * MAX_BYTES)


def _with_room(spans: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """The spans, or a copy of twice their length where a block more might not fit."""
    if length + BLOCK <= len(spans):
        return spans
    return np.concatenate([spans, np.empty_like(spans)])


def text_array(texts: Texts) -> pa.Array:
    """One Arrow array of strings without nulls.

    Raises:
        SourceError: a text is null, not a string, or not UTF-8.
    """
    try:
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.chunk(0) if texts.num_chunks == 1 else pa.concat_arrays(_wide(texts))
        elif not isinstance(texts, pa.Array):
            texts = pa.array(texts, pa.large_string())
        if pa.types.is_dictionary(texts.type) or pa.types.is_string_view(texts.type):
            texts = texts.cast(pa.large_string())
        if texts.type not in (pa.string(), pa.large_string()):
            raise SourceError(f"texts: expected an array of strings, found {texts.type}.")
        texts.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
        raise SourceError(f"texts: {error}. Set such documents aside.") from None
    if texts.null_count:
        raise SourceError(f"texts: {texts.null_count} are null. Set such documents aside.")
    return texts


def text_buffers(texts: Texts) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """(documents + 1,) where each text starts in the bytes that come with it; nothing is copied."""
    array = text_array(texts)
    _, offset_buffer, data_buffer = array.buffers()
    if not len(array):
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    width = np.dtype(np.int64 if array.type == pa.large_string() else np.int32)
    offsets = np.frombuffer(
        offset_buffer, width, count=len(array) + 1, offset=array.offset * width.itemsize
    )
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer else np.zeros(0, np.uint8)
    return offsets.astype(np.int64), data


def _wide(texts: pa.ChunkedArray) -> list[pa.Array]:
    """The chunks with 64-bit offsets: together they may exceed 2 GB."""
    chunks: list[pa.Array] = texts.cast(pa.large_string()).chunks
    return chunks or [pa.array([], pa.large_string())]


def _num_bytes(
    ids: NDArray[np.uint32], table: WordTable, spans: NDArray[np.int64]
) -> NDArray[np.int64]:
    numbers = np.where(ids < LONG, ids, 0)
    lengths: NDArray[np.int64] = table.starts[numbers + 1] - table.starts[numbers]
    is_long = np.flatnonzero(ids >= LONG)
    lengths[is_long] = np.diff(spans, axis=1)[ids[is_long] & LONG_INDEX, 0]
    return lengths


@compiled
def _write_texts(
    out: NDArray[np.uint8],
    word_ids: NDArray[np.uint32],
    gap_ids: NDArray[np.uint32],
    words: TableArrays,
    gaps: TableArrays,
    data: NDArray[np.uint8],
    long_words: NDArray[np.int64],
    long_gaps: NDArray[np.int64],
) -> None:
    at = 0
    for pair in range(len(word_ids)):
        at = _write(out, at, int(gap_ids[pair]), gaps, data, long_gaps)
        at = _write(out, at, int(word_ids[pair]), words, data, long_words)


@compiled
def _write(
    out: NDArray[np.uint8],
    at: int,
    number: int,
    table: TableArrays,
    data: NDArray[np.uint8],
    spans: NDArray[np.int64],
) -> int:
    """Write one word or gap at `at`; where it ends."""
    if number < LONG:
        source, start, stop = table.arena, table.starts[number], table.starts[number + 1]
    else:
        source = data
        start, stop = spans[number & LONG_INDEX, 0], spans[number & LONG_INDEX, 1]
    for byte in range(start, stop):
        out[at] = source[byte]
        at += 1
    return at
