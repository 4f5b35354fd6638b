"""Where the sequences of a batch of rows start and end; a row's padding forms sequences of its own.

    rows of 10, max_length 4     lengths [3, 2] and 5 of padding | a row that only fills up a rank
    cu_seqlens                   [0, 3, 5, 9, 10,   14, 18, 20,  20, 20]
    position_ids                 0 1 2  0 1  0 1 2 3  0           0 1 2 3  0 1 2 3  0 1

No sequence is longer than max_length, so a kernel that was built for max_length runs them all. The
number of slots is the same for every batch of a phase; unused ones are sequences of no tokens at
the end.
"""

import numpy as np
from numpy.typing import NDArray

from tokenmill.loader.compiled import compiled


def num_sequence_slots(row_tokens: int, max_length: int, max_pieces: int) -> int:
    """Slots that one row needs at most: its pieces, and a row's worth of padding."""
    return max_pieces + -(-row_tokens // max_length)


@compiled(
    "void(int32[::1], uint64[::1], uint8[::1], int64[::1], int64, int64, int32[::1], int32[::1],"
    " uint64[::1])"
)
def lay_out(
    lengths: NDArray[np.int32],
    doc_ids: NDArray[np.uint64],
    joined: NDArray[np.uint8],
    row_ends: NDArray[np.int64],
    row_tokens: int,
    max_length: int,
    cu_seqlens: NDArray[np.int32],
    position_ids: NDArray[np.int32],
    slot_doc_ids: NDArray[np.uint64],
) -> None:
    """Fill cu_seqlens, position_ids and slot_doc_ids.

    Args:
        lengths: (pieces,) tokens of each piece.
        doc_ids: (pieces,) its document.
        joined: (pieces,) 1 where it goes on in the sequence of the piece before it.
        row_ends: (rows,) pieces up to and with each row; the batch may have more rows, which are
            all padding.
        cu_seqlens: (slots + 1,) gets the bounds, closed by repeating the number of tokens.
        position_ids: (tokens,) gets the place of each token in its sequence.
        slot_doc_ids: (slots,) gets the first document of each sequence, 0 for padding and unused
            slots.
    """
    num_tokens = len(position_ids)
    cu_seqlens[0] = 0
    slot_doc_ids[:] = 0
    slot = 0
    piece = 0
    for row in range(num_tokens // row_tokens):
        start = row * row_tokens
        row_end = start + row_tokens
        last = row_ends[row] if row < len(row_ends) else piece
        while start < row_end:
            if piece < last:
                slot_doc_ids[slot] = doc_ids[piece]
                length = int(lengths[piece])
                piece += 1
                while piece < last and joined[piece]:
                    length += int(lengths[piece])
                    piece += 1
            else:
                length = min(max_length, row_end - start)
            for place in range(length):
                position_ids[start + place] = place
            start += length
            slot += 1
            cu_seqlens[slot] = start
    cu_seqlens[slot + 1 :] = num_tokens
