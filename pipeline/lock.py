"""One build at a time in a run: advisory locks that the kernel releases when their holder dies.

Workers may outlive a killed build by some seconds. Each holds a lock of its own while it works,
and the next build waits for those, so that no late write of theirs meets its own.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from tokenmill.errors import RunError
from tokenmill.shards.files import writable


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run's lock for the length of the block.

    Raises:
        RunError: the folder cannot be written, holds other things, or another build is at work.
    """
    path = run / "lock"
    # generations.json is an input of a build, and may stand there before the first one.
    others = {entry.name for entry in run.iterdir()} - {"generations.json"} if run.is_dir() else ()
    if others and not path.exists() and "run.json" not in others:
        raise RunError(
            f"{run}: the folder holds other things and no run. Choose a new or empty --out."
        )
    with writable(run):
        run.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RunError(
                f"{run}: another build is at work in it ({holder}). Wait for it, or stop it."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        with (run / "workers.lock").open("a") as workers:
            fcntl.flock(workers, fcntl.LOCK_EX)  # until the last worker of a killed build is gone
        yield


@contextlib.contextmanager
def at_work(run: Path) -> Iterator[None]:
    """Held by a worker while it does a task of the run."""
    with (run / "workers.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
