"""The documents of a run's shards, as other loaders are given them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import TokenizerInfo, pack_folder, read_run
from tokenmill.shards.shard import open_shard

Batches = Callable[[], Iterator[dict[str, Any]]]
"""Starts an epoch of batches: `input_ids`, and `num_tokens` where some of them are padding."""
BATCH_TOKENS = 65_536
"""Of a micro-batch."""
BATCH_ROWS = 64
"""Rows of a batch of those that do not pack: BATCH_TOKENS where rows have 1,024 tokens."""

SIMULATED_TOKENS = 16
"""Of a row where only the plan is of interest."""
SIMULATED_SHARD_ROWS = 1 << 16
"""Rows of a real shard that stands for as many as are needed."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Sequences one after the other, special tokens included, without padding."""

    tokenizer: TokenizerInfo
    tokens: NDArray[np.uint16]
    lengths: NDArray[np.int64]
    """(sequences,)"""
    row_tokens: int
    """Of our rows; those of loaders that do not pack have max_length."""
    max_length: int

    def sequences(self) -> list[NDArray[np.uint16]]:
        """In a random order: they are stored by their bucket."""
        order = np.random.default_rng(0).permutation(len(self.lengths))
        starts = np.cumsum(self.lengths) - self.lengths
        bounds = zip(starts[order].tolist(), self.lengths[order].tolist(), strict=True)
        return [self.tokens[start : start + length] for start, length in bounds]

    def rows(self) -> NDArray[np.uint16]:
        """(rows, max_length) concatenated and split, as run_mlm.py does: full rows, no padding."""
        tokens = np.concatenate(self.sequences())
        whole = len(tokens) // self.max_length * self.max_length
        return tokens[:whole].reshape(-1, self.max_length)


class SimulatedRows:
    """A dataset with random access whose rows are all the same."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._row = np.zeros(SIMULATED_TOKENS, np.uint16)

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, index: int) -> NDArray[np.uint16]:
        return self._row


def read_corpus(run: Path, phase: str) -> Corpus:
    info = read_run(run)
    folder = pack_folder(run, info.phase(phase).pack)
    manifest = read_manifest(folder)
    tokens, lengths = [], []
    for shard in manifest.shards:
        rows = open_shard(folder / shard.path)
        is_real = np.arange(rows.row_tokens) < rows.real_tokens()[:, None]
        tokens.append(rows.tokens[is_real])
        lengths.append(rows.lengths.astype(np.int64))
    return Corpus(
        tokenizer=info.tokenizer,
        tokens=np.concatenate(tokens),
        lengths=np.concatenate(lengths),
        row_tokens=manifest.row_tokens,
        max_length=manifest.max_length,
    )
