"""The log: OUT/log.jsonl, one JSON object a line, only ever appended to.

    {"event": "step", "phase": "phase1", "step": 10, "tokens": 40960, "loss": 8.91, ...}
    {"event": "held_out", "phase": "phase1", "step": 100, "subset": "all", "loss": 6.2, ...}

After a kill the lines behind the newest checkpoint stay, and the steps done again are logged again:
on a CPU with the same losses, which a reader can compare. `latest` leaves out what was done again.

JSON has no number that is none: a loss or a gradient that was infinite or NaN stands as null, and
is read as NaN. Lines of earlier versions are read too; what they did not measure is NaN or None.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tokenmill.errors import FormatError, RunError


@dataclass(frozen=True, kw_only=True, slots=True)
class StepLine:
    """A logged step. What is measured is measured since the line before, over all ranks;
    evaluation and checkpoints do not count."""

    phase: str
    step: int
    """Steps done in all phases, with this one."""
    tokens: int
    """Tokens of all rows so far, padding included: the clock of the schedules."""
    real_tokens: int
    """The same without padding."""
    loss: float
    """This step's own loss, nats a masked token."""
    lr: float
    """The learning rate it was done with."""
    grad_norm: float = math.nan
    """The length of its gradient, before it was clipped."""
    skipped: int = 0
    """Steps so far whose loss or gradient was not finite, and which changed no weight."""
    tokens_per_second: float
    """Real tokens."""
    mfu: float | None = None
    """Share of the devices' peak that useful operations took (flops.py); None where no peak is
    known."""
    padding: float | None = None
    """Share of the tokens on the devices."""
    data_wait: float
    """Share of the time spent waiting for the loader."""
    data_wait_p95: float | None = None
    """The 95th percentile of a step's wait, as a share of a mean step."""
    seconds_left: float | None = None
    """Until the last phase ends, evaluation and checkpoints included."""
    peak_memory_gb: float | None = None
    """The most memory of rank 0's device that tensors took at once, 10^9 bytes; None on a CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutLine:
    """What the model makes of the held-out rows of one subset, or of one source."""

    phase: str
    step: int
    tokens: int
    subset: str | None = None
    """None: it is of a source."""
    source: str | None = None
    loss: float
    """Nats a masked token."""
    accuracy: float | None = None
    """Share of the masked tokens that are the model's first guess."""
    masked_tokens: int
    """Over how many both are means."""

    @property
    def name(self) -> str:
        """Subset or source, for people."""
        return self.subset or f"source {self.source}"


Line = StepLine | HeldOutLine
_EVENTS: dict[str, type[StepLine] | type[HeldOutLine]] = {"step": StepLine, "held_out": HeldOutLine}


class Log:
    """The log, open for appending; each line is on its way to the disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_half_a_line(path)
        self._path = path
        self._file = path.open("ab", buffering=0)  # of a write that failed nothing is kept

    def write(self, line: Line) -> None:
        """
        Raises:
            RunError: the disk does not take it.
        """
        event = next(name for name, kind in _EVENTS.items() if isinstance(line, kind))
        values = {name: _number(value) for name, value in asdict(line).items()}
        data = (json.dumps({"event": event, **values}, allow_nan=False) + "\n").encode()
        try:
            while data:  # a disk that is nearly full takes a part, and then says why
                data = data[self._file.write(data) :]
        except OSError as error:
            raise RunError(
                f"{self._path}: a line could not be written ({error.strerror}). Free the disk and "
                "start again: training goes on from its newest checkpoint."
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def read_log(path: Path) -> list[Line]:
    """All lines in the order in which they were written, repeated steps included.

    Raises:
        FormatError: there is no log, or a line of it is none of ours.
    """
    if not path.exists():
        raise FormatError(f"{path}: no such log. Is the folder the --out of a training?")
    lines: list[Line] = []
    # What follows the last line feed was cut off by a kill.
    for number, text in enumerate(path.read_text("utf-8").split("\n")[:-1], start=1):
        try:
            values = json.loads(text)
            kind = _EVENTS[values.pop("event")]
            for field in fields(kind):
                if field.type is float and values.get(field.name, 0) is None:
                    values[field.name] = math.nan
            lines.append(kind(**values))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(
                f"{path}, line {number}: no line of this version's training log ({error}). Move "
                "the log away, or take the version of tokenmill that wrote it."
            ) from error
    return lines


def latest(lines: Iterable[Line]) -> list[Line]:
    """What counts, by rising step: a logged step takes back all that was said of it and of later
    ones, and of evaluations after the same step the last one stays."""
    kept: dict[tuple[int, str], Line] = {}
    furthest = 0
    for line in lines:
        if isinstance(line, StepLine) and line.step <= furthest:
            kept = {key: other for key, other in kept.items() if key[0] < line.step}
            furthest = line.step
        furthest = max(furthest, line.step)
        kept[line.step, line.name if isinstance(line, HeldOutLine) else ""] = line
    return sorted(kept.values(), key=lambda line: line.step)


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drop_half_a_line(path: Path) -> None:
    """Cut off what a killed process left behind the last line feed."""
    if path.exists():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
