"""One build at a time in a run: an advisory lock that the kernel releases when its holder dies."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from tokenmill.errors import RunError


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run's lock for the length of the block.

    Raises:
        RunError: the folder cannot be written, or another build holds the lock.
    """
    path = run / "lock"
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise RunError(
            f"{run}: cannot write there ({error.strerror}). Choose another --out."
        ) from None
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
        yield
