"""Read a unit: batches of documents, and every record that could not become one.

    read_unit(unit, source) -> Documents | SetAside, Documents, ...

A bad record is set aside with its place and never stops the rest; a file that breaks in the
middle gives what stood whole before the break. Memory is bounded by a batch and the longest
allowed document.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tokenmill.pipeline.documents import BATCH_BYTES, Documents, SetAside
from tokenmill.pipeline.plan import Unit, UnitFile
from tokenmill.pipeline.read_jsonl import read_jsonl
from tokenmill.pipeline.read_parquet import read_parquet
from tokenmill.pipeline.sources import SourceConfig, printable


def read_unit(unit: Unit, config: SourceConfig) -> Iterator[Documents | SetAside]:
    """A unit's documents in their order, with what was set aside between them."""
    if config.format == "files":
        yield from _read_small_files(unit, config)
        return
    for file in unit.files:
        reader = read_parquet if config.format == "parquet" else read_jsonl
        yield from reader(unit.source, file, config)


def _read_small_files(unit: Unit, config: SourceConfig) -> Iterator[Documents | SetAside]:
    batch: list[tuple[UnitFile, str]] = []
    num_bytes = 0
    for file in unit.files:
        try:
            text = _read_text(file, config)
        except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
            yield SetAside(unit.source, file.name, "file", f"not readable as UTF-8 text: {error}")
            continue
        batch.append((file, text))
        num_bytes += len(text) + 64  # what an empty document takes
        if num_bytes >= BATCH_BYTES:
            yield _documents_of_files(batch, config)
            batch, num_bytes = [], 0
    if batch:
        yield _documents_of_files(batch, config)


def _read_text(file: UnitFile, config: SourceConfig) -> str:
    path = Path(file.path)
    size = path.stat().st_size
    if size > config.max_document_bytes:
        raise ValueError(f"{size} bytes, max_document_bytes is {config.max_document_bytes}")
    return path.read_bytes().decode()


def _documents_of_files(batch: list[tuple[UnitFile, str]], config: SourceConfig) -> Documents:
    return Documents(
        texts=pa.array([text for _, text in batch], pa.large_string()),
        doc_ids=np.array([file.first_id for file, _ in batch], np.uint64),
        positions=np.zeros(len(batch), np.int64),
        # A file's name need not be UTF-8.
        ids=pa.array([printable(file.name) for file, _ in batch], pa.string()),
        urls=pa.nulls(len(batch), pa.string()),
        licences=pa.array([config.licence] * len(batch), pa.string()),
        dumps=pa.nulls(len(batch), pa.string()),
        languages=pa.nulls(len(batch), pa.string()),
    )
