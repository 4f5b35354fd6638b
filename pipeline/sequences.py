"""What is packed: sequences of pieces of documents, with the special tokens of the template.

    documents        [CLS a a a SEP]  [CLS b b SEP]           a document a sequence, or pieces of it
    concatenated     [CLS a a a] [SEP CLS b b] [SEP]          one stream, cut every max_length
    full_sentences   [CLS a a SEP b b SEP]                    sentences.py
    doc_sentences    [CLS a a SEP] [CLS b b SEP]              sentences.py
    pairs            [CLS a a SEP b b SEP]                    sentence_pairs.py

A sequence is made of the documents of one bucket and knows its pieces by place, not by their
tokens, so making and packing it is work on a few small arrays. `concatenated` has max_length
tokens in every sequence but the last.
"""

from dataclasses import dataclass
from typing import Literal

import numba
import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.deal import deal_order
from tokenmill.shards.ranges import ranges
from tokenmill.shards.run import TokenizerInfo

SequenceKind = Literal["documents", "full_sentences", "doc_sentences", "concatenated", "pairs"]
Overlong = Literal["split", "truncate", "drop"]


@dataclass(frozen=True, slots=True)
class Template:
    """The special tokens of a tokenizer, one after the other, and which of them stand where."""

    ids: tuple[int, ...]
    prefix: range
    """The places in ids of those before a text."""
    separator: range
    """Between two texts."""
    suffix: range
    """After a text, or the second of two."""

    @classmethod
    def of(cls, tokenizer: TokenizerInfo) -> "Template":
        ids = (*tokenizer.prefix, *tokenizer.separator, *tokenizer.suffix)
        first, second = len(tokenizer.prefix), len(ids) - len(tokenizer.suffix)
        return cls(ids, range(first), range(first, second), range(second, len(ids)))

    @property
    def num_around_one(self) -> int:
        """Special tokens of a text that stands alone."""
        return len(self.prefix) + len(self.suffix)


def around(before: range, after: range, num_pieces: int) -> NDArray[np.uint8]:
    """Pieces.around where it is the same for all."""
    places = (before.start, before.stop, after.start, after.stop)
    return np.tile(np.array(places, np.uint8), (num_pieces, 1))


@dataclass(frozen=True, slots=True)
class Pieces:
    """Runs of documents' tokens. One entry a piece."""

    document: NDArray[np.int32]
    """Its place among the documents."""
    start: NDArray[np.int32]
    """Its first token in the document."""
    num_tokens: NDArray[np.int32]
    """Without special tokens; 0 where a stream was cut among those."""
    around: NDArray[np.uint8]
    """(pieces, 4) the special tokens before it and after it, as places in Template.ids: first and
    one past the last of each."""

    @property
    def num_special(self) -> NDArray[np.uint8]:
        """(pieces,) special tokens around each."""
        first, before, last, after = self.around.T
        special: NDArray[np.uint8] = before - first + after - last
        return special

    @property
    def lengths(self) -> NDArray[np.int32]:
        """(pieces,) tokens, special tokens counted."""
        return self.num_tokens + self.num_special


