import pytest
import torch

from tokenmill.errors import ResumeError
from tokenmill.training import checkpoint as checkpoint_module
from tokenmill.training.checkpoint import (
    Checkpoint,
    Position,
    State,
    newest_checkpoint,
    write_checkpoint,
)


def checkpoint(step: int) -> Checkpoint:
    position = Position(
        phase="phase1", phase_step=step, step=step, tokens=64 * step, real_tokens=60 * step
    )
    return Checkpoint(
        state=State(position=position, loader={"step": step}, settings={"a": 1}, threads=2),
        model={"weight": torch.full((3,), float(step))},
        optimizer={"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_read(tmp_path):
    written = checkpoint(7)
    path = write_checkpoint(tmp_path, written, keep=3)
    assert path == tmp_path / "step-0000007"
    read = newest_checkpoint(tmp_path, "cpu", pytest.fail)
    assert read.state == written.state
    assert torch.equal(read.model["weight"], written.model["weight"])
    assert read.optimizer["param_groups"] == [{"lr": 0.1}]


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert newest_checkpoint(tmp_path / "none", "cpu", pytest.fail) is None


def test_the_newest_ones_stay_also_beyond_seven_digits(tmp_path):
    for step in (9, 10, 9_999_999, 10_000_000):
        write_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert names(tmp_path) == ["step-10000000", "step-9999999"]
    assert newest_checkpoint(tmp_path, "cpu", pytest.fail).state.position.step == 10_000_000


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


WRITES = 8
"""model, optimizer, state, three checksums, complete.json; then the folder has its name."""


@pytest.mark.parametrize("killed_at", range(WRITES))
def test_a_kill_at_any_write_leaves_the_older_checkpoint_or_the_whole_new_one(
    tmp_path, monkeypatch, killed_at
):
    write_checkpoint(tmp_path, checkpoint(1), keep=2)
    calls = iter(range(WRITES))

    def dying(function):
        def call(*args):
            if next(calls) == killed_at:
                raise Killed
            return function(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", dying(torch.save))
        for name in ("write_json", "sha256_file", "_sync_folder"):
            patch.setattr(checkpoint_module, name, dying(getattr(checkpoint_module, name)))
        with pytest.raises(Killed):
            write_checkpoint(tmp_path, checkpoint(2), keep=2)
    newest = newest_checkpoint(tmp_path, "cpu", pytest.fail)
    assert newest.state.position.step == (2 if killed_at == WRITES - 1 else 1)

    write_checkpoint(tmp_path, checkpoint(3), keep=5)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("file", ["model.pt", "optimizer.pt", "state.json", "complete.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_taken(tmp_path, file, damage):
    write_checkpoint(tmp_path, checkpoint(1), keep=2)
    path = write_checkpoint(tmp_path, checkpoint(2), keep=2) / file
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-9] if damage == "cut" else data[:-9] + b"?" + data[-8:])
    said = []
    assert newest_checkpoint(tmp_path, "cpu", said.append).state.position.step == 1
    (line,) = said
    # A damaged list of checksums shows as a file that differs from it.
    assert f"step-0000002/{'' if file == 'complete.json' else file}" in line
    assert line.endswith("Passed over for the checkpoint before it.")


def test_a_damaged_checkpoint_is_written_over_when_its_step_comes_again(tmp_path):
    write_checkpoint(tmp_path, checkpoint(1), keep=3)
    (write_checkpoint(tmp_path, checkpoint(2), keep=3) / "model.pt").write_bytes(b"")
    write_checkpoint(tmp_path, checkpoint(2), keep=3)
    assert newest_checkpoint(tmp_path, "cpu", pytest.fail).state.position.step == 2


def test_training_does_not_start_anew_over_damaged_checkpoints(tmp_path):
    (write_checkpoint(tmp_path, checkpoint(1), keep=3) / "model.pt").write_bytes(b"")
    with pytest.raises(ResumeError, match=r"damaged are step-0000001. Remove the folder"):
        newest_checkpoint(tmp_path, "cpu", lambda line: None)


def test_a_checkpoint_that_holds_code_is_not_run(tmp_path):
    path = write_checkpoint(tmp_path, checkpoint(1), keep=3)
    torch.save({"weight": pytest.fail}, path / "model.pt")
    with pytest.raises(ResumeError):
        newest_checkpoint(tmp_path, "cpu", lambda line: None)
