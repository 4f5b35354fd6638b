"""Work done ahead by threads: the next items are made while the caller uses this one.

    Prefetch(make, places, max_bytes=256 << 20, threads=1)

Making an item is a pure function of its place, so nothing is handed over but results, and any
number of threads gives the same items in the same order. What waits to be taken, or is in the
making, has at most max_bytes, with the largest item so far as the measure; one item may always be
made. What goes wrong in a thread is raised where its item would be taken, at once if somebody
waits for it; items before it are whole and are given out first.

Threads end when the Prefetch is closed or forgotten, or the interpreter leaves.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeVar

from tokenmill.loader.at_exit import end_at_exit

Item = TypeVar("Item")
Place = TypeVar("Place")


class Prefetch(Generic[Place, Item]):
    """Gives out make(place) for one place after the other."""

    def __init__(
        self,
        make: Callable[[Place], Item],
        places: Iterator[Place],
        max_bytes: int,
        threads: int = 1,
    ) -> None:
        """
        Args:
            make: keeps nothing that keeps this Prefetch, or forgetting it would not end threads.
            places: without an end.
            max_bytes: 0 makes each item when it is taken, without a thread.
        """
        self._make, self._places = make, places
        self._work = _Work(make, places, max_bytes, threads) if max_bytes else None
        if self._work:
            weakref.finalize(self, self._work.end).atexit = False
            end_at_exit(self._work)

    def take(self) -> Item:
        """The next item; raises what making it raised, and is not to be used after that."""
        return self._work.take() if self._work else self._make(next(self._places))

    def close(self) -> None:
        """Drop what waits and end the threads; returns when items in the making are done."""
        if self._work:
            self._work.end()
            for thread in self._work.threads:
                thread.join()


class _Work(Generic[Place, Item]):
    """What the threads share; it does not know the Prefetch, which may be forgotten."""

    def __init__(
        self, make: Callable[[Place], Item], places: Iterator[Place], max_bytes: int, threads: int
    ) -> None:
        self.make, self.places, self.max_bytes = make, places, max_bytes
        self.item_bytes = max_bytes  # until the first is made, only one is
        self.begun = self.taken = 0
        self.made: dict[int, Item | BaseException] = {}
        self.stopped = self.failed = False
        self.news = threading.Condition()
        self.threads = [
            threading.Thread(target=self._run, name="tokenmill-loader", daemon=True)
            for _ in range(threads)
        ]
        for thread in self.threads:
            thread.start()

    def take(self) -> Item:
        with self.news:
            while self.taken not in self.made:
                if self.stopped:
                    raise RuntimeError("the prefetch is closed")
                self.news.wait()
            item = self.made.pop(self.taken)
            self.taken += 1
            self.news.notify_all()
        if isinstance(item, BaseException):
            raise item
        return item

    def next_place(self) -> tuple[int, Place] | None:
        """The next item to make, when there is room for it; None at the end."""
        with self.news:
            while not (self.stopped or self.failed) and self._is_full():
                self.news.wait()
            if self.stopped or self.failed:
                return None
            self.begun += 1
            return self.begun - 1, next(self.places)

    def put(self, number: int, item: Item | BaseException) -> None:
        with self.news:
            if isinstance(item, BaseException):
                self.failed = True  # nothing behind it will be taken
            else:
                size = max(1, _num_bytes(item))
                self.item_bytes = size if number == 0 else max(size, self.item_bytes)
            self.made[number] = item
            self.news.notify_all()

    def end(self) -> None:
        with self.news:
            self.stopped = True
            self.news.notify_all()

    def _run(self) -> None:
        while (next_place := self.next_place()) is not None:
            number, place = next_place
            try:
                item: Item | BaseException = self.make(place)
            except BaseException as error:
                item = error
            self.put(number, item)

    def _is_full(self) -> bool:
        return self.begun - self.taken >= max(1, self.max_bytes // self.item_bytes)


def _num_bytes(item: Any) -> int:
    """The bytes of an array, or of all in a dataclass; tensors count as well."""
    if is_dataclass(item):
        return sum(_num_bytes(getattr(item, field.name)) for field in fields(item))
    return int(getattr(item, "nbytes", 0))
