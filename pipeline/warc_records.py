"""The records of a WARC file or of a byte range of it, and what is damaged in between.

    read_records(file, size, 0, size, wanted, max_bytes)      Record, Record, Damage, Record, ...

FastWARC reads; this file adds what it does not tell. FastWARC hands out a record that is cut, ends
without a word at an empty or a cut gzip member, and gives up at the first damage. Here a record is
whole (all of its Content-Length is there, and another record or the end comes after it), damage is
named with its place, and reading goes on at the next record that can be found.

A range holds the records whose gzip member, or in a plain file first byte, lies in it. It is
entered at the first place from its start on where a record can be read; the range before it ends
there, so every record is read once, and a gzip file of one member is read whole by its first range.
The price is the search for that place, and inflating the last member of a range twice. Not done: to
tell a plain file's record from one that it quotes with all its headers, or a member's from one that
it holds uncompressed, where a range begins inside it.
"""

import re
import zlib
from collections.abc import Generator, Iterator
from typing import BinaryIO, NamedTuple

from fastwarc.stream_io import GzipReader
from fastwarc.warc import ArchiveIterator, HeaderMap, WarcRecord, WarcRecordType

CHUNK_BYTES = 1 << 20
HEAD_BYTES = 1 << 15
"""The longest headers of a record, as FastWARC has it."""
MAGIC = b"\x1f\x8b"

_MEMBER = re.compile(rb"\x1f\x8b\x08")
_VERSION = re.compile(rb"(?<![^\n])WARC/\d+\.\d+\r\n")


class Record(NamedTuple):
    """One whole record."""

    place: int
    """The byte of the file where it begins, or where its gzip member does."""
    kind: WarcRecordType
    headers: HeaderMap
    block: bytes | None
    """All that follows the headers; None where its kind was not wanted."""


class Damage(NamedTuple):
    """What is no whole record, or one that is too long."""

    place: int
    error: str


def read_records(
    file: BinaryIO, size: int, start: int, stop: int, wanted: WarcRecordType, max_bytes: int
) -> Iterator[Record | Damage]:
    """The records that begin in [start, stop), in their order.

    Args:
        size: bytes of the whole file.
        wanted: the kinds of records whose blocks are read.
        max_bytes: a longer block is not read.
    """
    file.seek(0)
    read, find = _read_plain, _find_plain
    if file.read(2) == MAGIC:
        read, find = _read_gzip, _find_gzip
    place = find(file, start, size)
    end = find(file, stop, size) if stop < size else size
    if start == 0 < place and place > (begin := _skip_nothing(file, 0, size)):
        yield Damage(begin, f"no WARC record before byte {place}")
    while place < end:
        again = yield from read(file, place, end, wanted, max_bytes)
        place = find(file, again, size) if again < end else end


Records = Generator[Record | Damage, None, int]
"""Gives records until the first damage; returns the byte from which to look for the next one."""


def _read_gzip(
    file: BinaryIO, start: int, end: int, wanted: WarcRecordType, max_bytes: int
) -> Records:
    file.seek(start)
    stream = GzipReader(_Until(file, end))
    member = stream.frame_start_position
    held: Record | Damage | None = None
    last = start
    """The member that the end of the held record lies in."""
    try:
        for found in ArchiveIterator(stream, parse_http=False):
            if held:
                yield held
            held = None
            place = last = member() or 0
            if not found.record_type & wanted and found.content_length:
                held = Record(place, found.record_type, found.headers, None)
                continue  # FastWARC skips its block
            held, whole = _take(found, place, wanted, max_bytes)
            last = member() or place
            if not whole:
                yield held
                return place + 1
    except OSError as error:
        failed = stream.frame_start_position() or last
        if held and failed <= last:
            # Its length is wrong, or its member is damaged: whichever it is, it cannot be trusted.
            yield Damage(held.place, f"{error}, in or right after this record")
            return held.place + 1
        if held:
            yield held
        if _skip_nothing(file, failed, end) < end:
            yield Damage(failed, str(error))
        return failed + 1
    if held:
        yield held
    last = stream.frame_start_position() or last
    after, whole, _ = _inflate(file, last, end)
    if not whole:
        yield Damage(last, f"the gzip member is cut off at byte {end}")
        return end
    after = _skip_nothing(file, after, end)
    if after < end and _find_gzip(file, after, end) > after:
        yield Damage(after, "no gzip member of a record")
    return after


