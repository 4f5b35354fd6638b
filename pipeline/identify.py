"""Identify: the SHA-256 of every local file, so that later stages depend on bytes and not on dates.

A file is read again only when its path, size or modification time changed. Many small files are
one task.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tokenmill.pipeline.receipts import Receipt, begin, finish
from tokenmill.pipeline.sources import InputFile, SourceFile
from tokenmill.shards.files import sha256_file

TASK_BYTES = 512 << 20
TASK_FILES = 2000
VERSION = 1


@dataclass(frozen=True, slots=True)
class IdentifyTask:
    """Some files of a source."""

    run: Path
    source: str
    number: int
    files: tuple[tuple[str, str, int, int], ...]
    """(name, path, bytes, modification time in nanoseconds) of each."""

    stage: ClassVar[str] = "identify"

    @property
    def name(self) -> str:
        return f"{self.source}/{self.number:05d}"

    @property
    def parts(self) -> dict[str, Any]:
        return {"stage": VERSION, "files": self.files}


def identify_tasks(run: Path, source: str, files: Sequence[SourceFile]) -> list[IdentifyTask]:
    """The tasks for a source's local files, in their order."""
    local = [(file.name, Path(file.address)) for file in files if not file.remote]
    return [
        IdentifyTask(run, source, number, tuple(chunk))
        for number, chunk in enumerate(_chunks(local))
    ]


def identify(task: IdentifyTask) -> Receipt:
    """Hash the files of a task; the hashes stand in the receipt."""
    started = begin(task)
    hashes = [sha256_file(Path(path)) for _, path, _, _ in task.files]
    counts = {"files": len(hashes), "bytes": sum(size for _, _, size, _ in task.files)}
    return finish(task, (), counts, started, {"sha256": hashes})


def input_files(task: IdentifyTask, receipt: Receipt) -> list[InputFile]:
    """The task's files with their hashes."""
    return [
        InputFile(name, path, size, sha256, modified)
        for (name, path, size, modified), sha256 in zip(
            task.files, receipt.details["sha256"], strict=True
        )
    ]


def _chunks(files: list[tuple[str, Path]]) -> Iterator[list[tuple[str, str, int, int]]]:
    chunk: list[tuple[str, str, int, int]] = []
    total = 0
    for name, path in files:
        status = path.stat()
        chunk.append((name, str(path), status.st_size, status.st_mtime_ns))
        total += status.st_size
        if total >= TASK_BYTES or len(chunk) >= TASK_FILES:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk
