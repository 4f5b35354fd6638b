"""A phase as a pure function from a step to its batches: its plan, with rows read and masked."""

import numpy as np
from numpy.typing import NDArray

from tokenmill.loader.assembly import Assembler, Masks, StepRows
from tokenmill.loader.batch import Batch
from tokenmill.loader.cache import ShardCache
from tokenmill.loader.hidden import hidden_of
from tokenmill.loader.keys import derive_key, extend_keys
from tokenmill.loader.masking import read_masking
from tokenmill.loader.micro_batches import micro_batch, num_micro_batches
from tokenmill.loader.plan import PhasePlan
from tokenmill.loader.rows import PackRows, Pieces
from tokenmill.shards.overlay import NEVER
from tokenmill.shards.shard_list import ShardInfo


class Phase:
    """Reads the rows of a plan. Holds mapped shards and the latest step's rows, no position."""

    def __init__(
        self, plan: PhasePlan, run: str, cache: ShardCache | None = None, masks: Masks = "host"
    ) -> None:
        """
        Args:
            run: where it is, for errors.
            cache: of a run far away.
            masks: who makes them.
        """
        names = [bucket.name for bucket in plan.buckets]
        # A bucket that the phase does not read would only ask for more sequence slots.
        read = list(plan.buckets_read)
        self.plan = plan
        self._rows = PackRows(
            plan.folder,
            plan.manifest,
            [names[bucket] for bucket in read],
            shards=cache,
            skip_command=f"tokenmill skip {run} --phase {plan.name}",
        )
        self._bucket_starts = np.zeros(len(names), np.int64)
        self._bucket_starts[read] = self._rows.bucket_starts[:-1]
        self._hidden = hidden_of(
            plan.overlay,
            plan.phases,
            plan.name,
            plan.manifest.pack,
            [names[bucket] for bucket in read],
            self._rows.bucket_starts,
        )
        self.masking = read_masking(plan.folder.parents[1], plan.config.masking, plan.tokenizer)
        if masks == "device":
            self.masking.refuse_other_than_tokens()
        self._assembler = Assembler(
            self._rows,
            plan.manifest.max_length,
            plan.tokenizer,
            self.masking,
            self._hidden,
            pairs=plan.manifest.sequences == "pairs",
            masks=masks,
        )
        seed, pack = plan.config.seed, plan.manifest.pack
        self._mask_keys = np.array(
            [derive_key(seed, "mask", pack, name) for name in names], np.uint64
        )
        self._latest: StepRows | None = None
        self._cache = cache
        if cache:
            cache.follow(self._shards_of, f"{plan.manifest.root}-{plan.name}")

    def step_rows(self, step: int) -> StepRows:
        """The rows of a step over all ranks, without their tokens."""
        latest = self._latest  # read once: another thread may replace it
        if latest is None or latest.step != step:
            if self._cache:
                self._cache.go_to(step)
            rows = self.rows_at(self.plan.step_map.order_step(step))
            self._latest = latest = self._assembler.step_rows(step, *rows)
        return latest

    def rows_at(self, order_step: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """The rows of a step of the order, as PackRows numbers them, and their masks' keys; each
        (rows,). No shard is read."""
        bucket, row, visit = self.plan.rows_at(order_step)
        mask_keys = extend_keys(extend_keys(self._mask_keys[bucket], row), visit)
        return self._bucket_starts[bucket] + row, mask_keys

    def _shards_of(self, step: int) -> list[ShardInfo]:
        """The shards that a step reads, in the order in which it does."""
        rows, _ = self.rows_at(self.plan.step_map.order_step(step))
        return self._rows.shards_of(rows[~self._hidden.skipped(step, rows)])

    def pieces_of(self, rows: NDArray[np.int64]) -> Pieces | None:
        """What stands in rows, whatever is left out at some step; None where one of them is skipped
        at any step, for its shard may be gone."""
        is_skipped = self._hidden.skipped(int(NEVER), rows)
        return None if is_skipped.any() else self._rows.pieces(rows, is_skipped)

    def batch(
        self, step: int, index: int, *, rank: int, world_size: int, micro_batch_rows: int
    ) -> Batch:
        """Micro-batch `index` of a rank's share of a step."""
        num_rows = self.plan.num_rows(step)
        return self._assembler.batch(
            self.step_rows(step),
            micro_batch(num_rows, rank, world_size, micro_batch_rows, index),
            micro_batch_rows,
            index=index,
            num_micro_batches=num_micro_batches(num_rows, world_size, micro_batch_rows),
        )
