"""The fetch stage: remote files into RUN/downloads/<source>/<name>, and a receipt of their hashes.

A task is the files that a unit may need at once: one file, or a run of small ones. The receipt
names no outputs, because a file may leave when all of its units are milled; that its hash is known
is enough to plan and to see that nothing changed. Its key holds what the store says of the bytes
(the checksum, or the ETag and the address), not the commit or the host.

Where a file must be opened to plan its units, the plan is a receipt too: it takes the file to make
it, and none to know it.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tokenmill.errors import SourceError
from tokenmill.pipeline import plan
from tokenmill.pipeline.fetch.address import shown
from tokenmill.pipeline.fetch.download import download
from tokenmill.pipeline.fetch.listing import store_of
from tokenmill.pipeline.plan import Unit, Unreadable, plan_units
from tokenmill.pipeline.receipts import Receipt, begin, find_receipt, finish
from tokenmill.pipeline.sources import InputFile, SourceConfig, SourceFile, name_hash
from tokenmill.shards.settings import read_settings, to_mapping

VERSION = 1
PLAN_VERSION = 1
OPENED = ("parquet", "tokens")
"""Formats whose files are opened to plan them; of the others, names and sizes are enough."""


@dataclass(frozen=True, slots=True)
class FetchTask:
    """Some files of a source that are fetched, planned and let go together."""

    run: Path
    source: str
    files: tuple[SourceFile, ...]
    storage_options: Mapping[str, Any]

    stage: ClassVar[str] = "fetch"

    @property
    def name(self) -> str:
        first = self.files[0].name
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", first.rpartition("/")[2])[:40]
        return f"{self.source}/{stem}-{name_hash(self.source, first):016x}"

    @property
    def parts(self) -> dict[str, Any]:
        return {"stage": VERSION, "files": [_described(file) for file in self.files]}


def fetch(task: FetchTask) -> Receipt:
    """Bring the files of a task to the run."""
    started = begin(task)
    found: list[tuple[str, int, int]] = []
    read = 0
    for file in task.files:
        target = place_of(task.run, task.source, file.name)
        done = download(file, store_of(file, task.storage_options), _part_of(task, file), target)
        read += done.read
        found.append((done.sha256, done.bytes, target.stat().st_mtime_ns))
    counts = {"files": len(found), "bytes": sum(size for _, size, _ in found), "read_bytes": read}
    return finish(task, (), counts, started, {"files": found})


def place_of(run: Path, source: str, name: str) -> Path:
    """Where a fetched file stands.

    Raises:
        SourceError: the store lists a name that no file system can hold.
    """
    if any(len(part.encode(errors="surrogateescape")) > 255 for part in name.split("/")):
        raise SourceError(
            f"sources.{source}: {name[:80]}...: a name of more than 255 bytes. "
            "Leave the file out with patterns or a glob."
        )
    return run / "downloads" / source / name


def fetched_files(task: FetchTask, receipt: Receipt) -> list[InputFile]:
    """The files of a task with their hashes, whether they are still there or not."""
    return [
        InputFile(file.name, str(place_of(task.run, task.source, file.name)), size, sha256, mtime)
        for file, (sha256, size, mtime) in zip(task.files, receipt.details["files"], strict=True)
    ]


def are_there(files: Sequence[InputFile]) -> bool:
    """Whether fetched files stand in the run as they were fetched; false for none."""
    for file in files:
        try:
            status = Path(file.path).stat()
        except OSError:
            return False
        if (status.st_size, status.st_mtime_ns) != (file.bytes, file.modified):
            return False
    return len(files) > 0


@dataclass(frozen=True, slots=True)
class PlanTask:
    """The units of fetched files, planned once."""

    run: Path
    fetch_name: str
    source: str
    config: SourceConfig
    files: tuple[InputFile, ...]

    stage: ClassVar[str] = "plan"

    @property
    def name(self) -> str:
        return self.fetch_name

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "stage": [PLAN_VERSION, plan.UNIT_BYTES],
            "source": self.config.reading(),
            "files": [(file.name, file.bytes, file.sha256) for file in self.files],
        }


def known_plan(task: PlanTask) -> tuple[list[Unit], list[Unreadable]] | None:
    """The units of a task, if they can be known without its files."""
    if task.config.format not in OPENED:
        return plan_units(task.source, task.config, task.files)
    receipt = find_receipt(task)
    if receipt is None:
        return None
    where = f"receipts/plan/{task.name}"
    by_name = {file.name: file for file in task.files}
    units = []
    for unit in receipt.details["units"]:
        for piece in unit["files"]:  # the place and date are those of the file as it is now
            piece["file"] = to_mapping(by_name[piece["file"]])
        units.append(read_settings(Unit, unit, where))
    lost = [read_settings(Unreadable, file, where) for file in receipt.details["unreadable"]]
    return units, lost


def plan_fetched(task: PlanTask) -> tuple[list[Unit], list[Unreadable]]:
    """Plan the units of files that are there, and remember them."""
    started = begin(task)
    units, unreadable = plan_units(task.source, task.config, task.files)
    kept = []
    for unit in map(to_mapping, units):
        for piece in unit["files"]:
            piece["file"] = piece["file"]["name"]
        kept.append(unit)
    details = {"units": kept, "unreadable": [to_mapping(file) for file in unreadable]}
    finish(task, (), {"units": len(units)}, started, details)
    return units, unreadable


def _part_of(task: FetchTask, file: SourceFile) -> Path:
    name = hashlib.sha256(file.name.encode(errors="surrogateescape")).hexdigest()[:32]
    return task.run / "downloads" / ".coming" / task.source / f"{name}.bytes"


def _described(file: SourceFile) -> list[Any]:
    """What decides whether a file is fetched again."""
    if file.checksum:
        return [file.name, file.bytes, file.checksum]
    return [file.name, file.bytes, file.version, shown(file.address)]
