"""The rows of a pack's buckets, numbered through all their shards.

    bucket 0-1023            bucket 1024-2047
    00000.arrow 00001.arrow  00000.arrow            row 4 of the pack is row 0 of the second bucket
    0 1 2       3            4 5

A shard is opened when a row of it is asked for: opening a pack costs a sum over its manifest,
reading a row one copy. Bytes are held against their checksums when they are first touched. Damage
is read once more, from the disk or the store; if it stays, the error names the shard, the rows that
cannot be read, and the command that leaves them out. What a shard says of its rows is held against
the row's size here, so that the compiled code behind may trust it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import FormatError
from tokenmill.loader.open_shards import OPEN_SHARDS, LocalShards, OpenShards
from tokenmill.shards.manifest import Manifest
from tokenmill.shards.mapped import MappedShard
from tokenmill.shards.shard_list import ShardInfo


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
    doc_starts: NDArray[np.int32]
    """(pieces,) where each begins in its document's tokens, special tokens left out."""
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
            self.doc_starts[first:last],
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


_NO_PIECES: tuple[NDArray[Any], ...] = (
    np.empty(0, np.int32),
    np.empty(0, np.uint64),
    np.empty(0, np.uint8),
    np.empty(0, np.uint8),
    np.empty(0, np.int32),
)
"""The columns of a row that holds none: lengths, doc_ids, num_special, joined, starts."""


