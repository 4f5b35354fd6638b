"""Checkpoints on disk: complete or absent, whatever happens. `checkpoint_kills.py` kills."""

import json
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch
from checkpoint_kills import checkpoint, write

from tokenmill.errors import FormatError, ResumeError, RunError
from tokenmill.shards.files import read_json, write_json
from tokenmill.training import checkpoint as checkpoint_module
from tokenmill.training.checkpoint import CheckpointWriter, newest_checkpoint, read_checkpoint
from tokenmill.training.position import newest_position


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def steps(folder):
    return sorted(int(name.removeprefix("step-")) for name in names(folder))


def damage(folder, step, file="model.safetensors"):
    path = folder / f"step-{step:07d}" / file
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def test_what_was_written_is_read(tmp_path):
    written = checkpoint(7)
    write(tmp_path, written, keep=3)
    read = newest_checkpoint(tmp_path, pytest.fail)
    assert read.state == written.state
    assert read.state.versions["torch"] == torch.__version__
    for part in ("model", "optimizer", "ema"):
        expected, found = getattr(written, part), getattr(read, part)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
        file = tmp_path / "step-0000007" / f"{part}.safetensors"
        assert safetensors.torch.load_file(file).keys() == expected.keys()


def test_all_files_may_be_read_by_those_who_may_read_one(tmp_path):
    write(tmp_path, checkpoint(7), keep=3)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "step-0000007").iterdir()}
    assert len(modes) == 1


def test_a_training_without_a_mean_has_no_file_of_it(tmp_path):
    written = checkpoint(7)
    written.ema.clear()
    write(tmp_path, written, keep=3)
    assert not (tmp_path / "step-0000007" / "ema.safetensors").exists()
    assert read_checkpoint(tmp_path / "step-0000007").ema == {}


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert newest_checkpoint(tmp_path / "none", pytest.fail) is None
    assert newest_position(tmp_path / "none") is None


def test_training_goes_on_while_a_checkpoint_is_written_and_the_next_one_waits(
    tmp_path, monkeypatch
):
    begun, disk, sync = threading.Event(), threading.Event(), checkpoint_module._sync

    def slow_sync(path):
        begun.set()
        assert disk.wait(30)
        sync(path)

    monkeypatch.setattr(checkpoint_module, "_sync", slow_sync)
    with CheckpointWriter(tmp_path, keep=3) as writer:
        writer.save(checkpoint(1))
        assert begun.wait(30)
        writer.check()
        assert newest_checkpoint(tmp_path, pytest.fail) is None
        threading.Timer(0.05, disk.set).start()
        writer.save(checkpoint(2))
        assert steps_that_are_whole(tmp_path)[:1] == [1]
        writer.finish()
        assert steps_that_are_whole(tmp_path) == [1, 2]


def steps_that_are_whole(folder):
    return sorted(
        read_checkpoint(path).state.position.step
        for path in folder.glob("step-*")
        if path.suffix != ".part"
    )


def test_the_newest_ones_stay_also_beyond_seven_digits(tmp_path):
    write(tmp_path, *map(checkpoint, (9, 10, 9_999_999, 10_000_000)), keep=2)
    assert names(tmp_path) == ["step-10000000", "step-9999999"]
    assert newest_checkpoint(tmp_path, pytest.fail).state.position.step == 10_000_000


def test_those_whose_step_divides_stay_for_good_beside_the_newest(tmp_path):
    write(tmp_path, *map(checkpoint, (10, 15, 20, 30, 35)), keep=2, keep_every=20)
    assert steps(tmp_path) == [20, 30, 35]


def test_a_damaged_checkpoint_is_not_kept_in_place_of_a_good_one(tmp_path):
    write(tmp_path, *map(checkpoint, (10, 20, 30, 40)), keep=4)
    damage(tmp_path, 30)
    write(tmp_path, checkpoint(50), keep=3)
    assert steps(tmp_path) == [20, 30, 40, 50]  # whole are 50, 40, 20
    write(tmp_path, checkpoint(60), keep=2)
    assert steps(tmp_path) == [50, 60]


def test_damaged_checkpoints_behind_the_new_start_leave_with_the_first_good_one(tmp_path):
    write(tmp_path, *map(checkpoint, (10, 20, 30)), keep=3)
    damage(tmp_path, 20)
    damage(tmp_path, 30)
    assert newest_checkpoint(tmp_path, lambda line: None).state.position.step == 10
    write(tmp_path, checkpoint(15), keep=1)
    assert steps(tmp_path) == [15]
    assert newest_position(tmp_path) == ("phase1", 15)


