"""The loop on a tiny run: phases, resume, signals, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import loader_runs
import pytest
import torch
from training_runs import ROW_TOKENS, TOKENS_PER_STEP, counting_rows, make_training_run

from tokenmill.errors import FormatError, NonFiniteLossError, RecipeError, ResumeError, RunError
from tokenmill.loader import Loader
from tokenmill.shards.files import read_json, write_json
from tokenmill.shards.manifest import read_manifest, root_of, write_manifest
from tokenmill.shards.run import pack_folder, read_run
from tokenmill.shards.shard_list import ShardList
from tokenmill.training.config import ScheduleConfig
from tokenmill.training.evaluate import unigram_entropy
from tokenmill.training.log import HeldOutLine, StepLine, read_log
from tokenmill.training.loop import _Training, train
from tokenmill.training.schedule import learning_rate

PHASES = {"phase1": 4, "phase2": 3}
STEPS = sum(PHASES.values())


def steps(out):
    return [line for line in read_log(out / "log.jsonl") if isinstance(line, StepLine)]


def held_out(out):
    return [line for line in read_log(out / "log.jsonl") if isinstance(line, HeldOutLine)]


def facts(line):
    """What a step's line says but its speed."""
    return (line.phase, line.step, line.tokens, line.real_tokens, line.loss, line.lr)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_training_run(tmp_path_factory.mktemp("run"), steps=PHASES)


