"""The stages of a run: tasks that are done are known by their receipts, the rest is done now."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tokenmill.pipeline.engine import Engine
from tokenmill.pipeline.progress import show_progress
from tokenmill.pipeline.receipts import Receipt, Task, find_receipt, sweep

T = TypeVar("T", bound=Task)


class StageRunner:
    """Runs stages of one run on one engine; a call is a whole stage."""

    def __init__(self, run: Path, engine: Engine) -> None:
        self._run, self._engine = run, engine

    def __call__(
        self, stage: str, function: Callable[[T], Receipt], tasks: Sequence[T], below: str = ""
    ) -> dict[str, Receipt]:
        """The receipts of all tasks by name: old ones that still hold, and new ones."""
        sweep(self._run, stage, [task.name for task in tasks], below)
        if not tasks:
            return {}
        receipts = {task.name: find_receipt(task) for task in tasks}
        todo = [task for task in tasks if receipts[task.name] is None]
        done = self.work(stage, function, todo, num_done=len(tasks) - len(todo))
        receipts |= {receipt.name: receipt for receipt in done}
        return {name: receipt for name, receipt in receipts.items() if receipt is not None}

    def work(
        self, stage: str, function: Callable[[T], Receipt], todo: Sequence[T], num_done: int = 0
    ) -> list[Receipt]:
        """Do some tasks of a stage, whatever becomes of the others."""
        done = self._engine.run(function, todo)
        return list(show_progress(stage, len(todo), num_done, done))
