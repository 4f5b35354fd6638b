"""How much of a document its repeated n-grams of words are.

The top n-gram is the one that comes most often, and of several the one that comes first. An n-gram
can only come again where the shorter one at its start and the next both do:

    the cat sat . the cat ran .     pairs at 0 and 4 are equal, those after them are not

so pairs are looked up at every word, triples where two pairs come again, and so on.

Duplicate n-grams are counted as datatrove counts them: word by word, an n-gram that was seen counts
with all its characters and is stepped over whole, any other is noted. datatrove compares the words
with nothing between them ("1 2 12" is "12 1 2"), so here it goes by bytes: how many blocks of eight
bytes come again together is found for every word in the same way, and n-grams are only looked up
where as many come again as they have.
"""

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.rules.english import EnglishWords
from tokenmill.pipeline.rules.hashing import (
    EIGHT,
    NONE,
    FirstPlaces,
    eight_bytes,
    first_places,
    hash_bytes,
    new_set,
    put,
    write_eight_bytes,
)
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.word_table import ONE, fold

TOP_SIZES = (2, 3, 4)
DUP_SIZES = (5, 6, 7, 8, 9, 10)
MAX_WORDS = 1 << 22
"""Longer documents, of some 20 MB, are not measured: it would take 60 bytes a word."""
MAX_BLOCKS = 6
"""The n-grams looked up have up to 45 bytes in English."""
BLOCK_BYTES = 8
SEEN_SLOTS, MAX_SEEN_SLOTS = 8, 1 << 24
"""Counters for each word, and in all; blocks that share one by chance are looked up in vain."""
_HALF = np.uint64(32)


