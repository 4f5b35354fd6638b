"""A phase as a pure function from a step to its batches: its plan, with rows read and masked."""

import numpy as np

from tokenmill.loader.assembly import Assembler, StepRows
from tokenmill.loader.batch import Batch
from tokenmill.loader.hidden import Hidden
from tokenmill.loader.keys import derive_key, extend_keys
from tokenmill.loader.micro_batches import micro_batch, num_micro_batches
from tokenmill.loader.plan import PhasePlan
from tokenmill.loader.rows import PackRows


class Phase:
    """Reads the rows of a plan. Holds mapped shards and the latest step's rows, no position."""

    def __init__(self, plan: PhasePlan) -> None:
        names = [bucket.name for bucket in plan.buckets]
        # A bucket that the phase does not read would only ask for more sequence slots.
        read = [bucket for bucket, weight in enumerate(plan.weights) if weight]
        self.plan = plan
        self._rows = PackRows(plan.folder, plan.manifest, [names[bucket] for bucket in read])
        self._bucket_starts = np.zeros(len(names), np.int64)
        self._bucket_starts[read] = self._rows.bucket_starts[:-1]
        self._assembler = Assembler(
            self._rows,
            plan.manifest.max_length,
            plan.tokenizer,
            plan.config.masking,
            Hidden(*plan.overlay.first_steps(plan.phases, plan.name)),
        )
        seed, pack = plan.config.seed, plan.manifest.pack
        self._mask_keys = np.array(
            [derive_key(seed, "mask", pack, name) for name in names], np.uint64
        )
        self._latest: StepRows | None = None

    def step_rows(self, step: int) -> StepRows:
        """The rows of a step over all ranks, without their tokens."""
        latest = self._latest  # read once: another thread may replace it
        if latest is None or latest.step != step:
            bucket, row, visit = self.plan.rows_of(step)
            mask_keys = extend_keys(extend_keys(self._mask_keys[bucket], row), visit)
            numbers = self._bucket_starts[bucket] + row
            self._latest = latest = self._assembler.step_rows(step, numbers, mask_keys)
        return latest

    def batch(
        self, step: int, index: int, *, rank: int, world_size: int, micro_batch_rows: int
    ) -> Batch:
        """Micro-batch `index` of a rank's share of a step."""
        num_rows = self.plan.rows_per_step
        return self._assembler.batch(
            self.step_rows(step),
            micro_batch(num_rows, rank, world_size, micro_batch_rows, index),
            micro_batch_rows,
            index=index,
            num_micro_batches=num_micro_batches(num_rows, world_size, micro_batch_rows),
        )
