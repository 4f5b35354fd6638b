"""Packing while training, as ModernBERT's loader does it: written anew from its description.

Each batch fills eight bins, each a micro-batch, with sequences from a buffer: a sequence goes into
the fullest bin that holds it; what fits nowhere waits for the next batch. A batch is done when the
buffer is empty and too little room is left to refill it. Masks are drawn over the whole batch.
Documents lie in memory here, which is faster than the files that it reads.
"""

from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from peers.corpus import BATCH_TOKENS, Batches, Corpus
from peers.masks import NumpyMasks
from torch.utils.data import DataLoader

DOCUMENTS = 512
"""Documents that its DataLoader gives at once, and the sequences of a batch without packing."""
BUFFER = 5 * DOCUMENTS


def contenders(folder: Path, corpus: Corpus, rate: float) -> dict[str, Batches]:
    masks = NumpyMasks(corpus.tokenizer, rate)
    return {"packing as ModernBERT does, numpy masks": partial(batches, corpus, masks)}


@numba.njit("int64(int64[::1], int64)")
def _fullest_bin(room: NDArray[np.int64], length: int) -> int:
    """The bin with the least room that holds a sequence of this length, or -1."""
    best = -1
    for index in range(len(room)):
        if room[index] >= length and (best < 0 or room[index] < room[best]):
            best = index
    return best


def batches(corpus: Corpus, masks: NumpyMasks) -> Iterator[dict[str, Any]]:
    num_bins, bin_tokens = DOCUMENTS * corpus.max_length // BATCH_TOKENS, BATCH_TOKENS
    documents = DataLoader(corpus.sequences(), DOCUMENTS, shuffle=True, collate_fn=list)
    source = iter(documents)
    buffer: deque[NDArray[np.uint16]] = deque()
    pad_id = corpus.tokenizer.pad_id
    while True:
        bins = np.full((num_bins, bin_tokens), pad_id, np.int64)
        room = np.full(num_bins, bin_tokens)
        bounds = [[0] for _ in range(num_bins)]
        waiting: list[NDArray[np.uint16]] = []
        while True:
            if not buffer and not _refill(buffer, source, BUFFER - len(waiting)):
                break
            document = buffer.popleft()
            index = _fullest_bin(room, len(document))
            if index < 0:
                waiting.append(document)
                continue
            start = bin_tokens - room[index]
            bins[index, start : start + len(document)] = document
            room[index] -= len(document)
            bounds[index].append(bin_tokens - int(room[index]))
        buffer.extendleft(waiting)
        if (room == bin_tokens).any():
            return
        cu_seqlens = [torch.tensor(ends, dtype=torch.int32) for ends in bounds]
        yield {
            **masks(bins),
            "attention_mask": torch.from_numpy((bins != pad_id).astype(np.int64)),
            "cu_seqlens": cu_seqlens,
            "max_seqlen": [int(torch.diff(ends).max()) for ends in cu_seqlens],
            "num_tokens": bins.size - int(room.sum()),
        }


def _refill(
    buffer: deque[NDArray[np.uint16]], source: Iterator[list[NDArray[np.uint16]]], room: int
) -> bool:
    """Take documents while there is room for more than a DataLoader's batch; whether there were
    any."""
    taken = False
    while room >= DOCUMENTS and BUFFER - len(buffer) > DOCUMENTS:
        documents = next(source, None)
        if documents is None:
            break
        buffer.extend(documents)
        room -= DOCUMENTS
        taken = True
    return taken
