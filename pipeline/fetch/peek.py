"""Look into a remote file without fetching it: a file object that reads by ranges.

For the footer of a parquet file, so that a wrong column is refused before terabytes come.
"""

import contextlib
import io
from collections.abc import Mapping
from typing import Any

from tokenmill.pipeline.fetch.address import shown
from tokenmill.pipeline.fetch.listing import LISTING_ATTEMPTS, store_of
from tokenmill.pipeline.fetch.retry import Transient, retrying
from tokenmill.pipeline.sources import SourceFile

BUFFER_BYTES = 256 << 10


def open_remote(file: SourceFile, options: Mapping[str, Any]) -> io.BufferedReader:
    """A remote file of known size, to read and to seek in; nothing is asked for before."""
    return io.BufferedReader(_Ranges(file, options), BUFFER_BYTES)


class _Ranges(io.RawIOBase):
    def __init__(self, file: SourceFile, options: Mapping[str, Any]) -> None:
        self.file, self.store = file, store_of(file, options)
        self.size = file.bytes or 0
        self.place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = (
            offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        )
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self.place + len(view), self.size)
        if self.place >= stop:
            return 0
        data = retrying(shown(self.file.address), lambda: self._range(stop), LISTING_ATTEMPTS)
        view[: len(data)] = data
        self.place = stop
        return len(data)

    def _range(self, stop: int) -> bytes:
        with contextlib.closing(self.store.open(self.place, stop)) as stream:
            skip = self.place - stream.start  # a server without ranges begins at the beginning
            data = bytearray(skip + stop - self.place)
            filled = 0
            while filled < len(data):
                number = stream.readinto(memoryview(data)[filled:])
                if not number:
                    raise Transient("the connection ended too early")
                filled += number
        return bytes(data[skip:])
