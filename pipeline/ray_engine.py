"""The Ray engine: one Ray task a unit of work. The only file that imports Ray.

At most a few tasks a worker are in flight; a result is a receipt, some kilobytes, and data goes
to disk. A task whose worker or machine dies is tried again, MAX_ATTEMPTS times in all, with more
memory booked each time; what a task itself raises ends the build at once, because it would raise
it again. A unit that keeps killing its workers ends the build by its name: it is not halved yet.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from tokenmill.errors import RunError, TokenmillError
from tokenmill.pipeline.engine import run_task
from tokenmill.pipeline.receipts import Receipt, Task

T = TypeVar("T", bound=Task)

TASK_BYTES = 1 << 30
"""Memory that is booked for a second attempt; the third gets twice as much."""
MAX_ATTEMPTS = 3
IN_FLIGHT = 2
"""Tasks in flight for each worker: one at work, one waiting."""
OBJECT_STORE_BYTES = 128 << 20
"""Receipts only; the default would take 30 % of the memory."""
WORKER_ENVIRONMENT = {
    # One task is one core; libraries that start a thread for every core would fight over them.
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class RayEngine:
    """Tasks on the cores of this machine, or of the cluster at an address."""

    def __init__(self, *, workers: int | None = None, address: str | None = None) -> None:
        """Start Ray on this machine, or join the cluster at `address`.

        Args:
            workers: tasks at work at once; all cores of the machine or cluster by default.
        """
        # Ray would send its usage report over the network.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address is None:
            # Local workers inherit this process's environment; one of their own would make Ray
            # start them anew.
            os.environ.update(WORKER_ENVIRONMENT)
            options: dict[str, Any] = {
                "num_cpus": workers,
                "object_store_memory": OBJECT_STORE_BYTES,
                "include_dashboard": False,
            }
        else:
            options = {"runtime_env": {"env_vars": WORKER_ENVIRONMENT}}
        try:
            ray.init(
                address=address or "local",
                logging_level=logging.ERROR,
                log_to_driver=False,
                **options,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RunError(
                f"Ray did not start or answer ({error}). Check --address, or use --engine inline."
            ) from None
        self.workers = workers or int(ray.cluster_resources().get("CPU", 1))

    def run(self, function: Callable[[T], Receipt], tasks: Sequence[T]) -> Iterator[Receipt]:
        remote = ray.remote(run_task)
        waiting = [(task, 1) for task in reversed(tasks)]
        flying: dict[Any, tuple[T, int]] = {}
        while waiting or flying:
            while waiting and len(flying) < IN_FLIGHT * self.workers:
                task, attempt = waiting.pop()
                booked = self._book(attempt)
                # Ray's own retries would repeat a task with the memory that it died of.
                options = remote.options(num_cpus=1, max_retries=0, memory=booked)
                flying[options.remote(function, task)] = (task, attempt)
            done, _ = ray.wait(list(flying), num_returns=1)
            for reference in done:
                task, attempt = flying.pop(reference)
                try:
                    yield ray.get(reference)
                except (WorkerCrashedError, OutOfMemoryError, NodeDiedError) as error:
                    if attempt == MAX_ATTEMPTS:
                        raise RunError(_crash(task, attempt, error)) from None
                    waiting.append((task, attempt + 1))
                except RayTaskError as error:
                    raise _original(error) from None
                except RayError as error:
                    raise RunError(_crash(task, attempt, error)) from None

    def close(self) -> None:
        ray.shutdown()

    def _book(self, attempt: int) -> int | None:
        """Memory for an attempt, never more than a machine has: such a task would wait for ever."""
        if attempt == 1:
            return None
        largest = max(int(node["Resources"].get("memory", 0)) for node in ray.nodes())
        return min(TASK_BYTES << (attempt - 2), largest)


def _crash(task: Task, attempt: int, error: Exception) -> str:
    reason = str(error).splitlines()[0]
    return (
        f"{task.stage} {task.name}: its worker died {attempt} times ({reason}). "
        "Look for memory or a broken input, then run again; what is done is kept."
    )


def _original(error: RayTaskError) -> Exception:
    """Our own errors, and the system's, as they were raised; the rest keeps the worker's
    traceback."""
    cause = error.cause
    return cause if isinstance(cause, (TokenmillError, OSError)) else error
