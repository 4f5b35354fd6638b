"""How many words, characters and symbols each document has, for the rules that filter.

Each word is looked at once; a document is a sum over its words.
"""

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled
from tokenmill.tokenizer.find_words import LONG, LONG_INDEX
from tokenmill.tokenizer.words import Words

_SPACE, _PLAIN, _SYMBOL = 0, 1, 2
_ASSIGNED = (*range(0x40000), *range(0xE0000, 0xE0200))
"""All code points that may be letters, marks, numbers or spaces; beyond planes 0 to 3 Unicode has
but tags, variation selectors and private use. Looking at all 1.1 million takes half a second."""


def count_words(words: Words) -> NDArray[np.int64]:
    """(documents,) words that are not empty."""
    before = np.concatenate([[0], np.cumsum(words.word_ids != 0)])  # words before each pair
    return np.diff(before[words.ends], prepend=0)


def count_characters(words: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(documents,) characters that are no white space, and (documents,) symbols among them.

    A symbol is a character that is neither a letter, a mark nor a number in Unicode's general
    category: punctuation, signs, control characters.
    """
    of_word = words.words.per_word(_count_strings)  # (words known, 2)
    of_long = _count_spans(words.data, words.long_words)
    sums = np.empty((len(words), 2), np.int64)
    _sum(words.word_ids, words.ends, of_word, of_long, sums)
    return sums[:, 0], sums[:, 1]


@cache
def _character_classes() -> NDArray[np.uint8]:
    """(0x110000,) what each code point counts as."""
    classes = np.full(0x110000, _SYMBOL, np.uint8)
    for point in _ASSIGNED:
        if unicodedata.category(chr(point))[0] in "LMN":
            classes[point] = _PLAIN
        elif chr(point).isspace():
            classes[point] = _SPACE
    return classes


def _count_strings(data: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.uint16]:
    spans = np.stack([starts[:-1], starts[1:]], axis=1)
    return _count_spans(data, spans).astype(np.uint16)


def _count_spans(data: NDArray[np.uint8], spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """(spans, 2) characters and symbols of strings, (spans, 2) where each starts and ends."""
    counts = np.zeros((len(spans), 2), np.int64)
    _count(data, spans, _character_classes(), counts)
    return counts


@compiled
def _count(
    data: NDArray[np.uint8],
    spans: NDArray[np.int64],
    classes: NDArray[np.uint8],
    counts: NDArray[np.int64],
) -> None:
    for row in range(len(spans)):
        at, stop = spans[row]
        while at < stop:
            byte = np.int64(data[at])
            if byte < 0x80:
                point, width = byte, 1
            elif byte < 0xE0:
                point, width = byte & 0x1F, 2
            elif byte < 0xF0:
                point, width = byte & 0x0F, 3
            else:
                point, width = byte & 0x07, 4
            for following in range(at + 1, at + width):
                point = (point << 6) | (data[following] & 0x3F)
            counts[row, 0] += classes[point] != _SPACE
            counts[row, 1] += classes[point] == _SYMBOL
            at += width


@compiled
def _sum(
    word_ids: NDArray[np.uint32],
    ends: NDArray[np.int64],
    of_word: NDArray[np.uint16],
    of_long: NDArray[np.int64],
    sums: NDArray[np.int64],
) -> None:
    first = 0
    for document in range(len(ends)):
        characters = symbols = np.int64(0)
        for word in word_ids[first : ends[document]]:
            if word < LONG:
                characters += np.int64(of_word[np.uint64(word), 0])
                symbols += np.int64(of_word[np.uint64(word), 1])
            else:
                characters += of_long[word & np.uint32(LONG_INDEX), 0]
                symbols += of_long[word & np.uint32(LONG_INDEX), 1]
        sums[document, 0] = characters
        sums[document, 1] = symbols
        first = ends[document]
