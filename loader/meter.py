"""What came from a loader, and how long training waited for it.

    meter = Meter()
    for step in steps:
        with meter.waiting():
            batch = next(loader)
        meter.count(batch.num_tokens, row_tokens, squared_lengths)
        ...
        meter.end_step()
    meter.data_wait(), meter.tokens_per_second()

The device works on while the host runs ahead, so a wait of the host is one of the device only where
nothing is queued there any more: data_wait is the most that data can cost.
"""

import contextlib
import time
from collections.abc import Iterator

import numpy as np


class Meter:
    """Counts from one restart to the next, on one rank."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.real_tokens = 0
        """Tokens taken since the restart, padding left out."""
        self.all_tokens = 0
        """The same with padding, as the device sees them."""
        self.squared_lengths = 0
        """The sum over their sequences of tokens x tokens: the pairs that attention looks at."""
        self._waits: list[float] = []
        self._waited = 0.0
        """In the step that has not ended."""
        self._started = time.perf_counter()

    def count(self, real_tokens: int, all_tokens: int, squared_lengths: int) -> None:
        """A batch was taken."""
        self.real_tokens += real_tokens
        self.all_tokens += all_tokens
        self.squared_lengths += squared_lengths

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around whatever waits for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def end_step(self) -> None:
        """All batches of an optimizer step are taken, and it is under way."""
        self._waits.append(self._waited)
        self._waited = 0.0

    def tokens_per_second(self) -> float:
        return self.real_tokens / self.seconds()

    def data_wait(self) -> float:
        """The share of the time spent waiting, 0 to 1."""
        return (sum(self._waits) + self._waited) / self.seconds()

    def data_wait_p95(self) -> float:
        """Of the steps' waits all but a twentieth are no longer than this share of a mean step. 0
        before the first step ends."""
        if not self._waits:
            return 0.0
        return float(np.quantile(self._waits, 0.95)) * len(self._waits) / self.seconds()

    def seconds(self) -> float:
        """Since the restart."""
        return max(time.perf_counter() - self._started, 1e-9)
