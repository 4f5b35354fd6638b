"""One shard: an uncompressed Arrow IPC file of one record batch, a row of tokens in each of its
rows.

    tokens           fixed_size_list<uint16 or uint32>[row_tokens]
    lengths          list<int32>      tokens of each piece; the rest of the row is padding
    doc_ids          list<uint64>     the document of each piece
    starts           list<int32>      its first token in its document, special tokens left out
    num_special      list<uint8>      special tokens in each piece
    joined           list<uint8>      1 where a piece goes on in the sequence of the one before it
    num_padding      int32

A piece is a run of one document's tokens with the special tokens that belong to it. A sequence,
what attention sees, is one piece, or several where a recipe joins documents or pairs segments.

Any Arrow tool opens it. The loader knows from the manifest at which byte each buffer begins, and
reads rows without Arrow (shards/mapped.py). Beside each shard stands `<name>.crc32`: one CRC for
each 16 KiB of the file, small enough to check what is around a row when the row is first read.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.errors import FormatError
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.files import sha256_file, write_whole, writing
from tokenmill.shards.shard_list import ShardInfo

CRC_BLOCK_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of tokens and the pieces in them; pieces of all rows stand one after the other."""

    tokens: NDArray[Any]
    """(rows, row_tokens) uint16 or uint32."""
    row_ends: NDArray[np.int64]
    """(rows,) the number of pieces up to and with each row."""
    lengths: NDArray[np.int32]
    """(pieces,) tokens, special tokens counted."""
    doc_ids: NDArray[np.uint64]
    """(pieces,)"""
    starts: NDArray[np.int32]
    """(pieces,) where the piece begins in its document's tokens, special tokens left out."""
    num_special: NDArray[np.uint8]
    """(pieces,) special tokens in it."""
    joined: NDArray[np.uint8]
    """(pieces,) 1 where it goes on in the sequence of the piece before it, in the same row."""

    @property
    def num_rows(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def row_tokens(self) -> int:
        return int(self.tokens.shape[1])

    def real_tokens(self) -> NDArray[np.int64]:
        """(rows,) tokens of each row that are not padding."""
        ends = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])[self.row_ends]
        return np.diff(ends, prepend=0)


def write_shard(
    path: Path,
    rows: Rows,
    *,
    bucket: str,
    held_out: bool,
    folder: Path,
    generation: int = 0,
) -> ShardInfo:
    """Write a shard and its checksums, whole or not at all.

    Args:
        folder: the pack's folder; the info names the shard relative to it.
    """
    with writing(path) as part, pa.OSFile(str(part), "wb") as sink:
        batch = _record_batch(rows)
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
    write_whole(crc_path(path), block_crcs(path).astype("<u4").tobytes())
    return ShardInfo(
        path=path.relative_to(folder).as_posix(),
        bucket=bucket,
        held_out=held_out,
        rows=rows.num_rows,
        real_tokens=int(rows.lengths.sum(dtype=np.int64)),
        sequences=int((rows.joined == 0).sum()),
        pieces=len(rows.lengths),
        max_pieces=int(np.diff(rows.row_ends, prepend=0).max(initial=0)),
        generation=generation,
        offsets=_offsets(path),
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
    )


def open_shard(path: Path) -> Rows:
    """A shard's rows as numpy views of the mapped file; nothing is copied or checked but its shape.

    Raises:
        FormatError: the file is missing, or is no shard.
    """
    try:
        # The views keep the mapping alive; no file descriptor stays open.
        with pa.memory_map(str(path)) as data, pa.ipc.open_file(data) as reader:
            batch = reader.get_batch(0)
        tokens, lengths = batch.column("tokens"), batch.column("lengths")
        return Rows(
            tokens=as_numpy(tokens.values).reshape(batch.num_rows, tokens.type.list_size),
            row_ends=as_numpy(lengths.offsets)[1:].astype(np.int64),
            lengths=as_numpy(lengths.values),
            doc_ids=as_numpy(batch.column("doc_ids").values),
            starts=as_numpy(batch.column("starts").values),
            num_special=as_numpy(batch.column("num_special").values),
            joined=as_numpy(batch.column("joined").values),
        )
    except FileNotFoundError:
        raise FormatError(
            f"{path}: no such shard. Build the run again; whole shards are kept."
        ) from None
    except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
        raise FormatError(
            f"{path}: expected an Arrow file of rows, found something else ({error}). "
            "Delete it and build the run again; whole shards are kept."
        ) from None


def block_crcs(path: Path) -> NDArray[np.uint32]:
    """(blocks,) the CRC-32 of each CRC_BLOCK_BYTES of a file; the last block may be shorter."""
    with path.open("rb") as file:
        blocks = iter(lambda: file.read(CRC_BLOCK_BYTES), b"")
        return np.fromiter((zlib.crc32(block) for block in blocks), np.uint32)


def crc_path(path: Path) -> Path:
    """Where a shard's block checksums stand: little-endian uint32, one a block."""
    return path.with_name(path.name + ".crc32")


def _offsets(path: Path) -> tuple[int, ...]:
    """The byte of the file at which each buffer begins: tokens, the first piece of each row, then
    the columns of pieces."""
    with pa.memory_map(str(path)) as data, pa.ipc.open_file(data) as reader:
        start = data.read_buffer().address
        batch = reader.get_batch(0)
    lengths = batch.column("lengths")
    columns = ("lengths", "doc_ids", "starts", "num_special", "joined")
    arrays = [batch.column("tokens").values, *(batch.column(name).values for name in columns)]
    tokens, *pieces = (_begin(array.buffers()[1], start) for array in arrays)
    return (tokens, _begin(lengths.buffers()[1], start), *pieces)


def _begin(buffer: Any, start: int) -> int:
    return buffer.address - start if buffer is not None and buffer.size else 0


def _record_batch(rows: Rows) -> pa.RecordBatch:
    offsets = pa.array(np.concatenate([[0], rows.row_ends]).astype(np.int32))
    columns = {
        "tokens": pa.FixedSizeListArray.from_arrays(pa.array(rows.tokens.ravel()), rows.row_tokens),
        "lengths": pa.ListArray.from_arrays(offsets, pa.array(rows.lengths)),
        "doc_ids": pa.ListArray.from_arrays(offsets, pa.array(rows.doc_ids)),
        "starts": pa.ListArray.from_arrays(offsets, pa.array(rows.starts)),
        "num_special": pa.ListArray.from_arrays(offsets, pa.array(rows.num_special)),
        "joined": pa.ListArray.from_arrays(offsets, pa.array(rows.joined)),
        "num_padding": pa.array((rows.row_tokens - rows.real_tokens()).astype(np.int32)),
    }
    return pa.RecordBatch.from_pydict(columns)
