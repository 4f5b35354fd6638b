"""Look into a finished run: what it holds, a row as text, a document's fate."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from tokenmill.errors import RecipeError
from tokenmill.pipeline.report import shard_table
from tokenmill.shards.listing import read_listing
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import pack_folder, read_run
from tokenmill.shards.shard import open_shard
from tokenmill.tokenizer import load_tokenizer


def describe_run(run: Path) -> str:
    """Phases, packs, tokenizer and root."""
    info, listing = read_run(run), read_listing(run)
    parts = [f"recipe     {info.recipe}"]
    for name, phase in info.phases.items():
        parts.append(f"{name:10s} pack {phase.pack}, mixture {json.dumps(phase.loader['mixture'])}")
    for pack in sorted({phase.pack for phase in info.phases.values()}):
        parts.append(shard_table(read_manifest(pack_folder(run, pack))))
    parts.append(f"tokenizer  {info.tokenizer.vocab_size:,} tokens, {info.tokenizer.sha256}")
    parts.append(f"outputs    {len(listing.outputs):,} files")
    parts.append(f"root hash  {listing.root}")
    return "\n".join(parts)


def describe_row(run: Path, phase: str, place: str) -> str:
    """The pieces of one row as text, each with its document.

    Args:
        place: BUCKET:NUMBER, the row's number in its bucket.
    """
    bucket, colon, number = place.rpartition(":")
    folder = pack_folder(run, read_run(run).phase(phase).pack)
    shards = read_manifest(folder).of_bucket(bucket)
    if not colon or not number.isdecimal() or not shards:
        raise RecipeError(f"--row {place}: expected BUCKET:NUMBER with a bucket of {folder}")
    row = int(number)
    encoder = load_tokenizer(run / "tokenizer")
    for shard in shards:
        if row < shard.rows:
            break
        row -= shard.rows
    else:
        total = sum(shard.rows for shard in shards)
        raise RecipeError(f"--row {place}: bucket {bucket} has {total} rows, numbered from 0")
    rows = open_shard(folder / shard.path)
    stop = int(rows.row_ends[row])
    start = int(rows.row_ends[row - 1]) if row else 0
    place_in_row = 0
    num_sequences = stop - start - int(rows.joined[start:stop].sum())
    parts = [f"{shard.path} row {row}: {num_sequences} sequences"]
    for piece in range(start, stop):
        length = int(rows.lengths[piece])
        ids = rows.tokens[row, place_in_row : place_in_row + length]
        text = encoder.decode(ids)
        first = int(rows.starts[piece])
        joined = ", joined to the one before" if rows.joined[piece] else ""
        head = f"--- document {rows.doc_ids[piece]}, {length} tokens, from token {first}{joined}"
        parts.append(f"{head}\n{text}")
        place_in_row += length
    parts.append(f"--- padding: {rows.row_tokens - place_in_row} tokens")
    return "\n".join(parts)


def describe_document(run: Path, doc_id: int) -> str:
    """Everything the decisions say of a document, and its text where it was kept."""
    read_listing(run)
    found = _rows_of(run / "decisions", doc_id)
    if not found:
        raise RecipeError(f"--document {doc_id}: no such document in {run / 'decisions'}")
    parts = []
    for name, value in found[0].items():
        shown = value.hex() if isinstance(value, bytes) else value
        parts.append(f"{name:15s} {'kept' if name == 'reason' and not value else shown}")
    if (run / "text").exists():
        parts += [f"--- text\n{row['text']}" for row in _rows_of(run / "text", doc_id)]
    return "\n".join(parts)


def _rows_of(folder: Path, doc_id: int) -> list[dict[str, object]]:
    dataset = ds.dataset(folder, format="parquet")
    wanted = pc.field("doc_id") == pa.scalar(doc_id, pa.uint64())
    rows: list[dict[str, object]] = dataset.to_table(filter=wanted).to_pylist()
    return rows
