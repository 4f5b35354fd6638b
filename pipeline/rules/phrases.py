"""Phrases that a line may hold, in either case, all looked for in one pass over its bytes.

A phrase is tried only where a pair of letters stands that it holds and text seldom does:

    "privacy policy" by its first "cy"    tried twice in "A fancy bicycle", never in "The cat sat"

Either case means what `phrase in line.lower()` means. One character beyond ASCII becomes a letter
that way and no more than a letter: the Kelvin sign U+212A, a "k".
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.rules.lines import THREE, TWO, before
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.word_table import ONE

KELVIN_SIGN = "\u212a".encode()


class Phrases(NamedTuple):
    """Up to 16 phrases as compiled code sees them."""

    texts: NDArray[np.uint8]
    """(phrases, longest) lower case."""
    lengths: NDArray[np.int64]
    meanings: NDArray[np.uint8]
    """(phrases,) the bit that a line with it gets."""
    places: NDArray[np.int64]
    """(phrases,) characters before the second one of its rare pair."""
    first: NDArray[np.uint16]
    """(256,) a bit for each phrase whose rare pair may start with this byte, in either case."""
    second: NDArray[np.uint16]
    """(256,) the same for the byte that follows."""


def phrase_table(phrases: Mapping[str, int], rare_pairs: Sequence[str]) -> Phrases:
    """The table to find phrases with.

    Args:
        phrases: what each one means; ASCII in lower case.
        rare_pairs: the first that a phrase holds is what it is tried at; only a phrase of one
            character may hold none.
    """
    table = np.zeros((len(phrases), max(map(len, phrases))), np.uint8)
    places = np.zeros(len(phrases), np.int64)
    letters = np.zeros((2, 256), np.uint16)
    for number, phrase in enumerate(phrases):
        table[number, : len(phrase)] = list(phrase.encode())
        if len(phrase) == 1:  # after any byte
            letters[0] |= 1 << number
            letters[1, ord(phrase)] |= 1 << number
            continue
        pair = next(pair for pair in rare_pairs if pair in phrase)
        places[number] = phrase.index(pair) + 1
        for side, letter in enumerate(pair):
            letters[side, [ord(letter), ord(letter.upper())]] |= 1 << number
    letters[0, KELVIN_SIGN[-1]] |= letters[0, ord("k")]
    letters[1, KELVIN_SIGN[0]] |= letters[1, ord("k")]
    return Phrases(
        table,
        np.array([len(phrase) for phrase in phrases]),
        np.array(list(phrases.values()), np.uint8),
        places,
        letters[0],
        letters[1],
    )


@compiled_inline
def contents(data: NDArray[np.uint8], start: np.uint64, stop: np.uint64, phrases: Phrases) -> int:
    """The bits of all phrases that stand in these bytes."""
    first, second = phrases.first, phrases.second
    found = 0
    maybe = first[0]
    at = start
    while at < stop:
        byte = data[at]
        if maybe & second[byte] != 0:
            found |= _phrases_around(data, start, at, stop, maybe & second[byte], phrases)
        maybe = first[byte]
        at += ONE
    return found


@compiled
def _phrases_around(
    data: NDArray[np.uint8],
    start: np.uint64,
    pair: np.uint64,
    stop: np.uint64,
    maybe: np.uint16,
    phrases: Phrases,
) -> int:
    """The bits of those of some phrases whose rare pair has its second letter at `pair`."""
    found = 0
    for number in range(len(phrases.lengths)):
        if maybe >> number & 1:
            at = pair
            left = phrases.places[number]
            while left > 0 and at > start:
                at = before(data, at)
                left -= 1
            phrase = phrases.texts[number, : phrases.lengths[number]]
            if left == 0 and reads(data, at, stop, phrase):
                found |= phrases.meanings[number]
    return found


@compiled
def reads(
    data: NDArray[np.uint8], at: np.uint64, stop: np.uint64, phrase: NDArray[np.uint8]
) -> bool:
    """Whether the phrase stands at `at`, in either case."""
    for letter in phrase:
        if at >= stop:
            return False
        byte = data[at]
        if letter == 107 and byte == 0xE2 and data[at + ONE] == 0x84 and data[at + TWO] == 0xAA:
            at += THREE
            continue
        if 65 <= byte <= 90:
            byte += np.uint8(32)
        if byte != letter:
            return False
        at += ONE
    return True
