"""Read a unit: batches of documents, and every record that could not become one.

    read_unit(unit, source) -> Documents | SetAside | Skipped, Documents, ...

A bad record is set aside with its place and never stops the rest; a file that breaks in the
middle gives what stood whole before the break. Memory is bounded by a batch and the longest
allowed document.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from tokenmill.pipeline.batches import Batch, Record
from tokenmill.pipeline.code_files import Licences
from tokenmill.pipeline.code_languages import language_of
from tokenmill.pipeline.documents import Documents, SetAside, Skipped
from tokenmill.pipeline.plan import Unit, UnitFile
from tokenmill.pipeline.read_articles import read_articles
from tokenmill.pipeline.read_jsonl import read_jsonl
from tokenmill.pipeline.read_parquet import read_parquet
from tokenmill.pipeline.read_warc import read_warc, read_wet
from tokenmill.pipeline.sources import SourceConfig, printable

Item = Documents | SetAside | Skipped
READERS: dict[str, Callable[[str, UnitFile, SourceConfig], Iterator[Item]]] = {
    "parquet": read_parquet,
    "jsonl": read_jsonl,
    "warc": read_warc,
    "wet": read_wet,
}


def read_unit(unit: Unit, config: SourceConfig) -> Iterator[Item]:
    """A unit's documents in their order, with what was set aside or skipped between them."""
    if config.format == "files":
        yield from _read_small_files(unit, config)
        return
    if config.format in ("jats", "latex"):
        yield from read_articles(unit, config)
        return
    for file in unit.files:
        yield from READERS[config.format](unit.source, file, config)


def _read_small_files(unit: Unit, config: SourceConfig) -> Iterator[Item]:
    """Each file a document; of source files also their language and licence."""
    batch = Batch()
    code = config.kind == "code"
    licences = Licences(piece.file for piece in unit.files if piece.is_beside)
    for file in unit.files:
        if file.is_beside:
            continue
        try:
            text = _read_text(file, config)
        except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
            yield SetAside(unit.source, file.name, "file", f"not readable as UTF-8 text: {error}")
            continue
        stated = licences.of(file.name, text) if code else None
        record = Record(
            text=text,
            id=printable(file.name),  # a file's name need not be UTF-8
            licence=config.licence if stated is None else stated,
            language=language_of(file.name) if code else None,
        )
        batch.add(file.first_id, 0, record)
        if batch.full:
            yield batch.take()
    if len(batch):
        yield batch.take()


def _read_text(file: UnitFile, config: SourceConfig) -> str:
    path = Path(file.path)
    size = path.stat().st_size
    if size > config.max_document_bytes:
        raise ValueError(f"{size} bytes, max_document_bytes is {config.max_document_bytes}")
    return path.read_bytes().decode()
