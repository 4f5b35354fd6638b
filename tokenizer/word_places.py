"""Which token a word begins with: the first one that reaches into it.

The tokens of a unit are known, so for WordPiece the place of a word is the number of tokens before
it. A unit of byte-level BPE begins with its gap, and tokens that stand in the gap alone are passed
over by their bytes:

    " \\n\\nIt"    tokens "\\u0120\\u010a" "\\u010a" "It"    the word begins with the third
    " It"       tokens "\\u0120It"                and here with the first

Pairs without a number of their own, for the word before ends with white space (pairs.py), are
passed over likewise, in the bytes that the normalizer leaves of them. On the library's own path its
offsets tell the same.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tokenmill.shards.ranges import ranges
from tokenmill.tokenizer.compiled import compiled
from tokenmill.tokenizer.remembered import Ids
from tokenmill.tokenizer.words import Words


def token_bytes(settings: dict[str, Any], vocab_size: int) -> NDArray[np.int64]:
    """(vocab_size,) the bytes of text that each token of a byte-level vocabulary stands for."""
    sizes = np.zeros(vocab_size, np.int64)
    for token, number in settings["model"]["vocab"].items():
        sizes[number] = len(token)  # a letter a byte
    for token in settings["added_tokens"]:
        sizes[token["id"]] = len(token["content"].encode())
    return sizes


def bytes_before(
    words: Words,
    pairs: NDArray[np.int64],
    runs: tuple[NDArray[np.int64], NDArray[np.int64]],
    tokenizer: Tokenizer,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(k,) the pair that the unit of each of some pairs begins with, and (k,) the bytes of the unit
    before its word.

    Args:
        runs: the first pair of each unit without a number, and the pair after its last.
    """
    first, stop = runs
    unit, size = pairs.copy(), take_pairs(words, pairs).gap_bytes()
    if not len(first):
        return unit, size
    run = np.searchsorted(first, pairs, side="right") - 1
    inside = np.flatnonzero((run >= 0) & (pairs > first[run]) & (pairs < stop[run]))
    run = run[inside]
    needed = run[np.diff(run, prepend=-1) > 0]  # each run once
    ends = _normal_ends(take_pairs(words, ranges(first[needed], (stop - first)[needed])), tokenizer)
    before = np.concatenate([[0], ends])
    # Where each run starts among the pairs of those that are needed.
    starts = np.cumsum(stop[needed] - first[needed]) - (stop[needed] - first[needed])
    start = starts[np.searchsorted(needed, run)]
    unit[inside] = first[run]
    size[inside] += before[start + pairs[inside] - first[run]] - before[start]
    return unit, size


@compiled
def pass_over(
    ids: Ids, places: NDArray[np.int64], sizes: NDArray[np.int64], bytes_of: NDArray[np.int64]
) -> None:
    """Move each place on by the tokens that stand in so many bytes alone."""
    for row in range(len(places)):
        left = sizes[row]
        while left > 0 and places[row] < len(ids) and bytes_of[ids[places[row]]] <= left:
            left -= bytes_of[ids[places[row]]]
            places[row] += 1


def places_by_offsets(
    words: Words, pairs: NDArray[np.int64], character_ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(k,) the token that the word of each of some pairs begins with.

    Args:
        character_ends: (tokens,) where each token ends in the text, counted over all documents.
    """
    data, pair_ends = words.write()
    word_starts = (pair_ends - words.word_bytes())[pairs]
    characters = np.concatenate([[0], np.cumsum((data & 0xC0) != 0x80)])  # before each byte
    # Characters that the normalizer has moved may end before the token ahead of them.
    reached = np.maximum.accumulate(character_ends)
    places: NDArray[np.int64] = np.searchsorted(reached, characters[word_starts], side="right")
    return places


def take_pairs(words: Words, pairs: NDArray[np.int64]) -> Words:
    """Some pairs as words of no document."""
    return replace(
        words, word_ids=words.word_ids[pairs], gap_ids=words.gap_ids[pairs], ends=words.ends[:0]
    )


def _normal_ends(pairs: Words, tokenizer: Tokenizer) -> NDArray[np.int64]:
    """(n,) where each pair ends in bytes, as the normalizer leaves them."""
    data, ends = pairs.write()
    if tokenizer.normalizer is None:
        return ends
    starts = np.concatenate([[0], ends])[:-1].tolist()
    texts = [data[a:b].tobytes().decode() for a, b in zip(starts, ends.tolist(), strict=True)]
    sizes = [len(tokenizer.normalizer.normalize_str(text).encode()) for text in texts]
    return np.cumsum(sizes, dtype=np.int64)
