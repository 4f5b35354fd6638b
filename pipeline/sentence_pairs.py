"""Pairs of texts for next-sentence prediction, as BERT makes them (arXiv:1810.04805, appendix A.2).

    [CLS a a a SEP b b SEP]    b goes on where a ends, or is of another document; each half the time

Sentences of a document are taken until max_length holds no more (or, one time in ten, until a
shorter length that is drawn). A random number of them is A; the rest is B. Or, half the time and
wherever there is one sentence only, B is taken from another document, from a random sentence on,
and what is not A is left to the next pair. What then is too long loses tokens of the longer text,
at its front or back at random. All is drawn by the document's content hash and a counter.

A piece for A and one for B, joined to it: both are of one document where B is the next and never
where it is not, so nothing else has to be stored. Tokens that are cut off are counted; those of a
random B come once more than their document has them. Not done: the ten copies of the corpus with
other pairs (dupe_factor); a second epoch has the same pairs, under other masks.

Source: create_instances_from_document of google-research/bert, create_pretraining_data.py. There
a sentence that is too long is cut off; here it is cut into several, as in sentences.py.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.deal import mixed
from tokenmill.pipeline.sentences import Sentences
from tokenmill.pipeline.sequences import Pieces, Sequences, Template

SHORT_SHARE = 0.1
"""Of documents, in which pairs end at a shorter length: short_seq_prob of the published code."""

OWN_DRAWS = 1 << 40
"""A counter that the deal does not reach: its draws and these have nothing in common."""


def pair_sentences(
    num_tokens: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    sentences: Sentences,
    template: Template,
    max_length: int,
) -> tuple[Sequences, int]:
    """Pairs of all documents, and how many of their tokens are in none of their own.

    Where there is one document only, B is always the next; its last sentence may stay alone.

    Args:
        num_tokens: (documents,) without special tokens, all at least 1.
        hashes: (documents,) content hashes; they decide every draw.
    """
    longest = max_length - len(template.prefix) - len(template.separator) - len(template.suffix)
    sentences = sentences.no_longer_than(longest, num_tokens)
    # A pair takes a sentence of its document, at least.
    found = np.empty((len(sentences.starts), 6), np.int32)
    num_pairs = _draw(sentences.starts, sentences.ends, num_tokens, hashes, longest, found)
    found = found[:num_pairs]
    document, start, stop = found.reshape(-1, 3).T
    is_first = np.tile([True, False], num_pairs)
    special = np.empty((2 * num_pairs, 4), np.uint8)
    prefix, separator, suffix = template.prefix, template.separator, template.suffix
    special[0::2] = prefix.start, prefix.stop, separator.start, separator.stop
    special[1::2] = 0, 0, suffix.start, suffix.stop
    # A text without a second is ended as one that stands alone.
    is_alone = document[1::2] < 0
    special[0::2][is_alone, 2:] = suffix.start, suffix.stop
    stays = document >= 0
    pieces = Pieces(document[stays], start[stays], (stop - start)[stays], special[stays])
    is_own = is_first[stays] | (np.diff(pieces.document, prepend=-1) == 0)
    own = pieces.num_tokens[is_own]
    left_out = int(num_tokens.sum()) - int(own.sum(dtype=np.int64))
    return Sequences.begun_by(pieces, is_first[stays]), left_out


@numba.njit(cache=True, nogil=True)
def _draw(
    starts: NDArray[np.int32],
    ends: NDArray[np.int64],
    num_tokens: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    longest: int,
    found: NDArray[np.int32],
) -> int:
    """Fill in the pairs; returns how many there are.

    Args:
        starts: (sentences,) first token of each in its document.
        ends: (documents,) sentences up to and with each document.
        longest: tokens of A and B together.
        found: (pairs, 6) gets document, start, stop of A, then of B; document -1: no B.
    """
    num_documents = len(ends)
    num_pairs = 0
    for i in range(num_documents):
        key = mixed(hashes[i], OWN_DRAWS)
        target = longest
        if _share(key, 0) < SHORT_SHARE:
            target = 2 + _below(key, 1, longest - 1)
        draws = 2
        begin, end = _bounds(ends, i)
        first = last = begin  # the sentences that are taken
        while last < end:
            stop = _stop(starts, end, num_tokens[i], last)
            if last < end - 1 and stop - starts[first] < target:
                last += 1
                continue
            second = first + 1  # the first sentence that is not A's
            if last > first:
                second += _below(key, draws, last - first)
            a_start, a_stop = starts[first], _stop(starts, end, num_tokens[i], second - 1)
            other, b_start, b_stop = i, a_stop, stop
            if second > last and num_documents == 1:
                other = -1
            elif num_documents > 1 and (last == first or _share(key, draws + 1) < 0.5):
                other = _below(key, draws + 2, num_documents - 1)
                other += other >= i
                b, b_end = _bounds(ends, other)
                b += _below(key, draws + 3, b_end - b)
                b_start, b_stop = starts[b], _stop(starts, b_end, num_tokens[other], b)
                while b < b_end - 1 and b_stop - b_start < target - (a_stop - a_start):
                    b += 1
                    b_stop = _stop(starts, b_end, num_tokens[other], b)
                last = second - 1  # what is not A's is put back
            draws += 4
            if other >= 0:
                a_cut, b_cut = _excess(a_stop - a_start, b_stop - b_start, longest)
                front, draws = _heads(key, draws, a_cut)
                a_start, a_stop = a_start + front, a_stop - (a_cut - front)
                front, draws = _heads(key, draws, b_cut)
                b_start, b_stop = b_start + front, b_stop - (b_cut - front)
            pair = found[num_pairs]
            pair[0], pair[1], pair[2] = i, a_start, a_stop
            pair[3], pair[4], pair[5] = other, b_start, b_stop
            num_pairs += 1
            first = last = last + 1
    return num_pairs


@numba.njit(cache=True, nogil=True)
def _bounds(ends: NDArray[np.int64], document: int) -> tuple[int, int]:
    """A document's first sentence and one past its last."""
    return ends[document - 1] if document else 0, ends[document]


