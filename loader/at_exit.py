"""Threads that have ended when the interpreter does.

A daemon thread does not keep a process alive, but one that still runs when the interpreter goes is
killed wherever it is, and in the middle of C++ that aborts the process. So daemons are told to end
first, and are given a moment.
"""

import atexit
import threading
import weakref
from typing import Protocol

PATIENCE_SECONDS = 2.0
"""More than a batch takes; a thread that a silent server holds is left behind."""


class Worker(Protocol):
    """Has threads."""

    threads: list[threading.Thread]

    def end(self) -> None:
        """Tell them to end."""


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


def end_at_exit(worker: Worker) -> None:
    """Have a worker's threads end before the interpreter does."""
    _workers.add(worker)


@atexit.register
def _end_all() -> None:
    workers = list(_workers)
    for worker in workers:
        worker.end()
    for worker in workers:
        for thread in worker.threads:
            thread.join(PATIENCE_SECONDS)
