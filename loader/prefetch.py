"""Work done ahead by one thread: item i + 1 is made while the caller uses item i.

Items are numbered, and making one is a pure function of its number, so there is nothing to hand
over but results. At most `depth` of them wait. What goes wrong in the thread is raised where the
item is taken. The thread ends when the Prefetch is closed or forgotten; an interpreter that leaves
before that lets it make the items it was asked for, at most `depth`.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetch(Generic[Item]):
    """Gives out make(first), make(first + 1), ..."""

    def __init__(self, make: Callable[[int], Item], first: int, depth: int) -> None:
        """A depth of 0 makes each item when it is taken, without a thread."""
        self._make = make
        self._next = first
        self._depth = depth
        self._waiting: deque[Future[Item]] = deque()
        self._thread = ThreadPoolExecutor(1, "tokenmill-loader") if depth else None

    def take(self) -> Item:
        """The next item; raises what making it raised, and is not to be used after that."""
        if self._thread is None:
            self._next += 1
            return self._make(self._next - 1)
        self._fill(self._thread)
        item = self._waiting.popleft().result()
        self._fill(self._thread)
        return item

    def close(self) -> None:
        """Drop what waits and end the thread; returns when an item in the making is done."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _fill(self, thread: ThreadPoolExecutor) -> None:
        while len(self._waiting) < self._depth:
            self._waiting.append(thread.submit(self._make, self._next))
            self._next += 1
