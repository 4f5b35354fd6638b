"""Arrival: the units of all sources, with every file that they need at hand, or milled already.

Files of this machine are hashed where they are. Remote ones come to the run; where downloads do not
stay, each group is milled as it comes and leaves, and its units are known by their receipts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tokenmill.pipeline.corpus import Corpus
from tokenmill.pipeline.fetch.in_turn import fetch_tasks, in_groups, let_go, remove_unfinished
from tokenmill.pipeline.fetch.stage import (
    OPENED,
    FetchTask,
    PlanTask,
    are_there,
    fetch,
    fetched_files,
    known_plan,
    plan_fetched,
)
from tokenmill.pipeline.generations import Generations
from tokenmill.pipeline.identify import identify, identify_tasks, input_files
from tokenmill.pipeline.mill import MillTask
from tokenmill.pipeline.mill_tokens import TokensTask, mill_unit
from tokenmill.pipeline.plan import Unit, Unreadable, check_ids, plan_units
from tokenmill.pipeline.receipts import find_receipt, sweep
from tokenmill.pipeline.sample import Draw
from tokenmill.pipeline.sources import InputFile, SourceFile
from tokenmill.pipeline.stages import StageRunner

Listed = Mapping[str, Sequence[SourceFile]]
"""The files of each source."""
MillTasks = Callable[[Sequence[Unit]], list[MillTask | TokensTask]]
"""What the mill has to do for some units."""


class Arrival:
    """Has the inputs of one build come."""

    def __init__(
        self,
        corpus: Corpus,
        run: Path,
        stage: StageRunner,
        mill_tasks: MillTasks,
        draws: Mapping[str, Draw],
        generations: Generations,
    ) -> None:
        """draws: what was drawn of each source; empty: everything."""
        self._corpus, self._run, self._stage = corpus, run, stage
        self._mill_tasks, self._draws = mill_tasks, draws
        self._generations = generations

    def units(self, listed: Listed) -> tuple[list[Unit], list[Unreadable]]:
        """The units of all sources, generation by generation and in their order, and the files that
        cannot be opened."""
        near = [
            task
            for name, files in listed.items()
            for task in identify_tasks(self._run, name, files)
        ]
        receipts = self._stage("identify", identify, near)
        far = self._fetch(listed)
        units: list[Unit] = []
        unreadable: list[Unreadable] = []
        files: dict[str, list[list[InputFile]]] = {}
        for name, source in self._corpus.sources.items():
            mine = [
                file
                for task in near
                if task.source == name
                for file in input_files(task, receipts[task.name])
            ]
            if source.format not in OPENED:
                tasks = [task for each in far[name] for task in each]
                mine += [file for task in tasks for file in self._fetched(task)]
            mine.sort(key=lambda file: file.name)
            files[name] = self._generations.split(name, mine)
        for number in range(len(self._generations.generations)):
            for name, source in self._corpus.sources.items():
                earlier = [file for part in files[name][:number] for file in part]
                opened = far[name][number] if source.format in OPENED else []
                for planned, broken in (
                    plan_units(name, source, files[name][number], earlier),
                    *(self._known_units(task) or ([], []) for task in opened),
                ):
                    units += [replace(unit, generation=number) for unit in planned]
                    unreadable += broken
        check_ids(units)
        if self._draws:
            units = [unit for unit in units if self._draws[unit.source].has(unit)]
        return units, unreadable

    def _fetch(self, listed: Listed) -> dict[str, list[list[FetchTask]]]:
        """Have what is remote and not milled yet; where files do not stay, mill it too.

        Returns:
            The tasks of each source, generation by generation; afterwards the units of each are
            known, and milled or at hand.
        """
        of_source = {
            name: [
                fetch_tasks(self._run, name, source, files)
                for files in self._generations.split(
                    name, [file for file in listed[name] if file.remote]
                )
            ]
            for name, source in self._corpus.sources.items()
        }
        tasks = [task for parts in of_source.values() for part in parts for task in part]
        for stage in ("fetch", "plan"):
            sweep(self._run, stage, [task.name for task in tasks])
        todo = [task for task in tasks if not self._is_milled(task)]
        for group in in_groups(todo, self._corpus.downloads):
            absent = [task for task in group if not are_there(self._fetched(task))]
            self._stage.work("fetch", fetch, absent, num_done=len(group) - len(absent))
            for task in group:
                if self._known_units(task) is None:
                    plan_fetched(self._plan_task(task))
            if self._corpus.downloads.keep == "none":
                self._stage.work(
                    "mill", mill_unit, [t for task in group for t in self._to_mill(task)]
                )
                let_go(group)
        remove_unfinished(self._run)
        if self._corpus.downloads.keep == "none":
            let_go(tasks)
        return of_source

    def _fetched(self, task: FetchTask) -> list[InputFile]:
        """What is known of a task's files; nothing before they have come once."""
        receipt = find_receipt(task)
        return fetched_files(task, receipt) if receipt else []

    def _plan_task(self, task: FetchTask) -> PlanTask:
        config = self._corpus.sources[task.source]
        return PlanTask(self._run, task.name, task.source, config, tuple(self._fetched(task)))

    def _known_units(self, task: FetchTask) -> tuple[list[Unit], list[Unreadable]] | None:
        """The units of a task's files by the receipts alone."""
        return known_plan(self._plan_task(task)) if find_receipt(task) else None

    def _is_milled(self, task: FetchTask) -> bool:
        known = self._known_units(task)
        return known is not None and not self._to_mill(task)

    def _to_mill(self, task: FetchTask) -> list[MillTask | TokensTask]:
        """What the mill still has to do for a task's files."""
        units, _ = self._known_units(task) or ([], [])
        if self._draws:
            units = [unit for unit in units if self._draws[unit.source].has(unit)]
        return [
            mill_task for mill_task in self._mill_tasks(units) if find_receipt(mill_task) is None
        ]
