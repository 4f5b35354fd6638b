"""Tar archives, plain or gzip, read as one stream: member after member, none of it on disk.

    for member in read_members(unpacked(file)): member.content.read()

Nothing is skipped silently: an archive without its end, a header or a gzip stream that is damaged,
and bytes behind the end raise Broken after the members that stood whole. Python's tarfile reads the
members; it takes a damaged header in the middle for the end, so ends are looked at here, and it
believes any length of a member's name, which has a bound here.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol, cast

CHUNK_BYTES = 1 << 18
HEADER_BYTES = 1 << 20
"""The longest name or set of attributes that a member may have."""
BLOCK_BYTES = 512


class Broken(Exception):
    """A stream ends or fails before its end; what came before stands."""


class Readable(Protocol):
    """Bytes that are read in order; fewer than asked for may come, none at the end."""

    def read(self, size: int = ..., /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive, of any kind but a folder."""

    number: int
    """Counted from 0 over all members, folders too."""
    name: str
    bytes: int
    content: Readable | None
    """To be read before the next member is asked for; None for links, devices, sparse files."""


class Unpacked:
    """The bytes of a file, of what is in it where it is gzip; they can be looked at beforehand."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._ahead = b""
        if self.peek(2) == b"\x1f\x8b":
            self._file = gzip.GzipFile(fileobj=cast(IO[bytes], _Rest(self._ahead, file)), mode="rb")
            self._ahead = b""

    def peek(self, size: int) -> bytes:
        """The next bytes, which stay to be read; fewer at the end."""
        while len(self._ahead) < size and (chunk := self._chunk(BLOCK_BYTES)):
            self._ahead += chunk
        return self._ahead[:size]

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """Some of the next bytes, at most so many.

        Raises:
            Broken: the gzip stream is damaged or cut off here; all before it was given out.
        """
        if self._ahead:
            chunk, self._ahead = self._ahead[:size], self._ahead[size:]
            return chunk
        return self._chunk(size)

    def _chunk(self, size: int) -> bytes:
        if not isinstance(self._file, gzip.GzipFile):
            return self._file.read(size)
        try:
            return self._file.read1(size)  # read() would lose what stands before a cut
        except (EOFError, OSError, zlib.error) as error:
            raise Broken(f"gzip stream broken: {error}") from None


class _Rest:
    """A file whose first bytes were read already."""

    def __init__(self, first: bytes, file: Readable) -> None:
        self._first, self._file = first, file

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        if self._first:
            first, self._first = self._first[:size], self._first[size:]
            return first
        return self._file.read(size)


def is_tar(head: bytes) -> bool:
    """Whether a file that begins so is a tar archive; an empty archive counts."""
    if head == bytes(BLOCK_BYTES):
        return True
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def read_members(file: Unpacked) -> Iterator[Member]:
    """The members of an archive, but for its folders.

    Raises:
        Broken: after the last member that stands whole before a break, or when reading one that
            is cut off.
    """
    try:
        archive = _Archive.open(
            fileobj=cast(IO[bytes], file),
            mode="r|",
            bufsize=CHUNK_BYTES,
            encoding="utf-8",
            errors="surrogateescape",
        )
        number = 0
        while (info := archive.next()) is not None:
            archive.members = []  # tarfile would keep them all
            if not info.isdir():
                yield Member(number, info.name, info.size, _content(archive, info))
            number += 1
        if archive.ending:
            raise tarfile.ReadError(archive.ending)
        # To the very end, where gzip has its checksum.
        while chunk := cast(Readable, archive.fileobj).read(CHUNK_BYTES):
            if chunk.strip(b"\0"):
                raise tarfile.ReadError("there are bytes behind its end")
    except _ERRORS as error:
        raise Broken(f"tar archive broken: {error}") from None


class _Content:
    """The bytes of a member."""

    def __init__(self, file: Readable) -> None:
        self._file = file

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        try:
            return self._file.read(size)
        except _ERRORS as error:
            raise Broken(f"tar archive broken: {error}") from None


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Readable | None:
    if not info.isreg() or info.issparse():  # tarfile may search a damaged sparse map for ever
        return None
    file = archive.extractfile(info)
    assert file is not None
    return _Content(file)


_ERRORS = (tarfile.TarError, ValueError, OverflowError, RecursionError)
"""What tarfile raises on damaged headers."""


class _Header(tarfile.TarInfo):
    """A header that is neither too long nor the silent end of a damaged archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        long_kinds = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, *_ATTRIBUTES)
        if header.size < 0 or (header.type in long_kinds and header.size > HEADER_BYTES):
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        assert isinstance(archive, _Archive)
        try:
            return super().fromtarfile(archive)
        except _END:
            raise
        except tarfile.HeaderError as error:
            archive.ending = f"{error} where a member or the end should be"
            raise


_END: type[tarfile.HeaderError] = tarfile.EOFHeaderError  # type: ignore[attr-defined]
_ATTRIBUTES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


class _Archive(tarfile.TarFile):
    tarinfo = _Header
    members: list[tarfile.TarInfo]
    ending: str | None = None
    """Why no member comes any more, if it is not that the archive has ended."""
