"""A shard for reading rows fast: mapped, its buffers as numpy views, checked where it is touched.

    buffers    tokens | first piece of each row | lengths | doc_ids | starts | num_special | joined
    blocks     0 | 1 | 2 | 3 | ...                                              16 KiB, one CRC each

Opening one is 50 microseconds, for the manifest says at which byte each buffer begins; Arrow's own
reader takes ten times as long. Nothing is read then but the checksums. A block is held against its
checksum before a row in it is used for the first time, and not again while the shard is open: 7
microseconds a block, which the rows around it share.
"""

import mmap
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import FormatError
from tokenmill.shards.shard import CRC_BLOCK_BYTES, crc_path
from tokenmill.shards.shard_list import ShardInfo


class MappedShard:
    """Views of a shard's buffers. They stay good after the file was removed."""

    def __init__(self, path: Path, info: ShardInfo, row_tokens: int, dtype: str) -> None:
        """
        Args:
            dtype: of the tokens, as the manifest has it.

        Raises:
            FormatError: the shard or its checksums are missing, or have another size than the
                manifest says.
        """
        self.path, self.info = path, info
        self._map = _map(path, info.bytes)
        self._bytes = memoryview(self._map)
        self._crcs = _read_crcs(crc_path(path), -(-info.bytes // CRC_BLOCK_BYTES))
        self._unchecked = bytearray(b"\1") * len(self._crcs)
        tokens, bounds, *pieces = info.offsets
        self.tokens = self._view(tokens, dtype, info.rows * row_tokens).reshape(-1, row_tokens)
        """(rows, row_tokens)"""
        self.bounds = self._view(bounds, "int32", info.rows + 1)
        """(rows + 1,) the first piece of each row, and of all pieces."""
        self.lengths, self.doc_ids, self.starts, self.num_special, self.joined = (
            self._view(offset, kind, info.pieces)
            for offset, kind in zip(
                pieces, ("int32", "uint64", "int32", "uint8", "uint8"), strict=True
            )
        )
        """(pieces,) each; see shards/shard.py."""

    def damage_in_tokens(self, row: int) -> int | None:
        """The first damaged block among those that hold a row's tokens."""
        size = self.tokens.strides[0]
        return self._damage(self.info.offsets[0] + row * size, size)

    def damage_in_pieces(self, row: int) -> int | None:
        """The first damaged block among those that say what stands in a row."""
        _, bounds, *pieces = self.info.offsets
        damage = self._damage(bounds + row * 4, 8)
        if damage is not None:
            return damage
        first, last = int(self.bounds[row]), int(self.bounds[row + 1])
        for offset, column in zip(pieces, self._columns(), strict=True):
            damage = self._damage(
                offset + first * column.itemsize, (last - first) * column.itemsize
            )
            if damage is not None:
                return damage
        return None

    def rows_of(self, block: int) -> tuple[int, int]:
        """The first and the last row that need a block: all of them, where it holds more than
        tokens."""
        begin, end = block * CRC_BLOCK_BYTES, (block + 1) * CRC_BLOCK_BYTES
        start, *others = self.info.offsets
        if end > min(others):
            return 0, self.info.rows - 1
        size, last = self.tokens.strides[0], self.info.rows - 1
        return max(begin - start, 0) // size, min((end - 1 - start) // size, last)

    def read_again(self) -> None:
        """Have the disk asked anew for all that is read from now on, and check all of it again."""
        self._map.madvise(mmap.MADV_DONTNEED)
        with self.path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._unchecked = bytearray(b"\1") * len(self._crcs)

    def _damage(self, start: int, size: int) -> int | None:
        block, stop = start // CRC_BLOCK_BYTES, -(-(start + size) // CRC_BLOCK_BYTES)
        while (block := self._unchecked.find(1, block, stop)) >= 0:
            begin = block * CRC_BLOCK_BYTES
            if zlib.crc32(self._bytes[begin : begin + CRC_BLOCK_BYTES]) != self._crcs[block]:
                return block
            self._unchecked[block] = 0
        return None

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return self.lengths, self.doc_ids, self.starts, self.num_special, self.joined

    def _view(self, offset: int, dtype: str, count: int) -> NDArray[Any]:
        return np.frombuffer(self._map, dtype, count, offset)


def _map(path: Path, size: int) -> mmap.mmap:
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise FormatError("no such shard.") from None
    try:
        found = os.fstat(file).st_size
        if found != size:
            raise FormatError(f"the manifest says {size} bytes, the file has {found}.")
        return mmap.mmap(file, size, prot=mmap.PROT_READ)
    finally:
        os.close(file)


def _read_crcs(path: Path, num_blocks: int) -> NDArray[np.uint32]:
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise FormatError(f"{path.name}, its checksums, is missing.") from None
    try:
        crcs = np.frombuffer(os.read(file, 4 * num_blocks + 4), "<u4")
    except ValueError:
        crcs = np.empty(0, np.uint32)  # no whole number of them
    finally:
        os.close(file)
    if len(crcs) != num_blocks:
        raise FormatError(f"{path.name}: need {num_blocks} checksums, found {len(crcs)}.")
    return crcs
