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

import numpy as np
import pyarrow as pa
import zstandard

from tokenmill.pipeline.documents import BATCH_BYTES, Documents, SetAside, doc_ids
from tokenmill.pipeline.plan import UnitFile
from tokenmill.pipeline.sources import Columns, SourceConfig

CHUNK_BYTES = 1 << 20
ZSTD_CHUNK_BYTES = 1 << 12
"""zstd packs at most 32,768 bytes into one: what one step gives stays below 128 MiB."""


Record = tuple[Any, ...]
"""Text, id, url, licence, dump, language."""


class Broken(Exception):
    """A stream ends or fails before its end; what came before stands."""


def read_jsonl(source: str, file: UnitFile, config: SourceConfig) -> Iterator[Documents | SetAside]:
    """The documents of a file or of a range of it; positions are lines, blank ones left out."""
    batch = _Batch(file, config)
    position = 0
    after = f" after byte {file.start}" if file.start else ""
    try:
        for line in _lines(file, config.max_document_bytes):
            record = _parse(line, config.columns)
            if isinstance(record, str):
                yield SetAside(source, file.name, f"record {position}{after}", record)
            elif record is not None:
                batch.add(position, record)
                if batch.num_bytes >= BATCH_BYTES:
                    yield batch.take()
            if record is not None:
                position += 1
    except Broken as error:
        yield SetAside(source, file.name, f"before record {position}{after}", str(error))
    if batch.records:
        yield batch.take()


class _Batch:
    """Records until there are enough for a batch."""

    def __init__(self, file: UnitFile, config: SourceConfig) -> None:
        self.file, self.config = file, config
        self.positions: list[int] = []
        self.records: list[Record] = []
        self.num_bytes = 0

    def add(self, position: int, record: Record) -> None:
        self.positions.append(position)
        self.records.append(record)
        self.num_bytes += len(record[0]) + 64  # what an empty document takes

    def take(self) -> Documents:
        texts, ids, urls, licences, dumps, languages = zip(*self.records, strict=True)
        positions = np.array(self.positions, np.int64)
        self.positions, self.records, self.num_bytes = [], [], 0
        return Documents(
            texts=pa.array(texts, pa.large_string()),
            doc_ids=doc_ids(self.file.first_id, positions),
            positions=positions,
            ids=_strings(ids, None),
            urls=_strings(urls, None),
            licences=_strings(licences, self.config.licence),
            dumps=_strings(dumps, None),
            languages=_strings(languages, None),
        )


def _parse(line: bytes | None, columns: Columns) -> Record | str | None:
    """A record's text and side columns; or what is wrong with it; or None for a blank line."""
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
    sides = (columns.id, columns.url, columns.licence, columns.dump, columns.language)
    return text, *(_at(value, column) for column in sides)


def _at(record: dict[str, Any], column: str | None) -> Any:
    """A key's value; `metadata.licence` looks inside an object."""
    if column is None:
        return None
    value: Any = record
    for key in column.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _strings(values: tuple[Any, ...], missing: str | None) -> pa.Array:
    def as_text(value: Any) -> str | None:
        if value is None:
            return missing
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        # Lone surrogates in a side column must not cost the document.
        return text.encode(errors="replace").decode()

    return pa.array([as_text(value) for value in values], pa.string())


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
