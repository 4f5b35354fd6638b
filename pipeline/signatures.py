"""MinHash signatures: short lists of numbers whose agreement estimates how much two texts share.

A text is the set of its runs of five words, upper and lower case, punctuation and diacritics being
the same ("Don't" is "dont"). Each run is dealt to one of `num_hashes` entries and given a random
number there; an entry keeps the smallest. While entries are empty, all runs are dealt again, to
those. Two texts agree in an entry with the probability of their Jaccard similarity, as they would
if each entry had an order of all runs of its own, and the estimate varies no more than with those;
but a text costs a few nanoseconds a run, not a multiplication for each run and entry.

    "the cat sat on the mat."  ->  {the cat sat on the, cat sat on the mat}

A word is hashed when it is new. Source: Broder 1997 (MinHash); Dahlgaard, Knudsen and Thorup 2017
(arXiv:1704.04370, the dealing); the 5 words are FineWeb's and RefinedWeb's.
"""

import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.tokenizer.compiled import compiled, compiled_inline
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
_SHIFT, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_NEVER = 1 << 62


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
    signatures = np.full((len(words), config.num_hashes), NO_RUN, np.uint32)
    of_word = words.words.per_word(_hash_strings)
    long_words = (words.data[start:stop].tobytes() for start, stop in words.long_words)
    of_long = np.array([_hash_text(word) for word in long_words], np.uint64)
    runs = np.empty(np.diff(words.ends, prepend=0).max(initial=1), np.uint64)
    _sign(words.word_ids, words.ends, of_word, of_long, config.run_words, runs, signatures)
    return signatures


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
def _sign(
    word_ids: NDArray[np.uint32],
    ends: NDArray[np.int64],
    of_word: NDArray[np.uint64],
    of_long: NDArray[np.uint64],
    run_words: int,
    runs: NDArray[np.uint64],
    signatures: NDArray[np.uint32],
) -> None:
    """Write the signatures; `runs` is room for those of the longest document."""
    filled_in = np.empty(signatures.shape[1], np.int64)
    first = np.int64(0)
    for document in range(len(ends)):
        words = word_ids[first : ends[document]]
        num_runs = _hash_runs(words, of_word, of_long, run_words, runs)
        if num_runs:
            _fill(runs[:num_runs], signatures[document], filled_in)
        first = ends[document]


@compiled
def _hash_runs(
    words: NDArray[np.uint32],
    of_word: NDArray[np.uint64],
    of_long: NDArray[np.uint64],
    run_words: int,
    runs: NDArray[np.uint64],
) -> int:
    """Write the hash of each run: a polynomial in its words, one in, one out; how many."""
    leaving = ONE
    for _ in range(run_words):
        leaving *= _FACTOR
    last = np.zeros(run_words, np.uint64)
    value = np.uint64(0)
    count = num_runs = slot = 0
    for word in words:
        hashed = of_word[np.uint64(word)] if word < LONG else of_long[word & np.uint32(LONG_INDEX)]
        if hashed == _EMPTY:
            continue
        value = value * _FACTOR + hashed - last[slot] * leaving
        last[slot] = hashed
        slot = slot + 1 if slot + 1 < run_words else 0
        count += 1
        if count >= run_words:
            runs[num_runs] = value
            num_runs += 1
    if 0 < count < run_words:
        runs[0] = value
        num_runs = 1
    return num_runs


@compiled
def _fill(
    runs: NDArray[np.uint64], signature: NDArray[np.uint32], filled_in: NDArray[np.int64]
) -> None:
    """Deal the runs round by round until each entry, NO_RUN at first, has got one."""
    num_entries = np.uint64(len(signature))
    for run in runs:  # most texts need no other round: no branch in it
        mixed = mix(run)
        entry = (mixed >> _SHIFT) * num_entries >> _SHIFT
        signature[entry] = min(signature[entry], np.uint32(mixed & _LOW))
    left = 0
    for number in range(len(signature)):
        empty = signature[number] == NO_RUN
        filled_in[number] = _NEVER if empty else 0
        left += empty
    turn = 1
    while left and turn < len(signature):
        for run in runs:
            mixed = mix(run + np.uint64(turn) * _FACTOR)
            entry = (mixed >> _SHIFT) * num_entries >> _SHIFT
            value = np.uint32(mixed & _LOW)
            if filled_in[entry] >= turn and value < signature[entry]:
                left -= filled_in[entry] > turn
                filled_in[entry] = turn
                signature[entry] = value
        turn += 1
    if left:  # a short text: each entry that is empty takes the first of all runs
        for number in range(len(signature)):
            if signature[number] == NO_RUN:
                for run in runs:
                    mixed = mix(run + np.uint64(len(signature) + number) * _FACTOR)
                    signature[number] = min(signature[number], np.uint32(mixed & _LOW))


@compiled_inline
def mix(value: np.uint64) -> np.uint64:
    """All 64 bits depend on all (the end of MurmurHash3)."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))
