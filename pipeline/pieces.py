"""Cut documents that are longer than a sequence may be."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Overlong = Literal["split", "truncate", "drop"]


@dataclass(frozen=True, slots=True)
class Pieces:
    """What is packed: a whole document or a piece of one. One entry a piece."""

    document: NDArray[np.int64]
    """Its place among the documents."""
    start: NDArray[np.int64]
    """Its first token in the document."""
    num_tokens: NDArray[np.int64]

    def take(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> "Pieces":
        return Pieces(self.document[chosen], self.start[chosen], self.num_tokens[chosen])


def cut_documents(
    num_tokens: NDArray[np.int64], hashes: NDArray[np.uint64], longest: int, overlong: Overlong
) -> tuple[Pieces, int]:
    """The pieces of all documents in the order of the deal, and how many tokens are left out.

    Args:
        num_tokens: (documents,) without special tokens, all at least 1.
        hashes: (documents,) content hashes; they decide the order.
        longest: tokens of a piece, without special tokens.
    """
    pieces_of = np.ones(len(num_tokens), np.int64)
    if overlong == "split":
        pieces_of = -(-num_tokens // longest)
    elif overlong == "drop":
        pieces_of = (num_tokens <= longest).astype(np.int64)
    document = np.repeat(np.arange(len(num_tokens)), pieces_of)
    number = np.arange(len(document)) - np.repeat(np.cumsum(pieces_of) - pieces_of, pieces_of)
    start = number * longest
    length = np.minimum(num_tokens[document] - start, longest)
    # The pieces of a long document are dealt apart; in one row they would be one text again.
    turn = hashes[document] + number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    order = np.lexsort((number, document, turn))
    pieces = Pieces(document[order], start[order], length[order])
    return pieces, int(num_tokens.sum() - length.sum())
