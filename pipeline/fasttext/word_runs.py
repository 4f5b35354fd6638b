"""The vectors of runs of words, which only the sequence of a document gives.

    the old mill, runs of up to three words    v(the old) + v(the old mill) + v(old mill)

A run is hashed from the hashes of its words, one after another, as signed numbers of 32 bits; what
counts is its bucket. Each run is one row from anywhere in a large matrix, so its speed is that of
the memory: rows are looked up for a block of runs, and then added.
"""

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.fasttext.vocabulary import bucket_of, is_kept
from tokenmill.pipeline.fasttext.word_vectors import BLOCK, Input, add_buckets
from tokenmill.tokenizer.compiled import compiled, compiled_inline

_FACTOR = np.uint64(116049371)
"""What the hash of a run is multiplied by before the next word's is added."""
_ONE = np.uint64(1)


@compiled
def add_runs_of_words(
    sums: NDArray[np.float64], hashes: NDArray[np.uint32], ends: NDArray[np.int64], model: Input
) -> None:
    """Add the vectors of all runs of words to the sums of documents.

    Args:
        sums: (documents, dim + 1)
        hashes: (words,) of all documents, one after the other.
        ends: (documents,) where each document ends in `hashes`.
    """
    _, _, max_words, all_buckets, _, _, has_row = model.runs
    num_buckets = np.uint64(all_buckets)
    buckets = np.empty(BLOCK + max_words, np.uint64)
    first = np.uint64(0)
    for document in range(len(ends)):
        end = np.uint64(ends[document])
        found = np.uint64(0)
        while first < end:
            value = _signed(hashes[first])
            first += _ONE
            for word in range(first, min(first + np.uint64(max_words - 1), end)):
                value = value * _FACTOR + _signed(hashes[word])
                bucket = bucket_of(value, num_buckets)
                buckets[found] = bucket
                found += is_kept(has_row, bucket)
            if found >= BLOCK or first == end:
                add_buckets(sums[document], model, buckets, np.uint64(0), found)
                found = np.uint64(0)


@compiled_inline
def _signed(value: np.uint32) -> np.uint64:
    return np.uint64(np.int64(np.int32(value)))
