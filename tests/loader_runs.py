"""Small runs for the loader's tests: shards of random sequences, and the run.json over them.

Ids 0 to 4 are special ([PAD] [CLS] [SEP] [MASK] [UNK]), 5 to 99 ordinary. Buckets are 0-7, 8-15 and
16+, rows have 64 tokens, no sequence has more than 24.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tokenmill.shards.manifest import FORMAT_VERSION, Manifest, root_of, write_manifest
from tokenmill.shards.run import PhaseInfo, TokenizerInfo, new_run, pack_folder, write_run
from tokenmill.shards.shard import Rows, write_shard
from tokenmill.shards.shard_list import ShardInfo, ShardList

ROW_TOKENS = 64
MAX_LENGTH = 24
EDGES = (8, 16)
LENGTHS = {"0-7": (3, 8), "8-15": (8, 16), "16+": (16, 25)}
ROWS_PER_SHARD = 5
TOKENIZER = TokenizerInfo(
    sha256="f" * 64,
    vocab_size=100,
    pad_id=0,
    mask_id=3,
    prefix=(1,),
    separator=(2,),
    suffix=(2,),
    unk_id=4,
    special_ids=(0, 1, 2, 3, 4),
)


def make_run(
    folder: Path,
    phases: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    rows: Mapping[str, int] | None = None,
    held_out: Mapping[str, int] | None = None,
    grown: Mapping[str, int] | None = None,
    packs: tuple[str, ...] = ("short",),
) -> Path:
    """A finished run.

    Args:
        phases: settings of each phase's loader; "pack", "tokens" and "generation" go to the phase
            itself.
        rows: rows to train on in each bucket.
        held_out: held-out rows in each bucket.
        grown: rows in each bucket that generation 1 adds.
    """
    for pack in packs:
        sizes = rows or {"0-7": 7, "8-15": 11, "16+": 4}
        make_pack(folder, pack, sizes, held_out or {}, grown=grown or {})
    write_phases(folder, phases or {"phase1": {}}, packs[0])
    return folder


def write_phases(
    folder: Path, phases: Mapping[str, Mapping[str, Any]], pack: str = "short"
) -> None:
    """The run.json of a run whose shards are there; `pack` is that of phases that name none."""
    infos = {}
    for name, settings in phases.items():
        loader = {"mixture": {"all": 1.0}, "batch_tokens": 5 * ROW_TOKENS, **settings}
        own, generation = loader.pop("pack", pack), loader.pop("generation", 0)
        schedule = {"tokens": loader.pop("tokens", 20 * ROW_TOKENS)}
        infos[name] = PhaseInfo(pack=own, loader=loader, schedule=schedule, generation=generation)
    write_run(folder, new_run("test", TOKENIZER, infos, {}))


def make_pack(
    run: Path,
    pack: str,
    rows: Mapping[str, int],
    held_out: Mapping[str, int],
    seed: int = 0,
    *,
    grown: Mapping[str, int] | None = None,
    edges: tuple[int, ...] = EDGES,
) -> None:
    folder = pack_folder(run, pack)
    generator = np.random.default_rng(seed)
    shards: list[ShardInfo] = []
    for is_held_out, generation, sizes in (
        (False, 0, rows),
        (True, 0, held_out),
        (False, 1, grown or {}),
    ):
        for bucket, num_rows in sizes.items():
            for first in range(0, num_rows, ROWS_PER_SHARD):
                below = folder / "held-out" / bucket if is_held_out else folder / bucket
                name = f"grown-{first:05d}" if generation else f"{first:05d}"
                shards.append(
                    write_shard(
                        below / f"{name}.arrow",
                        random_rows(generator, min(ROWS_PER_SHARD, num_rows - first), bucket),
                        bucket=bucket,
                        held_out=is_held_out,
                        folder=folder,
                        generation=generation,
                    )
                )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        pack=pack,
        row_tokens=ROW_TOKENS,
        max_length=MAX_LENGTH,
        overlong="split",
        dtype="uint16",
        bucket_edges=edges,
        tokenizer_sha256=TOKENIZER.sha256,
        keys=(),
        tokens_cut=0,
        shards=ShardList.of(shards),
        root=root_of(ShardList.of(shards)),
    )
    write_manifest(folder, manifest)


def random_rows(generator: np.random.Generator, num_rows: int, bucket: str) -> Rows:
    tokens = np.full((num_rows, ROW_TOKENS), TOKENIZER.pad_id, np.uint16)
    lengths, row_ends = [], []
    bounds = LENGTHS.get(bucket, (3, MAX_LENGTH + 1))
    for row in range(num_rows):
        end = 0
        while end + (length := int(generator.integers(*bounds))) <= ROW_TOKENS:
            text = generator.integers(4, TOKENIZER.vocab_size, length - 2)  # [UNK] is among it
            tokens[row, end : end + length] = [*TOKENIZER.prefix, *text, *TOKENIZER.suffix]
            end += length
            lengths.append(length)
        row_ends.append(len(lengths))
    return Rows(
        tokens=tokens,
        row_ends=np.array(row_ends, np.int64),
        lengths=np.array(lengths, np.int32),
        doc_ids=generator.integers(1, 1 << 64, len(lengths), np.uint64, endpoint=False),
        starts=np.zeros(len(lengths), np.int32),
        num_special=np.full(len(lengths), 2, np.uint8),
        joined=np.zeros(len(lengths), np.uint8),
    )
