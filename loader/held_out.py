"""Held-out batches: the rows that no training step reads, each once, always behind the same masks.

All held-out rows of a subset are one step, so `step_targets` counts the masked tokens of the whole
subset, and the sum of all batches' losses over it is the held-out loss. Every rank gets the same
number of batches. Documents that were taken back (`tokenmill retract`) and rows that were skipped
are padding here at once, from whichever step their entries hold.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.loader.assembly import Assembler
from tokenmill.loader.batch import Batch
from tokenmill.loader.hidden import hidden_held_out
from tokenmill.loader.keys import derive_key, extend_keys
from tokenmill.loader.masking import read_masking
from tokenmill.loader.masking_config import MaskingConfig
from tokenmill.loader.micro_batches import micro_batch, num_micro_batches
from tokenmill.loader.rows import PackRows
from tokenmill.shards.buckets import Buckets
from tokenmill.shards.manifest import Manifest, read_manifest
from tokenmill.shards.overlay import read_overlay
from tokenmill.shards.run import pack_folder, read_run

HELD_OUT_MASKING = MaskingConfig(rate=0.15)
"""BERT's rate (arXiv:1810.04805), whatever the phase's own, so that losses compare."""


def held_out_batches(
    run: Path | str,
    phase: str,
    *,
    subset: str = "all",
    micro_batch_rows: int,
    rank: int = 0,
    world_size: int = 1,
    masking: MaskingConfig = HELD_OUT_MASKING,
    seed: int = 0,
) -> Iterator[Batch]:
    """A rank's share of the held-out rows of a subset of the phase's pack, each once.

    Returns:
        As many batches on every rank; none where the subset has no held-out rows.

    Raises:
        FormatError: the run is missing or damaged.
        RecipeError: there is no such phase, subset or rank, or a batch would have no row.
    """
    if not 0 <= rank < world_size:
        raise RecipeError(f"rank: need 0 to world_size - 1 = {world_size - 1}, got {rank}")
    if micro_batch_rows < 1:
        raise RecipeError(f"micro_batch_rows: need at least 1, got {micro_batch_rows}")
    info = read_run(Path(run))
    folder = pack_folder(Path(run), info.phase(phase).pack)
    manifest = read_manifest(folder).up_to(info.phase(phase).generation)
    edges = Buckets(manifest.bucket_edges)
    # All buckets are opened, so that every subset has one shape, and one compiled model.
    pack = PackRows(
        folder,
        manifest,
        edges.names,
        held_out=True,
        skip_command=f"tokenmill skip {run} --phase {phase}",
    )
    chosen = [edges.names.index(bucket) for bucket in edges.of_subset(subset)]
    rows = np.concatenate([pack.rows_of_bucket(bucket) for bucket in chosen])
    keys = [_mask_keys(pack, bucket, seed, manifest, edges) for bucket in chosen]
    phases = tuple(info.phases)
    overlay = read_overlay(Path(run), phases)
    hidden = hidden_held_out(overlay, phases, manifest.pack, edges.names, pack.bucket_starts)
    prepared = read_masking(Path(run), masking, info.tokenizer)
    assembler = Assembler(
        pack,
        manifest.max_length,
        info.tokenizer,
        prepared,
        hidden,
        pairs=manifest.sequences == "pairs",
    )
    step = assembler.step_rows(0, rows, np.concatenate(keys))
    num_batches = num_micro_batches(len(rows), world_size, micro_batch_rows)
    return (
        assembler.batch(
            step,
            micro_batch(len(rows), rank, world_size, micro_batch_rows, index),
            micro_batch_rows,
            index=index,
            num_micro_batches=num_batches,
        )
        for index in range(num_batches)
    )


def _mask_keys(
    pack: PackRows, bucket: int, seed: int, manifest: Manifest, edges: Buckets
) -> NDArray[np.uint64]:
    """(rows,) one key a row of the bucket."""
    places = np.arange(len(pack.rows_of_bucket(bucket)))
    key = derive_key(seed, "held-out", manifest.pack, edges.names[bucket])
    return extend_keys(np.full(len(places), key, np.uint64), places)
