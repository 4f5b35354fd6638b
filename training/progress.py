"""How training tells where it is: a live bar on a terminal, plain lines elsewhere."""

import math
import sys
import time
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from tokenmill.training.log import HeldOutLine, StepLine

PLAIN_SECONDS = 10.0
"""From one plain line about steps to the next, so that a file of them stays readable."""


class Progress:
    """One bar for all phases; `say` prints a line of its own."""

    def __init__(self, total_tokens: int, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._total_tokens = total_tokens
        self._last_plain = -math.inf
        self._bar: Bar | None = None
        if self._stream.isatty():
            columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=Console(file=self._stream))
            self._task = self._bar.add_task("starting", total=total_tokens)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def step(self, line: StepLine) -> None:
        """Show a logged step."""
        # Padding passes at the same speed as tokens, so rows' tokens are what is left.
        rate = line.tokens_per_second * line.tokens / max(line.real_tokens, 1)
        text = (
            f"{line.phase} step {line.step:,}  loss {line.loss:.3f}  lr {line.lr:.2e}  "
            f"{line.tokens_per_second:,.0f} tokens/s  waiting {line.data_wait:.1%}  "
            f"{_duration((self._total_tokens - line.tokens) / max(rate, 1e-9))} left"
        )
        if self._bar:
            self._bar.update(self._task, completed=line.tokens, description=text)
        elif time.monotonic() - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = time.monotonic()
            self.say(text)

    def held_out(self, line: HeldOutLine) -> None:
        """Show a held-out loss."""
        self.say(
            f"{line.phase} step {line.step:,}  held-out loss of {line.subset}: {line.loss:.3f} "
            f"nats over {line.masked_tokens:,} masked tokens"
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
