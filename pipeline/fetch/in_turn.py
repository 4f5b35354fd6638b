"""Which files come together, and how many may be there at once.

With `downloads: {keep: none}` files come in groups that fit the cap, are milled, and leave before
the next group comes. What leaves is known by its receipts: a file whose units are all milled is
not fetched again, and one that must be milled anew comes again. The price is that the network
rests while a group is milled, and the cores while one comes.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenmill.errors import RecipeError, RunError
from tokenmill.pipeline.fetch.limit import parse_bytes
from tokenmill.pipeline.fetch.stage import (
    FetchTask,
    PlanTask,
    fetched_files,
    known_plan,
    place_of,
)
from tokenmill.pipeline.plan import Unit, Unreadable, plan_units
from tokenmill.pipeline.receipts import Receipt, find_receipt
from tokenmill.pipeline.sources import InputFile, SourceConfig, SourceFile


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadConfig:
    """What becomes of fetched files."""

    keep: Literal["all", "none"] = "all"
    """none: a file leaves when all of its units are milled."""
    max_bytes: int | str = "100 GB"
    """With keep: none, the most that may be there at once, as 100 GB or a number."""

    def __post_init__(self) -> None:
        if parse_bytes(self.max_bytes) < 1:
            raise RecipeError(f"max_bytes must be positive, got {self.max_bytes}")


def fetch_tasks(
    run: Path, source: str, config: SourceConfig, files: Sequence[SourceFile]
) -> list[FetchTask]:
    """The tasks for a source's remote files, in the order of the plan."""
    return [
        FetchTask(run, source, tuple(group), config.storage_options)
        for group in _together(source, config, files)
    ]


def plan_task(task: FetchTask, receipt: Receipt, config: SourceConfig) -> PlanTask:
    """The plan of what a task has fetched."""
    files = tuple(fetched_files(task, receipt))
    return PlanTask(task.run, task.name, task.source, config, files)


@dataclass(frozen=True, slots=True)
class Far:
    """What is known of a source's remote files without asking for any of them."""

    units: list[Unit]
    unreadable: list[Unreadable]
    num_unknown: int
    """Files that must come before they can be planned."""
    unknown_bytes: int


def known_far(run: Path, source: str, config: SourceConfig, files: Sequence[SourceFile]) -> Far:
    """The units of those files of a source that came before, by their receipts."""
    units: list[Unit] = []
    unreadable: list[Unreadable] = []
    unknown = []
    for task in fetch_tasks(run, source, config, [file for file in files if file.remote]):
        receipt = find_receipt(task)
        known = known_plan(plan_task(task, receipt, config)) if receipt else None
        if known is None:
            unknown.append(task)
        else:
            units += known[0]
            unreadable += known[1]
    number = sum(len(task.files) for task in unknown)
    return Far(units, unreadable, number, sum(map(bytes_of, unknown)))


def bytes_of(task: FetchTask) -> int:
    """What its files take; a size that the store does not say counts nothing."""
    return sum(file.bytes or 0 for file in task.files)


def in_groups(tasks: Sequence[FetchTask], config: DownloadConfig) -> Iterator[list[FetchTask]]:
    """Tasks whose files may be there at once; all of them, where files stay.

    Raises:
        RunError: one task alone is too large.
    """
    if config.keep == "all":
        if tasks:
            yield list(tasks)
        return
    most = parse_bytes(config.max_bytes)
    group: list[FetchTask] = []
    total = 0
    for task in tasks:
        size = bytes_of(task)
        if size > most:
            raise RunError(
                f"{task.source}/{task.files[0].name}: {size / 1e9:,.2f} GB must be there at once, "
                f"downloads.max_bytes is {most / 1e9:,.2f} GB. Raise it."
            )
        if group and total + size > most:
            yield group
            group, total = [], 0
        group.append(task)
        total += size
    if group:
        yield group


def let_go(tasks: Sequence[FetchTask]) -> None:
    """Remove the files of tasks, and the folders that this leaves empty."""
    for task in tasks:
        top = task.run / "downloads"
        for file in task.files:
            place = place_of(task.run, task.source, file.name)
            place.unlink(missing_ok=True)
            for folder in place.parents:
                if folder == top or not folder.exists() or any(folder.iterdir()):
                    break
                folder.rmdir()


def remove_unfinished(run: Path) -> None:
    """Remove what came of files that are no longer wanted; only when all that are have come."""
    shutil.rmtree(run / "downloads" / ".coming", ignore_errors=True)


def _together(
    source: str, config: SourceConfig, files: Sequence[SourceFile]
) -> list[list[SourceFile]]:
    """Files by the units that read them: those of one unit come together, and those of two units
    that share a file. A unit is then planned from its own task as it is from all files."""
    if config.format == "parquet":
        return [[file] for file in files]
    expected = [InputFile(file.name, "", file.bytes or 0, "") for file in files]
    units, _ = plan_units(source, config, expected)
    first = {file.name: file.name for file in files}

    def find(name: str) -> str:
        while first[name] != name:
            first[name] = name = first[first[name]]
        return name

    for unit in units:
        for piece in unit.files[1:]:
            one, other = sorted([find(unit.files[0].name), find(piece.name)])
            first[other] = one
    groups: dict[str, list[SourceFile]] = {}
    for file in files:
        groups.setdefault(find(file.name), []).append(file)
    return list(groups.values())
