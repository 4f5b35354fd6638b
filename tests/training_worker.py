"""What each of two processes does in the tests of parallel training: several trainings in a row.

    RANK=... WORLD_SIZE=2 ... python training_worker.py FOLDER

The group is joined once, before all of them, as Ray Train does.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch.distributed as dist

from tokenmill.errors import TokenmillError
from tokenmill.training import parallel
from tokenmill.training.loop import train
from tokenmill.training.step import Learner


def main(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    parallel.BUCKET_BYTES = 100_000  # several buckets for a small model
    whole_step, asked_in = Learner.step, [0]

    def with_signal(self, batches, num_micro_batches, number):  # type: ignore[no-untyped-def]
        if number == asked_in[0] and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole_step(self, batches, num_micro_batches, number)

    Learner.step = with_signal  # type: ignore[method-assign]

    def call(out: str, asked: int = 0, **settings: object) -> None:
        """Train FOLDER/run into FOLDER/out, and leave what came of it.

        Args:
            asked: the step in which rank 1, and no other, gets SIGTERM.
        """
        asked_in[0] = asked
        run = folder / "run"
        try:
            summary = train(run, out=folder / out, device="cpu", threads=1, settings=settings)
            losses = {name: line.loss for name, line in summary.held_out.items()}
            outcome = [summary.finished, summary.position.step, losses]
        except TokenmillError as error:
            outcome = [type(error).__name__, str(error)]
        with (folder / f"{out}-{rank}.jsonl").open("a") as file:
            file.write(json.dumps(outcome) + "\n")

    call("replicated", asked=3)
    call("replicated")
    call("sharded", asked=7, shard=2)
    call("locked")
    call("killed")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