@pytest.mark.parametrize("how", ["changed", "cut", "missing"])
@pytest.mark.parametrize(
    "file",
    [
        "model.safetensors", "ema.safetensors", "optimizer.safetensors",
        "state.json", "complete.json",
    ],
)  # fmt: skip
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_taken(tmp_path, file, how):
    write(tmp_path, checkpoint(1), checkpoint(2), keep=2)
    path = tmp_path / "step-0000002" / file
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        damage(tmp_path, 2, file)
    said = []
    assert newest_checkpoint(tmp_path, said.append).state.position.step == 1
    (line,) = said
    # A changed list of checksums shows as a file that differs from it.
    assert f"step-0000002/{'' if file == 'complete.json' else file}" in line
    assert line.endswith("Passed over for the checkpoint before it.")


@pytest.mark.parametrize(
    ("file", "reached"), [("state.json", 1), ("complete.json", 1), ("model.safetensors", 2)]
)
def test_the_position_is_that_of_the_newest_whole_state(tmp_path, file, reached):
    write(tmp_path, checkpoint(1), checkpoint(2), keep=2)
    (tmp_path / "step-0000002" / file).unlink()
    assert newest_position(tmp_path) == ("phase1", reached)


def test_a_list_of_checksums_that_misses_a_file_is_named_itself(tmp_path):
    write(tmp_path, checkpoint(1), keep=1)
    path = tmp_path / "step-0000001" / "complete.json"
    sums = read_json(path)
    del sums["model.safetensors"]
    write_json(path, sums)
    with pytest.raises(FormatError, match=r"complete.json: expected a checksum of model.safeten"):
        read_checkpoint(tmp_path / "step-0000001")


def test_training_does_not_start_anew_over_damaged_checkpoints(tmp_path):
    write(tmp_path, checkpoint(1), keep=3)
    damage(tmp_path, 1)
    with pytest.raises(ResumeError, match=r"damaged are step-0000001. Remove the folder"):
        newest_checkpoint(tmp_path, lambda line: None)
    damage(tmp_path, 1, "state.json")
    with pytest.raises(FormatError, match="no checkpoint's state is whole; damaged are step-00000"):
        newest_position(tmp_path)


def test_a_kill_at_any_operation_leaves_the_one_before_or_the_whole_new_one(tmp_path):
    script = Path(__file__).with_name("checkpoint_kills.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    within_a_file, *kills = map(json.loads, done.stdout.splitlines())
    assert within_a_file == {
        "killed": True, "torn": [3], "newest": 2, "then_whole": [2, 4], "parts": 0
    }  # fmt: skip
    assert len(kills) > 40
    assert [each["killed"] for each in kills] == [True] * (len(kills) - 1) + [False]
    newest = [each["newest"] for each in kills]
    assert newest == sorted(newest)
    assert set(newest) == {2, 3}
    for each in kills:
        assert set(each["torn"]) <= {3}  # which was damaged before; none that is half removed
        assert each["then_whole"] == [each["newest"], 4]
        assert each["parts"] == 0


def test_a_full_disk_is_told_with_what_is_needed_at_the_next_call(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with CheckpointWriter(tmp_path / "checkpoints", keep=2) as writer:
        writer.save(checkpoint(1))
        writer.finish()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
        try:
            writer.save(checkpoint(2, numbers=10_000_000))
            with pytest.raises(
                RunError,
                match=r"step-0000002: the checkpoint could not be written \(.*\)\. It takes 40\.0 "
                r"MB, and [\d.,]+ MB are free\. .* training goes on after step 1\.",
            ):
                writer.finish()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert names(tmp_path / "checkpoints") == ["step-0000001"]
        writer.save(checkpoint(2))
    assert steps(tmp_path / "checkpoints") == [1, 2]


def test_an_error_is_told_by_check_as_soon_as_it_is_known_and_only_once(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with CheckpointWriter(tmp_path / "checkpoints", keep=2) as writer:
        writer.save(checkpoint(1))
        assert writer._writing.exception(timeout=30)
        with pytest.raises(RunError, match="training goes on anew"):
            writer.check()
        writer.check()


def test_checkpoints_of_other_formats_are_refused(tmp_path):
    write(tmp_path, checkpoint(1), keep=2)
    path = tmp_path / "step-0000001"
    write_json(path / "state.json", {**read_json(path / "state.json"), "format_version": 3})
    sums = read_json(path / "complete.json")
    sums["state.json"] = checkpoint_module.sha256_file(path / "state.json")
    write_json(path / "complete.json", sums)
    with pytest.raises(ResumeError, match=r"step-0000001: expected .* format 2, found format 3"):
        newest_checkpoint(tmp_path, pytest.fail)
    (path / "model.safetensors").rename(path / "model.pt")
    with pytest.raises(ResumeError, match="format 2, found format 1, which another version"):
        newest_checkpoint(tmp_path, pytest.fail)


def test_the_position_is_known_without_torch():
    code = "import sys, tokenmill.training.position; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
