"""The same training in one go and in two: are losses the same to the bit, and what does it cost?

    straight     40 steps under deterministic algorithms, with a checkpoint after 20
    resumed      another process takes that checkpoint and makes the other 20
    free         40 steps without deterministic algorithms, for their speed

It is `train` of the bundled loop that runs, so compiled code, the loader and checkpoints are as
users have them. Losses and the last weights of the first two are compared; a CPU's algorithms are
always deterministic, so there is no third run there.
"""

import multiprocessing
import shutil
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tokenmill.shards.files import sha256_file
from tokenmill.shards.run import read_run, write_run
from tokenmill.shards.settings import to_mapping
from tokenmill.training.log import StepLine, read_log
from tokenmill.training.loop import train
from train_arms.data import MEASURED
from train_arms.setup import Setup

STEPS = 40
HALF = STEPS // 2
WARM_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class ResumeFindings:
    """What the three runs came to."""

    losses_equal: bool
    """Those of the last half of the steps, to the bit."""
    weights_equal: bool
    losses: list[float]
    """Of the straight run."""
    deterministic_tokens_per_second: float
    free_tokens_per_second: float | None
    """None on a CPU."""

    def __str__(self) -> str:
        verdict = {True: "the same to the bit", False: "NOT the same"}
        text = (
            f"Resumed after step {HALF} of {STEPS} in a new process: losses are "
            f"{verdict[self.losses_equal]}, the last weights are {verdict[self.weights_equal]}."
        )
        if self.free_tokens_per_second:
            cost = 1 - self.deterministic_tokens_per_second / self.free_tokens_per_second
            text += f" Deterministic algorithms cost {cost:.1%} of the speed."
        return text


def resume_check(folder: Path, setup: Setup, micro_batch_tokens: int) -> ResumeFindings:
    """Train on a run of data.py, whose settings are written anew.

    Args:
        folder: gets what the trainings write.
    """
    _write_settings(setup, micro_batch_tokens)
    straight = _train(setup, folder / "straight", deterministic=True)
    shutil.copytree(
        _checkpoint(folder / "straight", HALF),
        _checkpoint(folder / "resumed", HALF),
    )
    resumed = _train(setup, folder / "resumed", deterministic=True)
    is_cpu = torch.device(setup.device).type == "cpu"
    free = None if is_cpu else _train(setup, folder / "free", deterministic=False)
    last = [
        sha256_file(_checkpoint(folder / name, STEPS) / "model.safetensors")
        for name in ("straight", "resumed")
    ]
    return ResumeFindings(
        losses_equal=[line.loss for line in straight[HALF:]] == [line.loss for line in resumed],
        weights_equal=last[0] == last[1],
        losses=[line.loss for line in straight],
        deterministic_tokens_per_second=_speed(straight),
        free_tokens_per_second=_speed(free) if free else None,
    )


def _write_settings(setup: Setup, micro_batch_tokens: int) -> None:
    """The run's one phase of STEPS steps, trained with the encoder of the setup."""
    info = read_run(setup.run)
    phase = info.phases[MEASURED]
    tokens = STEPS * phase.loader["batch_tokens"]
    schedule = {"tokens": tokens, "learning_rate": 5e-4, "warmup_tokens": tokens // 4}
    shape: dict[str, Any] = to_mapping(setup.encoder)
    del shape["vocab_size"], shape["pad_id"]  # the tokenizer's
    training = {
        "preset": "tiny",
        "model": shape,
        "micro_batch_tokens": micro_batch_tokens,
        "dtype": setup.dtype,
        "log_every_steps": 1,
        "checkpoint_every_steps": HALF,
        "eval_every_steps": STEPS,
    }
    phases = {MEASURED: replace(phase, schedule=schedule)}
    write_run(setup.run, replace(info, phases=phases, training=training))


def _train(setup: Setup, out: Path, *, deterministic: bool) -> list[StepLine]:
    """The steps that a process of its own logs."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_train_here, args=(setup, out, deterministic))
    process.start()
    process.join()
    assert process.exitcode == 0, f"training into {out} ended with {process.exitcode}"
    return [line for line in read_log(out / "log.jsonl") if isinstance(line, StepLine)]


def _train_here(setup: Setup, out: Path, deterministic: bool) -> None:
    train(
        setup.run,
        out=out,
        device=setup.device,
        threads=setup.threads,
        settings={"deterministic": deterministic},
    )


def _checkpoint(out: Path, step: int) -> Path:
    return out / "checkpoints" / f"step-{step:07d}"


def _speed(lines: list[StepLine]) -> float:
    return statistics.median(line.tokens_per_second for line in lines[WARM_STEPS:])
