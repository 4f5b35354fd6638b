"""The loop on a tiny run: phases, resume, signals, and what it refuses."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
from dataclasses import replace

import loader_runs
import pytest
import torch
from loader_runs import TOKENIZER
from safetensors.torch import save_file
from training_runs import (
    ROW_TOKENS,
    TOKENS_PER_STEP,
    Killed,
    counting_rows,
    facts,
    held_out,
    make_training_run,
    steps,
    train_and_kill_after,
)

from tokenmill.errors import FormatError, RecipeError, ResumeError, RunError
from tokenmill.shards.files import read_json, write_json
from tokenmill.shards.manifest import read_manifest, root_of, write_manifest
from tokenmill.shards.run import pack_folder, read_run
from tokenmill.shards.shard_list import ShardList
from tokenmill.training import checkpoint as checkpoint_module
from tokenmill.training import loop as loop_module
from tokenmill.training import step as step_module
from tokenmill.training.config import ScheduleConfig
from tokenmill.training.evaluate import unigram_entropy
from tokenmill.training.hf.architecture import to_config
from tokenmill.training.hf.weights import to_hugging_face
from tokenmill.training.initialise import initialise
from tokenmill.training.loop import _Training, train
from tokenmill.training.model import build_model
from tokenmill.training.presets import encoder_config
from tokenmill.training.process import StopRequest, exclusive
from tokenmill.training.recompilation import Recompilations
from tokenmill.training.schedule import learning_rate
from tokenmill.training.step import Learner

PHASES = {"phase1": 4, "phase2": 3}
STEPS = sum(PHASES.values())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_training_run(tmp_path_factory.mktemp("run"), steps=PHASES)


@pytest.fixture(scope="module")
def uninterrupted(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    summary = train(run, out=out, device="cpu", threads=1)
    assert summary.finished
    return out


def test_a_resume_needs_none_of_what_first_weights_came_from(tmp_path, monkeypatch):
    model = build_model(encoder_config("tiny", vocab_size=100, pad_id=0), "cpu")
    initialise(model, seed=7)
    write_json(
        tmp_path / "model" / "config.json", to_config(model.config, TOKENIZER, max_length=24)
    )
    weights = to_hugging_face(model.state_dict(), model.config)
    save_file(weights, tmp_path / "model" / "model.safetensors")
    settings = {"initial_weights": str(tmp_path / "model"), "ema_decay": 0.9}
    run = make_training_run(tmp_path / "run", steps={"phase1": 4}, training=settings)
    assert train(run, out=tmp_path / "straight", device="cpu", threads=1).finished
    train_and_kill_after(run, tmp_path / "killed", 2, monkeypatch)
    shutil.rmtree(tmp_path / "model")
    monkeypatch.setattr(step_module, "initialise", pytest.fail)
    assert train(run, out=tmp_path / "killed", device="cpu", threads=1).finished
    assert [facts(line) for line in steps(tmp_path / "killed")] == [
        facts(line) for line in steps(tmp_path / "straight")
    ]
    assert held_out(tmp_path / "killed") == held_out(tmp_path / "straight")


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
    assert [(step, seen, rate) for _, step, seen, _, _, rate, _ in lines] == [
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
    assert summary.held_out["all"].loss < unigram_entropy(run, "phase1") - 1


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


def send_during(monkeypatch, module, function, step, name):
    """A signal to this process as it first calls a function in or after a step."""
    called, whole_step, reached, sent = getattr(module, function), Learner.step, [0], []

    def with_signal(*args, **kwargs):
        if reached[0] >= step and not sent:
            sent.append(os.kill(os.getpid(), signal.Signals[name]))
        return called(*args, **kwargs)

    def counting(self, batches, num_micro_batches, number):
        reached[0] = number
        return whole_step(self, batches, num_micro_batches, number)

    monkeypatch.setattr(Learner, "step", counting)
    monkeypatch.setattr(module, function, with_signal)


@pytest.mark.parametrize(
    ("name", "module", "function", "step", "stops_after"),
    [
        ("SIGTERM", step_module, "batch_loss", 3, {3}),
        ("SIGINT", step_module, "batch_loss", 3, {3}),
        ("SIGTERM", loop_module, "evaluate", 4, {4}),
        ("SIGTERM", loop_module, "evaluate", 7, {7}),
        ("SIGTERM", checkpoint_module, "_write_checkpoint", 2, {3, 4}),  # as fast as its thread is
    ],
    ids=["step", "SIGINT", "evaluation", "last evaluation", "asynchronous save"],
)
def test_a_signal_saves_and_stops_and_nothing_is_lost(
    run, uninterrupted, tmp_path, monkeypatch, capfd, name, module, function, step, stops_after
):
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        send_during(patch, module, function, step, name)
        summary = train(run, out=tmp_path, device="cpu", threads=1)
    assert not summary.finished
    saved = summary.position.step
    assert saved in stops_after
    assert (tmp_path / "checkpoints" / f"step-{saved:07d}" / "complete.json").exists()
    said = capfd.readouterr().err
    assert said.index(f"{name}: saves after the step under way; a second signal ends") < said.index(
        f"{name}: stopped after step {saved}, which is saved."
    )
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers

    assert train(run, out=tmp_path, device="cpu", threads=1).finished
    assert [facts(line) for line in steps(tmp_path)] == [
        facts(line) for line in steps(uninterrupted)
    ]
    assert held_out(tmp_path) == held_out(uninterrupted)  # made up for at the second start


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


def test_a_damaged_checkpoint_is_named_though_the_one_before_it_is_refused(tmp_path, capsys):
    run = make_training_run(tmp_path / "run", steps={"phase1": 4})
    train(run, out=tmp_path / "out", device="cpu", threads=1)
    (tmp_path / "out" / "checkpoints" / "step-0000004" / "state.json").unlink()
    change(run, "training", seed=5)
    with pytest.raises(ResumeError, match=r"step 2: the checkpoint was made with training\.seed 0"):
        train(run, out=tmp_path / "out", device="cpu", threads=1)
    assert "step-0000004/state.json: expected SHA-256 " in capsys.readouterr().err


def test_settings_that_only_say_when_to_look_may_change(tmp_path, monkeypatch):
    run = make_training_run(tmp_path / "run", steps={"phase1": 4})
    train_and_kill_after(run, tmp_path / "out", 2, monkeypatch)
    settings = {"log_every_steps": 7, "keep_checkpoints": 1}
    assert train(run, out=tmp_path / "out", device="cpu", threads=1, settings=settings).finished
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["step-0000004"]


def test_a_second_training_into_the_same_folder_is_refused(run, tmp_path, monkeypatch):
    def train_again(self, *args):
        with pytest.raises(RunError, match="another process trains into this folder"):
            train(run, out=tmp_path, device="cpu")
        raise Killed

    monkeypatch.setattr(_Training, "_step", train_again)
    with pytest.raises(Killed):
        train(run, out=tmp_path, device="cpu")


@pytest.mark.parametrize("launched", [False, True])
def test_a_second_signal_ends_at_once_but_not_what_torchrun_hands_on(monkeypatch, launched):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if launched:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with StopRequest() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.signal == "SIGINT"
        with contextlib.nullcontext() if launched else pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_lock_that_its_holder_removed_before_it_was_taken_holds_nothing(tmp_path, monkeypatch):
    take = fcntl.flock

    def late(file, operation):
        (tmp_path / "lock").unlink()
        take(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(RunError, match="another process trains into this"), exclusive(tmp_path):
        pytest.fail("two would train")


def test_a_log_that_is_none_is_found_before_the_first_step(run, tmp_path):
    (tmp_path / "log.jsonl").write_text("a note of mine\n")
    with pytest.raises(FormatError, match=r"log.jsonl, line 1: no line of this version's"):
        train(run, out=tmp_path, device="cpu", threads=1)
    assert not (tmp_path / "checkpoints").exists()


def test_training_does_not_end_for_a_picture(run, tmp_path, capsys):
    (tmp_path / "loss.svg").mkdir()
    assert train(run, out=tmp_path, device="cpu", phases=["phase1"], threads=1).finished
    assert "loss.svg: could not be written (Is a directory)." in capsys.readouterr().err


def test_torch_is_left_as_it_was_found(run, tmp_path):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    train(run, out=tmp_path, device="cpu", phases=["phase1"], threads=1)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_a_run_without_held_out_rows_trains_and_logs_no_held_out_loss(tmp_path):
    run = make_training_run(tmp_path / "run", steps={"phase1": 2}, held_out={})
    assert train(run, out=tmp_path / "out", device="cpu", threads=1).held_out == {}
    assert held_out(tmp_path / "out") == []


def test_what_cannot_be_is_refused(run, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RecipeError, match=r"training.shard: 2 processes share .* there are 1\."):
        train(run, out=out, device="cpu", settings={"shard": 2})
    with pytest.raises(RecipeError, match="phase phase3: not in the run"):
        train(run, out=out, device="cpu", phases=["phase3"])
    short = {"preset": "roberta-base", "model": {"max_positions": 25}}  # the first two not used
    with pytest.raises(RecipeError, match="up to 24 tokens, and the model has 23 learned pos"):
        train(run, out=out, device="cpu", settings=short)
    with pytest.raises(RecipeError, match=r"phase1: .*follow each other, and the rows hold docum"):
        train(run, out=out, device="cpu", settings={"preset": "bert-base"})
    with pytest.raises(FormatError, match=r"elsewhere: no config.json\. Give a folder of `tokenm"):
        train(run, out=out, device="cpu", settings={"tile_from": "elsewhere"})
    with pytest.raises(FormatError, match="no finished run there"):
        train(tmp_path / "nothing", out=out, device="cpu")
    assert not out.exists()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file: cannot write there \(File exists\)"):
        train(run, out=tmp_path / "file", device="cpu")


def test_labels_that_no_head_learns_are_told(tmp_path, capsys):
    run = make_training_run(tmp_path / "run", steps={"phase1": 2})
    folder = pack_folder(run, read_run(run).phases["phase1"].pack)
    write_manifest(folder, replace(read_manifest(folder), sequences="pairs"))
    train(run, out=tmp_path / "out", device="cpu", threads=1)
    assert "pairs of texts; the model has no next_sentence" in capsys.readouterr().err


def test_the_log_is_one_json_object_a_line(uninterrupted):
    lines = (uninterrupted / "log.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events == ["step"] * 4 + ["held_out"] + ["step"] * 3 + ["held_out"]


def test_graphs_that_are_built_after_the_first_steps_of_a_phase_are_told_once():
    said = []
    recompilations = Recompilations(said.append)
    compiled = torch.compile(torch.neg, backend="eager", fullgraph=True, dynamic=False)
    for first, sizes in [(7, [2, 2, 3, 3, 4, 5]), (13, [6, 7])]:  # two phases, from a resume on
        recompilations.begin_phase()
        for step, size in enumerate(sizes, start=first):
            with recompilations.watch(step):
                compiled(torch.ones(size))
    assert recompilations.num_graphs == 2
    (text,) = said
    assert text.startswith("Step 11 made torch.compile build 1 graphs")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_resumed_training_has_the_same_losses_to_the_bit(run, tmp_path):
    settings = {"dtype": "bfloat16", "deterministic": True}
    for out, calls in (("straight", [list(PHASES)]), ("halting", [[phase] for phase in PHASES])):
        for phases in calls:
            train(run, out=tmp_path / out, device="cuda", phases=phases, settings=settings)
    assert [facts(line) for line in steps(tmp_path / "halting")] == [
        facts(line) for line in steps(tmp_path / "straight")
    ]
