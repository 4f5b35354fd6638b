"""Read a unit of tokens that others have made: documents as ids, the special ones around them gone.

    .ds and .bin      the documents that begin in the unit's range of bytes
    parquet           a column of lists of ids; the other columns as in a source of text

A document with an id that the tokenizer does not have is set aside, and so is a file that is not
what its index says; the unit of its first bytes reports that. Whether the ids are of this tokenizer
at all, no file proves: see check_vocabulary in mill_tokens.py. Memory is bounded by a batch
and the longest allowed document.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenmill.pipeline.documents import BATCH_BYTES, Documents, SetAside, doc_ids
from tokenmill.pipeline.plan import Unit, UnitFile
from tokenmill.pipeline.read_parquet import strings
from tokenmill.pipeline.sample import take
from tokenmill.pipeline.sources import SourceConfig
from tokenmill.pipeline.token_files import BadTokenFile, open_token_file
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.ranges import ranges
from tokenmill.shards.run import TokenizerInfo

BATCH_TOKENS = BATCH_BYTES // 4


@dataclass(frozen=True, slots=True)
class TokenDocuments:
    """A batch of documents that come as tokens."""

    documents: Documents
    """Who they are; their texts are empty."""
    tokens: NDArray[np.uint16 | np.uint32]
    """(tokens,) of all documents, one after the other, without special tokens around them."""
    ends: NDArray[np.int64]
    """(documents,) where each document's tokens end."""


def read_tokens(
    unit: Unit, config: SourceConfig, tokenizer: TokenizerInfo
) -> Iterator[TokenDocuments | SetAside]:
    """A unit's documents in their order, with what was set aside between them."""
    for batch in _raw_batches(unit, config):
        if isinstance(batch, SetAside):
            yield batch
        else:
            yield from _checked(unit, batch, config, tokenizer)


@dataclass(frozen=True, slots=True)
class _Raw:
    """Ids as they stand in a file."""

    ids: NDArray[Any]
    bounds: NDArray[np.int64]
    """(documents + 1,) from 0."""
    documents: Documents


def _raw_batches(unit: Unit, config: SourceConfig) -> Iterator[_Raw | SetAside]:
    if unit.files[0].name.endswith(".parquet"):
        for file in unit.files:
            yield from _batches_of_table(unit.source, file, config)
    else:
        yield from _batches_of_range(unit, config)


def _batches_of_range(unit: Unit, config: SourceConfig) -> Iterator[_Raw | SetAside]:
    piece = unit.files[0]
    try:
        file = open_token_file(piece.name, {f.name: Path(f.path) for f in unit.files})
    except (BadTokenFile, OSError) as error:
        if piece.start == 0:  # the other ranges of the file find the same
            yield SetAside(unit.source, piece.name, "file", str(error))
        return
    try:
        bounds = file.documents(piece.start, piece.stop)
    except BadTokenFile as error:
        yield SetAside(unit.source, piece.name, f"bytes {piece.start} to {piece.stop}", str(error))
        return
    lengths = np.diff(bounds)
    too_long = lengths * file.tokens.itemsize > config.max_document_bytes
    for number in np.flatnonzero(too_long).tolist():
        reason = f"longer than max_document_bytes ({config.max_document_bytes})"
        yield SetAside(unit.source, piece.name, _place(piece, number, "document"), reason)
    for chosen in _runs(np.where(too_long, 0, lengths)):
        numbers = chosen[~too_long[chosen]]
        ids = [file.tokens[bounds[i] : bounds[i + 1]] for i in numbers.tolist()]
        nothing = pa.nulls(len(numbers), pa.string())
        yield _Raw(
            np.concatenate([np.zeros(0, file.tokens.dtype), *ids]),
            np.concatenate([[0], np.cumsum(lengths[numbers])]),
            Documents(
                texts=_no_texts(len(numbers)),
                doc_ids=doc_ids(piece.first_id, numbers),
                positions=numbers,
                ids=nothing,
                urls=nothing,
                licences=pa.array([config.licence] * len(numbers), pa.string()),
                dumps=nothing,
                languages=nothing,
            ),
        )


