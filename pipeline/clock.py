"""Where the time of a mill task goes, and the memory of its process.

    read     getting documents out of a file
    start    a worker's first batch: it compiles code, loads models, meets its first words
    batches  all batches after that; they alone grow with the text that is milled
    rest     opening, closing and hashing files, once a unit: what the others leave of `seconds`

A forecast scales each of them by something else. They stand in the receipt's details; no key holds
them.
"""

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_is_warm = False
"""Whether this process has milled a batch."""


class Clock:
    """Watches one task; to be made when it begins."""

    def __init__(self) -> None:
        self._began = self._got = time.monotonic()
        self._read_seconds = self._start_seconds = self._batch_seconds = 0.0
        self._start_bytes = 0

    def reading(self, items: Iterable[T]) -> Iterator[T]:
        """The same items, with the time that it took to get them put down."""
        iterator = iter(items)
        while True:
            before = time.monotonic()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._got = time.monotonic()
                self._read_seconds += self._got - before
            yield item

    def batch_done(self, num_bytes: int) -> None:
        """A batch is milled; with it the task has done so many bytes of text."""
        global _is_warm
        now = time.monotonic()
        if _is_warm:
            self._batch_seconds += now - self._got
        else:
            self._start_seconds = now - self._began - self._read_seconds
            self._start_bytes = num_bytes
            _is_warm = True

    def details(self) -> dict[str, Any]:
        """Seconds and bytes, for a receipt."""
        # Kilobytes on Linux, bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        return {
            "read_seconds": self._read_seconds,
            "start_seconds": self._start_seconds,
            "start_bytes": self._start_bytes,
            "batch_seconds": self._batch_seconds,
            # Pages are extracted in a child of the worker; the largest that ended counts too.
            "peak_bytes": unit
            * sum(
                resource.getrusage(who).ru_maxrss
                for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
            ),
        }
