"""Engines: run a stage's function over many tasks, one task after the other or on Ray.

An engine yields receipts as tasks end, in any order; the order never reaches an output, because
outputs are named by the plan. The functions know nothing of engines, so both give the same bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from tokenmill.pipeline.lock import at_work
from tokenmill.pipeline.receipts import Receipt, Task

T = TypeVar("T", bound=Task)


class Engine(Protocol):
    """Whatever can run tasks."""

    def run(self, function: Callable[[T], Receipt], tasks: Sequence[T]) -> Iterator[Receipt]:
        """Run all tasks and yield their receipts as they end."""

    def close(self) -> None:
        """Give back what the engine holds."""


def run_task(function: Callable[[T], Receipt], task: T) -> Receipt:
    """Do a task while a lock tells the next build that a worker is still busy."""
    with at_work(task.run):
        return function(task)


class InlineEngine:
    """One task after the other in this process: for tests, for debugging, for small machines."""

    def run(self, function: Callable[[T], Receipt], tasks: Sequence[T]) -> Iterator[Receipt]:
        for task in tasks:
            yield run_task(function, task)

    def close(self) -> None:
        pass
