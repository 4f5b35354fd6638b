"""How training tells where it is: one live line on a terminal, plain lines elsewhere.

    phase1 step 12,340  12%  loss 3.214  301,234 tokens/s  3:12:10 left  MFU 41.2%  waiting 0.3% ...
    phase1 12,340  loss 3.214  301k tok/s  3:12:10 left  MFU 41%  wait 0.3%  pad 1%

On a narrow terminal words get shorter first; then figures go, those that matter least before the
others.
"""

import math
import sys
import time
from collections.abc import Sequence
from typing import Self, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from tokenmill.shards.table import table
from tokenmill.training.log import HeldOutLine, StepLine

PLAIN_SECONDS = 10.0
"""From one plain line about steps to the next, so that a file of them stays readable."""


class Progress:
    """One line for all phases; `say` prints a line of its own."""

    def __init__(self, total_tokens: int, stream: TextIO | None = None) -> None:
        """
        Args:
            total_tokens: of all rows when training will have ended, padding included.
        """
        self._stream = stream or sys.stderr
        self._total_tokens = total_tokens
        self._last_plain = -math.inf
        self._live: Live | None = None
        if self._stream.isatty():
            self._live = Live(Text("starting"), console=Console(file=self._stream))

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        if self._live:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def step(self, line: StepLine) -> None:
        """Show a logged step."""
        if self._live:
            self._live.update(_Fitting(line, self._total_tokens))
        elif time.monotonic() - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = time.monotonic()
            self.say(step_text(line, self._total_tokens))

    def held_out(self, lines: Sequence[HeldOutLine]) -> None:
        """Show what an evaluation has found."""
        if lines:
            rows = [
                (
                    line.name,
                    f"{line.loss:.3f}",
                    "" if line.accuracy is None else f"{line.accuracy:.1%}",
                    f"{line.masked_tokens:,}",
                )
                for line in lines
            ]
            header = (
                f"{lines[0].phase} step {lines[0].step:,}, held out",
                "loss",
                "right",
                "masked tokens",
            )
            self.say(table(header, rows))


def step_text(line: StepLine, total_tokens: int, width: int | None = None) -> str:
    """A logged step in one line.

    Args:
        total_tokens: as Progress has it.
        width: columns that there are; None: as many as it takes.
    """
    forms = [_long(line, total_tokens), _short(line)]
    texts = ["  ".join(parts) for parts in (forms[0], forms[0][:-1], forms[1])]
    texts += ["  ".join(forms[1][:last]) for last in range(len(forms[1]) - 1, 0, -1)]
    return next((text for text in texts if width is None or len(text) <= width), texts[-1])


def _long(line: StepLine, total_tokens: int) -> list[str]:
    """What matters most comes first."""
    parts = [
        f"{line.phase} step {line.step:,}",
        f"{line.tokens / max(total_tokens, 1):.0%}",
        f"loss {line.loss:.3f}",
        f"{line.skipped:,} skipped" if line.skipped else "",
        f"{line.tokens_per_second:,.0f} tokens/s",
        "" if line.seconds_left is None else f"{_duration(line.seconds_left)} left",
        "" if line.mfu is None else f"MFU {line.mfu:.1%}",
        f"waiting {line.data_wait:.1%}",
        "" if line.padding is None else f"padding {line.padding:.1%}",
        f"lr {line.lr:.2e}",
    ]
    return [part for part in parts if part]


def _short(line: StepLine) -> list[str]:
    """The same for a narrow terminal."""
    parts = [
        f"{line.phase} {line.step:,}",
        f"loss {line.loss:.3f}",
        f"skip {line.skipped:,}" if line.skipped else "",
        f"{_thousands(line.tokens_per_second)} tok/s",
        "" if line.seconds_left is None else f"{_duration(line.seconds_left)} left",
        "" if line.mfu is None else f"MFU {line.mfu:.0%}",
        f"wait {line.data_wait:.1%}",
        "" if line.padding is None else f"pad {line.padding:.0%}",
    ]
    return [part for part in parts if part]


class _Fitting:
    """A step's line in as many columns as the terminal has when it is drawn."""

    def __init__(self, line: StepLine, total_tokens: int) -> None:
        self._line, self._total_tokens = line, total_tokens

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = step_text(self._line, self._total_tokens, options.max_width)
        yield Text(text, no_wrap=True, overflow="ellipsis")


def _thousands(number: float) -> str:
    """301,234 as 301k, 940 as it is."""
    return f"{number / 1000:,.0f}k" if number >= 10_000 else f"{number:,.0f}"


def _duration(seconds: float) -> str:
    """3:12:10; from four days on 4d 3h."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 96:
        return f"{hours // 24}d {hours % 24}h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
