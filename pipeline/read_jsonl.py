"""Read json lines, plain by byte range or compressed as one stream, a batch at a time.

A line belongs to the range in which it begins. A zstd frame is checked whole before its first
line is handed out, because a damaged one may decompress to wrong text before its checksum tells;
that costs a second decompression.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from tokenmill.pipeline.archive import Broken
from tokenmill.pipeline.batches import Batch, Record
from tokenmill.pipeline.documents import Documents, SetAside
from tokenmill.pipeline.plan import UnitFile
from tokenmill.pipeline.sources import SourceConfig

CHUNK_BYTES = 1 << 20
ZSTD_CHUNK_BYTES = 1 << 12
"""zstd packs at most 32,768 bytes into one: what one step gives stays below 128 MiB."""


def read_jsonl(source: str, file: UnitFile, config: SourceConfig) -> Iterator[Documents | SetAside]:
    """The documents of a file or of a range of it; positions are lines, blank ones left out."""
    batch = Batch()
    position = 0
    after = f" after byte {file.start}" if file.start else ""
    try:
        for line in _lines(file, config.max_document_bytes):
            record = _parse(line, config)
            if isinstance(record, str):
                yield SetAside(source, file.name, f"record {position}{after}", record)
            elif record is not None:
                batch.add(file.first_id, position, record)
                if batch.full:
                    yield batch.take()
            if record is not None:
                position += 1
    except Broken as error:
        yield SetAside(source, file.name, f"before record {position}{after}", str(error))
    if len(batch):
        yield batch.take()


def _parse(line: bytes | None, config: SourceConfig) -> Record | str | None:
    """A record; or what is wrong with it; or None for a blank line."""
    columns = config.columns
    if line is None:
        return "longer than max_document_bytes"
    if not line.strip():
        return None
    try:
        value = json.loads(line)
    except UnicodeDecodeError as error:
        return f"not UTF-8: {error}"
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    if not isinstance(value, dict):
        return f"expected an object, found {type(value).__name__}"
    text = _at(value, columns.text)
    if not isinstance(text, str):
        found = "nothing" if text is None else type(text).__name__
        return f"expected a string in {columns.text}, found {found}"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"not UTF-8: {error}"
    return Record(
        text,
        id=_written(_at(value, columns.id)),
        url=_written(_at(value, columns.url)),
        licence=_written(_at(value, columns.licence), config.licence),
        dump=_written(_at(value, columns.dump)),
        language=_written(_at(value, columns.language)),
    )


def _at(record: dict[str, Any], column: str | None) -> Any:
    """A key's value; `metadata.licence` looks inside an object."""
    if column is None:
        return None
    value: Any = record
    for key in column.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _written(value: Any, missing: str | None = None) -> str | None:
    """A side column's value as text."""
    if value is None:
        return missing
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    # Lone surrogates in a side column must not cost the document.
    return text.encode(errors="replace").decode()


def _lines(file: UnitFile, max_bytes: int) -> Iterator[bytes | None]:
    """The lines that begin in the file's range; None for one that is longer than max_bytes."""
    path = Path(file.path)
    if file.name.endswith(".zst"):
        yield from _split(_zstd_chunks(path), max_bytes)
    elif file.name.endswith(".gz"):
        yield from _split(_gzip_chunks(path), max_bytes)
    else:
        yield from _split(_range_chunks(path, file.start, file.stop), max_bytes)


def _split(chunks: Iterator[bytes], max_bytes: int) -> Iterator[bytes | None]:
    """Lines of a stream, without their ends; a byte order mark at the start is left out."""
    held: list[bytes] = []
    held_bytes = 0
    first = True
    for chunk in chunks:
        if first and chunk:
            chunk, first = chunk.removeprefix(b"\xef\xbb\xbf"), False
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            held_bytes += len(line)
            yield b"".join([*held, line]) if held_bytes <= max_bytes else None
            held, held_bytes = [], 0
        held_bytes += len(rest)
        # What is too long already is counted, not kept.
        held = [*held, rest] if held_bytes <= max_bytes else []
    if held_bytes:
        yield b"".join(held) if held_bytes <= max_bytes else None


def _range_chunks(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """The bytes of the lines that begin in [start, stop)."""
    with path.open("rb") as file:
        if start:
            file.seek(start - 1)
            for _ in _to_line_end(file):  # of a line that begins in the range before
                pass
        last = b"\n"
        while (left := stop - file.tell()) > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
            last = chunk[-1:]
            yield chunk
        if last != b"\n":
            yield from _to_line_end(file)


def _to_line_end(file: BinaryIO) -> Iterator[bytes]:
    """The rest of a line, however long, in pieces."""
    while piece := file.readline(CHUNK_BYTES):
        yield piece
        if piece.endswith(b"\n"):
            return


def _gzip_chunks(path: Path) -> Iterator[bytes]:
    with gzip.open(path) as file:
        while True:
            try:
                chunk = file.read1(CHUNK_BYTES)  # read() would lose what stands before a cut
            except (EOFError, OSError, zlib.error) as error:
                raise Broken(f"gzip stream broken: {error}") from None
            if not chunk:
                return
            yield chunk


def _zstd_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        size = path.stat().st_size
        start = 0
        while start < size:
            # The check: reading to the end raises before anything of a damaged frame comes out.
            stop = max(place for _, place in _frame(file, start))
            for chunk, _ in _frame(file, start):
                yield chunk
            start = stop


def _frame(file: BinaryIO, start: int) -> Iterator[tuple[bytes, int]]:
    """The chunks of the frame that begins at a byte, each with how far the file is read."""
    file.seek(start)
    frame = zstandard.ZstdDecompressor().decompressobj()
    place = start
    while not frame.eof:
        data = file.read(ZSTD_CHUNK_BYTES)
        if not data:
            raise Broken(f"zstd frame at byte {start} is cut off at byte {place}")
        try:
            chunk = frame.decompress(data)
        except zstandard.ZstdError as error:
            raise Broken(f"zstd frame at byte {start}: {error}") from None
        place += len(data) - len(frame.unused_data)
        yield chunk, place
