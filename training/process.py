"""What a training asks of its process: determinism, a lock on its folder, an orderly stop."""

import contextlib
import fcntl
import gc
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

from tokenmill.errors import RunError


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

    Raises:
        RunError: another process trains into this folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{folder}: another process trains into this folder. Wait for it, or take another."
            ) from None
        yield


class StopRequest:
    """Whether SIGTERM or SIGINT came. The first one asks; a second one acts as it would have."""

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
        self.signal = signal.Signals(number).name
        self.__exit__()