def _batches_of_table(
    source: str, file: UnitFile, config: SourceConfig
) -> Iterator[_Raw | SetAside]:
    try:
        parquet = pq.ParquetFile(file.path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        yield SetAside(source, file.name, "file", str(error))
        return
    with parquet:
        names = [name for name in config.columns.named() if name in parquet.schema_arrow.names]
        rows = [parquet.metadata.row_group(i).num_rows for i in range(file.stop)]
        for group in range(file.start, file.stop):
            position = sum(rows[:group])
            size = max(1, parquet.metadata.row_group(group).total_byte_size)
            batch_rows = max(1, min(rows[group], rows[group] * BATCH_BYTES // size))
            try:
                for batch in parquet.iter_batches(batch_rows, [group], names):
                    yield from _rows(source, file, config, batch, position)
                    position += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                place = f"rows {position} to {sum(rows[: group + 1]) - 1}"
                yield SetAside(source, file.name, place, str(error).splitlines()[0])


def _rows(
    source: str, file: UnitFile, config: SourceConfig, batch: pa.RecordBatch, position: int
) -> Iterator[_Raw | SetAside]:
    name = config.columns.text
    positions = np.arange(position, position + batch.num_rows)
    lists = batch.column(name)
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_kind(lists.type) for is_kind in kinds) or not pa.types.is_integer(
        lists.type.value_type
    ):
        raise pa.ArrowInvalid(f"column {name}: expected lists of whole numbers, found {lists.type}")
    lists = lists.cast(pa.large_list(pa.int64()))
    lengths = as_numpy(pc.fill_null(pc.list_value_length(lists), -1))
    has_null = np.zeros(len(lists), np.bool_)
    if lists.flatten().null_count:
        has_null = np.array([None in (ids or ()) for ids in lists.to_pylist()])
    errors = {
        "no tokens (null)": lengths < 0,
        "a null among the ids": has_null,
        f"longer than max_document_bytes ({config.max_document_bytes})": (
            lengths * 4 > config.max_document_bytes
        ),
    }
    bad = np.zeros(len(lists), np.bool_)
    for error, rows in errors.items():
        for row in np.flatnonzero(rows & ~bad):
            yield SetAside(source, file.name, f"record {positions[row]}", error)
        bad |= rows
    batch, lists = batch.filter(pa.array(~bad)), lists.filter(pa.array(~bad))
    columns, positions = config.columns, positions[~bad]
    if len(positions):
        yield _Raw(
            as_numpy(lists.flatten()),
            np.concatenate([[0], np.cumsum(lengths[~bad])]),
            Documents(
                texts=_no_texts(len(positions)),
                doc_ids=doc_ids(file.first_id, positions),
                positions=positions,
                ids=strings(batch, columns.id),
                urls=strings(batch, columns.url),
                licences=pc.fill_null(strings(batch, columns.licence), config.licence),
                dumps=strings(batch, columns.dump),
                languages=strings(batch, columns.language),
            ),
        )


def _checked(
    unit: Unit, raw: _Raw, config: SourceConfig, tokenizer: TokenizerInfo
) -> Iterator[TokenDocuments | SetAside]:
    """A batch without the documents that hold other ids than the tokenizer's, and stripped."""
    wrong = np.flatnonzero((raw.ids < 0) | (raw.ids >= tokenizer.vocab_size))
    bad, first = np.unique(np.searchsorted(raw.bounds, wrong, side="right") - 1, return_index=True)
    piece = unit.files[0]
    is_table = piece.name.endswith(".parquet")
    for document, place in zip(bad, wrong[first], strict=True):
        yield SetAside(
            unit.source,
            piece.name,
            _place(piece, raw.documents.positions[document], "record" if is_table else "document"),
            f"id {raw.ids[place]} is not in the vocabulary of {tokenizer.vocab_size:,} tokens",
        )
    good = np.ones(len(raw.bounds) - 1, np.bool_)
    good[bad] = False
    starts, stops = strip(raw.ids, raw.bounds, around(tokenizer, config))
    starts, lengths = starts[good], (stops - starts)[good]
    ends = np.cumsum(lengths)
    place = ranges(starts, lengths)
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    if len(ends):
        yield TokenDocuments(take(raw.documents, good), raw.ids[place].astype(dtype), ends)


def _place(piece: UnitFile, number: int, what: str) -> str:
    """Which document of its file, or of its range of bytes; a table's rows count from its first."""
    counts_anew = piece.start and what == "document"
    return f"{what} {number} after byte {piece.start}" if counts_anew else f"{what} {number}"


def _runs(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Neighbouring documents of about BATCH_TOKENS together."""
    ends = np.cumsum(lengths + 16)  # what an empty document takes
    start = 0
    while start < len(ends):
        full = (ends[start - 1] if start else 0) + BATCH_TOKENS
        stop = max(start + 1, int(np.searchsorted(ends, full, side="right")))
        yield np.arange(start, stop)
        start = stop


def _no_texts(number: int) -> pa.Array:
    return pa.array([""] * number, pa.large_string())


def around(tokenizer: TokenizerInfo, config: SourceConfig) -> NDArray[np.int64]:
    """The ids that go where they stand at a document's ends."""
    own = (*tokenizer.prefix, *tokenizer.separator, *tokenizer.suffix, tokenizer.pad_id)
    return np.unique(np.array([*own, *config.tokens.strip], np.int64))


def strip(
    ids: NDArray[Any], bounds: NDArray[np.int64], away: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each document begins and ends without the ids that stand around it.

    Args:
        ids: (tokens,)
        bounds: (documents + 1,)
        away: the ids that go at both ends; in the middle they stay.

    Returns:
        starts, stops: (documents,) equal where nothing is left.
    """
    stays = np.flatnonzero(~np.isin(ids, away))
    low = np.searchsorted(stays, bounds[:-1])
    high = np.searchsorted(stays, bounds[1:])
    starts, stops = bounds[:-1].copy(), bounds[:-1].copy()
    some = low < high
    starts[some], stops[some] = stays[low[some]], stays[high[some] - 1] + 1
    return starts, stops
