"""Which tokens are a pair's second text, and whether it goes on with the first: BERT's other task.

    pieces           [CLS] a a [SEP] | b b [SEP]     [CLS] c [SEP] | d d d [SEP]
    segment_ids        0   0 0   0     1 1   1         0   0   0     1 1 1   1
    next_sentence      1: b is of a's document           0: d is of another than c

Nothing of it is stored: the second text of a pair is the joined piece, and it is of the first one's
document where it goes on with it, and only there. Where one of the two was taken back there is no
pair any more: the other is a sequence of its own, without a label.
"""

import numpy as np
from numpy.typing import NDArray

from tokenmill.loader.rows import Pieces

NO_PAIR = -100
"""What torch's cross entropy leaves out (its ignore_index)."""


def label_pairs(
    pieces: Pieces, starts: NDArray[np.int64], cu_seqlens: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Batch.segment_ids (T,) and Batch.next_sentence (S,).

    Args:
        pieces: of rows of pairs; joined is 0 where a piece or the one before it is hidden.
        starts: (pieces,) where each begins in the batch.
        cu_seqlens: (S + 1,) the batch's, closed by repeating T.
    """
    second = np.flatnonzero(pieces.joined)
    changes = np.zeros(int(cu_seqlens[-1]) + 1, np.int8)  # (T + 1,)
    changes[starts[second]] += 1
    changes[starts[second] + pieces.lengths[second]] -= 1
    segment_ids = np.cumsum(changes[:-1], dtype=np.int32)
    next_sentence = np.full(len(cu_seqlens) - 1, NO_PAIR)
    slots = np.searchsorted(cu_seqlens, starts[second], side="right") - 1
    next_sentence[slots] = pieces.doc_ids[second - 1] == pieces.doc_ids[second]
    return segment_ids, next_sentence
