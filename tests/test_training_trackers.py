"""TensorBoard and Weights & Biases, the real ones, offline."""

import math
import re
import sys
import time

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_training_curve import held_out, step
from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal.datastore import DataStore

from tokenmill.errors import RecipeError, RunError
from tokenmill.training.log import Log
from tokenmill.training.trackers import Trackers


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    wandb.teardown()  # it reads the environment once


def track(names, out, lines, *, step=0, said=None):
    """As a training does that goes on after a step."""
    say = (said if said is not None else []).append
    with (
        Trackers(names, out, step=step, settings={"seed": 0}, say=say) as trackers,
        Log(out / "log.jsonl") as log,
    ):
        for line in lines:
            log.write(line)
            trackers.write(line)


def curves(out):
    """name: [(step, value)] as TensorBoard shows them."""
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def sent(out):
    """The losses that each process has handed to W&B, by step."""
    wandb.teardown()  # waits for its own process, which writes the files
    processes = []
    for path in sorted((out / "wandb").glob("offline-run-*/*.wandb")):
        store, losses = DataStore(), {}
        store.open_for_scan(str(path))
        while (data := store.scan_data()) is not None:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            values = {item.nested_key[0]: item.value_json for item in record.history.item}
            if "train/loss" in values:
                losses[int(values["_step"])] = float(values["train/loss"])
        store.close()
        processes.append((record_id(path), losses))
    return processes


def record_id(path):
    return re.fullmatch(r"run-(\w+)\.wandb", path.name)[1]


def test_tensorboard_shows_steps_that_were_done_again_once(tmp_path):
    lines = [step(1, 5.0), step(2, 4.0), held_out(2, 4.5, "all"), step(3, math.nan)]
    track(["tensorboard"], tmp_path, lines)
    again = [step(2, 4.25), held_out(2, 4.75, "all"), held_out(2, 3.0, source="wiki")]
    track(["tensorboard"], tmp_path, again, step=1)
    shown = curves(tmp_path)
    assert shown["train/loss"] == [(1, 5.0), (2, 4.25)]
    assert shown["train/tokens"] == [(1, 1000), (2, 2000)]
    assert shown["held_out/all/loss"] == [(2, 4.75)]
    assert shown["held_out/source/wiki/accuracy"] == [(2, 0.25)]
    assert not any("mfu" in name or name.endswith("/step") for name in shown)


def test_wandb_gets_each_step_once_and_one_run_whatever_was_killed(tmp_path):
    said = []
    track(["wandb"], tmp_path, [step(1, 5.0), step(2, 4.0), held_out(2, 4.5, "all")], said=said)
    time.sleep(1)  # W&B names its folders by the second
    track(["wandb"], tmp_path, [step(2, 4.25), step(3, 3.0)], step=1, said=said)
    (first, losses), (second, more) = sent(tmp_path)
    assert first == second == (tmp_path / "wandb" / "run-id").read_text()
    assert (losses, more) == ({1: 5.0, 2: 4.0}, {3: 3.0})
    assert len(said) == 2
    assert said[0].startswith(f"wandb: {tmp_path / 'wandb' / 'offline-run-'}")


def test_a_tracker_that_fails_is_named_once_and_the_other_goes_on(tmp_path):
    said = []
    with Trackers(
        ["wandb", "tensorboard"], tmp_path, step=0, settings={}, say=said.append
    ) as trackers:
        trackers.write(step(1, 5.0))
        wandb.run.finish()  # behind its back: W&B refuses what comes now
        trackers.write(step(2, 4.0))
        trackers.write(step(3, 3.0))
    (found,) = [text for text in said if "failed" in text]
    assert re.match(r"wandb failed \(UsageError: .*finished.*\) and gets no more lines; ", found)
    assert curves(tmp_path)["train/loss"] == [(1, 5.0), (2, 4.0), (3, 3.0)]


@pytest.mark.parametrize(
    ("name", "module"), [("wandb", "wandb"), ("tensorboard", "torch.utils.tensorboard")]
)
def test_a_missing_package_is_an_error_that_names_the_extra(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RecipeError, match=rf"{name} is not installed.*'tokenmill\[{name}\]'"):
        Trackers([name], tmp_path, step=0, settings={}, say=print)


def test_wandb_without_an_account_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RunError, match=r"wandb does not start .*`wandb login`, set WANDB_MODE=off"):
        Trackers(["wandb"], tmp_path, step=0, settings={}, say=print)