def count_repetition(
    english: EnglishWords, characters: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The characters in repeated n-grams; none in a document of more than MAX_WORDS words.

    Args:
        characters: (words known,) code points of each word of `english.table`.

    Returns:
        (documents, 3) characters of the top n-gram of TOP_SIZES words, with a space between two,
        times how often it comes; and (documents, 6) characters in duplicate n-grams of DUP_SIZES.
    """
    top = np.zeros((len(english), len(TOP_SIZES)), np.int64)
    dup = np.zeros((len(english), len(DUP_SIZES)), np.int64)
    table = english.table.arrays
    _count(english.ids, english.ends, table.starts, table.arena, characters, top, dup)
    return top, dup


@compiled
def _count(
    ids: NDArray[np.uint32],
    ends: NDArray[np.int64],
    starts: NDArray[np.int64],
    arena: NDArray[np.uint8],
    characters: NDArray[np.int64],
    top: NDArray[np.int64],
    dup: NDArray[np.int64],
) -> None:
    most = most_bytes = first = 0
    for end in ends:
        if end - first > MAX_WORDS:
            first = end
            continue
        num_bytes = 0
        for word in ids[first:end]:
            num_bytes += starts[word + 1] - starts[word]
        most, most_bytes = max(most, end - first), max(most_bytes, num_bytes)
        first = end
    table = first_places(most)
    groups = np.empty((2, most), np.int32)
    counts = np.empty((2, most), np.int32)
    text = np.zeros(most_bytes + BLOCK_BYTES * MAX_BLOCKS, np.uint8)
    offsets = np.empty(most + 1, np.uint64)
    seen = np.empty(_seen_slots(most), np.uint8)
    first = 0
    for document in range(len(ends)):
        words = ids[first : ends[document]]
        first = ends[document]
        if len(words) > MAX_WORDS:
            continue
        _count_top(words, characters, groups, counts, table, top[document])
        _join(words, starts, arena, text, offsets)
        _count_blocks(text, offsets, len(words), table.keys, groups[0], seen, counts[0])
        _count_dup(words, characters, text, offsets, counts[0], groups[0], table, dup[document])


@compiled_inline
def _count_top(
    words: NDArray[np.uint32],
    characters: NDArray[np.int64],
    groups: NDArray[np.int32],
    counts: NDArray[np.int32],
    table: FirstPlaces,
    top: NDArray[np.int64],
) -> None:
    """Count the characters of the top n-grams.

    `groups` has for each place where the n-gram there came first, `counts` at that place how often
    it comes; each row serves every other size.
    """
    keys, numbers = table.keys, table.numbers
    for row in range(len(TOP_SIZES)):
        size = TOP_SIZES[row]
        group, shorter = groups[row % 2], groups[1 - row % 2]
        count, shorter_count = counts[row % 2], counts[1 - row % 2]
        length = len(words) - size + 1
        if length < 1:
            break
        mask, first = new_set(table, length)
        best, best_count = 0, 1
        for place in range(length):
            group[place] = place
            count[place] = 1
            if row == 0:
                start = np.uint64(words[place])
            elif shorter_count[shorter[place]] == 1 or shorter_count[shorter[place + 1]] == 1:
                continue
            else:
                start = np.uint64(shorter[place])
            key = start << _HALF | np.uint64(words[place + size - 1])
            earlier = put(keys, numbers, mask, first, key, place)
            if earlier < place:
                group[place] = earlier
                count[earlier] += 1
                if count[earlier] > best_count:
                    best, best_count = earlier, count[earlier]
                elif count[earlier] == best_count:
                    best = min(best, earlier)
        num_characters = size - 1
        for word in words[best : best + size]:
            num_characters += characters[word]
        top[row] = num_characters * best_count


@compiled_inline
def _join(
    words: NDArray[np.uint32],
    starts: NDArray[np.int64],
    arena: NDArray[np.uint8],
    text: NDArray[np.uint8],
    offsets: NDArray[np.uint64],
) -> None:
    """Write the words with nothing between them; where each starts, and where the last ends."""
    size = NONE
    last_block = len(arena) - BLOCK_BYTES
    for number in range(len(words)):
        offsets[number] = size
        start, stop = starts[words[number]], starts[words[number] + 1]
        at, to = np.uint64(start), size
        if stop <= last_block:
            while at < np.uint64(stop):
                write_eight_bytes(text, to, eight_bytes(arena, at))
                at += EIGHT
                to += EIGHT
        else:
            while at < np.uint64(stop):
                text[to] = arena[at]
                at += ONE
                to += ONE
        size += np.uint64(stop - start)
    offsets[len(words)] = size


@compiled_inline
def _count_blocks(
    text: NDArray[np.uint8],
    offsets: NDArray[np.uint64],
    num_words: int,
    keys: NDArray[np.uint64],
    repeated: NDArray[np.int32],
    seen: NDArray[np.uint8],
    blocks: NDArray[np.int32],
) -> None:
    """Write how many blocks of bytes from the start of each word on come again from another's.

    It may be more: blocks are counted by a part of their hash. Bytes after the document's last take
    part; they are never those of an n-gram.

    Args:
        keys: room for a hash of each word's blocks.
        seen: room for counters.
    """
    slots = _seen_slots(num_words)
    mask = np.uint64(slots - 1)
    for place in range(num_words):
        repeated[place] = place
        blocks[place] = 0
        keys[place] = NONE
    number = num_words
    for block in range(MAX_BLOCKS):
        seen[:slots] = 0
        for row in range(number):
            place = repeated[row]
            at = offsets[place] + np.uint64(BLOCK_BYTES * block)
            keys[place] = fold(keys[place], eight_bytes(text, at))
            slot = keys[place] & mask
            seen[slot] += seen[slot] < 2
        kept = 0
        for row in range(number):
            place = repeated[row]
            again = seen[keys[place] & mask] > 1
            blocks[place] += again
            repeated[kept] = place
            kept += again
        number = kept


@compiled_inline
def _seen_slots(num_words: int) -> int:
    slots = 1
    while slots < SEEN_SLOTS * num_words and slots < MAX_SEEN_SLOTS:
        slots *= 2
    return slots


@compiled_inline
def _count_dup(
    words: NDArray[np.uint32],
    characters: NDArray[np.int64],
    text: NDArray[np.uint8],
    offsets: NDArray[np.uint64],
    blocks: NDArray[np.int32],
    candidates: NDArray[np.int32],
    table: FirstPlaces,
    dup: NDArray[np.int64],
) -> None:
    """Count the characters in duplicate n-grams."""
    keys, numbers = table.keys, table.numbers
    number = len(words)
    for place in range(number):
        candidates[place] = place
    for row in range(len(DUP_SIZES)):
        size = DUP_SIZES[row]
        mask, first = new_set(table, number)
        kept = following = 0
        for candidate in range(number):
            place = candidates[candidate]
            if place + size > len(words):
                break
            start, stop = offsets[place], offsets[place + size]
            if blocks[place] < min((stop - start) // EIGHT, np.uint64(MAX_BLOCKS)):
                continue  # a longer n-gram from here on is not repeated either
            candidates[kept] = place
            if place >= following:
                key = hash_bytes(text, start, stop)
                if put(keys, numbers, mask, first, key, kept) < kept:
                    for word in words[place : place + size]:
                        dup[row] += characters[word]
                    following = place + size
            kept += 1
        number = kept
