"""What a download needs of a store, whatever it is."""

from typing import Protocol

from tokenmill.errors import SourceError
from tokenmill.pipeline.sources import Checksum


class Stream(Protocol):
    """The bytes of a range, from its start on."""

    start: int
    """Where it begins: 0 where the store knows no ranges and sends the whole file."""
    size: int | None
    """Bytes of the whole file, as the store says now."""

    def readinto(self, buffer: memoryview) -> int:
        """Put at most so many bytes there as it holds; how many did, 0 at the end.

        Raises:
            Transient: the connection was cut.
        """

    def close(self) -> None: ...


class Store(Protocol):
    """One file of a store, opened as often as it takes, from any thread."""

    def open(self, start: int, stop: int | None) -> Stream:
        """The bytes from start to stop, or to the end.

        Raises:
            Transient: worth another try.
            SourceError: refused, gone, or no longer the file that was listed.
        """

    def vouches(self, checksum: Checksum) -> bool:
        """Whether what the listing took for a checksum is one of the bytes."""

    def check(self) -> None:
        """Ask once more, after the last byte, where an answer cannot tell its version.

        Raises:
            SourceError: the file is no longer the one that was listed.
        """


def read_all(store: Store) -> bytes:
    """All bytes of a small file.

    Raises:
        Transient, SourceError: as Store.open.
    """
    return drain(store.open(0, None))


def drain(stream: Stream) -> bytes:
    """What is left of a stream, which is closed."""
    data, buffer = bytearray(), memoryview(bytearray(1 << 16))
    try:
        while number := stream.readinto(buffer):
            data += buffer[:number]
    finally:
        stream.close()
    return bytes(data)


def changed(shown_address: str, expected: object, found: object) -> SourceError:
    return SourceError(
        f"{shown_address}: changed since it was listed (expected {expected}, found {found}). "
        "Run the same command again to take the new one; what is done of other files is kept."
    )
