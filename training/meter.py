"""How fast training is, and how much of its time it waits for data."""

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
        """Around whatever waits for the loader."""
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
