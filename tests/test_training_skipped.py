"""Steps whose loss or gradient is not finite: left out, counted, and too many of them."""

import math

import pytest
import torch
from safetensors.torch import load_file
from training_runs import (
    make_training_run,
    steps,
    train_and_kill_after,
)

from tokenmill.errors import NonFiniteLossError
from tokenmill.loader import Loader
from tokenmill.shards.files import read_json
from tokenmill.training import step as step_module
from tokenmill.training.loop import train
from tokenmill.training.step import Learner


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(tmp_path, monkeypatch):
    run = make_training_run(
        tmp_path / "run",
        training={"checkpoint_every_steps": 1, "keep_checkpoints": 9, "ema_decay": 0.9},
    )
    part_of_loss = step_module.batch_loss

    def spoilt(model, batch, *args, **kwargs):
        part = part_of_loss(model, batch, *args, **kwargs)
        return part * math.nan if batch.step == 2 and batch.micro_batch == 1 else part

    monkeypatch.setattr(step_module, "batch_loss", spoilt)
    train_and_kill_after(run, tmp_path / "out", 4, monkeypatch)  # the count goes on behind it
    assert train(run, out=tmp_path / "out", device="cpu", threads=1).finished
    assert [(line.skipped, math.isnan(line.loss)) for line in steps(tmp_path / "out")] == [
        (0, False), (0, False), (1, True), (1, False), (1, False), (1, False),
    ]  # fmt: skip
    folder = tmp_path / "out" / "checkpoints"
    # None after the skipped step: its weights might be what spoilt the loss.
    assert sorted(path.name[-1] for path in folder.iterdir()) == ["1", "2", "4", "5", "6"]
    state = read_json(folder / "step-0000006" / "state.json")
    assert (state["skipped_steps"], state["skipped_in_a_row"]) == (1, 0)
    moments = load_file(folder / "step-0000006" / "optimizer.safetensors")
    assert {int(moments[name]) for name in moments if name.endswith(".step")} == {5}


def test_the_weights_of_a_skipped_step_are_those_before_it(tmp_path, monkeypatch):
    run = make_training_run(tmp_path / "run", steps={"phase1": 3}, training={"ema_decay": 0.9})
    part_of_loss = step_module.batch_loss
    monkeypatch.setattr(
        step_module, "batch_loss", lambda *a, **k: part_of_loss(*a, **k) / (a[1].step != 2)
    )
    train(run, out=tmp_path / "out", device="cpu", threads=1)
    folder = tmp_path / "out" / "checkpoints"
    for name in ("model.safetensors", "optimizer.safetensors", "ema.safetensors"):
        before = (folder / "step-0000002" / name).read_bytes()
        assert (folder / "step-0000003" / name).read_bytes() == before


@pytest.mark.parametrize("log_every_steps", [1, 100])
def test_too_many_such_steps_in_a_row_end_training_with_their_documents(
    tmp_path, monkeypatch, log_every_steps
):
    run = make_training_run(
        tmp_path / "run",
        training={
            "log_every_steps": log_every_steps,
            "checkpoint_every_steps": 2,
            "eval_every_steps": 100,
            "max_skipped_steps": 2,
        },
    )
    whole_step = Learner.step

    def with_spoilt_weight(self, batches, num_micro_batches, number):
        if number == 3:
            torch.nn.init.constant_(self.model.decoder.bias, math.nan)
        return whole_step(self, batches, num_micro_batches, number)

    monkeypatch.setattr(Learner, "step", with_spoilt_weight)
    with pytest.raises(
        NonFiniteLossError, match=r"^steps 3 to 5, phase1: .* in 3 steps in a row"
    ) as info:
        train(run, out=tmp_path / "out", device="cpu", threads=1)
    assert "--step 2` shows the text" in str(info.value)
    assert "--steps 2-4` leaves them out" in str(info.value)
    documents = {int(doc) for batch in Loader(run).batch_at(2) for doc in batch.doc_ids if doc}
    named = str(info.value).partition("of the first: ")[2].rstrip(".").partition(" and ")[0]
    assert {int(doc) for doc in named.split(", ")} <= documents
    names = [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()]
    assert names == ["step-0000002"]
