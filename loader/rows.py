"""The rows of a pack's buckets, numbered through all their shards.

    bucket 0-1023            bucket 1024-2047
    00000.arrow 00001.arrow  00000.arrow            row 4 of the pack is row 0 of the second bucket
    0 1 2       3            4 5

A shard is mapped when its first row is asked for, and stays mapped: opening a pack costs a sum over
its manifest, reading a row one copy. What a shard says of its rows is held against the manifest and
the row's size here, once, so that the compiled code behind may trust it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import FormatError
from tokenmill.shards.manifest import Manifest
from tokenmill.shards.shard import Rows, open_shard


@dataclass(frozen=True, slots=True)
class Pieces:
    """What stands in some rows, without the tokens."""

    lengths: NDArray[np.int32]
    """(pieces,) tokens, special tokens counted."""
    doc_ids: NDArray[np.uint64]
    """(pieces,)"""
    row_ends: NDArray[np.int64]
    """(rows,) the number of pieces up to and with each row."""
    num_special: NDArray[np.uint8]
    """(pieces,) special tokens in each."""
    joined: NDArray[np.uint8]
    """(pieces,) 1 where it goes on in the sequence of the piece before it."""
    is_hidden: NDArray[np.bool_]
    """(pieces,) of documents that were taken back: padding to those who read the row."""

    def of_rows(self, places: range) -> "Pieces":
        """The pieces of consecutive rows."""
        ends = self.row_ends[places.start : places.stop]
        first = int(self.row_ends[places.start - 1]) if places.start else 0
        last = int(ends[-1]) if len(ends) else first
        return Pieces(
            self.lengths[first:last],
            self.doc_ids[first:last],
            ends - first,
            self.num_special[first:last],
            self.joined[first:last],
            self.is_hidden[first:last],
        )

    def starts(self, row_tokens: int) -> NDArray[np.int64]:
        """(pieces,) where each begins in the tokens of these rows."""
        counts = np.diff(self.row_ends, prepend=0)
        before = np.cumsum(self.lengths, dtype=np.int64) - self.lengths
        of_row = np.concatenate([before, [0]])[self.row_ends - counts]
        rows = np.repeat(np.arange(len(counts)), counts)
        starts: NDArray[np.int64] = rows * row_tokens + before - of_row[rows]
        return starts

    def num_real_tokens(self) -> NDArray[np.int64]:
        """(rows,) tokens of each row that are not padding."""
        return self._by_row(np.where(self.is_hidden, 0, self.lengths))

    def num_maskable(self) -> NDArray[np.int64]:
        """(rows,) tokens that are neither padding nor special."""
        return self._by_row(np.where(self.is_hidden, 0, self.lengths - self.num_special))

    def _by_row(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """(rows,) the sums of values of pieces."""
        sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        by_row: NDArray[np.int64] = np.diff(sums[self.row_ends], prepend=0)
        return by_row


class PackRows:
    """Rows of the named buckets of a pack, those to train on or those held out."""

    def __init__(
        self, folder: Path, manifest: Manifest, buckets: Sequence[str], *, held_out: bool = False
    ) -> None:
        of_buckets = [manifest.of_bucket(bucket, held_out=held_out) for bucket in buckets]
        sizes = [sum(shard.rows for shard in shards) for shards in of_buckets]
        self.folder = folder
        self.row_tokens = manifest.row_tokens
        self.bucket_starts = np.cumsum([0, *sizes])
        """(buckets + 1,) the number of each bucket's first row, and of all rows."""
        self._shards = [shard for shards in of_buckets for shard in shards]
        self._shard_ends = np.cumsum([shard.rows for shard in self._shards], dtype=np.int64)
        self._open: dict[int, Rows] = {}

    def rows_of_bucket(self, bucket: int) -> NDArray[np.int64]:
        """The numbers of a bucket's rows."""
        return np.arange(self.bucket_starts[bucket], self.bucket_starts[bucket + 1])

    @property
    def max_pieces(self) -> int:
        """The most pieces in any of the rows."""
        return max((shard.max_pieces for shard in self._shards), default=0)

    def pieces(self, rows: NDArray[np.int64]) -> Pieces:
        """What stands in these rows.

        Raises:
            FormatError: a shard is missing, or its lengths do not fit into its rows.
        """
        found_in = self._locate(rows)
        bounds = [
            (int(shard.row_ends[row - 1]) if row else 0, int(shard.row_ends[row]))
            for shard, row in found_in
        ]

        def column(name: str, dtype: type[Any]) -> NDArray[Any]:
            parts = [
                getattr(shard, name)[first:last]
                for (shard, _), (first, last) in zip(found_in, bounds, strict=True)
            ]
            return np.concatenate([*parts, np.empty(0, dtype)])

        lengths = column("lengths", np.int32)
        found = Pieces(
            lengths=lengths,
            doc_ids=column("doc_ids", np.uint64),
            row_ends=np.cumsum([last - first for first, last in bounds], dtype=np.int64),
            num_special=column("num_special", np.uint8),
            joined=column("joined", np.uint8),
            is_hidden=np.zeros(len(lengths), np.bool_),
        )
        self._check(rows, found)
        return found

    def copy_tokens(self, rows: NDArray[np.int64], out: NDArray[np.int32]) -> None:
        """Copy the tokens of these rows to the front of out (tokens,)."""
        end = 0
        for shard, row in self._locate(rows):
            start, end = end, end + self.row_tokens
            out[start:end] = shard.tokens[row]

    def name(self, row: int) -> str:
        """A row as an error names it: its shard's file and its place there."""
        index = int(np.searchsorted(self._shard_ends, row, side="right"))
        first = int(self._shard_ends[index]) - self._shards[index].rows
        return f"{self.folder / self._shards[index].path}: row {row - first}"

    def _locate(self, rows: NDArray[np.int64]) -> list[tuple[Rows, int]]:
        """For each row its shard, mapped, and its place there."""
        indices = np.searchsorted(self._shard_ends, rows, side="right")
        places = rows - np.concatenate([[0], self._shard_ends])[indices]
        pairs = zip(indices.tolist(), places.tolist(), strict=True)
        return [(self._open.get(index) or self._map(index), place) for index, place in pairs]

    def _map(self, index: int) -> Rows:
        info = self._shards[index]
        rows = open_shard(self.folder / info.path)
        if (rows.num_rows, rows.row_tokens) != (info.rows, self.row_tokens):
            raise FormatError(
                f"{self.folder / info.path}: the manifest says {info.rows} rows of "
                f"{self.row_tokens} tokens, the file has {rows.num_rows} of {rows.row_tokens}. "
                "Delete it and build the run again; whole shards are kept."
            )
        self._open[index] = rows
        return rows

    def _check(self, rows: NDArray[np.int64], found: Pieces) -> None:
        counts = np.diff(found.row_ends, prepend=0)
        bad = (found.num_real_tokens() > self.row_tokens) | (counts > self.max_pieces)
        first = found.row_ends - counts
        odd = (found.lengths < 1) | (found.num_special > found.lengths)
        odd[first[counts > 0]] |= found.joined[first[counts > 0]] != 0
        bad[np.searchsorted(found.row_ends, np.flatnonzero(odd), side="right")] = True
        if bad.any():
            raise FormatError(
                f"{self.name(int(rows[bad.argmax()]))}: its lengths do not fit into a row of "
                f"{self.row_tokens} tokens and {self.max_pieces} pieces: the file is "
                "damaged. Run `tokenmill verify`, delete what it names and build the run again."
            )
