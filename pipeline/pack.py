"""Pack: the kept documents of a group of units become whole shards of rows, bucket by bucket.

    shards/<pack>/<bucket>/<group>-000.arrow
    shards/<pack>/held-out/<bucket>/<group>-000.arrow

A group is about 0.3 billion tokens, its units drawn by the hash of their names, so that each
group is a sample of the corpus. Documents are dealt in the order of their content hashes: any
shard, even the first, is a fair sample. The price is one row that is not full at the end of each
bucket of each group. Tokens stay mapped on disk; a task holds some 50 bytes a document and the
shard it writes.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.pipeline.dedup.steps import find_spans, leave_out, open_spans
from tokenmill.pipeline.packing import pack_rows
from tokenmill.pipeline.pieces import Overlong, Pieces, cut_documents
from tokenmill.pipeline.receipts import Receipt, begin, finish, refuse_damaged
from tokenmill.pipeline.settle import first_8_bytes
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.buckets import Buckets
from tokenmill.shards.listing import Output, describe_output
from tokenmill.shards.run import TokenizerInfo, pack_folder
from tokenmill.shards.settings import to_mapping
from tokenmill.shards.shard import Rows, crc_path, write_shard

VERSION = 1
GROUP_TOKENS = 1 << 28
SHARD_TOKENS = 1 << 26
"""Tokens in a shard: 128 MiB of uint16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackingConfig:
    """How documents become rows, for all phases."""

    overlong: Overlong = "split"
    """Documents longer than a phase's max_length: split keeps all pieces, truncate the first
    (NeoBERT), drop none."""
    bucket_edges: tuple[int, ...] = (1024, 2048, 4096)
    """Where length classes begin, in tokens with special tokens."""
    max_sequences: int = 2048
    """The most sequences in a row; it bounds cu_seqlens."""

    def __post_init__(self) -> None:
        Buckets(self.bucket_edges)
        if self.max_sequences < 1:
            raise RecipeError(f"max_sequences must be at least 1, got {self.max_sequences}")


@dataclass(frozen=True, order=True, slots=True)
class RowShape:
    """What a phase's rows look like; phases of one shape share their shards."""

    max_length: int
    """The longest sequence in tokens, special tokens counted."""
    row_tokens: int


@dataclass(frozen=True, slots=True)
class PackTask:
    """One group of units for the rows of one shape."""

    run: Path
    packing: PackingConfig
    shape: RowShape
    group: int
    token_files: tuple[str, ...]
    decision_files: tuple[str, ...]
    """One for each token file, in the same order."""
    spans: tuple[Output, ...]
    """What is left out of these documents."""
    tokenizer: TokenizerInfo
    inputs: tuple[Output, ...]
    """All these files, as they were written."""

    stage: ClassVar[str] = "pack"

    @property
    def pack(self) -> str:
        return pack_name(self.packing, self.shape)

    @property
    def name(self) -> str:
        return f"{self.pack}/{self.group:05d}"

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "stage": VERSION,
            "packing": [self.packing, self.shape, self.group],
            "tokenizer": self.tokenizer,
            "documents": [output.sha256 for output in self.inputs],
        }


@dataclass(frozen=True, slots=True)
class Kept:
    """The kept documents of a group, in the order of the deal. One entry a document."""

    doc_ids: NDArray[np.uint64]
    hashes: NDArray[np.uint64]
    held_out: NDArray[np.bool_]
    file: NDArray[np.int32]
    """Which of the mapped arrays holds its tokens."""
    start: NDArray[np.int64]
    """Where they begin there."""
    num_tokens: NDArray[np.int64]


def pack_name(packing: PackingConfig, shape: RowShape) -> str:
    """What decides the rows of a phase, as a folder's name; phases that agree share it."""
    return f"{shape.max_length}-{packing.overlong}-{shape.row_tokens}"


def plan_groups(tokens_of_unit: Mapping[str, int]) -> list[list[str]]:
    """Units in groups of about GROUP_TOKENS, drawn by the hash of their names."""
    total = sum(tokens_of_unit.values())
    # A power of two: when a corpus grows, units stay in their groups until it has doubled.
    num_groups = 1 << max(0, round(math.log2(max(total, 1) / GROUP_TOKENS)))
    groups: list[list[str]] = [[] for _ in range(num_groups)]
    for unit in sorted(tokens_of_unit):
        digest = hashlib.sha256(unit.encode()).digest()
        groups[int.from_bytes(digest[:8], "big") % num_groups].append(unit)
    return [group for group in groups if group] or [[]]


def pack(task: PackTask) -> Receipt:
    """Write a group's shards and its receipt."""
    started = begin(task)
    refuse_damaged(task.run, task.inputs)
    folder = pack_folder(task.run, task.pack)
    for stale in folder.rglob(f"{task.group:05d}-*"):
        stale.unlink()
    kept, sources = _read_kept(task)
    body = task.shape.max_length - 2
    pieces, cut = cut_documents(kept.num_tokens, kept.hashes, body, task.packing.overlong)
    buckets = Buckets(task.packing.bucket_edges)
    bucket_of = buckets.of_lengths(kept.num_tokens + 2)[pieces.document]
    shards = []
    for held_out in (False, True):
        for index, bucket in enumerate(buckets.names):
            chosen = (bucket_of == index) & (kept.held_out[pieces.document] == held_out)
            place = folder / "held-out" / bucket if held_out else folder / bucket
            for number, rows in enumerate(_shards(task, kept, sources, pieces.take(chosen))):
                path = place / f"{task.group:05d}-{number:03d}.arrow"
                shards.append(
                    write_shard(path, rows, bucket=bucket, held_out=held_out, folder=folder)
                )
    paths = [folder / shard.path for shard in shards]
    outputs = [describe_output(task.run, path) for path in [*paths, *map(crc_path, paths)]]
    counts = Counter(tokens_cut=cut, rows=sum(shard.rows for shard in shards))
    counts["documents"] = len(kept.doc_ids)
    counts["tokens"] = int(kept.num_tokens.sum())
    return finish(task, outputs, counts, started, {"shards": to_mapping(shards)})


