"""Training by several real processes: what one process gives, whoever is asked to stop or dies.

Starting Python with torch takes seconds, so few processes are started, and each does much: torchrun
starts two of which one is killed, `training_worker.py` is two more, Ray starts two.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray
from ray.train import WorkerGroupError
from training_runs import facts, held_out, make_training_run, steps

from tokenmill import cli
from tokenmill.errors import RecipeError, RunError
from tokenmill.shards.files import read_json
from tokenmill.training.loop import train
from tokenmill.training.parallel import _lost
from tokenmill.training.process import exclusive
from tokenmill.training.ray_train import _compare_resources, _original
from tokenmill.training.step import Learner

PHASES = {"phase1": 8, "phase2": 6}
STEPS = sum(PHASES.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, trained by one process, and whatever `training_worker.py` made of it with two."""
    folder = tmp_path_factory.mktemp("parallel")
    run = make_training_run(
        folder / "run", steps=PHASES, held_out={"8-15": 5}, training={"ema_decay": 0.9}
    )
    train(run, out=folder / "alone", device="cpu", threads=1)
    with pytest.MonkeyPatch.context() as patch:
        stop_in(patch, 2)
        train(run, out=folder / "sharded", device="cpu", threads=1)
    torchrun_and_kill(folder)
    with exclusive(folder / "locked"):
        run_two(folder)
    return folder


def stop_in(monkeypatch, step):
    whole_step = Learner.step

    def with_signal(self, batches, num_micro_batches, number):
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole_step(self, batches, num_micro_batches, number)

    monkeypatch.setattr(Learner, "step", with_signal)


def run_two(folder):
    worker = Path(__file__).with_name("training_worker.py")
    processes = [
        subprocess.Popen(
            [sys.executable, worker, folder],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    (folder / "said").write_text(json.dumps(said))


def torchrun_and_kill(folder):
    """Train into FOLDER/killed until some steps are done, then kill rank 1."""
    launcher = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "tokenmill", "train", folder / "run", "--out", folder / "killed", "--device", "cpu",
         "--threads", "1"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_lines(folder / "killed" / "log.jsonl", 4, lambda: launcher.poll() is None)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    (rank_1,) = [
        int(child)
        for child in children
        if "\0RANK=1\0" in Path(f"/proc/{child}/environ").read_text()
    ]
    os.kill(rank_1, signal.SIGKILL)
    said = launcher.communicate(timeout=120)[1]
    assert launcher.returncode != 0
    (folder / "said-when-killed").write_text(said)


def wait_for_lines(log, lines, alive):
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_bytes().count(b"\n") >= lines):
        assert alive()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def outcomes(folder, out):
    """What each call of `train` came to, the same on both ranks."""
    texts = [(folder / f"{out}-{rank}.jsonl").read_text().splitlines() for rank in range(2)]
    ranks = [[json.loads(line) for line in lines] for lines in texts]
    assert ranks[0] == ranks[1]
    return ranks[0]


def close(line):
    """What may not depend on the number of processes, sums rounded."""
    return (
        line.phase, line.step, line.tokens, line.real_tokens, line.lr, line.skipped,
        pytest.approx(line.loss, rel=1e-5), pytest.approx(line.grad_norm, rel=1e-4),
    )  # fmt: skip


def same(line):
    return (
        line.phase, line.step, line.tokens, line.real_tokens, line.lr, line.skipped, line.loss,
        line.grad_norm,
    )  # fmt: skip


def assert_like_one_process(out, alone):
    assert [same(line) for line in steps(out)] == [close(line) for line in steps(alone)]
    found, expected = held_out(out), held_out(alone)
    assert [line.masked_tokens for line in found] == [line.masked_tokens for line in expected]
    assert [line.loss for line in found] == pytest.approx([line.loss for line in expected])


def test_two_copies_learn_what_one_process_learns(folder):
    assert_like_one_process(folder / "replicated", folder / "alone")


def test_a_signal_to_one_rank_stops_all_of_them_after_the_same_step(folder):
    stopped, finished = outcomes(folder, "replicated")
    assert stopped == [False, 3, {}]
    assert finished[:2] == [True, STEPS]


def test_one_process_two_that_shard_and_one_again_learn_the_same(folder):
    assert outcomes(folder, "sharded") == [[False, 7, {"all": pytest.approx(4.7, abs=0.5)}]]
    state = read_json(folder / "sharded" / "checkpoints" / "step-0000007" / "state.json")
    assert (state["world_size"], state["settings"]["training"]["shard"]) == (2, 2)
    assert train(folder / "run", out=folder / "sharded", device="cpu", threads=1).finished
    assert_like_one_process(folder / "sharded", folder / "alone")


def test_an_error_of_rank_0_is_raised_on_all_ranks(folder):
    texts = [json.loads((folder / f"locked-{rank}.jsonl").read_text()) for rank in range(2)]
    assert [kind for kind, _ in texts] == ["RunError", "RunError"]
    assert "another process trains into this folder" in texts[0][1]
    assert texts[1][1] == f"rank 1: {texts[0][1]}"


def test_only_rank_0_speaks(folder):
    first, second = json.loads((folder / "said").read_text())
    assert "421,604 parameters on 2 x cpu, attention by sequence" in first
    assert "Another process was asked to end: stopped after step 3, which is saved." in first
    assert "phase1 step" not in second
    assert "parameters" not in second


def test_a_sigkill_of_one_rank_ends_all_and_changes_no_loss(folder):
    said = (folder / "said-when-killed").read_text()
    place = r"(?:Read error|Connection closed by peer|Write error|Broken pipe)[^.]*[\d.]*[^.]*"
    why = rf"tokenmill train: another process has ended, and its own message says why \({place}\)\."
    assert re.search(why, said), said
    # Here a signal came between, there a kill: the same to the bit.
    straight = [facts(line) for line in steps(folder / "replicated")]
    resumed = [facts(line) for line in steps(folder / "killed")]
    assert set(resumed) == set(straight)
    assert resumed[-1] == straight[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer "
            "[10.0.0.2]:59008. This is typically caused by a remote worker crashing. GLHF!",
            "has ended, and its own message says why (Connection closed by peer [10.0.0.2]:59008).",
        ),
        (
            "[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting "
            "1800000ms for recv operation to complete",
            "does not answer (Timed out waiting 1800000ms for recv operation to complete). It hang",
        ),
        (
            "Timed out after 4 seconds waiting for clients. 1/2 clients joined.",
            "does not answer (Timed out after 4 seconds waiting for clients). It hangs, was stopp",
        ),
    ],
)  # fmt: skip
def test_what_torch_says_of_lost_processes_is_told_with_what_to_do(words, said):
    assert f"another process {said}" in _lost(RuntimeError(words))


