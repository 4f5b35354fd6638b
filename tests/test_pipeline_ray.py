"""The Ray engine, on real workers: it tries again what died, and stops at what raises."""

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tokenmill.errors import RunError, SourceError
from tokenmill.pipeline.ray_engine import RayEngine
from tokenmill.pipeline.receipts import Receipt


def chore(run, name, *, deaths=0, raises=False):
    """A task that says what is to become of its worker; of a class that workers can import."""
    return SimpleNamespace(run=run, name=name, deaths=deaths, raises=raises, stage="test", parts={})


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    engine = RayEngine(workers=2)
    yield engine
    engine.close()


def make_function():
    """Defined inside, so that workers get it by value; they cannot import the tests."""

    def work(task):
        marks = task.run / task.name
        marks.mkdir(exist_ok=True)
        if len(list(marks.iterdir())) < task.deaths:
            (marks / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if task.raises:
            raise SourceError(f"{task.name}: expected a sound file, found none")
        return Receipt(
            stage=task.stage, name=task.name, key="", parts={}, outputs=(), counts={}, details={},
            seconds=0.0, versions={},
        )  # fmt: skip

    return work


def test_a_task_whose_worker_is_killed_is_tried_again(engine, tmp_path):
    tasks = [chore(tmp_path, f"unit-{i}", deaths=i % 3) for i in range(6)]
    names = {receipt.name for receipt in engine.run(make_function(), tasks)}
    assert names == {task.name for task in tasks}


def test_a_task_whose_workers_always_die_ends_the_build_by_name(engine, tmp_path):
    tasks = [chore(tmp_path, "poison", deaths=99)]
    with pytest.raises(RunError, match=r"test poison: its worker died 3 times"):
        list(engine.run(make_function(), tasks))


def test_an_error_of_ours_arrives_as_it_was_raised(engine, tmp_path):
    with pytest.raises(SourceError, match="unit: expected a sound file, found none"):
        list(engine.run(make_function(), [chore(tmp_path, "unit", raises=True)]))
