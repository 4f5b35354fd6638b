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
MAX_WORDS = 1 << 21
"""Longer documents, of some 10 MB, are not measured: it would take 60 bytes a word."""
MAX_BLOCKS = 6
"""The n-grams looked up have up to 45 bytes in English."""
BLOCK_BYTES = 8
SEEN_SLOTS, MAX_SEEN_SLOTS = 8, 1 << 24
"""Counters for each word, and in all; blocks that share one by chance are looked up in vain."""
_HALF = np.uint64(32)


def count_repetition(
    english: EnglishWords, characters: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The characters in repeated n-grams; 0 in a document of more than MAX_WORDS words, which the
    caller knows by their number.

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
    candidates, counts = np.empty(most, np.int32), np.empty(most, np.int32)
    groups = np.empty(most, np.uint32)
    again = np.empty(most + 1, np.uint8)
    text = np.zeros(most_bytes + BLOCK_BYTES * MAX_BLOCKS, np.uint8)
    offsets = np.empty(most + 1, np.uint64)
    seen = np.empty(_seen_slots(np.uint64(most)), np.uint8)
    first = 0
    for document in range(len(ends)):
        words = ids[first : ends[document]]
        first = ends[document]
        if len(words) > MAX_WORDS:
            continue
        _count_top(words, characters, candidates, counts, groups, again, table, top[document])
        _join(words, starts, arena, text, offsets)
        _count_blocks(text, offsets, len(words), table.keys, candidates, seen, counts)
        _count_dup(
            words,
            characters,
            text,
            offsets[: len(words) + 1],
            counts,
            candidates,
            table,
            dup[document],
        )


@compiled_inline
def _count_top(
    words: NDArray[np.uint32],
    characters: NDArray[np.int64],
    candidates: NDArray[np.int32],
    counts: NDArray[np.int32],
    groups: NDArray[np.uint32],
    again: NDArray[np.uint8],
    table: FirstPlaces,
    top: NDArray[np.int64],
) -> None:
    """Count the characters of the top n-grams.

    `candidates` are the places to look at, `groups` has what stands for all but the last word of
    the n-gram there, `counts` how often the one that comes first there comes, `again` whether that
    at a place comes at another.
    """
    keys, numbers = table.keys, table.numbers
    number = max(len(words) - 1, 0)
    for place in range(number):
        candidates[place] = place
        groups[place] = words[place]
    for row in range(len(TOP_SIZES)):
        size = TOP_SIZES[row]
        if len(words) < size:
            break
        if row:
            number = _keep_repeated(candidates, number, again)
        again[: len(words)] = 0
        mask, first = new_set(table, number)
        best, best_count = 0, 1
        for candidate in range(number):
            at = np.uint64(candidates[candidate])
            last = np.uint64(words[at + np.uint64(size - 1)])
            key = np.uint64(groups[at]) << _HALF | last
            first_candidate = put(keys, numbers, mask, first, key, candidate)
            earlier = candidates[first_candidate]
            groups[at] = earlier
            if first_candidate == candidate:
                counts[at] = 1
            else:
                again[at] = again[earlier] = 1
                counts[earlier] += 1
                if counts[earlier] > best_count:
                    best, best_count = earlier, counts[earlier]
                elif counts[earlier] == best_count:
                    best = min(best, earlier)
        num_characters = size - 1
        for word in words[best : best + size]:
            num_characters += characters[word]
        top[row] = num_characters * best_count


@compiled_inline
def _keep_repeated(candidates: NDArray[np.int32], number: int, again: NDArray[np.uint8]) -> int:
    """Keep the places where the n-gram and the next one come again; how many there are."""
    kept = 0
    for candidate in range(number):
        place = np.uint64(candidates[candidate])
        candidates[kept] = place
        kept += again[place] & again[place + ONE]
    return kept


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
    for place in range(num_words):
        repeated[place] = place
        blocks[place] = 0
        keys[place] = NONE
    number = np.uint64(num_words)
    for block in range(MAX_BLOCKS):
        slots = _seen_slots(number)
        mask = np.uint64(slots - 1)
        seen[:slots] = 0
        for row in range(number):
            at = np.uint64(repeated[row])
            start = offsets[at] + np.uint64(BLOCK_BYTES * block)
            keys[at] = fold(keys[at], eight_bytes(text, start))
            slot = keys[at] & mask
            seen[slot] += seen[slot] < 2
        kept = NONE
        for row in range(number):
            at = np.uint64(repeated[row])
            again = seen[keys[at] & mask] > 1
            blocks[at] += again
            repeated[kept] = at
            kept += np.uint64(again)
        number = kept


@compiled_inline
def _seen_slots(num_words: np.uint64) -> int:
    slots = 1
    while slots < SEEN_SLOTS * np.int64(num_words) and slots < MAX_SEEN_SLOTS:
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
    num_candidates = len(words)
    for place in range(num_candidates):
        candidates[place] = place
    for row in range(len(DUP_SIZES)):
        size = np.uint64(DUP_SIZES[row])
        num_candidates = _keep_in_blocks(candidates, num_candidates, blocks, offsets, size)
        mask, first = new_set(table, num_candidates)
        following = NONE
        for candidate in range(num_candidates):
            start = np.uint64(candidates[candidate])
            if start >= following:
                key = hash_bytes(text, offsets[start], offsets[start + size])
                if put(keys, numbers, mask, first, key, candidate) < candidate:
                    for word in words[start : start + size]:
                        dup[row] += characters[word]
                    following = start + size


@compiled_inline
def _keep_in_blocks(
    candidates: NDArray[np.int32],
    num_candidates: int,
    blocks: NDArray[np.int32],
    offsets: NDArray[np.uint64],
    size: np.uint64,
) -> int:
    """Keep the places whose n-gram may come again; how many there are. Where one does not, a longer
    one does not either."""
    while num_candidates and candidates[num_candidates - 1] + size >= len(offsets):
        num_candidates -= 1
    kept = 0
    for candidate in range(np.uint64(num_candidates)):
        place = np.uint64(candidates[candidate])
        num_blocks = (offsets[place + size] - offsets[place]) // EIGHT
        candidates[kept] = place
        kept += np.uint64(blocks[place]) >= min(num_blocks, np.uint64(MAX_BLOCKS))
    return kept
