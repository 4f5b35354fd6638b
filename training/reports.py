"""What training tells while it runs: the log, trackers, the curve, progress. Rank 0 alone tells.

Every rank has one of these and speaks to it alike, so that the loop asks nobody's rank; that of
rank 0 is opened, and the others keep silent.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tokenmill.shards.settings import to_mapping
from tokenmill.training.config import TrainingConfig
from tokenmill.training.curve import write_curve
from tokenmill.training.log import HeldOutLine, Log, StepLine, latest, read_log
from tokenmill.training.progress import Progress
from tokenmill.training.trackers import Trackers


class Reports:
    """Until it is opened, it has words for people only."""

    def __init__(self, out: Path, *, speaks: bool) -> None:
        """
        Args:
            speaks: this is rank 0's.
        """
        self._out, self._speaks = out, speaks
        self._opened: tuple[Log, Trackers, Progress] | None = None
        self._files = contextlib.ExitStack()

    def open(self, config: TrainingConfig, total_tokens: int, step: int) -> None:
        """
        Args:
            total_tokens: of all rows when training will have ended.
            step: the one that training goes on after.

        Raises:
            FormatError: there is a log already, and it is damaged.
            RecipeError: a tracker's package is missing.
            RunError: a tracker does not start.
        """
        path = self._out / "log.jsonl"
        if path.exists():
            read_log(path)  # now rather than hours later, when the curve is drawn
        progress = self._files.enter_context(Progress(total_tokens))
        trackers = Trackers(
            config.trackers, self._out, step=step, settings=to_mapping(config), say=progress.say
        )
        self._files.enter_context(trackers)
        log = self._files.enter_context(Log(path))
        self._opened = log, trackers, progress

    def say(self, text: str) -> None:
        """A line for people only."""
        if self._opened:
            self._opened[2].say(text)
        elif self._speaks:
            print(text, file=sys.stderr, flush=True)

    def step(self, line: StepLine) -> None:
        """A logged step."""
        if self._opened:
            log, trackers, progress = self._opened
            log.write(line)
            trackers.write(line)
            progress.step(line)

    def held_out(self, lines: Sequence[HeldOutLine]) -> None:
        """What an evaluation has found."""
        if self._opened:
            log, trackers, progress = self._opened
            for line in lines:
                log.write(line)
                trackers.write(line)
            progress.held_out(lines)
            self.draw()

    def has_held_out(self, step: int) -> bool:
        """Whether the log has an evaluation after this step."""
        lines = latest(read_log(self._out / "log.jsonl"))
        return any(isinstance(line, HeldOutLine) and line.step == step for line in lines)

    def draw(self) -> None:
        """The loss curve up to here; training does not end for a picture."""
        if self._opened:
            path = self._out / "loss.svg"
            try:
                write_curve(self._out / "log.jsonl", path)
            except OSError as error:
                self.say(f"{path}: could not be written ({error.strerror}).")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.__exit__(kind, error, trace)