def _read_kept(task: PackTask) -> tuple[Kept, list[NDArray[Any]]]:
    """The group's kept documents in the order of the deal, and the arrays of their tokens."""
    columns: list[list[NDArray[Any]]] = [[], [], [], [], [], []]
    sources: list[NDArray[Any]] = []
    spans = open_spans(task.run, task.spans)
    for tokens_path, decisions_path in zip(task.token_files, task.decision_files, strict=True):
        decisions = pq.read_table(
            task.run / decisions_path, columns=["doc_id", "reason", "held_out"]
        )
        keep = as_numpy(pc.equal(decisions["reason"].cast(pa.string()), ""))
        final = as_numpy(decisions["doc_id"])[keep]
        hold = as_numpy(decisions["held_out"])[keep]
        reader = pa.ipc.open_file(pa.memory_map(str(task.run / tokens_path)))
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            doc_ids = as_numpy(batch["doc_id"])
            offsets = as_numpy(batch["tokens"].offsets)
            # Both files hold their documents in one order, so a kept one is found by its place.
            stays = np.isin(doc_ids, final)
            where = np.flatnonzero(np.isin(final, doc_ids))
            tokens, starts = as_numpy(batch["tokens"].values), offsets[:-1][stays]
            num_tokens = np.diff(offsets)[stays]
            cuts = find_spans(spans, doc_ids[stays])
            if len(cuts.doc_ids):
                tokens, starts, num_tokens = leave_out(
                    tokens, starts, num_tokens, doc_ids[stays], cuts
                )
            entries = (
                doc_ids[stays],
                first_8_bytes(batch["content_hash"])[stays],
                hold[where],
                np.full(int(stays.sum()), len(sources), np.int32),
                starts,
                num_tokens,
            )
            for column, values in zip(columns, entries, strict=True):
                column.append(values)
            sources.append(tokens)
    dtypes = (np.uint64, np.uint64, np.bool_, np.int32, np.int64, np.int64)
    arrays: list[NDArray[Any]] = [
        np.concatenate([np.zeros(0, dtype), *column]).astype(dtype)
        for column, dtype in zip(columns, dtypes, strict=True)
    ]
    order = np.lexsort((arrays[0], arrays[1]))
    return Kept(*(array[order] for array in arrays)), sources


def _shards(
    task: PackTask, kept: Kept, sources: Sequence[NDArray[Any]], pieces: Pieces
) -> Iterator[Rows]:
    """The rows of one bucket, a shard at a time."""
    row_tokens = task.shape.row_tokens
    lengths = (pieces.num_tokens + 2).astype(np.int32)
    order, row_ends = pack_rows(lengths, row_tokens, task.packing.max_sequences)
    shard_rows = max(1, SHARD_TOKENS // row_tokens)
    for first in range(0, len(row_ends), shard_rows):
        ends = row_ends[first : first + shard_rows]
        begin = int(row_ends[first - 1]) if first else 0
        chosen = pieces.take(order[begin : int(ends[-1])])
        yield _fill(task, kept, sources, chosen, ends - begin)


def _fill(
    task: PackTask,
    kept: Kept,
    sources: Sequence[NDArray[Any]],
    pieces: Pieces,
    row_ends: NDArray[np.int64],
) -> Rows:
    """Rows of [CLS] body [SEP] ... [PAD]."""
    row_tokens, info = task.shape.row_tokens, task.tokenizer
    dtype = sources[0].dtype
    tokens = np.full(len(row_ends) * row_tokens, info.pad_id, dtype)
    lengths = pieces.num_tokens + 2
    row_of = np.searchsorted(row_ends, np.arange(len(lengths)), side="right")
    before = np.cumsum(lengths) - lengths
    row_starts = np.concatenate([[0], row_ends[:-1]])
    place = row_of * row_tokens + before - before[row_starts][row_of]
    tokens[place] = info.prefix[0]
    tokens[place + lengths - 1] = info.suffix[0]
    file = kept.file[pieces.document]
    begin = kept.start[pieces.document] + pieces.start
    for index in np.unique(file):
        mine = file == index
        _copy(sources[index], begin[mine], pieces.num_tokens[mine], tokens, place[mine] + 1)
    return Rows(
        tokens=tokens.reshape(-1, row_tokens),
        row_ends=row_ends,
        lengths=lengths.astype(np.int32),
        doc_ids=kept.doc_ids[pieces.document],
        starts=pieces.start.astype(np.int32),
        num_special=np.full(len(lengths), 2, np.uint8),
        joined=np.zeros(len(lengths), np.uint8),
    )


@numba.njit(cache=True, nogil=True)
def _copy(
    source: NDArray[Any],
    begin: NDArray[np.int64],
    num_tokens: NDArray[np.int64],
    target: NDArray[Any],
    place: NDArray[np.int64],
) -> None:
    for i in range(len(begin)):
        for k in range(num_tokens[i]):
            target[place[i] + k] = source[begin[i] + k]
