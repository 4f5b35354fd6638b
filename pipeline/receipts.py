"""Receipts: what a stage did with a unit, keyed by everything that decides the outcome.

    RUN/receipts/<stage>/<name>.json      taken back first, written last

A unit whose receipt has the right key is done; any other is done anew. So a killed run goes on,
and a changed setting re-does what depends on it and nothing else. Seconds and versions are for
people; no key holds them.
"""

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numba
import numpy
import pyarrow
import tokenizers

from tokenmill import __version__
from tokenmill.errors import FormatError, RecipeError
from tokenmill.shards.files import read_json, sha256_file, write_json
from tokenmill.shards.listing import Output
from tokenmill.shards.settings import read_settings, to_mapping


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """One unit of one stage, done."""

    stage: str
    name: str
    key: str
    parts: dict[str, str]
    """What the key was made of, each part hashed: they tell what changed."""
    outputs: tuple[Output, ...]
    counts: dict[str, int]
    """Documents, tokens, bytes, reasons: whatever the stage counts. Added up for the report."""
    details: dict[str, Any]
    """What the next stage must know beyond counts."""
    seconds: float
    versions: dict[str, str]


class Task(Protocol):
    """What every stage's task has besides its own."""

    @property
    def run(self) -> Path: ...
    @property
    def stage(self) -> str: ...
    @property
    def name(self) -> str:
        """The unit, or whatever else the task stands for; also names its outputs."""

    @property
    def parts(self) -> Mapping[str, Any]:
        """All that decides what it writes, by a name for people: settings, input hashes, keys."""


def key_of(task: Task) -> str:
    """One hash over all that decides what a task writes."""
    return _hash([task.stage, _digests(task)])


def begin(task: Task) -> float:
    """Take back the task's receipt before its outputs are written over; the time it is now."""
    _path(task.run, task.stage, task.name).unlink(missing_ok=True)
    return time.monotonic()


def finish(
    task: Task,
    outputs: Iterable[Output],
    counts: Mapping[str, int],
    started: float,
    details: Mapping[str, Any] | None = None,
) -> Receipt:
    """Write the receipt of a task whose outputs are whole; `started` is what begin gave."""
    receipt = Receipt(
        stage=task.stage,
        name=task.name,
        key=key_of(task),
        parts=_digests(task),
        outputs=tuple(outputs),
        counts=dict(counts),
        details=dict(details or {}),
        seconds=time.monotonic() - started,
        versions=_versions(),
    )
    write_json(_path(task.run, task.stage, task.name), to_mapping(receipt))
    return receipt


def find_receipt(task: Task) -> Receipt | None:
    """The receipt of a task that is done under its present key, its outputs in place; else None."""
    receipt = _read(task)
    if receipt is None or receipt.key != key_of(task):
        return None
    for output in receipt.outputs:
        file = task.run / output.path
        if not file.exists() or file.stat().st_size != output.bytes:
            return None
    return receipt


def why_not_done(task: Task) -> str:
    """What a plan says of a task that find_receipt does not find."""
    receipt = _read(task)
    if receipt is None:
        return "new"
    digests = _digests(task)
    changed = [part for part in digests if receipt.parts.get(part) != digests[part]]
    return f"changed: {', '.join(changed)}" if changed else "an output is missing"


def refuse_damaged(run: Path, inputs: Iterable[Output]) -> None:
    """Check files of an earlier stage before they become part of an output.

    Raises:
        FormatError: one is not what its receipt says.
    """
    for output in inputs:
        if sha256_file(run / output.path) != output.sha256:
            raise FormatError(
                f"{run / output.path}: the bytes are not those that were written. "
                "Delete it and run the same command again; what is whole is kept."
            )


def paths(receipt: Receipt, prefix: str) -> list[str]:
    """The outputs of a receipt whose file names begin so, relative to the run."""
    names = [output.path for output in receipt.outputs]
    return [name for name in names if name.rsplit("/", 1)[-1].startswith(prefix)]


def sweep(run: Path, stage: str, names: Iterable[str], below: str = "") -> None:
    """Remove the receipts and outputs of a stage's units that the plan no longer has."""
    keep = set(names)
    top = run / "receipts" / stage
    for path in sorted((top / below).rglob("*.json")):
        if path.relative_to(top).with_suffix("").as_posix() in keep:
            continue
        for output in read_json(path).get("outputs", []):
            (run / output["path"]).unlink(missing_ok=True)
        path.unlink()


def clear(folder: Path) -> None:
    """Remove a folder of outputs that is about to be written anew."""
    shutil.rmtree(folder, ignore_errors=True)


def _read(task: Task) -> Receipt | None:
    path = _path(task.run, task.stage, task.name)
    if not path.exists():
        return None
    try:
        return read_settings(Receipt, read_json(path), str(path))
    except (FormatError, RecipeError):
        return None  # of another version, or damaged: done anew


def _digests(task: Task) -> dict[str, str]:
    return {part: _hash(to_mapping(value)) for part, value in task.parts.items()}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    return {
        "tokenmill": __version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "numba": numba.__version__,
        "pyarrow": pyarrow.__version__,
        "tokenizers": tokenizers.__version__,
    }


def _path(run: Path, stage: str, name: str) -> Path:
    return run / "receipts" / stage / f"{name}.json"
