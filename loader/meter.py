"""How fast training is, and how much of its time it waits for data.

    meter = Meter()
    for step in steps:
        with meter.waiting():
            batch = next(loader)
        meter.real_tokens += batch.num_tokens
        ...
    meter.data_wait(), meter.tokens_per_second()

The device works on while the host runs ahead, so a wait of the host is one of the device only where
nothing is queued there any more: data_wait is the most that data can cost.
"""

import contextlib
import time
from collections.abc import Iterator


class Meter:
    """Counts from one restart to the next."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.real_tokens = 0
        """Tokens taken since the restart, padding left out."""
        self._waited = 0.0
        self._started = time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around whatever waits for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def tokens_per_second(self) -> float:
        return self.real_tokens / self._seconds()

    def data_wait(self) -> float:
        """The share of the time spent waiting, 0 to 1."""
        return self._waited / self._seconds()

    def _seconds(self) -> float:
        return max(time.perf_counter() - self._started, 1e-9)
