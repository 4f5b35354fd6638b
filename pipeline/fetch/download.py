"""Download one file: ranges over a few connections, in place, hashed as they come.

    download(file, store, part, target) -> Downloaded

The file is cut into spans of 8 MiB; each connection asks for the first that nobody has taken.
What came stands in the journal block by block, so a kill costs the blocks at work, and a cut
connection nothing. While the rest arrives, this thread hashes what has come from the beginning
without a gap. The file gets its name when size and checksum agree and the bytes are on the disk.

A server without ranges, or one that does not say the size, sends one stream from the start; that is
not resumed.
"""

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenmill.errors import RunError, SourceError
from tokenmill.pipeline.fetch.address import shown
from tokenmill.pipeline.fetch.journal import BLOCK_BYTES, Journal
from tokenmill.pipeline.fetch.retry import Attempts, Transient, retrying
from tokenmill.pipeline.fetch.store import Store, Stream, changed
from tokenmill.pipeline.sources import Checksum, SourceFile

SPAN_BYTES = 8 << 20
"""Asked for at once: long enough that the wait for an answer is small beside it."""
HELD_BLOCKS = 256
"""Kept in memory until they are hashed (32 MiB); the rest is read again from the disk's cache."""
CONNECTIONS = 2
"""To one file; each worker of the engine has a file of its own. More would fight over the GIL."""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file that is there, whole."""

    sha256: str
    bytes: int
    read: int
    """Bytes that came over the network now; the rest had come before."""


class _NoRanges(Exception):
    """The store answers a range with the whole file."""


def download(
    file: SourceFile,
    store: Store,
    part: Path,
    target: Path,
    *,
    span_bytes: int = SPAN_BYTES,
    connections: int = CONNECTIONS,
) -> Downloaded:
    """Bring a file to `target`, going on from what a former try left at `part`.

    Args:
        part: where the bytes stand until they are whole; its journal stands beside it.
        span_bytes: a multiple of BLOCK_BYTES.

    Raises:
        SourceError: refused, gone, changed, cut too often, or not what the checksum says.
        RunError: the disk is too small.
    """
    assert span_bytes % BLOCK_BYTES == 0
    place = shown(file.address)
    checksum = file.checksum
    if checksum and not retrying(place, lambda: store.vouches(checksum)):
        file = replace(file, checksum=None)
    if file.bytes is None:
        return _stream(file, store, part, target)
    with Journal(part, _identity(file), file.bytes) as journal:
        ranges = _Ranges(file, store, journal)
        missing = _missing(journal.blocks(), file.bytes, span_bytes)
        _refuse_full_disk(part, sum(stop - start for start, stop in missing))
        try:
            hashes = ranges.run(missing, connections)
        except _NoRanges:
            return _stream(file, store, part, target)
        try:
            _check(file, file.bytes, hashes)
            store.check()
        except SourceError:
            journal.throw_away()
            raise
        journal.keep_as(target)
    return Downloaded(hashes.sha256.hexdigest(), file.bytes, ranges.read)


class _Ranges:
    """The connections at work on one file."""

    def __init__(self, file: SourceFile, store: Store, journal: Journal) -> None:
        self.file, self.store, self.journal = file, store, journal
        self.size = journal.size
        self.read = 0
        self.come: dict[int, bytearray | None] = {}
        """Blocks that came and are not hashed yet; None for those that are to be read from disk."""
        self.spans: Iterator[tuple[int, int]] = iter(())
        self.news = threading.Condition()
        self.stop = threading.Event()
        self.error: BaseException | None = None

    def run(self, missing: Sequence[tuple[int, int]], connections: int) -> "_Hashes":
        """Fetch what is missing and hash all of it."""
        self.spans = iter(missing)
        lacking = {n for start, stop in missing for n in _blocks_of(start, stop)}
        threads = [
            threading.Thread(target=self._work, name=f"fetch {n}")
            for n in range(min(connections, len(missing)))
        ]
        for thread in threads:
            thread.start()
        try:
            hashes = self._hash(lacking)
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()
        return hashes

    def _hash(self, lacking: set[int]) -> "_Hashes":
        """Hash block after block, waiting for those that have to come."""
        hashes = _Hashes(self.file.checksum, self.size)
        for block in _blocks_of(0, self.size):
            data = self._wait_for(block) if block in lacking else None
            hashes.update(self.journal.read(block) if data is None else data)
        return hashes

    def _wait_for(self, block: int) -> bytearray | None:
        with self.news:
            while block not in self.come:
                if self.error:
                    raise self.error
                self.news.wait()
            return self.come.pop(block)

    def _work(self) -> None:
        try:
            while not self.stop.is_set():
                with self.news:
                    span = next(self.spans, None)
                if span is None:
                    return
                self._fetch(*span)
                with self.news:  # not for each block: waking the other thread costs both
                    self.news.notify()
        except BaseException as error:
            with self.news:
                self.error = self.error or error
                self.news.notify()
            self.stop.set()

    def _fetch(self, start: int, stop: int) -> None:
        """One span, however often the connection is cut."""
        attempts = Attempts(shown(self.file.address), sleep=self.stop.wait)
        block, filled = bytearray(min(BLOCK_BYTES, stop - start)), 0
        while start < stop and not self.stop.is_set():
            try:
                with contextlib.closing(self._open(start + filled, stop)) as stream:
                    while start < stop and not self.stop.is_set():
                        number = stream.readinto(memoryview(block)[filled:])
                        if not number:
                            raise Transient("the connection ended too early")
                        attempts.moved()
                        filled += number
                        if filled == len(block):
                            self._keep(start, block)
                            start += filled
                            block, filled = bytearray(min(BLOCK_BYTES, stop - start)), 0
            except Transient as error:
                attempts.wait(error)

    def _open(self, start: int, stop: int) -> Stream:
        stream = self.store.open(start, stop)
        if stream.size not in (self.size, None):
            stream.close()
            raise changed(shown(self.file.address), f"{self.size} bytes", stream.size)
        if stream.start != start:
            stream.close()
            raise _NoRanges
        return stream

    def _keep(self, start: int, block: bytearray) -> None:
        number = start // BLOCK_BYTES
        self.journal.write(number, block)
        with self.news:
            self.read += len(block)
            self.come[number] = block if len(self.come) < HELD_BLOCKS else None


class _Hashes:
    """What has to be known of a file's bytes."""

    def __init__(self, checksum: Checksum | None, size: int | None) -> None:
        self.sha256 = hashlib.sha256()
        self.other = None
        if checksum and checksum.kind == "md5":
            self.other = hashlib.md5(usedforsecurity=False)
        elif checksum and checksum.kind == "git":
            self.other = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self.sha256.update(data)
        if self.other:
            self.other.update(data)

    def hexdigest(self) -> str:
        """In the checksum's kind."""
        return (self.other or self.sha256).hexdigest()


