"""The overlay of a run: what was changed of its order after it was built, and from when on.

    RUN/overlay.jsonl    one entry a line, never changed, never removed; "from" stands in each:
    {"doc_ids": [1187243008], "from": {"phase": "phase1", "step": 1200}}    left out from there on
    {"rows": {"pack": "1024-split", "bucket": "0-1023", "first": 7, "last": 9}, ...}    damaged ones
    {"skip": [1300, 1310], ...}      step 1300 reads what 1311 would have, and so on
    {"replay": [900, 950], ...}      steps 900 to 950 come again, then the order goes on

An entry holds from a step of a phase on, in that phase and all after it; skipped and replayed steps
are those of that phase, numbered as training counts them when the entry is written, and of several
entries each starts from what those before it made. What was read before an entry stays as it was,
so a training that goes on repeats its past to the bit. Shards stay as they are too. The file is
written anew with each entry, whole or not at all, and is no part of the root hash.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import FormatError, RecipeError
from tokenmill.shards.files import write_whole

NUM_STEPS = 1 << 40
"""Steps are below it; no training has as many, and counts of their rows stay within 64 bits."""

NEVER = np.int64(1 << 62)
"""A step that no training comes to."""


@dataclass(frozen=True, slots=True)
class Retraction:
    """Documents that were taken back together: their sequences are padding."""

    phase: str
    step: int
    """The first step of the phase that does not show them."""
    doc_ids: tuple[int, ...]
    """Rising."""


@dataclass(frozen=True, slots=True)
class SkippedRows:
    """Rows that are padding and are never looked for in their shard."""

    phase: str
    step: int
    """The first step of the phase that does not show them."""
    pack: str
    bucket: str
    """The folder of its shards below the pack's: "0-1023", or "held-out/0-1023"."""
    first: int
    """Rows are numbered in their bucket, from 0."""
    last: int
    """The last one, included."""


@dataclass(frozen=True, slots=True)
class SkippedSteps:
    """Steps whose data are not read: what comes after moves up."""

    phase: str
    step: int
    """At most `first`: nothing changes before it anyway."""
    first: int
    last: int
    """The last one, included."""


@dataclass(frozen=True, slots=True)
class ReplayedSteps:
    """Steps whose data come again."""

    phase: str
    step: int
    """The first step that reads them again, above `last`."""
    first: int
    last: int
    """The last one, included."""


Entry = Retraction | SkippedRows | SkippedSteps | ReplayedSteps


@dataclass(frozen=True, slots=True)
class Overlay:
    """All entries, in the order in which they came."""

    entries: tuple[Entry, ...] = ()

    def digest(self, count: int) -> str:
        """Of the first entries, so that a change in one is noticed. Hex, 16 digits."""
        lines = "".join(_line(entry) for entry in self.entries[:count])
        return hashlib.blake2b(lines.encode(), digest_size=8).hexdigest()

    def doc_ids(self) -> NDArray[np.uint64]:
        """(documents,) that were taken back, rising, each once."""
        retracted = [entry for entry in self.entries if isinstance(entry, Retraction)]
        return np.unique(np.array([d for entry in retracted for d in entry.doc_ids], np.uint64))

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
            if isinstance(entry, Retraction):
                ids += entry.doc_ids
                steps += [_step_in(entry, phases, phase)] * len(entry.doc_ids)
        doc_ids, place = np.unique(np.array(ids, np.uint64), return_inverse=True)
        first = np.full(len(doc_ids), NEVER)
        np.minimum.at(first, place, np.array(steps, np.int64))
        here = first < NEVER
        return doc_ids[here], first[here]

    def skipped_rows(
        self, phases: Sequence[str], phase: str, pack: str
    ) -> list[tuple[SkippedRows, int]]:
        """Those of a pack, and the phase's first step that does not show them: NEVER where an entry
        holds from a later phase on."""
        return [
            (entry, _step_in(entry, phases, phase))
            for entry in self.entries
            if isinstance(entry, SkippedRows) and entry.pack == pack
        ]

    def moved_steps(self, phase: str) -> list[SkippedSteps | ReplayedSteps]:
        """What was skipped and replayed of a phase, in the order in which it was."""
        moved = [e for e in self.entries if isinstance(e, SkippedSteps | ReplayedSteps)]
        return [entry for entry in moved if entry.phase == phase]


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
                f"{', '.join(phases)}. Write the phase from which the entry holds."
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


