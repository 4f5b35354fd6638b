"""The overlay of a run: documents that were taken back after it was built, and from when on.

    RUN/overlay.jsonl    one entry a line, never changed, never removed:
    {"doc_ids": [1187243008], "from": {"phase": "phase1", "step": 1200}}

An entry holds from a step of a phase on, in that phase and all after it. What was read before it
stays as it was, so a training that goes on repeats its past to the bit. Shards stay as they are
too: the loader shows the sequences of these documents as padding. The file is written anew with
each entry, whole or not at all, and is no part of the root hash.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import FormatError
from tokenmill.shards.files import write_whole

NEVER = np.int64(1 << 62)
"""A step that no training comes to."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Documents that were taken back together."""

    phase: str
    step: int
    """The first step of the phase that does not show them."""
    doc_ids: tuple[int, ...]
    """Rising."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """All entries, in the order in which they came."""

    entries: tuple[Entry, ...] = ()

    def digest(self, count: int) -> str:
        """Of the first entries, so that a change in one is noticed. Hex, 16 digits."""
        lines = "".join(_line(entry) for entry in self.entries[:count])
        return hashlib.blake2b(lines.encode(), digest_size=8).hexdigest()

    def doc_ids(self) -> NDArray[np.uint64]:
        """(documents,) of all entries, rising, each once."""
        return np.unique(np.array([d for entry in self.entries for d in entry.doc_ids], np.uint64))

    def first_steps(
        self, phases: Sequence[str], phase: str
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Documents that a phase does not show, rising, and the first step from which each is left
        out.

        Args:
            phases: all of the run, in the order in which they are trained.
        """
        ids: list[int] = []
        steps: list[int] = []
        for entry in self.entries:
            behind = phases.index(phase) - phases.index(entry.phase)
            if behind >= 0:
                ids += entry.doc_ids
                steps += [0 if behind else entry.step] * len(entry.doc_ids)
        doc_ids, place = np.unique(np.array(ids, np.uint64), return_inverse=True)
        first = np.full(len(doc_ids), NEVER)
        np.minimum.at(first, place, np.array(steps, np.int64))
        return doc_ids, first


def overlay_path(run: Path) -> Path:
    return run / "overlay.jsonl"


def read_overlay(run: Path, phases: Sequence[str]) -> Overlay:
    """The overlay of a run; without a file it has no entries.

    Args:
        phases: of the run; every entry names one of them.

    Raises:
        FormatError: a line is no entry, or names no phase of the run.
    """
    overlay = Overlay(_read_entries(overlay_path(run)))
    for number, entry in enumerate(overlay.entries, 1):
        if entry.phase not in phases:
            raise FormatError(
                f"{overlay_path(run)}: line {number}: no phase {entry.phase} in the run, which has "
                f"{', '.join(phases)}. Write the phase from which the documents are left out."
            )
    return overlay


def read_retracted(path: Path) -> NDArray[np.uint64]:
    """The documents that an overlay takes back, whatever its phases; rising, each once.

    Raises:
        FormatError: a line is no entry.
    """
    return Overlay(_read_entries(path)).doc_ids()


def append_entry(run: Path, entry: Entry) -> None:
    """Add an entry; only while nobody else does.

    Raises:
        FormatError: the file is damaged.
    """
    entries = _read_entries(overlay_path(run))
    text = "".join(_line(each) for each in (*entries, entry))
    write_whole(overlay_path(run), text.encode())


def _read_entries(path: Path) -> tuple[Entry, ...]:
    if not path.exists():
        return ()
    entries = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            entries.append(_entry(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(
                f"{path}: line {number}: no entry of an overlay ({error!r}). Bring the file back "
                "as it was: without it documents that were taken back would be read again."
            ) from None
    return tuple(entries)


def _entry(value: Any) -> Entry:
    phase, step, doc_ids = value["from"]["phase"], value["from"]["step"], value["doc_ids"]
    known = all(type(doc_id) is int and 0 < doc_id < 1 << 64 for doc_id in doc_ids)
    if not (known and isinstance(phase, str) and type(step) is int and 0 <= step < 1 << 53):
        raise ValueError("expected a phase's name, a step and numbers of documents")
    return Entry(phase, step, tuple(doc_ids))


def _line(entry: Entry) -> str:
    value = {"doc_ids": entry.doc_ids, "from": {"phase": entry.phase, "step": entry.step}}
    return json.dumps(value) + "\n"
