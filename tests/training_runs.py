"""Small runs for the training's tests: the loader's random rows, under settings for training."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import loader_runs
import numpy as np
import pytest
from loader_runs import ROW_TOKENS, TOKENIZER, make_pack, random_rows

from tokenmill.shards.run import PhaseInfo, new_run, write_run
from tokenmill.training.log import HeldOutLine, StepLine, read_log
from tokenmill.training.loop import _Training, train

ROWS_PER_STEP = 4
TOKENS_PER_STEP = ROWS_PER_STEP * ROW_TOKENS
TRAINING = {
    "preset": "tiny",
    "micro_batch_tokens": 2 * ROW_TOKENS,
    "log_every_steps": 1,
    "eval_every_steps": 4,
    "checkpoint_every_steps": 2,
}


def make_training_run(
    folder: Path,
    *,
    steps: Mapping[str, int] | None = None,
    schedule: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    loader: Mapping[str, Any] | None = None,
    held_out: Mapping[str, int] | None = None,
) -> Path:
    """A finished run.

    Args:
        steps: the steps of each phase.
        schedule: changes to each phase's schedule.
        training: changes to TRAINING.
        loader: more settings of each phase's loader.
        held_out: held-out rows in each bucket.
    """
    rows = {"0-7": 7, "8-15": 11, "16+": 4}
    make_pack(folder, "short", rows, {"8-15": 2} if held_out is None else held_out)
    phases = {
        name: PhaseInfo(
            pack="short",
            loader={"mixture": {"all": 1.0}, "batch_tokens": TOKENS_PER_STEP, **(loader or {})},
            schedule={
                "tokens": count * TOKENS_PER_STEP,
                "learning_rate": 1e-3,
                "warmup_tokens": 2 * TOKENS_PER_STEP,
                "decay": "cosine",
                **(schedule or {}),
            },
        )
        for name, count in (steps or {"phase1": 6}).items()
    }
    write_run(folder, new_run("test", TOKENIZER, phases, {**TRAINING, **(training or {})}))
    return folder


def steps(out: Path) -> list[StepLine]:
    """The logged steps of a training."""
    return [line for line in read_log(out / "log.jsonl") if isinstance(line, StepLine)]


def held_out(out: Path) -> list[HeldOutLine]:
    """Its held-out losses."""
    return [line for line in read_log(out / "log.jsonl") if isinstance(line, HeldOutLine)]


def facts(line: StepLine) -> tuple[object, ...]:
    """What a step's line says but its speed."""
    return (
        line.phase, line.step, line.tokens, line.real_tokens, line.loss, line.lr, line.grad_norm
    )  # fmt: skip


def counting_rows(generator: np.random.Generator, num_rows: int, bucket: str) -> loader_runs.Rows:
    """Rows like the loader's, whose sequences count upwards from a random id: a masked token can be
    told from its neighbours, and from its frequency hardly at all."""
    rows = random_rows(generator, num_rows, bucket)
    tokens = rows.tokens.copy()
    for row, last in enumerate(rows.row_ends):
        place = 0
        for length in rows.lengths[rows.row_ends[row - 1] if row else 0 : last]:
            count = generator.integers(80) + np.arange(length - 2)
            tokens[row, place + 1 : place + length - 1] = 5 + count % 80
            place += length
    return replace(rows, tokens=tokens)


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


def train_and_kill_after(run, out, step, monkeypatch):
    """The process dies right after the optimizer step and all that is due after it."""
    done = _Training._step

    def dying(self, *args):
        done(self, *args)
        if self.position.step == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(_Training, "_step", dying)
        with pytest.raises(Killed):
            train(run, out=out, device="cpu", threads=1)
