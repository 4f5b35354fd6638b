"""What is there of a file that is on its way: a hash of each block, noted when it was written.

    <name>.journal      32 bytes that name the version of the file, then 16 bytes a block:
                        its number and its XXH3-64, in the order in which they came

Nothing is synced. A killed process leaves what it wrote in the kernel's hands, and after a crash of
the machine the hashes tell which blocks reached the disk: each is read again before it counts. So
the price of resuming is one reading of what is there, and of a kill the blocks at work.
"""

import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

import xxhash

BLOCK_BYTES = 128 << 10
"""Fetched again at most, for each connection, when a process is killed."""
_ENTRY = struct.Struct("<QQ")
_HEADER_BYTES = 32


class Journal:
    """The blocks of one version of a file, in place in `data` and noted beside it."""

    def __init__(self, data: Path, identity: bytes, size: int) -> None:
        """Open both files, empty unless they are of this version.

        Args:
            identity: 32 bytes, others for another version.
            size: bytes of the whole file.
        """
        assert len(identity) == _HEADER_BYTES
        self.size = size
        data.parent.mkdir(parents=True, exist_ok=True)
        self.data_path, self.path = data, data.with_suffix(".journal")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self.data = os.open(data, flags)
        self.notes = os.open(self.path, flags | os.O_APPEND)
        if os.pread(self.notes, _HEADER_BYTES, 0) != identity:
            os.ftruncate(self.notes, 0)
            os.ftruncate(self.data, 0)
            os.write(self.notes, identity)
        os.ftruncate(self.data, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.data)
        os.close(self.notes)

    def blocks(self) -> set[int]:
        """The numbers of the blocks that are there, each read and compared."""
        length = os.fstat(self.notes).st_size - _HEADER_BYTES
        whole = length - length % _ENTRY.size
        os.ftruncate(self.notes, _HEADER_BYTES + whole)  # a half note would shift all after it
        notes = dict(_ENTRY.iter_unpack(os.pread(self.notes, whole, _HEADER_BYTES)))
        return {block for block, digest in sorted(notes.items()) if self._holds(block, digest)}

    def write(self, block: int, data: bytes | bytearray) -> None:
        """Put a block in its place, then note it."""
        try:
            _write_all(self.data, data, block * BLOCK_BYTES)
            os.write(self.notes, _ENTRY.pack(block, xxhash.xxh3_64_intdigest(data)))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.data_path)) from None

    def read(self, block: int) -> bytes:
        start = block * BLOCK_BYTES
        return os.pread(self.data, min(BLOCK_BYTES, self.size - start), start)

    def keep_as(self, target: Path) -> None:
        """The data is whole: let it reach the disk, and give it its name."""
        os.fsync(self.data)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.data_path.replace(target)
        self.path.unlink()

    def throw_away(self) -> None:
        self.data_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _holds(self, block: int, digest: int) -> bool:
        return (
            block * BLOCK_BYTES < self.size and xxhash.xxh3_64_intdigest(self.read(block)) == digest
        )


def _write_all(descriptor: int, data: bytes | bytearray, place: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, place)
        view, place = view[written:], place + written
