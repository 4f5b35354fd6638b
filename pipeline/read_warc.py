"""Read WARC and WET files: responses through an extractor, conversions as they are.

A document is a response of status 200 with HTML in it, or a WET file's conversion. Its id is the
WARC-Record-ID, its address the WARC-Target-URI, its language what the crawl found, its dump the
CC-MAIN-2024-10 of the file's name or the isPartOf of the file's first record. Every other record is
counted by its reason. A position is the number of the record in its range, damage counted.

A page is extracted in a child process with limits (extract/child.py) while this one reads on.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from fastwarc.warc import ArchiveIterator, HeaderMap, WarcRecordType

from tokenmill.pipeline.documents import BATCH_BYTES, Documents, SetAside, Skipped, doc_ids
from tokenmill.pipeline.extract.child import Outcome
from tokenmill.pipeline.extract.extractor import Answer, Extractor
from tokenmill.pipeline.extract.response import EMPTY
from tokenmill.pipeline.plan import UnitFile
from tokenmill.pipeline.sources import SourceConfig
from tokenmill.pipeline.warc_records import Damage, Record, read_records

PAGES_BYTES = 1 << 20
"""Pages given to the extractor at once, before they are decoded."""

_CRAWL = re.compile(r"CC-MAIN-\d{4}-\d{2}(?!\d)")
_PART_OF = re.compile(rb"^isPartOf:([^\r\n]+)", re.MULTILINE | re.IGNORECASE)

Numbered = tuple[int, Record | Damage]
Texts = Iterator[tuple[int, Record | Damage, Answer | None]]
"""The number of a record, the record, and what became of the text in it; None: not asked."""
Item = Documents | SetAside | Skipped


def read_warc(source: str, file: UnitFile, config: SourceConfig) -> Iterator[Item]:
    """The pages of a file or of a range of it as texts."""
    with (
        Path(file.path).open("rb") as stream,
        Extractor(config.extraction, config.max_document_bytes) as extractor,
    ):
        numbered = _numbered(stream, file, WarcRecordType.response, config)
        yield from _items(source, file, config, stream, _extracted(numbered, extractor))


def read_wet(source: str, file: UnitFile, config: SourceConfig) -> Iterator[Item]:
    """The texts of a WET file or of a range of it."""
    with Path(file.path).open("rb") as stream:
        numbered = _numbered(stream, file, WarcRecordType.conversion, config)
        yield from _items(source, file, config, stream, _converted(numbered))


def _numbered(
    stream: BinaryIO, file: UnitFile, wanted: WarcRecordType, config: SourceConfig
) -> Iterator[Numbered]:
    size = file.file.bytes
    stop = size if file.stop < 0 else file.stop
    return enumerate(
        read_records(stream, size, file.start, stop, wanted, config.max_document_bytes)
    )


def _extracted(numbered: Iterator[Numbered], extractor: Extractor) -> Texts:
    for batch, answers in extractor.run(_batches(numbered)):
        left = iter(answers)
        for number, record in batch:
            yield number, record, next(left) if _block(record) is not None else None


def _batches(numbered: Iterator[Numbered]) -> Iterator[tuple[list[Numbered], list[bytes]]]:
    """Records with the blocks among them that hold a page, perhaps."""
    batch: list[Numbered] = []
    pages: list[bytes] = []
    num_bytes = 0
    for number, record in numbered:
        batch.append((number, record))
        block = _block(record)
        if block is not None:
            pages.append(block)
            num_bytes += len(block)
        if num_bytes >= PAGES_BYTES:
            yield batch, pages
            batch, pages, num_bytes = [], [], 0
    if batch:
        yield batch, pages


def _block(record: Record | Damage) -> bytes | None:
    return record.block if isinstance(record, Record) else None


def _converted(numbered: Iterator[Numbered]) -> Texts:
    for number, record in numbered:
        block = _block(record)
        if block is None:
            yield number, record, None
        elif not block.strip():
            yield number, record, (Outcome.NO_PAGE, EMPTY)
        else:
            try:
                yield number, record, (Outcome.TEXT, block.decode())
            except UnicodeDecodeError as error:
                yield number, record, (Outcome.BAD, f"not UTF-8: {error}")


class _Document(NamedTuple):
    position: int
    text: str
    id: str | None
    url: str | None
    language: str | None


def _items(
    source: str, file: UnitFile, config: SourceConfig, stream: BinaryIO, texts: Texts
) -> Iterator[Item]:
    dump = _dump(file, stream)
    skipped: Counter[str] = Counter()
    batch: list[_Document] = []
    num_bytes = 0
    for number, record, answer in texts:
        place = f"record at byte {record.place}"
        if isinstance(record, Damage):
            yield SetAside(source, file.name, place, record.error)
        elif answer is None:
            skipped[str(record.kind)] += 1
        elif answer[0] is Outcome.NO_PAGE:
            skipped[answer[1]] += 1
        elif answer[0] is Outcome.BAD:
            url = _header(record.headers, "WARC-Target-URI")
            yield SetAside(source, file.name, f"{place}, {url}", answer[1])
        else:
            batch.append(_document(number, record.headers, answer[1]))
            num_bytes += len(answer[1]) + 64  # what an empty document takes
            if num_bytes >= BATCH_BYTES:
                yield _documents(batch, file, config, dump)
                batch, num_bytes = [], 0
    if batch:
        yield _documents(batch, file, config, dump)
    for reason in sorted(skipped):
        yield Skipped(reason, skipped[reason])


def _document(position: int, headers: HeaderMap, text: str) -> _Document:
    url = _header(headers, "WARC-Target-URI")
    if url and url.startswith("<") and url.endswith(">"):
        url = url[1:-1]  # as Wget writes it
    return _Document(
        position=position,
        text=text,
        id=_header(headers, "WARC-Record-ID"),
        url=url,
        language=_header(headers, "WARC-Identified-Content-Language"),
    )


def _documents(
    batch: list[_Document], file: UnitFile, config: SourceConfig, dump: str | None
) -> Documents:
    positions, texts, ids, urls, languages = zip(*batch, strict=True)
    numbers = np.array(positions, np.int64)
    return Documents(
        texts=pa.array(texts, pa.large_string()),
        doc_ids=doc_ids(file.first_id, numbers),
        positions=numbers,
        ids=pa.array(ids, pa.string()),
        urls=pa.array(urls, pa.string()),
        licences=pa.array([config.licence] * len(batch), pa.string()),
        dumps=pa.array([dump] * len(batch), pa.string()),
        languages=pa.array(languages, pa.string()),
    )


def _header(headers: HeaderMap, name: str) -> str | None:
    value = headers.get_bytes(name.encode())
    return None if value is None else value.decode(errors="replace").strip()


def _dump(file: UnitFile, stream: BinaryIO) -> str | None:
    """The crawl that a file is of."""
    if named := _CRAWL.search(file.name):
        return named[0]
    stream.seek(0)
    with contextlib.suppress(OSError):
        for first in ArchiveIterator(stream, parse_http=False):
            if first.record_type != WarcRecordType.warcinfo:
                break
            part = _PART_OF.search(first.reader.read(1 << 16))
            return part[1].decode(errors="replace").strip() if part else None
    return None