@pytest.fixture(scope="module")
def uninterrupted(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    summary = train(run, out=out, device="cpu", threads=1)
    assert summary.finished
    return out


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


def test_phases_follow_each_other_with_their_own_schedules(run, uninterrupted):
    lines = steps(uninterrupted)
    assert [(line.phase, line.step) for line in lines] == [
        ("phase1", 1), ("phase1", 2), ("phase1", 3), ("phase1", 4),
        ("phase2", 5), ("phase2", 6), ("phase2", 7),
    ]  # fmt: skip
    assert [line.tokens for line in lines] == [n * TOKENS_PER_STEP for n in range(1, STEPS + 1)]
    assert all(0.5 * line.tokens < line.real_tokens <= line.tokens for line in lines)
    for phase, count in PHASES.items():
        mapping = {"tokens": count * TOKENS_PER_STEP, "learning_rate": 1e-3, "decay": "cosine"}
        schedule = ScheduleConfig(**mapping, warmup_tokens=2 * TOKENS_PER_STEP)
        rates = [line.lr for line in lines if line.phase == phase]
        assert rates == [learning_rate(schedule, n * TOKENS_PER_STEP) for n in range(1, count + 1)]


def test_a_batch_that_warms_up_is_scheduled_by_its_tokens(tmp_path, monkeypatch):
    warmup = {"start_tokens": ROW_TOKENS, "tokens": 3 * TOKENS_PER_STEP}  # 1 to 4 rows
    run = make_training_run(tmp_path / "run", loader={"batch_warmup": warmup})
    train_and_kill_after(run, tmp_path / "out", 5, monkeypatch)
    assert train(run, out=tmp_path / "out", device="cpu", threads=1).finished
    lines = sorted({facts(line) for line in steps(tmp_path / "out")})  # step 5 was made twice
    rows = [1, 1, 2, 2, 3, 3, 4, 4, 4]  # 24 rows, the phase's tokens
    tokens = [sum(rows[: step + 1]) * ROW_TOKENS for step in range(9)]
    mapping = {"tokens": 6 * TOKENS_PER_STEP, "learning_rate": 1e-3, "decay": "cosine"}
    schedule = ScheduleConfig(**mapping, warmup_tokens=2 * TOKENS_PER_STEP)
    assert [(step, seen, rate) for _, step, seen, _, _, rate in lines] == [
        (step, seen, learning_rate(schedule, seen)) for step, seen in enumerate(tokens, 1)
    ]


def test_more_epochs_than_allowed_are_refused_before_the_first_step(tmp_path):
    run = make_training_run(tmp_path / "run", loader={"max_epochs": 1.0})  # 24 rows of 22
    with pytest.raises(RecipeError, match=r"phase1.loader.max_epochs: .* and 1 is the most"):
        train(run, out=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_each_phase_ends_with_a_held_out_loss_and_a_checkpoint(uninterrupted):
    lines = held_out(uninterrupted)
    assert [(line.phase, line.step, line.subset) for line in lines] == [
        ("phase1", 4, "all"),
        ("phase2", 7, "all"),
    ]
    assert all(line.masked_tokens > 0 for line in lines)
    names = sorted(path.name for path in (uninterrupted / "checkpoints").iterdir())
    assert names == ["step-0000004", "step-0000006", "step-0000007"]
    assert (uninterrupted / "loss.svg").read_text().startswith("<svg")


def test_the_model_learns_from_the_context_of_a_masked_token(tmp_path, monkeypatch):
    monkeypatch.setattr(loader_runs, "random_rows", counting_rows)
    run = make_training_run(
        tmp_path / "run",
        steps={"phase1": 40},
        schedule={"learning_rate": 4e-3, "warmup_tokens": 10 * TOKENS_PER_STEP},
        training={"eval_every_steps": 100, "checkpoint_every_steps": 100},
        held_out={"8-15": 10},
    )
    summary = train(run, out=tmp_path / "out", device="cpu", threads=1)
    assert summary.held_out["all"] < unigram_entropy(run, "phase1") - 1


def test_a_finished_training_has_nothing_to_do(run, uninterrupted):
    before = (uninterrupted / "log.jsonl").read_bytes()
    summary = train(run, out=uninterrupted, device="cpu", threads=1)
    assert summary.finished
    assert summary.position.step == STEPS
    assert (uninterrupted / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize("killed_after", range(1, STEPS))
def test_losses_after_a_kill_at_any_step_are_the_same_to_the_bit(
    run, uninterrupted, tmp_path, monkeypatch, killed_after
):
    train_and_kill_after(run, tmp_path, killed_after, monkeypatch)
    assert train(run, out=tmp_path, device="cpu", threads=1).finished
    expected = [facts(line) for line in steps(uninterrupted)]
    saved = max((step for step in (2, 4, 6) if step <= killed_after), default=0)
    # The lines behind the checkpoint stay, and those steps appear again with the same losses.
    assert [facts(line) for line in steps(tmp_path)] == expected[:killed_after] + expected[saved:]
    assert {(line.step, line.loss) for line in held_out(tmp_path)} == {
        (line.step, line.loss) for line in held_out(uninterrupted)
    }


def test_a_real_sigkill_changes_no_loss(tmp_path):
    run = make_training_run(
        tmp_path / "run", steps={"phase1": 12}, training={"checkpoint_every_steps": 2}
    )
    command = (
        "from pathlib import Path; from tokenmill.training.loop import train; "
        f"train(Path({str(run)!r}), out=Path({str(tmp_path / 'out')!r}), device='cpu', threads=1)"
    )
    child = subprocess.Popen([sys.executable, "-c", command], stderr=subprocess.DEVNULL)
    log = tmp_path / "out" / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_bytes().count(b"\n") >= 6):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.kill()
    assert child.wait() == -signal.SIGKILL

    assert train(run, out=tmp_path / "out", device="cpu", threads=1).finished
    train(run, out=tmp_path / "straight", device="cpu", threads=1)
    straight = [facts(line) for line in steps(tmp_path / "straight")]
    resumed = [facts(line) for line in steps(tmp_path / "out")]
    assert len(resumed) > len(straight)
    assert set(resumed) == set(straight)
    assert resumed[-1] == straight[-1]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_finishes_the_step_and_saves_it(run, uninterrupted, tmp_path, monkeypatch, name):
    log_step = _Training._log_step

    def with_signal(self, *args):
        if self.position.step == 3:
            os.kill(os.getpid(), signal.Signals[name])
        log_step(self, *args)

    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(_Training, "_log_step", with_signal)
        summary = train(run, out=tmp_path, device="cpu", threads=1)
    assert not summary.finished
    assert summary.position.step == 3
    assert (tmp_path / "checkpoints" / "step-0000003").exists()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers

    assert train(run, out=tmp_path, device="cpu", threads=1).finished
    assert [facts(line) for line in steps(tmp_path)] == [
        facts(line) for line in steps(uninterrupted)
    ]


def test_phases_can_be_trained_one_call_at_a_time(run, uninterrupted, tmp_path):
    for phase in PHASES:
        assert train(run, out=tmp_path, device="cpu", phases=[phase], threads=1).finished
    assert [facts(line) for line in steps(tmp_path)] == [
        facts(line) for line in steps(uninterrupted)
    ]


def test_a_later_phase_waits_for_an_unfinished_one(run, tmp_path, monkeypatch):
    train_and_kill_after(run, tmp_path, 3, monkeypatch)
    with pytest.raises(ResumeError, match=r"stands in phase1 at step 2 of 4, and phase1 is not"):
        train(run, out=tmp_path, device="cpu", phases=["phase2"])


@pytest.mark.parametrize("log_every_steps", [1, 3, 100])
def test_a_loss_that_is_no_number_stops_training_with_its_step_and_documents(
    tmp_path, monkeypatch, log_every_steps
):
    run = make_training_run(
        tmp_path / "run",
        training={
            "log_every_steps": log_every_steps,
            "checkpoint_every_steps": 2,
            "eval_every_steps": 100,
        },
    )
    whole_step = _Training._step

    def with_spoilt_weight(self, *args):
        if self.position.step == 2:
            torch.nn.init.constant_(self.model.decoder.bias, float("nan"))
        whole_step(self, *args)

    monkeypatch.setattr(_Training, "_step", with_spoilt_weight)
    with pytest.raises(
        NonFiniteLossError, match=r"^step 3, phase1: expected a finite loss"
    ) as info:
        train(run, out=tmp_path / "out", device="cpu", threads=1)
    documents = {int(doc) for batch in Loader(run).batch_at(2) for doc in batch.doc_ids if doc}
    named = str(info.value).partition("documents: ")[2].rstrip(".").partition(" and ")[0]
    assert {int(doc) for doc in named.split(", ")} <= documents
    names = [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()]
    assert names == ["step-0000002"]


def change(run, part, **values):
    """The same run with other settings."""
    mapping = read_json(run / "run.json")
    (mapping["training"] if part == "training" else mapping["phases"][0][part]).update(values)
    write_json(run / "run.json", mapping)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("training", {"seed": 5}, "made with training.seed 0, and now it is 5"),
        ("training", {"betas": [0.9, 0.9]}, r"training.betas \[0.9, 0.95\], and now it is"),
        ("schedule", {"learning_rate": 0.1}, "schedules.phase1.learning_rate 0.001, and now it"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, part, values, message):
    run = make_training_run(tmp_path / "run", steps={"phase1": 2})
    train(run, out=tmp_path / "out", device="cpu", threads=1)
    change(run, part, **values)
    with pytest.raises(ResumeError, match=message):
        train(run, out=tmp_path / "out", device="cpu", threads=1)


def test_a_checkpoint_of_another_order_is_refused_by_the_loader(tmp_path, monkeypatch):
    run = make_training_run(tmp_path / "run", steps={"phase1": 4})
    train_and_kill_after(run, tmp_path / "out", 2, monkeypatch)
    change(run, "loader", seed=9)
    with pytest.raises(ResumeError, match="loader's settings: the state was saved with seed 0"):
        train(run, out=tmp_path / "out", device="cpu", threads=1)


def test_a_finished_training_on_a_corpus_built_anew_is_refused(tmp_path):
    run = make_training_run(tmp_path / "run", steps={"phase1": 2})
    train(run, out=tmp_path / "out", device="cpu", threads=1)
    folder = pack_folder(run, read_run(run).phases["phase1"].pack)
    manifest = read_manifest(folder)
    shards = ShardList.of(replace(shard, sha256="0" * 64) for shard in manifest.shards)
    root = root_of(shards)
    write_manifest(folder, replace(manifest, shards=shards, root=root))
    with pytest.raises(ResumeError, match=r"made with rows\.phase1"):
        train(run, out=tmp_path / "out", device="cpu", threads=1)


def test_settings_that_only_say_when_to_look_may_change(tmp_path, monkeypatch):
    run = make_training_run(tmp_path / "run", steps={"phase1": 4})
    train_and_kill_after(run, tmp_path / "out", 2, monkeypatch)
    change(run, "training", log_every_steps=7, keep_checkpoints=1)
    assert train(run, out=tmp_path / "out", device="cpu", threads=1).finished
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["step-0000004"]


def test_another_number_of_threads_is_said(tmp_path, monkeypatch, capsys):
    run = make_training_run(tmp_path / "run", steps={"phase1": 3})
    train_and_kill_after(run, tmp_path / "out", 2, monkeypatch)
    train(run, out=tmp_path / "out", device="cpu", threads=2)
    said = capsys.readouterr().err
    assert "Going on after step 2, in phase1." in said
    assert "made with 1 threads, now there are 2: losses will differ" in said


def test_a_second_training_into_the_same_folder_is_refused(run, tmp_path, monkeypatch):
    def train_again(self, *args):
        with pytest.raises(RunError, match="another process trains into this folder"):
            train(run, out=tmp_path, device="cpu")
        raise Killed

    monkeypatch.setattr(_Training, "_step", train_again)
    with pytest.raises(Killed):
        train(run, out=tmp_path, device="cpu")


def test_torch_is_left_as_it_was_found(run, tmp_path):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    train(run, out=tmp_path, device="cpu", phases=["phase1"], threads=1)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_a_run_without_held_out_rows_trains_and_logs_no_held_out_loss(tmp_path):
    run = make_training_run(tmp_path / "run", steps={"phase1": 2}, held_out={})
    assert train(run, out=tmp_path / "out", device="cpu", threads=1).held_out == {}
    assert held_out(tmp_path / "out") == []


def test_what_cannot_be_is_refused(run, tmp_path):
    with pytest.raises(RecipeError, match="only one process can train, got 2"):
        train(run, out=tmp_path, device="cpu", world_size=2)
    with pytest.raises(RecipeError, match="phase phase3: not in the run"):
        train(run, out=tmp_path, device="cpu", phases=["phase3"])
    with pytest.raises(FormatError, match="no finished run there"):
        train(tmp_path / "nothing", out=tmp_path, device="cpu")


def test_the_log_is_one_json_object_a_line(uninterrupted):
    lines = (uninterrupted / "log.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events == ["step"] * 4 + ["held_out"] + ["step"] * 3 + ["held_out"]