def entry_start(
    phases: Sequence[str], start: tuple[str, int] | None, reached: tuple[str, int] | None
) -> tuple[str, int]:
    """The phase and its step from which a new entry holds.

    Args:
        phases: all of the run, in the order in which they are trained.
        start: what was asked for; None: where training stands.
        reached: the phase in which training stands, and its next step; None: it has not begun.

    Raises:
        RecipeError: there is no such phase, or training has read steps that would change.
    """
    reached = reached or (phases[0], 0)
    start = start or reached
    for phase, _ in (start, reached):
        if phase not in phases:
            raise RecipeError(f"phase {phase}: not in the run, which has {', '.join(phases)}.")
    if start[1] >= NUM_STEPS:
        raise RecipeError(f"--from-step {start[0]}:{start[1]}: need a step below {NUM_STEPS:,}.")
    if (phases.index(start[0]), start[1]) < (phases.index(reached[0]), reached[1]):
        raise RecipeError(
            f"--from-step {start[0]}:{start[1]}: training has read up to {reached[0]}:{reached[1]},"
            " and what was read never changes. Give a later step."
        )
    return start


def _step_in(entry: Entry, phases: Sequence[str], phase: str) -> int:
    """The first step of a phase for which an entry holds."""
    behind = phases.index(phase) - phases.index(entry.phase)
    if behind < 0:
        return int(NEVER)
    return 0 if behind else entry.step


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
                "as it was: without it training would read what was taken out."
            ) from None
    return tuple(entries)


def _entry(value: Any) -> Entry:
    phase, step = value["from"]["phase"], value["from"]["step"]
    (kind,) = value.keys() - {"from"}
    what = value[kind]
    if not (isinstance(phase, str) and _is_number(step, NUM_STEPS)):
        raise ValueError("expected a phase's name and a step")
    if kind == "doc_ids":
        if not all(_is_number(doc_id, 1 << 64) and doc_id for doc_id in what):
            raise ValueError("expected numbers of documents")
        return Retraction(phase, step, tuple(what))
    first, last = (what["first"], what["last"]) if kind == "rows" else what
    if not (_is_number(first, NUM_STEPS) and _is_number(last, NUM_STEPS) and first <= last):
        raise ValueError(f"expected the first and the last of {kind}")
    if kind == "rows":
        if not (isinstance(what["pack"], str) and isinstance(what["bucket"], str)):
            raise ValueError("expected the names of a pack and a bucket")
        return SkippedRows(phase, step, what["pack"], what["bucket"], first, last)
    if kind == "skip" and step <= first:
        return SkippedSteps(phase, step, first, last)
    if kind == "replay" and last < step:
        return ReplayedSteps(phase, step, first, last)
    raise ValueError("expected steps to skip that are to come, or steps to replay that are past")


def _is_number(value: Any, below: int) -> bool:
    return type(value) is int and 0 <= value < below


def _line(entry: Entry) -> str:
    match entry:
        case Retraction():
            what: dict[str, Any] = {"doc_ids": entry.doc_ids}
        case SkippedRows(_, _, pack, bucket, first, last):
            what = {"rows": {"pack": pack, "bucket": bucket, "first": first, "last": last}}
        case SkippedSteps():
            what = {"skip": [entry.first, entry.last]}
        case ReplayedSteps():
            what = {"replay": [entry.first, entry.last]}
    return json.dumps({**what, "from": {"phase": entry.phase, "step": entry.step}}) + "\n"
