"""MinHash signatures: short lists of numbers whose agreement estimates how much two texts share.

A text is the set of its runs of five words, upper and lower case, punctuation and diacritics being
the same ("Don't" is "dont"). The signature holds, for each of `num_hashes` orders of all such runs,
the first one that the text has; two texts agree in an entry with the probability of their Jaccard
similarity.

    "the cat sat on the mat."  ->  {the cat sat on the, cat sat on the mat}

A word is hashed when it is new; a document costs one multiplication a run and entry.
Source: Broder 1997; the 5 words and 112 = 14 x 8 entries are FineWeb's (arXiv:2406.17557).
"""

import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.tokenizer.compiled import compiled
from tokenmill.tokenizer.find_words import LONG, LONG_INDEX
from tokenmill.tokenizer.word_table import ONE
from tokenmill.tokenizer.words import Words

NO_RUN = np.uint32(0xFFFFFFFF)
"""Every entry of a text without words."""
_EMPTY = np.uint64(0)
_NUM_PLAIN = 0x3000
"""Code points that are looked up: the alphabets and what stands between their words."""
_ODD = 0xFFFFFFFF
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_HASH_START, _HASH_FACTOR = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_SHIFT = np.uint64(32)


@dataclass(frozen=True, kw_only=True, slots=True)
class SignatureConfig:
    """What a signature is made of; two runs can be compared where these are equal."""

    num_hashes: int = 112
    """Entries of a signature. FineWeb: 14 bands of 8."""
    run_words: int = 5
    """Words in a run. FineWeb and RefinedWeb: 5."""

    def __post_init__(self) -> None:
        if self.num_hashes < 1 or self.run_words < 1:
            raise RecipeError(
                "num_hashes and run_words must be at least 1, "
                f"got {self.num_hashes} and {self.run_words}"
            )


def minhash(words: Words, config: SignatureConfig) -> NDArray[np.uint32]:
    """(documents, num_hashes) the signature of each document; all NO_RUN where it has no word.

    A text with fewer than `run_words` words is one run.
    """
    factors, offsets = _orders(config.num_hashes)
    signatures = np.full((len(words), config.num_hashes), NO_RUN, np.uint32)
    of_word = words.words.per_word(_hash_strings)
    long_words = (words.data[start:stop].tobytes() for start, stop in words.long_words)
    of_long = np.array([_hash_text(word) for word in long_words], np.uint64)
    _minima(
        words.word_ids, words.ends, of_word, of_long, config.run_words, factors, offsets, signatures
    )
    return signatures


def _orders(num_hashes: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The orders h -> factor * h + offset (mod 2^32) of all hashes; factors are odd."""
    drawn = np.random.Generator(np.random.PCG64(1)).integers(0, 1 << 32, (2, num_hashes), np.uint32)
    return drawn[0] | np.uint32(1), drawn[1]


def _hash_strings(data: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(words,) the hash of each, _EMPTY where nothing of a word counts."""
    hashes = np.empty(len(starts) - 1, np.uint64)
    is_plain = np.empty(len(hashes), np.bool_)
    _hash_plain(data, starts, _plain_characters(), hashes, is_plain)
    for word in np.flatnonzero(~is_plain):
        hashes[word] = _hash_text(data[starts[word] : starts[word + 1]].tobytes())
    return hashes


def _hash_text(text: bytes) -> np.uint64:
    """The hash of any word."""
    points = np.array([ord(character) for character in _counted(text.decode())], np.uint32)
    hashed: np.uint64 = _hash_points(points)
    return hashed


def _counted(text: str) -> str:
    """Letters and digits, lower-cased, without diacritics."""
    spread = unicodedata.normalize("NFD", text.lower())
    return "".join(c for c in spread if unicodedata.category(c)[0] in "LN")


@cache
def _plain_characters() -> NDArray[np.uint32]:
    """(_NUM_PLAIN,) by code point: what counts of it, 0 for nothing; _ODD where that is more than
    one letter, or depends on what stands around it."""
    plain = np.zeros(_NUM_PLAIN, np.uint32)
    for point in range(_NUM_PLAIN):
        counted = _counted(chr(point))
        plain[point] = ord(counted) if len(counted) == 1 else _ODD if counted else 0
    plain[ord("Σ")] = _ODD  # its lower case depends on whether it ends the word
    return plain


@compiled
def _hash_points(points: NDArray[np.uint32]) -> np.uint64:
    """Fowler-Noll-Vo over code points."""
    value = _HASH_START
    for point in points:
        value = (value ^ np.uint64(point)) * _HASH_FACTOR
    return value | ONE if len(points) else _EMPTY


@compiled
def _hash_plain(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    plain: NDArray[np.uint32],
    hashes: NDArray[np.uint64],
    is_plain: NDArray[np.bool_],
) -> None:
    """As _hash_text, where each character counts by itself."""
    for word in range(len(hashes)):
        value = _HASH_START
        counted = False
        is_plain[word] = True
        at, stop = np.uint64(starts[word]), np.uint64(starts[word + 1])
        while at < stop:
            point = np.uint64(data[at])
            if point < 0x80:
                at += ONE
            elif point < 0xE0:
                point = (point & np.uint64(0x1F)) << 6 | np.uint64(data[at + ONE] & 0x3F)
                at += np.uint64(2)
            elif point >= 0xF0:
                point = np.uint64(_NUM_PLAIN)
            else:
                high = (point & np.uint64(0x0F)) << 12 | np.uint64(data[at + ONE] & 0x3F) << 6
                point = high | np.uint64(data[at + np.uint64(2)] & 0x3F)
                at += np.uint64(3)
            if point >= _NUM_PLAIN or plain[point] == _ODD:
                is_plain[word] = False
                break
            if plain[point]:
                value = (value ^ np.uint64(plain[point])) * _HASH_FACTOR
                counted = True
        hashes[word] = value | ONE if counted else _EMPTY


@compiled
def _minima(
    word_ids: NDArray[np.uint32],
    ends: NDArray[np.int64],
    of_word: NDArray[np.uint64],
    of_long: NDArray[np.uint64],
    run_words: int,
    factors: NDArray[np.uint32],
    offsets: NDArray[np.uint32],
    signatures: NDArray[np.uint32],
) -> None:
    # The hash of a run is a polynomial in its words: one in, one out.
    leaving = np.uint64(1)
    for _ in range(run_words):
        leaving *= _FACTOR
    run = np.zeros(run_words, np.uint64)
    first = np.int64(0)
    for document in range(len(ends)):
        signature = signatures[document]
        value = np.uint64(0)
        count = 0
        run[:] = 0
        for pair in range(first, ends[document]):
            word = word_ids[pair]
            hashed = (
                of_word[np.uint64(word)] if word < LONG else of_long[word & np.uint32(LONG_INDEX)]
            )
            if hashed == _EMPTY:
                continue
            slot = count % run_words
            value = value * _FACTOR + hashed - run[slot] * leaving
            run[slot] = hashed
            count += 1
            if count >= run_words:
                _lower(signature, value, factors, offsets)
        if 0 < count < run_words:
            _lower(signature, value, factors, offsets)
        first = ends[document]


@compiled
def _lower(
    signature: NDArray[np.uint32],
    value: np.uint64,
    factors: NDArray[np.uint32],
    offsets: NDArray[np.uint32],
) -> None:
    mixed = (value ^ (value >> _SHIFT)) * _FACTOR
    hashed = np.uint32(mixed >> _SHIFT)
    for entry in range(len(signature)):
        signature[entry] = min(
            signature[entry], np.uint32(factors[entry] * hashed + offsets[entry])
        )