def _stream(file: SourceFile, store: Store, part: Path, target: Path) -> Downloaded:
    """The whole file from its start, tried a few times."""
    attempts = Attempts(shown(file.address))
    while True:
        try:
            size, hashes = _stream_once(file, store, part)
            break
        except Transient as error:
            attempts.wait(error)
    try:
        _check(file, size, hashes)
    except SourceError:
        part.unlink()
        raise
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)
    part.with_suffix(".journal").unlink(missing_ok=True)
    return Downloaded(hashes.sha256.hexdigest(), size, size)


def _stream_once(file: SourceFile, store: Store, part: Path) -> tuple[int, _Hashes]:
    hashes = _Hashes(file.checksum, file.bytes)
    part.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with contextlib.closing(store.open(0, None)) as stream, part.open("wb") as out:
        while number := stream.readinto(buffer):
            out.write(buffer[:number])
            hashes.update(buffer[:number])
            size += number
        if stream.size is not None and size != stream.size:
            raise Transient(f"{size} of {stream.size} bytes came")
        out.flush()
        os.fsync(out.fileno())
    return size, hashes


def _check(file: SourceFile, size: int, hashes: _Hashes) -> None:
    """
    Raises:
        SourceError: the bytes are not those that the store listed.
    """
    if file.bytes is not None and size != file.bytes:
        raise changed(shown(file.address), f"{file.bytes} bytes", size)
    if file.checksum and hashes.hexdigest() != file.checksum.value:
        raise SourceError(
            f"{shown(file.address)}: {size:,} bytes came, and their {file.checksum.kind} is "
            f"{hashes.hexdigest()}; the store says {file.checksum.value}. They were thrown away; "
            "run the same command again, and if it repeats, the file is damaged there."
        )


def _missing(come: set[int], size: int, span_bytes: int) -> list[tuple[int, int]]:
    """The ranges of bytes that have to come, none longer than a span."""
    spans: list[tuple[int, int]] = []
    for block in _blocks_of(0, size):
        if block in come:
            continue
        start, stop = block * BLOCK_BYTES, min((block + 1) * BLOCK_BYTES, size)
        if spans and spans[-1][1] == start and start % span_bytes:
            spans[-1] = spans[-1][0], stop
        else:
            spans.append((start, stop))
    return spans


def _blocks_of(start: int, stop: int) -> range:
    return range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES))


def _identity(file: SourceFile) -> bytes:
    """32 bytes of what tells one version of a file from another."""
    checksum = f"{file.checksum.kind} {file.checksum.value}" if file.checksum else ""
    text = "\0".join([str(BLOCK_BYTES), str(file.bytes), file.version, checksum])
    return hashlib.sha256(text.encode()).digest()


def _refuse_full_disk(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise RunError(
            f"{part.parent}: {needed / 1e9:,.2f} GB have to come, {free / 1e9:,.2f} GB are free. "
            "Choose another --out, or let downloads leave when they are milled: "
            "--keep-downloads none."
        )
