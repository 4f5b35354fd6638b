"""A process that writes a checkpoint, killed at every operation on files; prints what is left.

    python checkpoint_kills.py FOLDER    one JSON object a kill

The kills are SIGKILL, so that nothing is tidied up. The processes are forked, because importing
torch for each takes seconds, and sync nothing: the system outlives them.
"""

import itertools
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from tokenmill.errors import FormatError
from tokenmill.training.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    Position,
    State,
    newest_checkpoint,
    read_checkpoint,
)

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree"}
"""Of sys.addaudithook; each comes before what it names. fsync has none and is wrapped."""


def checkpoint(step, numbers=3):
    """One whose tensors tell its step."""
    return Checkpoint(
        state=State(
            position=Position(
                phase="phase1", phase_step=step, step=step, tokens=64 * step, real_tokens=60 * step
            ),
            loader={"step": step},
            settings={"a": 1},
            threads=2,
        ),
        model={"weight": torch.full((numbers,), float(step))},
        optimizer={"weight.exp_avg": torch.ones(3), "weight.step": torch.tensor(float(step))},
        ema={"weight": torch.full((3,), step + 0.5)},
    )


def write(folder, *checkpoints, **keep):
    with CheckpointWriter(folder, **keep) as writer:
        for each in checkpoints:
            writer.save(each)


def forked(function):
    child = os.fork()
    if child == 0:
        function()
        os._exit(0)
    return child


def write_and_die(folder, operation):
    """Be killed before this operation, counted from 0."""
    operations = itertools.count()

    def strike():
        if next(operations) == operation:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(lambda event, args: strike() if event in EVENTS else None)
    os.fsync = lambda descriptor: strike()
    write(folder, checkpoint(3), keep=2)


def kill_within_a_file(folder):
    """While a file of 200 MB is being written, of which some is there already."""
    child = forked(lambda: write(folder, checkpoint(3, 50_000_000), keep=2))
    part = folder / "step-0000003.part"
    while not part.exists() or sum(file.stat().st_size for file in part.iterdir()) < 10_000_000:
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return child


def whole_and_torn(folder):
    """Steps of checkpoints that can be read, and of those that cannot."""
    whole, torn = [], []
    for path in sorted(folder.glob("step-???????")):
        try:
            whole.append(read_checkpoint(path).state.position.step)
        except FormatError:
            torn.append(int(path.name[5:]))
    return whole, torn


def left(folder, child):
    """What the next start makes of it."""
    killed = os.waitpid(child, 0)[1] != 0
    torn = whole_and_torn(folder)[1]
    newest = newest_checkpoint(folder, lambda line: None).state.position.step
    write(folder, checkpoint(4), keep=2)
    return {
        "killed": killed,
        "torn": torn,
        "newest": newest,
        "then_whole": whole_and_torn(folder)[0],
        "parts": len(list(folder.glob("*.part"))),
    }


def main(top):
    scene = top / "scene"
    write(scene, checkpoint(1), checkpoint(2), checkpoint(3), keep=3)
    (scene / "step-0000003" / "model.safetensors").write_bytes(b"damaged")
    (scene / "step-0000009.part").mkdir()
    (scene / "step-0000009.part" / "model.safetensors").write_bytes(b"begun")
    folder = top / "within"
    shutil.copytree(scene, folder)
    print(json.dumps(left(folder, kill_within_a_file(folder))))
    for operation in itertools.count():
        folder = top / str(operation)
        shutil.copytree(scene, folder)
        after = left(folder, forked(lambda f=folder, n=operation: write_and_die(f, n)))
        print(json.dumps(after))
        if not after["killed"]:
            break


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None
    main(Path(sys.argv[1]))