@numba.njit(cache=True, nogil=True)
def _stop(starts: NDArray[np.int32], end: int, num_tokens: int, sentence: int) -> int:
    """One past a sentence's last token in its document, whose sentences and tokens end there."""
    return starts[sentence + 1] if sentence + 1 < end else num_tokens


@numba.njit(cache=True, nogil=True)
def _excess(a: int, b: int, longest: int) -> tuple[int, int]:
    """Tokens that each text loses where the longer one loses one, B of equals, until both fit."""
    cut = max(0, a + b - longest)
    from_a = min(max(0, a - b), cut)
    from_b = min(max(0, b - a), cut)
    rest = cut - from_a - from_b
    return from_a + rest // 2, from_b + rest - rest // 2


@numba.njit(cache=True, nogil=True)
def _share(key: np.uint64, counter: int) -> float:
    """A number of [0, 1)."""
    return float(mixed(key, counter) >> np.uint64(11)) * 2.0**-53


@numba.njit(cache=True, nogil=True)
def _below(key: np.uint64, counter: int, bound: int) -> int:
    """A number of 0 to bound - 1."""
    product = (mixed(key, counter) >> np.uint64(32)) * np.uint64(bound)
    return int(np.int64(product >> np.uint64(32)))


@numba.njit(cache=True, nogil=True)
def _heads(key: np.uint64, counter: int, tosses: int) -> tuple[int, int]:
    """How many of so many tosses of a coin come down heads, and the next counter."""
    heads = 0
    while tosses > 0:
        bits = mixed(key, counter)
        counter += 1
        for k in range(min(tosses, 64)):
            heads += int(np.int64(bits >> np.uint64(k)) & 1)
        tosses -= 64
    return heads, counter
