"""The log: OUT/log.jsonl, one JSON object a line, only ever appended to.

    {"event": "step", "phase": "phase1", "step": 10, "tokens": 40960, "loss": 8.91, ...}
    {"event": "held_out", "phase": "phase1", "step": 100, "subset": "all", "loss": 6.2, ...}

After a kill the lines behind the newest checkpoint stay, and the steps done again are logged again:
on a CPU with the same losses, which a reader can compare. `latest` keeps the last of each.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tokenmill.errors import FormatError


@dataclass(frozen=True, kw_only=True, slots=True)
class StepLine:
    """A logged step."""

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
    tokens_per_second: float
    """Real tokens a second since the last logged step; evaluation and checkpoints do not count."""
    data_wait: float
    """Share of that time spent waiting for the loader."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutLine:
    """A held-out loss of one subset."""

    phase: str
    step: int
    tokens: int
    subset: str
    loss: float
    """Nats a masked token."""
    masked_tokens: int
    """Over how many it is the mean."""


Line = StepLine | HeldOutLine
_EVENTS: dict[str, type[StepLine] | type[HeldOutLine]] = {"step": StepLine, "held_out": HeldOutLine}


class Log:
    """The log, open for appending; each line is on its way to the disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_half_a_line(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: Line) -> None:
        event = next(name for name, kind in _EVENTS.items() if isinstance(line, kind))
        self._file.write(json.dumps({"event": event, **asdict(line)}) + "\n")
        self._file.flush()

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
            fields = json.loads(text)
            lines.append(_EVENTS[fields.pop("event")](**fields))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"{path}, line {number}: no line of a training log ({error}).") from (
                error
            )
    return lines


def latest(lines: Iterable[Line]) -> list[Line]:
    """Of lines about the same step, and subset, only the last, by rising step."""
    newest = {(line.step, getattr(line, "subset", "")): line for line in lines}
    return [newest[key] for key in sorted(newest)]


def _drop_half_a_line(path: Path) -> None:
    """Cut off what a killed process left behind the last line feed."""
    if path.exists():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