class PackRows:
    """Rows of the named buckets of a pack, those to train on or those held out."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        buckets: Sequence[str],
        *,
        held_out: bool = False,
        shards: OpenShards | None = None,
        skip_command: str = "",
    ) -> None:
        """
        Args:
            shards: where the shards are opened; None for the folder itself.
            skip_command: for errors, e.g. "tokenmill skip RUN --phase phase1": what leaves damaged
                rows out. Their bucket and numbers are added to it.
        """
        known = manifest.shards
        is_held_out = known.column("held_out") == held_out
        numbers = [np.flatnonzero((known.column("bucket") == b) & is_held_out) for b in buckets]
        infos = known.where(np.concatenate([*numbers, np.empty(0, np.int64)]))
        self.row_tokens = manifest.row_tokens
        self._info = lru_cache(maxsize=OPEN_SHARDS)(infos.__getitem__)
        """The shard of a number."""
        self._shard_starts = np.concatenate([[0], np.cumsum(infos.column("rows"))])
        """(shards + 1,) the number of each shard's first row, and of all rows."""
        self.bucket_starts = self._shard_starts[np.cumsum([0, *map(len, numbers)])]
        """(buckets + 1,) the number of each bucket's first row, and of all rows."""
        self.max_pieces = int(infos.column("max_pieces").max(initial=0))
        """The most pieces in any of the rows."""
        self._shards = shards or LocalShards(folder, manifest)
        self._skip_command = skip_command

    def rows_of_bucket(self, bucket: int) -> NDArray[np.int64]:
        """The numbers of a bucket's rows."""
        return np.arange(self.bucket_starts[bucket], self.bucket_starts[bucket + 1])

    def shards_of(self, rows: NDArray[np.int64]) -> list[ShardInfo]:
        """The shards that hold these rows, each once, in the order in which rows need them."""
        numbers = np.searchsorted(self._shard_starts, rows, side="right") - 1
        return [self._info(number) for number in dict.fromkeys(numbers.tolist())]

    def pieces(self, rows: NDArray[np.int64], skipped: NDArray[np.bool_]) -> Pieces:
        """What stands in these rows.

        Args:
            skipped: (rows,) which of them have no pieces: their shards are not looked at.

        Raises:
            FormatError: a shard is missing or damaged, or its lengths do not fit into its rows.
        """
        counts = np.zeros(len(rows), np.int64)
        found = [_NO_PIECES] * (len(rows) + 1)  # one more: there may be no rows

        def read(shard: MappedShard, row: int, place: int) -> None:
            first, last = shard.bounds[row : row + 2].tolist()
            counts[place] = last - first
            found[place] = (
                shard.lengths[first:last],
                shard.doc_ids[first:last],
                shard.num_special[first:last],
                shard.joined[first:last],
                shard.starts[first:last],
            )

        self._read(rows, skipped, MappedShard.damage_in_pieces, read)
        lengths, doc_ids, num_special, joined, doc_starts = (
            np.concatenate(column) for column in zip(*found, strict=True)
        )
        pieces = Pieces(
            lengths=lengths,
            doc_ids=doc_ids,
            row_ends=np.cumsum(counts),
            num_special=num_special,
            joined=joined,
            doc_starts=doc_starts,
            is_hidden=np.zeros(len(lengths), np.bool_),
        )
        self._check(rows, pieces)
        return pieces

    def copy_tokens(
        self, rows: NDArray[np.int64], skipped: NDArray[np.bool_], out: NDArray[np.int32]
    ) -> None:
        """Copy the tokens of these rows to the front of out (tokens,), but where one is skipped.

        Raises:
            FormatError: a shard is missing or damaged.
        """
        by_row = out[: len(rows) * self.row_tokens].reshape(-1, self.row_tokens)

        def read(shard: MappedShard, row: int, place: int) -> None:
            by_row[place] = shard.tokens[row]

        self._read(rows, skipped, MappedShard.damage_in_tokens, read)

    def name(self, row: int) -> str:
        """A row as an error names it: its shard's file and its place there."""
        number, place = self._locate(np.array([row]))
        return f"{self._shards.name(self._info(int(number[0])))}: row {place[0]}"

    def _read(
        self,
        rows: NDArray[np.int64],
        skipped: NDArray[np.bool_],
        damage_in: Callable[[MappedShard, int], int | None],
        read: Callable[[MappedShard, int, int], None],
    ) -> None:
        """Call read(shard, row in the shard, place among rows) for every row that is not skipped,
        shard by shard, when damage_in(shard, row) finds nothing."""
        numbers, places_there = self._locate(rows)
        by_shard = np.argsort(numbers, kind="stable")
        shard, latest = None, -1
        for place in by_shard[~skipped[by_shard]].tolist():
            number, row = int(numbers[place]), int(places_there[place])
            if shard is None or number != latest:
                shard, latest = self._open(number), number
            if damage_in(shard, row) is not None:
                shard = self._open(number, again=True)
                damage = damage_in(shard, row)
                if damage is not None:
                    raise self._damaged(number, "damaged", *shard.rows_of(damage))
            read(shard, row, place)

    def _locate(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The number of each row's shard, and the row's place there."""
        numbers = np.searchsorted(self._shard_starts, rows, side="right") - 1
        return numbers, rows - self._shard_starts[numbers]

    def _open(self, number: int, *, again: bool = False) -> MappedShard:
        info = self._info(number)
        try:
            return self._shards.get_again(info) if again else self._shards.get(info)
        except FormatError as error:
            raise self._damaged(number, str(error), 0, info.rows - 1) from None

    def _damaged(self, number: int, found: str, first: int, last: int) -> FormatError:
        """The error for rows of a shard that cannot be read, with what can be done about them."""
        info = self._info(number)
        bucket = int(np.searchsorted(self.bucket_starts, self._shard_starts[number], "right")) - 1
        before = int(self._shard_starts[number] - self.bucket_starts[bucket])
        name = f"held-out/{info.bucket}" if info.held_out else info.bucket
        advice = self._shards.repair
        if self._skip_command:
            advice += (
                f" Or train without these rows: `{self._skip_command} --rows "
                f"{name}:{before + first}-{before + last}`."
            )
        return FormatError(
            f"{self._shards.name(info)}: rows {first} to {last}: {found.rstrip('.')}. {advice}"
        )

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
