"""Read row groups of a parquet file, a batch at a time."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenmill.pipeline.documents import BATCH_BYTES, Documents, SetAside, doc_ids
from tokenmill.pipeline.plan import UnitFile
from tokenmill.pipeline.sources import SourceConfig
from tokenmill.shards.arrays import as_numpy

TEXT_TYPES = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def read_parquet(
    source: str, file: UnitFile, config: SourceConfig
) -> Iterator[Documents | SetAside]:
    """The documents of the unit's row groups; positions are rows of the file."""
    names = config.columns.named()
    try:
        parquet = pq.ParquetFile(file.path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        yield SetAside(source, file.name, "file", str(error))
        return
    with parquet:
        columns = [name for name in names if name in parquet.schema_arrow.names]
        footer = parquet.metadata
        rows = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        for group in range(file.start, file.stop):
            position = sum(rows[:group])
            size = max(1, footer.row_group(group).total_byte_size)
            batch_rows = max(1, min(rows[group], rows[group] * BATCH_BYTES // size))
            try:
                for batch in parquet.iter_batches(batch_rows, [group], columns):
                    yield from _documents(source, file, config, batch, position)
                    position += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                place = f"rows {position} to {sum(rows[: group + 1]) - 1}"
                yield SetAside(source, file.name, place, str(error).splitlines()[0])


def _documents(
    source: str, file: UnitFile, config: SourceConfig, batch: pa.RecordBatch, position: int
) -> Iterator[Documents | SetAside]:
    positions = np.arange(position, position + batch.num_rows)
    batch = pa.RecordBatch.from_pydict({n: _plain(batch.column(n)) for n in batch.schema.names})
    texts = batch.column(config.columns.text)
    bad = _bad_texts(texts, config)
    for row, error in bad.items():
        yield SetAside(source, file.name, f"record {positions[row]}", error)
    good = np.setdiff1d(np.arange(batch.num_rows), np.fromiter(bad, np.int64, len(bad)))
    if not len(good):
        return
    batch, positions = batch.take(pa.array(good)), positions[good]
    licences = strings(batch, config.columns.licence)
    yield Documents(
        texts=batch.column(config.columns.text).cast(pa.large_string()),
        doc_ids=doc_ids(file.first_id, positions),
        positions=positions,
        ids=strings(batch, config.columns.id),
        urls=strings(batch, config.columns.url),
        licences=pc.fill_null(licences, config.licence),
        dumps=strings(batch, config.columns.dump),
        languages=strings(batch, config.columns.language),
    )


def _bad_texts(texts: pa.Array, config: SourceConfig) -> dict[int, str]:
    """The rows that hold no usable text, and why."""
    bad: dict[int, str] = {}
    if texts.type not in TEXT_TYPES:
        raise pa.ArrowInvalid(f"column {config.columns.text}: expected text, found {texts.type}")
    for row in _where(pc.is_null(texts)):
        bad[row] = "no text (null)"
    for row in _where(pc.greater(pc.binary_length(texts), config.max_document_bytes)):
        bad[row] = f"longer than max_document_bytes ({config.max_document_bytes})"
    try:
        texts.cast(pa.large_string()).validate(full=True)
    except pa.ArrowInvalid:
        for row, text in enumerate(texts.cast(pa.large_binary())):
            try:
                (text.as_py() or b"").decode()
            except UnicodeDecodeError as error:
                bad[row] = f"not UTF-8: {error}"
    return bad


def _where(mask: pa.BooleanArray) -> list[int]:
    rows: NDArray[np.int64] = np.flatnonzero(as_numpy(pc.fill_null(mask, False)))
    return [int(row) for row in rows]


def strings(batch: pa.RecordBatch, column: str | None) -> pa.Array:
    """A column as strings: lists are joined by commas, numbers are written out."""
    if column is None or column not in batch.schema.names:
        return pa.nulls(batch.num_rows, pa.string())
    values = batch.column(column)
    try:
        if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            return pc.binary_join(values.cast(pa.list_(pa.string())), ", ")
        strings = values.cast(pa.string())
        strings.validate(full=True)
        return strings
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        # An odd value in a side column must not cost a document.
        written = [None if value is None else str(value) for value in values.to_pylist()]
        return pa.array(written, pa.string())


def _plain(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