def _read_plain(
    file: BinaryIO, start: int, end: int, wanted: WarcRecordType, max_bytes: int
) -> Records:
    file.seek(start)
    held: Record | Damage | None = None
    length = 0
    try:
        for found in ArchiveIterator(_Until(file, end), parse_http=False):
            if held:
                yield held
            held = None
            length = found.content_length
            held, whole = _take(found, found.stream_pos, wanted, max_bytes)
            if not whole:
                yield held
                return found.stream_pos + 1
    except OSError as error:
        if held is None:
            yield Damage(start, str(error))
            return start + 1
        after = _head_end(file, held.place) + length
        file.seek(after)
        if file.read(4) != b"\r\n\r\n":
            yield Damage(held.place, f"{error}, where its Content-Length says that it ends")
            return held.place + 1
        yield held
        if _skip_nothing(file, after + 4, end) < end:
            yield Damage(after + 4, str(error))
        return after + 4
    if held:
        after = _head_end(file, held.place) + length
        if after > end:
            yield Damage(held.place, f"the record is cut off at byte {end}")
            return end
        yield held
        file.seek(after)
        if file.read(min(CHUNK_BYTES, end - after)).strip(b"\r\n\0"):
            yield Damage(after, "the file ends in the first line of a record")
    return end


def _take(
    found: WarcRecord, place: int, wanted: WarcRecordType, max_bytes: int
) -> tuple[Record | Damage, bool]:
    """A record, and whether all of it is there."""
    kind = found.record_type
    length = found.content_length
    if not length and (said := found.headers.get("Content-Length")) != "0":
        return Damage(place, f"Content-Length is {said or 'missing'}"), False
    if not kind & wanted:
        return Record(place, kind, found.headers, None), True  # FastWARC skips the rest
    if length > max_bytes:
        num_bytes, block = found.consume(), b""
    else:
        block = found.reader.read()
        num_bytes = len(block)
    if num_bytes < length:
        return Damage(place, f"Content-Length is {length}, {num_bytes} bytes are there"), False
    if length > max_bytes:
        return Damage(place, f"{length} bytes, max_document_bytes is {max_bytes}"), True
    return Record(place, kind, found.headers, block), True


def _find_gzip(file: BinaryIO, at: int, size: int) -> int:
    """The first gzip member from a byte on that begins with a record; size if there is none."""
    for place in _find(file, _MEMBER, at):
        file.seek(place)
        try:
            head = zlib.decompressobj(31).decompress(file.read(1 << 12), 16)
        except zlib.error:
            continue
        if head.startswith(b"WARC/"):
            return place
    return size


def _find_plain(file: BinaryIO, at: int, size: int) -> int:
    """The first line from a byte on that begins a record with its headers; size if none does."""
    for place in _find(file, _VERSION, at):
        file.seek(place)
        head = file.read(HEAD_BYTES).partition(b"\r\n\r\n")[0].lower()
        if b"\r\nwarc-type:" in head and b"\r\ncontent-length:" in head:
            return place
    return size


def _find(file: BinaryIO, pattern: re.Pattern[bytes], at: int) -> Iterator[int]:
    """Where a short pattern matches, from a byte on."""
    overlap = 32
    base = max(0, at - 1)  # a line begins after the byte before it
    while True:
        file.seek(base)
        chunk = file.read(CHUNK_BYTES)
        for match in pattern.finditer(chunk):
            place = base + match.start()
            # What lies in the overlap is found again, with all that follows it.
            if place >= at and match.start() <= CHUNK_BYTES - overlap:
                yield place
        if len(chunk) < CHUNK_BYTES:
            return
        base += CHUNK_BYTES - overlap
        at = base + 1


def _skip_nothing(file: BinaryIO, at: int, end: int) -> int:
    """The first byte that is neither of an empty gzip member nor of zeros up to the end."""
    while at < end:
        after, whole, num_bytes = _inflate(file, at, end)
        if not whole or num_bytes:
            break
        at = after
    file.seek(at)
    return at if file.read(min(CHUNK_BYTES, end - at)).strip(b"\0") else end


def _inflate(file: BinaryIO, at: int, end: int) -> tuple[int, bool, int]:
    """Where a gzip member ends, whether it is whole, and how many bytes it holds."""
    file.seek(at)
    member = zlib.decompressobj(31)
    num_bytes = 0
    while not member.eof and (chunk := file.read(min(CHUNK_BYTES, end - file.tell()))):
        try:
            while chunk and not member.eof:
                num_bytes += len(member.decompress(chunk, CHUNK_BYTES))
                chunk = member.unconsumed_tail
        except zlib.error:
            return end, False, num_bytes
    return file.tell() - len(member.unused_data), member.eof, num_bytes


def _head_end(file: BinaryIO, place: int) -> int:
    """Where the headers of a plain record end."""
    file.seek(place)
    return place + len(file.read(HEAD_BYTES).partition(b"\r\n\r\n")[0]) + 4


class _Until:
    """A file that ends at a byte."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self.file, self.end = file, end

    def read(self, size: int = -1) -> bytes:
        left = self.end - self.file.tell()
        return self.file.read(left if size < 0 else min(size, left))

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def close(self) -> None:
        pass
