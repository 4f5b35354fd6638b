"""One line a stage: how much is done, how fast, how long it will take.

On a terminal the line is redrawn; elsewhere a plain line is printed every few seconds, so that a
log can be read.
"""

import sys
import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.live import Live

from tokenmill.pipeline.receipts import Receipt

PLAIN_SECONDS = 10.0


def show_progress(
    stage: str, num_new: int, num_done: int, receipts: Iterable[Receipt]
) -> Iterator[Receipt]:
    """Hand the receipts on and show the stage's line on stderr as they come.

    Args:
        num_new: tasks to be done.
        num_done: tasks that a former build finished.
    """
    line = _Line(stage, num_new, num_done)
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield from _plainly(line, receipts)
        return
    with Live(line.text(), console=console, refresh_per_second=4) as live:
        for receipt in receipts:
            line.add(receipt)
            live.update(line.text())
            yield receipt
        live.update(line.text())


def _plainly(line: "_Line", receipts: Iterable[Receipt]) -> Iterator[Receipt]:
    last = time.monotonic()
    for receipt in receipts:
        line.add(receipt)
        if time.monotonic() - last > PLAIN_SECONDS and line.done < line.total:
            print(line.text(), file=sys.stderr, flush=True)
            last = time.monotonic()
        yield receipt
    print(line.text(), file=sys.stderr, flush=True)


class _Line:
    """The numbers of a stage's line."""

    def __init__(self, stage: str, num_new: int, num_done: int) -> None:
        self.stage, self.total, self.done = stage, num_new, 0
        self.before = num_done
        self.documents = self.bytes = 0
        self.started = time.monotonic()

    def add(self, receipt: Receipt) -> None:
        self.done += 1
        self.documents += receipt.counts.get("documents", 0)
        self.bytes += receipt.counts.get("bytes", 0)

    def text(self) -> str:
        seconds = max(time.monotonic() - self.started, 1e-3)
        parts = [f"{self.stage:8s} {self.before + self.done}/{self.before + self.total} units"]
        if self.before:
            parts.append(f"{self.before} done before")
        if self.documents:
            parts.append(f"{self.documents / seconds:,.0f} documents/s")
        if self.bytes:
            parts.append(f"{self.bytes / seconds / 1e6:,.1f} MB/s")
        left = (self.total - self.done) * seconds / self.done if self.done else None
        if self.done < self.total:
            parts.append(f"{_clock(left)} left" if left is not None else "time left unknown yet")
        else:
            parts.append(f"{_clock(seconds)}")
        return "  ".join(parts)


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
