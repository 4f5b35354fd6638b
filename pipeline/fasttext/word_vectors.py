"""Which vectors of a fastText model a word adds, by itself.

    "cat", runs of 3 characters    v(cat) + v(<ca) + v(cat) + v(at>)

A word that the vocabulary knows as a label adds nothing, nor does an unknown one with the prefix of
labels; the word "</s>" has no runs of characters, and ends the text. fastText cuts words at U+0000,
U+000B and U+000C too, where gaps do not.

The loop over runs of characters is what a new word costs, so it only collects the buckets that have
a row; their rows are looked up and added behind it, a block at a time.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.fasttext.matrix import Matrix, add_rows
from tokenmill.pipeline.fasttext.vocabulary import (
    ABSENT,
    HASH_START,
    Runs,
    Vocabulary,
    bucket_of,
    find,
    hash_of,
    is_kept,
    next_hash,
    rows_of_buckets,
)
from tokenmill.tokenizer.compiled import compiled_inline

LABEL_PREFIX = "__label__"
"""A word that starts so and is not in the vocabulary is taken for an unknown label."""
END_OF_LINE = np.frombuffer(b"</s>", np.uint8)
NO_HASH = -1
BLOCK = 256
"""Rows that are looked up before their vectors are added."""
_PREFIX = np.frombuffer(LABEL_PREFIX.encode(), np.uint8)
_BEFORE, _AFTER = np.frombuffer(b"<>", np.uint8)
_ONE, _TWO = np.uint64(1), np.uint64(2)


class Input(NamedTuple):
    """The half of a model that turns words into a vector, as compiled code sees it."""

    vocabulary: Vocabulary
    runs: Runs
    matrix: Matrix


@compiled_inline
def add_word(
    total: NDArray[np.float64],
    framed: NDArray[np.uint8],
    size: np.uint64,
    model: Input,
    rows: NDArray[np.uint64],
) -> int:
    """Add the vectors of a word and of the runs of characters in it; its hash, NO_HASH: a label.

    Args:
        framed: the word between "<" and ">", `size` bytes together.
        rows: room for BLOCK rows and as many more as a run has characters.
    """
    value = hash_of(framed, _ONE, size - _ONE)
    entry = find(model.vocabulary, framed, _ONE, size - _ONE, value)
    num_rows = np.uint64(0)
    if entry == ABSENT:
        if _starts_with(framed, size, _PREFIX):
            return NO_HASH
    elif model.vocabulary.is_label[np.uint64(entry)]:
        return NO_HASH
    else:
        rows[0] = entry
        num_rows = _ONE
    first = size if is_end_of_line(framed, size) else np.uint64(0)
    while True:
        known = num_rows
        first, num_rows = _find_runs(rows, num_rows, framed, first, size, model.runs)
        add_buckets(total, model, rows, known, num_rows)
        if first >= size:
            return int(value)
        num_rows = np.uint64(0)


@compiled_inline
def _find_runs(
    buckets: NDArray[np.uint64],
    num_buckets: np.uint64,
    framed: NDArray[np.uint8],
    start: np.uint64,
    size: np.uint64,
    runs: Runs,
) -> tuple[np.uint64, np.uint64]:
    """Write the buckets that have a row, of the runs of characters from `start` on.

    Returns:
        The first character whose runs had no room, and how many buckets there are.
    """
    # A look into a tuple costs, so all of it is done before the loops.
    min_chars, max_chars, _, all_buckets, _, _, has_row = runs
    first = start if max_chars > 0 else size
    while first < size and num_buckets < BLOCK:
        value = HASH_START
        at = first
        num_chars = 0
        while at < size and num_chars < max_chars:
            value = next_hash(value, framed[at])
            at += _ONE
            while at < size and _continues(framed[at]):
                value = next_hash(value, framed[at])
                at += _ONE
            num_chars += 1
            is_frame = num_chars == 1 and (first == 0 or at == size)
            if num_chars >= min_chars and not is_frame:
                bucket = bucket_of(value, np.uint64(all_buckets))
                buckets[num_buckets] = bucket
                num_buckets += is_kept(has_row, bucket)
        first += _ONE
        while first < size and _continues(framed[first]):
            first += _ONE
    return first, num_buckets


@compiled_inline
def add_buckets(
    total: NDArray[np.float64],
    model: Input,
    rows: NDArray[np.uint64],
    known: np.uint64,
    num_rows: np.uint64,
) -> None:
    """Add the vectors of `known` rows and of the buckets behind them."""
    rows_of_buckets(model.runs, rows, known, num_rows)
    add_rows(total, model.matrix, rows, num_rows)
    total[model.matrix.dense.shape[1]] += num_rows


@compiled_inline
def next_cut(data: NDArray[np.uint8], start: np.uint64, stop: np.uint64) -> np.uint64:
    """Where the word that starts there ends for fastText, at most `stop`."""
    at = start
    while at < stop and not (data[at] <= 12 and (data[at] == 0 or data[at] >= 11)):
        at += _ONE
    return at


@compiled_inline
def frame(
    framed: NDArray[np.uint8], data: NDArray[np.uint8], start: np.uint64, stop: np.uint64
) -> np.uint64:
    """Write "<word>"; its length."""
    size = stop - start
    framed[0] = _BEFORE
    at = np.uint64(0)
    while at < size:
        framed[at + _ONE] = data[start + at]
        at += _ONE
    framed[size + _ONE] = _AFTER
    return size + _TWO


@compiled_inline
def is_end_of_line(framed: NDArray[np.uint8], size: np.uint64) -> bool:
    """Whether fastText stops reading at this word."""
    return size == len(END_OF_LINE) + 2 and _starts_with(framed, size, END_OF_LINE)


@compiled_inline
def _starts_with(framed: NDArray[np.uint8], size: np.uint64, prefix: NDArray[np.uint8]) -> bool:
    if size < len(prefix) + 2:
        return False
    for place in range(len(prefix)):  # noqa: SIM110  # numba compiles no all()
        if framed[place + 1] != prefix[place]:
            return False
    return True


@compiled_inline
def _continues(byte: np.uint8) -> bool:
    """Whether a byte goes on with a character of several bytes."""
    return bool(byte & 0xC0 == 0x80)