def test_workers_without_room_are_refused_or_where_machines_may_join_told(monkeypatch, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": 1.0})
    _compare_resources({"CPU": 16, "GPU": 1})
    counts = "--ray: the workers take 8 CPUs and 8 GPUs, and Ray has 16 CPUs and 1 GPUs"
    with pytest.raises(RunError, match=rf"^{counts}\. Start fewer\.$"):
        _compare_resources({"CPU": 8, "GPU": 8})
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    _compare_resources({"CPU": 8, "GPU": 8})
    assert capsys.readouterr().err == f"{counts}; waiting for machines to join.\n"


@pytest.mark.filterwarnings("ignore:::ray")  # Ray's own deprecations
def test_ray_train_starts_the_same_function_and_hands_a_signal_on(folder, tmp_path, capfd):
    run = make_training_run(tmp_path / "run", steps={"phase1": 100_000})
    log = tmp_path / "run" / "training" / "log.jsonl"

    def ask() -> None:
        try:
            wait_for_lines(log, 1, lambda: True)
        finally:  # else training would go on for hours
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask, daemon=True).start()
    arguments = ["train", str(run), "--ray", "2", "--device", "cpu", "--set"]
    assert cli.main([*arguments, "training.eval_every_steps=1_000_000"]) == 130
    done = steps(log.parent)
    assert [line.step for line in done] == list(range(1, len(done) + 1))
    assert done[0].loss == steps(folder / "replicated")[0].loss
    name = f"step-{len(done):07d}"
    state = read_json(log.parent / "checkpoints" / name / "state.json")
    assert state["world_size"] == 2
    assert "SIGTERM: stopped after step" in capfd.readouterr().err


def test_other_ranks_print_no_summary(folder, monkeypatch, capsys):
    command = ["train", str(folder / "run"), "--out", str(folder / "alone"), "--device", "cpu"]
    for rank, printed in (("0", "phase2 step 6, "), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        assert cli.main(command) == 0
        assert capsys.readouterr().out.partition("6, ")[0] == printed.partition("6, ")[0]


def test_of_the_errors_of_rays_workers_the_one_that_made_the_others_fail_is_raised():
    mistake = RecipeError("a setting cannot be")
    failures = {0: RunError("another process has ended"), 1: mistake, 2: ValueError("x")}
    assert _original(WorkerGroupError("", failures)) is mistake
    died = _original(WorkerGroupError("worker 1 died", {1: ValueError("x")}))
    assert isinstance(died, RunError)
    assert "worker 1 died" in str(died)


def test_a_setting_of_the_build_cannot_be_changed_in_training(folder, capsys):
    command = ["train", str(folder / "run"), "--set", "packing.row_tokens=64"]
    assert cli.main(command) == 2
    assert "--set packing: expected training.KEY=VALUE" in capsys.readouterr().err
