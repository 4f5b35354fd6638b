"""Held-out batches: the rows that no training step reads, each once, always behind the same masks.

All held-out rows of a subset are one step, so `step_targets` counts the masked tokens of the whole
subset, and the sum of all batches' losses over it is the held-out loss; `step_pairs` counts its
pairs. Every rank gets the same number of batches. Documents that were taken back (`tokenmill
retract`) and rows that were skipped are padding here at once, from whichever step their entries
hold.
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


class HeldOutRows:
    """The held-out rows of a subset of the phase's pack, by bucket; or some spread evenly among
    them, the same ones for any number of ranks."""

    def __init__(
        self,
        run: Path | str,
        phase: str,
        *,
        subset: str = "all",
        max_tokens: int | None = None,
        masking: MaskingConfig = HELD_OUT_MASKING,
        seed: int = 0,
    ) -> None:
        """
        Args:
            max_tokens: padding included; None: all.

        Raises:
            FormatError: the run is missing or damaged.
            RecipeError: there is no such phase or subset.
        """
        info = read_run(Path(run))
        folder = pack_folder(Path(run), info.phase(phase).pack)
        manifest = read_manifest(folder).up_to(info.phase(phase).generation)
        self.buckets = Buckets(manifest.bucket_edges)
        names = self.buckets.names
        # All buckets are opened, so that every subset has one shape, and one compiled model.
        pack = PackRows(
            folder,
            manifest,
            names,
            held_out=True,
            skip_command=f"tokenmill skip {run} --phase {phase}",
        )
        chosen = [names.index(bucket) for bucket in self.buckets.of_subset(subset)]
        rows = np.concatenate([pack.rows_of_bucket(bucket) for bucket in chosen])
        keys = np.concatenate(
            [_mask_keys(pack, bucket, seed, manifest, self.buckets) for bucket in chosen]
        )
        if max_tokens is not None and max_tokens < len(rows) * manifest.row_tokens:
            most = max(max_tokens // manifest.row_tokens, 1)
            spread = np.arange(most) * len(rows) // most
            rows, keys = rows[spread], keys[spread]
        phases = tuple(info.phases)
        overlay = read_overlay(Path(run), phases)
        self._assembler = Assembler(
            pack,
            manifest.max_length,
            info.tokenizer,
            read_masking(Path(run), masking, info.tokenizer),
            hidden_held_out(overlay, phases, manifest.pack, names, pack.bucket_starts),
            pairs=manifest.sequences == "pairs",
        )
        self._rows = self._assembler.step_rows(0, rows, keys)
        self.bucket_of = np.searchsorted(pack.bucket_starts, rows, side="right") - 1
        """(rows,) the place of each one's bucket among the buckets' names."""

    def batches(
        self, *, micro_batch_rows: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[range, Batch]]:
        """A rank's share, as many batches on every rank; each with the places of its rows.

        Raises:
            RecipeError: there is no such rank, or a batch would have no row.
        """
        if not 0 <= rank < world_size:
            raise RecipeError(f"rank: need 0 to world_size - 1 = {world_size - 1}, got {rank}")
        if micro_batch_rows < 1:
            raise RecipeError(f"micro_batch_rows: need at least 1, got {micro_batch_rows}")
        num_rows = len(self._rows.rows)
        num_batches = num_micro_batches(num_rows, world_size, micro_batch_rows)

        def batch_at(index: int) -> tuple[range, Batch]:
            places = micro_batch(num_rows, rank, world_size, micro_batch_rows, index)
            batch = self._assembler.batch(
                self._rows, places, micro_batch_rows, index=index, num_micro_batches=num_batches
            )
            return places, batch

        return map(batch_at, range(num_batches))


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
    rows = HeldOutRows(run, phase, subset=subset, masking=masking, seed=seed)
    shares = rows.batches(micro_batch_rows=micro_batch_rows, rank=rank, world_size=world_size)
    return (batch for _, batch in shares)


def _mask_keys(
    pack: PackRows, bucket: int, seed: int, manifest: Manifest, edges: Buckets
) -> NDArray[np.uint64]:
    """(rows,) one key a row of the bucket."""
    places = np.arange(len(pack.rows_of_bucket(bucket)))
    key = derive_key(seed, "held-out", manifest.pack, edges.names[bucket])
    return extend_keys(np.full(len(places), key, np.uint64), places)
