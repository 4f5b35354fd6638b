"""Words between every kind of white space: those of Python's `str.split`.

The words of words.py end at space, tab, line feed and carriage return alone. Here a gap is a run of
all that `str.isspace` is true for: the no-break space, the ideographic space, U+0085, the line
separator, the separators from U+001C to U+001F...

    "a\\u00a0 b"    gaps "", " "           words "a\\u00a0", "b"
    ->             gaps "", "\\u00a0 "    words "a", "b"

Nothing is lost either: a document is still its gaps and words one after another, and only its last
word may be empty. Only words that hold such white space are cut again, and the pair after one that
ends in it; where there are none, the words come back as they are. The words that were cut stay in
the table and among the long spans, where no document has them.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.find_words import LONG, LONG_INDEX
from tokenmill.tokenizer.interning import intern_spans
from tokenmill.tokenizer.word_table import MAX_BYTES, NOTHING, ONE, TableArrays, WordTable
from tokenmill.tokenizer.words import Words

TWO, THREE = np.uint64(2), np.uint64(3)


def split_at_white_space(words: Words) -> Words:
    """The same documents, cut at all white space; `words` itself where that changes nothing."""
    odd_words = words.words.per_word(hold_white_space)  # (words known,)
    odd_spans = spans_hold_white_space(words.data, words.long_words)
    is_odd = np.empty(len(words.word_ids), np.bool_)
    if not _mark_pairs(words.word_ids, odd_words, odd_spans, is_odd):
        return words
    near_odd = is_odd.copy()
    near_odd[1:] |= is_odd[:-1]
    near = replace(words, word_ids=words.word_ids[near_odd], gap_ids=words.gap_ids[near_odd])
    num_bytes = int(near.word_bytes().sum() + near.gap_bytes().sum())
    # Every pair but the first and the last of a document has a byte of gap and one of word.
    most_new = num_bytes // 2 + 2 * len(words)
    most = len(is_odd) + most_new
    word_ids, gap_ids = np.empty(most, np.uint32), np.empty(most, np.uint32)
    ends = np.empty_like(words.ends)
    text = np.empty(num_bytes, np.uint8)
    pairs = np.empty((most_new, 4), np.int64)
    num_all, num_new = _cut(
        words.word_ids, words.gap_ids, words.ends, words.words.arrays, words.gaps.arrays,
        words.data, words.long_words, words.long_gaps, is_odd, word_ids, gap_ids, ends, text, pairs,
    )  # fmt: skip
    word_ids, gap_ids = word_ids[:num_all].copy(), gap_ids[:num_all].copy()
    places, gap_starts, word_starts, word_stops = pairs[:num_new].T
    shift = len(words.data)
    numbers, long_words = _number(
        words.words, text, word_starts, word_stops, words.long_words, shift
    )
    word_ids[places] = numbers
    numbers, long_gaps = _number(words.gaps, text, gap_starts, word_starts, words.long_gaps, shift)
    gap_ids[places] = numbers
    has_new_spans = len(long_words) + len(long_gaps) > len(words.long_words) + len(words.long_gaps)
    data = np.concatenate([words.data, text]) if has_new_spans else words.data
    return Words(word_ids, gap_ids, ends, words.words, words.gaps, data, long_words, long_gaps)


def hold_white_space(data: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) which strings of a table hold white space; for `WordTable.per_word`."""
    return spans_hold_white_space(data, np.stack([starts[:-1], starts[1:]], axis=1))


