"""Sequences of whole sentences, as RoBERTa has them (arXiv:1907.11692, section 4.2).

    full_sentences    [CLS a a a SEP b b SEP] [CLS b b b b SEP]      over the ends of documents
    doc_sentences     [CLS a a a SEP] [CLS b b SEP] [CLS b b b b SEP]

Sentences are taken one after the other, the documents in the order of the deal, as long as
max_length holds them. A document's part of a sequence is a piece of its own, ended by the
tokenizer's suffix, which so stands between documents too. A sentence that no sequence can hold is
cut, as if it were several; nothing is left out. The sentences of a document stay in their order
but for the rows that its sequences are dealt to.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.sequences import Pieces, Sequences, Template, around
from tokenmill.shards.ranges import ranges


@dataclass(frozen=True, slots=True)
class Sentences:
    """Where the sentences of documents begin."""

    starts: NDArray[np.int32]
    """(sentences,) tokens of the document before each; the first of a document is 0."""
    ends: NDArray[np.int64]
    """(documents,) sentences up to and with each document."""

    def take(self, documents: NDArray[np.int64]) -> "Sentences":
        """Those of some documents, in this order."""
        counts = np.diff(self.ends, prepend=0)[documents]
        place = ranges(self.ends[documents] - counts, counts)
        return Sentences(self.starts[place], counts.cumsum())

    def no_longer_than(self, longest: int, num_tokens: NDArray[np.int64]) -> "Sentences":
        """The same with longer sentences cut into several.

        Args:
            num_tokens: (documents,) without special tokens.
        """
        extra = _cut_long(self.starts, self.ends, num_tokens, longest, self.starts, self.ends)
        if not extra:
            return self
        starts, ends = np.empty(len(self.starts) + extra, np.int32), np.empty_like(self.ends)
        _cut_long(self.starts, self.ends, num_tokens, longest, starts, ends)
        return Sentences(starts, ends)


def join_sentences(
    num_tokens: NDArray[np.int64],
    sentences: Sentences,
    template: Template,
    max_length: int,
    *,
    across_documents: bool,
) -> Sequences:
    """Sequences of as many whole sentences as fit.

    Args:
        num_tokens: (documents,) without special tokens, all at least 1.
        across_documents: whether a sequence goes on with the next document.
    """
    longest = max_length - template.num_around_one
    # A piece begins with a document, or where the sequence before it and this one hold more than
    # one sequence can.
    most = 2 * len(num_tokens) + 2 * (int(num_tokens.sum()) // longest + 1)
    document, start, length = (np.empty(most, np.int32) for _ in range(3))
    begins = np.empty(most, np.bool_)
    num_pieces = _join(
        num_tokens,
        sentences.starts,
        sentences.ends,
        len(template.prefix),
        len(template.suffix),
        max_length,
        across_documents,
        document,
        start,
        length,
        begins,
    )
    begins = begins[:num_pieces]
    special = around(template.prefix, template.suffix, num_pieces)
    special[~begins, :2] = 0
    pieces = Pieces(document[:num_pieces], start[:num_pieces], length[:num_pieces], special)
    return Sequences.begun_by(pieces, begins)


@numba.njit(cache=True, nogil=True)
def _join(
    num_tokens: NDArray[np.int64],
    starts: NDArray[np.int32],
    ends: NDArray[np.int64],
    before: int,
    after: int,
    max_length: int,
    across_documents: bool,
    document: NDArray[np.int32],
    start: NDArray[np.int32],
    length: NDArray[np.int32],
    begins: NDArray[np.bool_],
) -> int:
    """Fill in the pieces; returns how many there are."""
    piece = -1
    used = 0  # tokens of the open sequence; 0: none is open
    for i in range(len(ends)):
        if not across_documents:
            used = 0
        place = 0
        is_open = False  # whether the open piece is of this document
        sentence = ends[i - 1] if i else 0
        while place < num_tokens[i]:
            if sentence < ends[i] and starts[sentence] <= place:
                sentence += 1
            stop = starts[sentence] if sentence < ends[i] else num_tokens[i]
            size = min(stop - place, max_length - before - after)
            fits = used > 0 and used + size + (0 if is_open else after) <= max_length
            if not (fits and is_open):
                piece += 1
                is_open = True
                used = used + after if fits else before + after
                document[piece] = i
                start[piece] = place
                length[piece] = 0
                begins[piece] = not fits
            length[piece] += size
            used += size
            place += size
    return piece + 1


@numba.njit(cache=True, nogil=True)
def _cut_long(
    starts: NDArray[np.int32],
    ends: NDArray[np.int64],
    num_tokens: NDArray[np.int64],
    longest: int,
    new_starts: NDArray[np.int32],
    new_ends: NDArray[np.int64],
) -> int:
    """How many sentences more there are when none is longer; fills them in where they have room."""
    extra = 0
    for i in range(len(ends)):
        for sentence in range(ends[i - 1] if i else 0, ends[i]):
            stop = starts[sentence + 1] if sentence + 1 < ends[i] else num_tokens[i]
            parts = (stop - starts[sentence] + longest - 1) // longest
            if len(new_starts) > len(starts):
                for part in range(parts):
                    new_starts[sentence + extra + part] = starts[sentence] + part * longest
            extra += parts - 1
        if len(new_starts) > len(starts):
            new_ends[i] = ends[i] + extra
    return extra
