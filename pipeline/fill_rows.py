"""Rows of token ids: sequences one after the other, the rest of each row padded."""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.kept_documents import Kept
from tokenmill.pipeline.sequences import Sequences
from tokenmill.shards.run import TokenizerInfo
from tokenmill.shards.shard import Rows


def fill_rows(
    sequences: Sequences,
    row_ends: NDArray[np.int64],
    row_tokens: int,
    kept: Kept,
    sources: Sequence[NDArray[Any]],
    tokenizer: TokenizerInfo,
) -> Rows:
    """The rows of a shard.

    Args:
        sequences: in the order of the rows.
        row_ends: (rows,) sequences up to and with each row.
        kept: the documents that the pieces are of.
        sources: the arrays of tokens that `kept` names; the rows have their type.
    """
    pieces = sequences.pieces
    lengths = pieces.lengths
    piece_ends = sequences.ends[row_ends - 1]  # (rows,)
    row_of = np.searchsorted(piece_ends, np.arange(len(lengths)), side="right")
    before = np.cumsum(lengths, dtype=np.int64) - lengths
    place = row_of * row_tokens + before - before[np.append(0, piece_ends[:-1])][row_of]
    tokens = np.full(len(row_ends) * row_tokens, tokenizer.pad_id, sources[0].dtype)
    ids = np.array([*tokenizer.prefix, *tokenizer.separator, *tokenizer.suffix], tokens.dtype)
    _write_special(ids, pieces.around, pieces.num_tokens, place, tokens)
    first, last = pieces.around[:, 0].astype(np.int64), pieces.around[:, 1]
    begin = kept.start[pieces.document] + pieces.start
    file = kept.file[pieces.document]
    for index in np.unique(file):
        mine = np.flatnonzero(file == index)
        to = (place + last - first)[mine]
        _copy(sources[index], begin[mine], pieces.num_tokens[mine], tokens, to)
    joined = np.ones(len(lengths), np.uint8)
    joined[np.append(0, sequences.ends[:-1])] = 0
    return Rows(
        tokens=tokens.reshape(-1, row_tokens),
        row_ends=piece_ends,
        lengths=lengths,
        doc_ids=kept.doc_ids[pieces.document],
        starts=pieces.start,
        num_special=pieces.num_special,
        joined=joined,
    )


@numba.njit(cache=True, nogil=True)
def _write_special(
    ids: NDArray[Any],
    around: NDArray[np.uint8],
    num_tokens: NDArray[np.int32],
    place: NDArray[np.int64],
    target: NDArray[Any],
) -> None:
    for i in range(len(place)):
        to = place[i]
        for k in range(around[i, 0], around[i, 1]):
            target[to] = ids[k]
            to += 1
        to += num_tokens[i]
        for k in range(around[i, 2], around[i, 3]):
            target[to] = ids[k]
            to += 1


@numba.njit(cache=True, nogil=True)
def _copy(
    source: NDArray[Any],
    begin: NDArray[np.int64],
    num_tokens: NDArray[np.int32],
    target: NDArray[Any],
    place: NDArray[np.int64],
) -> None:
    for i in range(len(begin)):
        for k in range(num_tokens[i]):
            target[place[i] + k] = source[begin[i] + k]