def spans_hold_white_space(data: NDArray[np.uint8], spans: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(spans,) which strings, (spans, 2) where each starts and ends in `data`, hold white space."""
    marks = np.zeros(len(spans), np.bool_)
    _mark_spans(data, spans, marks)
    return marks


def _number(
    table: WordTable,
    text: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    spans: NDArray[np.int64],
    shift: int,
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """(n,) the numbers of strings in `text`, and the spans with those that are long.

    Args:
        shift: where `text` will stand in the data that spans point into.
    """
    is_long = stops - starts > MAX_BYTES
    numbers = np.empty(len(starts), np.uint32)
    numbers[~is_long] = intern_spans(table, text, starts[~is_long], stops[~is_long])
    new_spans = np.stack([starts[is_long], stops[is_long]], axis=1) + shift
    numbers[is_long] = np.arange(len(new_spans), dtype=np.uint32) + np.uint32(LONG | len(spans))
    return numbers, np.concatenate([spans, new_spans])


@compiled_inline
def space_bytes(data: NDArray[np.uint8], at: np.uint64) -> np.uint64:
    """How many bytes the white space at this place of a UTF-8 text has; 0 where none begins."""
    first = data[at]
    if first <= 0x20:
        return ONE if first == 0x20 or first >= 0x1C or 0x09 <= first <= 0x0D else NOTHING
    if first < 0xC2 or first > 0xE3:
        return NOTHING
    second = data[at + ONE]
    if first == 0xC2:
        return TWO if second == 0x85 or second == 0xA0 else NOTHING
    if first < 0xE1 or second < 0x80 or second > 0x9A:
        return NOTHING
    third = data[at + TWO]
    if first == 0xE1:
        return THREE if second == 0x9A and third == 0x80 else NOTHING
    if first == 0xE3:
        return THREE if second == 0x80 and third == 0x80 else NOTHING
    if second == 0x80:
        space = third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF
        return THREE if space else NOTHING
    return THREE if second == 0x81 and third == 0x9F else NOTHING


@compiled
def _mark_spans(
    data: NDArray[np.uint8], spans: NDArray[np.int64], marks: NDArray[np.bool_]
) -> None:
    for row in range(len(spans)):
        at, stop = np.uint64(spans[row, 0]), np.uint64(spans[row, 1])
        while at < stop and space_bytes(data, at) == NOTHING:
            at += ONE
        marks[row] = at < stop


@compiled
def _mark_pairs(
    word_ids: NDArray[np.uint32],
    odd_words: NDArray[np.bool_],
    odd_spans: NDArray[np.bool_],
    is_odd: NDArray[np.bool_],
) -> bool:
    """Mark the pairs whose word holds white space; whether there are any."""
    found = False
    for pair in range(len(word_ids)):
        word = word_ids[pair]
        if word < LONG:
            is_odd[pair] = odd_words[np.uint64(word)]
        else:
            is_odd[pair] = odd_spans[word & np.uint32(LONG_INDEX)]
        found |= is_odd[pair]
    return found


@compiled
def _cut(
    word_ids: NDArray[np.uint32],
    gap_ids: NDArray[np.uint32],
    ends: NDArray[np.int64],
    words: TableArrays,
    gaps: TableArrays,
    data: NDArray[np.uint8],
    long_words: NDArray[np.int64],
    long_gaps: NDArray[np.int64],
    is_odd: NDArray[np.bool_],
    new_word_ids: NDArray[np.uint32],
    new_gap_ids: NDArray[np.uint32],
    new_ends: NDArray[np.int64],
    text: NDArray[np.uint8],
    pairs: NDArray[np.int64],
) -> tuple[int, int]:
    """Copy the pairs that stay; write the others' text and cut it.

    Args:
        text: takes the bytes of pairs that are cut again.
        pairs: (most, 4) takes each new pair: its number among all pairs; where its gap starts in
            `text`, where its word starts, and where that ends.

    Returns:
        How many pairs there are now, and how many of them are new.
    """
    pair = out = num_new = 0
    size = np.uint64(0)
    for document in range(len(ends)):
        gap_start = size  # a gap that waits for its word, from here to `size`
        while pair < ends[document]:
            if is_odd[pair] or gap_start < size:
                size = _append(text, size, gap_ids[pair], gaps, data, long_gaps)
                at = size
                size = _append(text, size, word_ids[pair], words, data, long_words)
                while at < size:
                    width = space_bytes(text, at)
                    if width > NOTHING:
                        at += width
                        continue
                    word_start = at
                    while at < size and space_bytes(text, at) == NOTHING:
                        at += ONE
                    _note(pairs, num_new, out, gap_start, word_start, at)
                    num_new += 1
                    out += 1
                    gap_start = at
            else:
                new_word_ids[out] = word_ids[pair]
                new_gap_ids[out] = gap_ids[pair]
                out += 1
            pair += 1
        if gap_start < size:
            _note(pairs, num_new, out, gap_start, size, size)
            num_new += 1
            out += 1
        new_ends[document] = out
    return out, num_new


@compiled_inline
def _note(
    pairs: NDArray[np.int64],
    row: int,
    place: int,
    gap_start: np.uint64,
    word_start: np.uint64,
    word_stop: np.uint64,
) -> None:
    pairs[row, 0] = place
    pairs[row, 1] = gap_start
    pairs[row, 2] = word_start
    pairs[row, 3] = word_stop


@compiled_inline
def _append(
    text: NDArray[np.uint8],
    size: np.uint64,
    number: np.uint32,
    table: TableArrays,
    data: NDArray[np.uint8],
    spans: NDArray[np.int64],
) -> np.uint64:
    """Write a word or gap at the end of `text`; how long that is now."""
    if number < LONG:
        for at in range(table.starts[number], table.starts[number + 1]):
            text[size] = table.arena[at]
            size += ONE
    else:
        place = number & np.uint32(LONG_INDEX)
        for at in range(spans[place, 0], spans[place, 1]):
            text[size] = data[at]
            size += ONE
    return size