@dataclass(frozen=True, slots=True)
class Sequences:
    """What attention sees as one, each a run of pieces."""

    pieces: Pieces
    ends: NDArray[np.int64]
    """(sequences,) pieces up to and with each."""

    @classmethod
    def begun_by(cls, pieces: Pieces, begins: NDArray[np.bool_]) -> "Sequences":
        """Of pieces one after the other, of which some begin a sequence: the first at least."""
        return cls(pieces, np.flatnonzero(np.append(begins, True))[1:])

    @property
    def lengths(self) -> NDArray[np.int32]:
        """(sequences,) tokens, special tokens counted."""
        sums = np.concatenate([[0], np.cumsum(self.pieces.lengths, dtype=np.int64)])
        return np.diff(sums[self.ends], prepend=0).astype(np.int32)

    def take(self, chosen: NDArray[np.int64]) -> "Sequences":
        """Some of them, in this order."""
        counts = np.diff(self.ends, prepend=0)[chosen]
        place = ranges(self.ends[chosen] - counts, counts)
        pieces = Pieces(
            self.pieces.document[place],
            self.pieces.start[place],
            self.pieces.num_tokens[place],
            self.pieces.around[place],
        )
        return Sequences(pieces, np.cumsum(counts))

    def deal(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(sequences,) their order in the deal, by the content of the first document of each.

        The sequences of a long document are dealt apart; in one row they would be one text again.

        Args:
            hashes: (documents,) content hashes.
        """
        first = np.concatenate([[0], self.ends])[:-1]
        return deal_order(hashes[self.pieces.document[first]], self.pieces.start[first])


def cut_documents(
    num_tokens: NDArray[np.int64], template: Template, max_length: int, overlong: Overlong
) -> tuple[Sequences, int]:
    """A sequence for each document, or several, or none.

    Args:
        num_tokens: (documents,) without special tokens, all at least 1.

    Returns:
        The sequences in the order of the documents, and how many tokens are left out.
    """
    longest = max_length - template.num_around_one
    pieces_of = np.ones(len(num_tokens), np.int64)
    if overlong == "split":
        pieces_of = -(-num_tokens // longest)
    elif overlong == "drop":
        pieces_of = (num_tokens <= longest).astype(np.int64)
    document, start, length = _cut(num_tokens, pieces_of, longest)
    special = around(template.prefix, template.suffix, len(document))
    pieces = Pieces(document, start, length, special)
    left_out = int(num_tokens.sum()) - int(length.sum(dtype=np.int64))
    return Sequences(pieces, np.arange(1, len(document) + 1)), left_out


def concatenate_documents(
    num_tokens: NDArray[np.int64], template: Template, max_length: int
) -> Sequences:
    """One stream of all documents with their special tokens, cut every max_length tokens.

    NomicBERT's (arXiv:2402.01613, section 4.1). Its code drops what is left at the end of each
    thousand documents; here the last sequence is shorter and nothing is lost.
    """
    doc_ends = np.cumsum(num_tokens + template.num_around_one)
    total = int(doc_ends[-1]) if len(doc_ends) else 0
    both = np.concatenate([doc_ends, np.arange(max_length, total, max_length)])
    ends = np.sort(both, kind="stable")  # of two rising runs: one merge
    ends = ends[np.diff(ends, prepend=0) > 0]
    starts = np.concatenate([[0], ends])[:-1]
    document = np.searchsorted(doc_ends, starts, side="right")
    body = num_tokens[document]
    # From here on, places in the document: its tokens stand from 0 to body.
    begin = starts - (doc_ends[document] - len(template.suffix) - body)
    end = begin + ends - starts
    start = np.clip(begin, 0, body)
    special = np.stack(
        [
            template.prefix.stop + np.minimum(begin, 0),
            template.prefix.stop + np.minimum(end, 0),
            template.suffix.start + np.maximum(begin - body, 0),
            template.suffix.start + np.maximum(end - body, 0),
        ],
        axis=1,
    )
    pieces = Pieces(
        document.astype(np.int32),
        start.astype(np.int32),
        (np.clip(end, 0, body) - start).astype(np.int32),
        special.astype(np.uint8),
    )
    return Sequences.begun_by(pieces, starts % max_length == 0)


@numba.njit(cache=True, nogil=True)
def _cut(
    num_tokens: NDArray[np.int64], pieces_of: NDArray[np.int64], longest: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    n = pieces_of.sum()
    document, start, length = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int32)
    piece = 0
    for i in range(len(num_tokens)):
        for k in range(pieces_of[i]):
            document[piece] = i
            start[piece] = k * longest
            length[piece] = min(num_tokens[i] - k * longest, longest)
            piece += 1
    return document, start, length
