"""Runs that no build made, for the loader's benchmarks: real shards of random tokens.

    synthetic_run(folder, num_rows=3072)       a run of that many rows, all of them on disk
    simulated_run(folder, num_rows=10**9)      a manifest of that many rows, over four real shards

Sequences have lognormal lengths (mu 6, sigma 1.1, at most 1,024 tokens) and are filled into rows of
16,384 in their order. A simulated run names as many shards as such a corpus has, 4,096 rows or
64 Mi tokens each; they are symbolic links to the four. Its bytes are few, so they are in the page
cache, but each shard is a file of its own to open and to map.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tokenmill.shards.manifest import FORMAT_VERSION, Manifest, root_of, write_manifest
from tokenmill.shards.run import PhaseInfo, TokenizerInfo, new_run, pack_folder, write_run
from tokenmill.shards.shard import Rows, crc_path, write_shard
from tokenmill.shards.shard_list import ShardInfo, ShardList

ROW_TOKENS = 16_384
MAX_LENGTH = 1024
ROWS_PER_SHARD = 4096
BERT_MASKS = {"rate": 0.2, "mask_share": 0.8, "random_share": 0.1}
PACK = "short"
BUCKETS = {"0-255": (16, 256), "256+": (256, MAX_LENGTH + 1)}
"""Name to the shortest length, and one more than the longest."""
BERT = TokenizerInfo(
    sha256="0" * 64,
    vocab_size=30_522,
    pad_id=0,
    mask_id=103,
    prefix=(101,),
    separator=(102,),
    suffix=(102,),
    unk_id=100,
    special_ids=(0, 100, 101, 102, 103),
)


def synthetic_run(run: Path, num_rows: int, *, rows_per_step: int = 32) -> Path:
    """A run of two buckets with half the rows each, whose `phase1` reads both."""
    shards = _write_shards(run, num_rows // 8, per_bucket=4)
    return _write_run(run, shards, {"phase1": rows_per_step})


def simulated_run(run: Path, num_rows: int, *, phases: dict[str, int]) -> Path:
    """A run that says it has num_rows rows, to whole shards.

    Args:
        phases: name to the rows of a step.
    """
    real = _write_shards(run, ROWS_PER_SHARD, per_bucket=2)
    folder = pack_folder(run, PACK)
    shards = []
    for number in range(-(-num_rows // ROWS_PER_SHARD)):
        info = real[number % len(real)]
        name = f"{info.bucket}/{number:06d}-000.arrow"
        _link(folder / name, folder / info.path)
        _link(crc_path(folder / name), crc_path(folder / info.path))
        shards.append(replace(info, path=name))
    return _write_run(run, sorted(shards, key=lambda shard: shard.path), phases)


def _link(link: Path, target: Path) -> None:
    # Hard links would do, but file systems allow an inode only some 65,000 of them.
    link.symlink_to(os.path.relpath(target, link.parent))


def _write_run(run: Path, shards: Sequence[ShardInfo], phases: dict[str, int]) -> Path:
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        pack=PACK,
        row_tokens=ROW_TOKENS,
        max_length=MAX_LENGTH,
        overlong="split",
        dtype="uint16",
        bucket_edges=(256,),
        tokenizer_sha256=BERT.sha256,
        keys=(),
        tokens_cut=0,
        shards=ShardList.of(shards),
        root=root_of(ShardList.of(shards)),
    )
    write_manifest(pack_folder(run, PACK), manifest)
    infos = {
        name: PhaseInfo(
            pack=PACK,
            loader={
                "mixture": {"all": 0.5, "256+": 0.5},
                "batch_tokens": rows * ROW_TOKENS,
                "masking": BERT_MASKS,
            },
            schedule={"tokens": 1_000_000_000},
        )
        for name, rows in phases.items()
    }
    write_run(run, new_run("synthetic", BERT, infos, {}))
    return run


def _write_shards(run: Path, rows: int, *, per_bucket: int) -> list[ShardInfo]:
    folder = pack_folder(run, PACK)
    generator = np.random.default_rng(0)
    return [
        write_shard(
            folder / bucket / f"real-{index:03d}.arrow",
            _random_rows(generator, rows, shortest, longest),
            bucket=bucket,
            held_out=False,
            folder=folder,
        )
        for bucket, (shortest, longest) in BUCKETS.items()
        for index in range(per_bucket)
    ]


def _random_rows(
    generator: np.random.Generator, num_rows: int, shortest: int, longest: int
) -> Rows:
    """Rows whose sequences have from shortest to below longest tokens."""
    drawn = generator.lognormal(6, 1.1, 200 * num_rows).astype(np.int32)
    drawn = drawn[(drawn >= shortest) & (drawn < longest)]
    lengths: list[int] = []
    row_ends: list[int] = []
    row_end = 0
    for length in np.resize(drawn, num_rows * ROW_TOKENS // shortest).tolist():
        if row_end + length > ROW_TOKENS:
            row_ends.append(len(lengths))
            row_end = 0
            if len(row_ends) == num_rows:
                break
        lengths.append(length)
        row_end += length
    rows = Rows(
        tokens=generator.integers(999, 30_522, (num_rows, ROW_TOKENS), np.uint16),
        row_ends=np.array(row_ends, np.int64),
        lengths=np.array(lengths, np.int32),
        doc_ids=np.arange(1, len(lengths) + 1, dtype=np.uint64),
        starts=np.zeros(len(lengths), np.int32),
        num_special=np.full(len(lengths), 2, np.uint8),
        joined=np.zeros(len(lengths), np.uint8),
    )
    rows.tokens[np.arange(ROW_TOKENS) >= rows.real_tokens()[:, None]] = 0
    _write_special_tokens(rows)
    return rows


def _write_special_tokens(rows: Rows) -> None:
    """[CLS] and [SEP] around each sequence."""
    counts = np.diff(rows.row_ends, prepend=0)
    ends = np.cumsum(rows.lengths, dtype=np.int64)
    row = np.repeat(np.arange(rows.num_rows), counts)
    before = (ends - rows.lengths)[rows.row_ends - counts]  # (rows,)
    first = row * ROW_TOKENS + ends - rows.lengths - before[row]
    flat = rows.tokens.reshape(-1)
    flat[first] = BERT.prefix[0]
    flat[first + rows.lengths - 1] = BERT.suffix[0]
