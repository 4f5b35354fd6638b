"""What a training asks of its process: determinism, a lock on its folder, an orderly stop."""

import contextlib
import fcntl
import gc
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

from tokenmill.errors import RunError
from tokenmill.shards.files import writable


@contextlib.contextmanager
def reproducible(device: torch.device, threads: int | None, everywhere: bool) -> Iterator[None]:
    """Deterministic algorithms where they cost little, on a CPU, and a fixed number of threads.

    Args:
        threads: CPU threads; None leaves torch's own number.
        everywhere: deterministic algorithms on a GPU too.
    """
    deterministic, before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    if everywhere:
        # cuBLAS reads it when it is first used; without it, its products are refused.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(everywhere or device.type == "cpu")
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(before)


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """Python's garbage collector leaves alone what is there already: walking through all modules
    and the model stops one rank, and so all, for a tenth of a second now and then."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """A lock on a folder, which the system lifts when the process ends, however it ends.

    A folder in which nothing was done leaves with it.

    Raises:
        RunError: another process trains into this folder, or it cannot be written.
    """
    path = folder / "lock"
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have removed it since it was opened.
            is_held = path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))
        except BlockingIOError:
            is_held = False
        if not is_held:
            file.seek(0)
            raise RunError(
                f"{folder}: another process trains into this folder ({file.read().decode()}). Wait "
                "for it, stop it, or take another folder."
            )
        with writable(folder):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        try:
            yield
        finally:
            if list(folder.iterdir()) == [path]:
                path.unlink()
                folder.rmdir()


class StopRequest:
    """Whether SIGTERM or SIGINT came. The first one asks; a second one acts as it would have.

    Not under torchrun: Ctrl-C and clusters signal it and its processes alike, and it hands on what
    it gets, so one wish comes twice. It kills what does not end in time. Rank 0 says at once that
    it has heard, for a step may take long.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        # Python lets only the main thread handle signals; elsewhere the caller has to.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal itself gave
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_first, self.signal = self.signal is None, signal.Signals(number).name
        is_handed_on = "TORCHELASTIC_RUN_ID" in os.environ
        if not is_handed_on:
            self.__exit__()
        if is_first and os.environ.get("RANK", "0") == "0":
            second = "" if is_handed_on else "; a second signal ends at once"
            text = f"{self.signal}: saves after the step under way{second}\n"
            with contextlib.suppress(OSError):
                os.write(2, text.encode())  # a print may be under way, and allows no other in it
