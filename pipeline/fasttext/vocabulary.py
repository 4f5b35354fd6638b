"""The words a fastText model knows, and the rows that stand for runs of characters and words.

A word has up to three kinds of rows in the input matrix: its own, if it is in the vocabulary; one
for each run of `min_chars` to `max_chars` characters of "<word>"; and one for each run of two to
`max_words` words that starts with it. Runs have no vocabulary: a run's hash modulo `buckets` is
its bucket.

    rows    0 .. words - 1                      the vocabulary, by number
            words .. words + buckets - 1        the runs, by bucket

A pruned model kept few buckets; `bucket_rows` says where, and the others stand for nothing. The
hash is FNV-1a of 32 bits over signed bytes: one above 127 flips the upper 24 bits too, because
models were trained with it so.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline

ABSENT = -1
HASH_START = np.uint64(2166136261)
_HASH_FACTOR = np.uint64(16777619)
_LOW_32 = np.uint64(0xFFFFFFFF)
_SIGN = np.uint64(0xFFFFFF00)
_ONE, _THREE, _SEVEN = np.uint64(1), np.uint64(3), np.uint64(7)


class Vocabulary(NamedTuple):
    """Words first, then labels, as compiled code sees them."""

    data: NDArray[np.uint8]
    """The bytes of the model's file."""
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    """(entries,) where each stands in it."""
    is_label: NDArray[np.bool_]
    """(entries,)"""
    slots: NDArray[np.int32]
    """(power of two,) an entry's number plus one, 0 where free."""


class Runs(NamedTuple):
    """Which runs of characters and words have a row, as compiled code sees it."""

    min_chars: int
    max_chars: int
    """Characters in a run, "<" and ">" counted; 0 in a model without such runs."""
    max_words: int
    """Words in a run; 1 in a model without such runs."""
    buckets: int
    first_row: int
    """The row of bucket 0."""
    bucket_rows: NDArray[np.int32]
    """(buckets,) the row of each that has one; (0,) where every bucket has its own."""
    has_row: NDArray[np.uint8]
    """A bit for each of those buckets: most have no row, and bits stay in a processor's cache."""


def index_vocabulary(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    is_label: NDArray[np.bool_],
) -> Vocabulary:
    """The entries, to be found by their bytes; of equal ones the last is found."""
    slots = np.zeros(1 << (2 * len(starts)).bit_length(), np.int32)
    vocabulary = Vocabulary(data, starts, ends, is_label, slots)
    _fill_slots(vocabulary)
    return vocabulary


@compiled
def _fill_slots(vocabulary: Vocabulary) -> None:
    data, starts, ends, _, slots = vocabulary
    for entry in range(len(starts)):
        start, stop = np.uint64(starts[entry]), np.uint64(ends[entry])
        slots[_slot_of(vocabulary, data, start, stop, hash_of(data, start, stop))] = entry + 1


@compiled_inline
def find(
    vocabulary: Vocabulary,
    data: NDArray[np.uint8],
    start: np.uint64,
    stop: np.uint64,
    value: np.uint64,
) -> int:
    """The number of the entry that is these bytes, whose hash is `value`, or ABSENT."""
    return int(vocabulary.slots[_slot_of(vocabulary, data, start, stop, value)]) - 1


@compiled_inline
def _slot_of(
    vocabulary: Vocabulary,
    data: NDArray[np.uint8],
    start: np.uint64,
    stop: np.uint64,
    value: np.uint64,
) -> np.uint64:
    """The slot of the entry that is these bytes, or the free slot where it would stand."""
    mask = np.uint64(len(vocabulary.slots) - 1)
    slot = value & mask
    while vocabulary.slots[slot] != 0:
        entry = np.uint64(vocabulary.slots[slot]) - _ONE
        begin, end = np.uint64(vocabulary.starts[entry]), np.uint64(vocabulary.ends[entry])
        if end - begin == stop - start:
            at = start
            while at < stop and vocabulary.data[begin] == data[at]:
                begin += _ONE
                at += _ONE
            if at == stop:
                return slot
        slot = (slot + _ONE) & mask
    return slot


@compiled_inline
def hash_of(data: NDArray[np.uint8], start: np.uint64, stop: np.uint64) -> np.uint64:
    """The hash of a string, below 2**32."""
    value = HASH_START
    at = start
    while at < stop:
        value = next_hash(value, data[at])
        at += _ONE
    return value


@compiled_inline
def next_hash(value: np.uint64, byte: np.uint8) -> np.uint64:
    """The hash of a string with the hash `value` and one more byte."""
    signed = np.uint64(byte) | _SIGN if byte >= 0x80 else np.uint64(byte)
    return ((value ^ signed) * _HASH_FACTOR) & _LOW_32


@compiled_inline
def bucket_of(value: np.uint64, num_buckets: np.uint64) -> np.uint64:
    """The bucket of a run by its hash."""
    # Without this, compiled code prepares for a division by zero, which costs a third.
    if num_buckets == 0:
        return value
    return value % num_buckets


@compiled_inline
def is_kept(has_row: NDArray[np.uint8], bucket: np.uint64) -> np.uint64:
    """1 if a bucket has a row, else 0."""
    if len(has_row) == 0:
        return _ONE
    return np.uint64(has_row[bucket >> _THREE] >> (bucket & _SEVEN)) & _ONE


@compiled_inline
def rows_of_buckets(runs: Runs, rows: NDArray[np.uint64], first: np.uint64, num: np.uint64) -> None:
    """Replace buckets that have a row by it, from `first` to `num`."""
    bucket_rows, first_row = runs.bucket_rows, np.uint64(runs.first_row)
    has_all = len(bucket_rows) == 0
    for place in range(first, num):
        bucket = rows[place]
        rows[place] = bucket + first_row if has_all else np.uint64(bucket_rows[bucket])
