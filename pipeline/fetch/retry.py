"""Trying again: what may pass by itself, and how long to wait for it.

Waits double from half a second to a minute, without chance in them; a server's own Retry-After is
taken instead. What got bytes begins to count anew, so a long download may be cut any number of
times, as long as it moves.
"""

import email.utils
import time
from collections.abc import Callable
from typing import TypeVar

from tokenmill.errors import SourceError

T = TypeVar("T")

ATTEMPTS = 8
"""In a row without a byte: about a minute of waiting."""
FIRST_SECONDS = 0.5
MOST_SECONDS = 60.0
PATIENCE_SECONDS = 600.0
"""A server that asks for more is not waited for."""


class Transient(Exception):
    """Something that may go well a little later."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        """Seconds that the server asks for."""


class Attempts:
    """Counts failures in a row and waits after each."""

    def __init__(
        self,
        what: str,
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.what, self.attempts, self.sleep = what, attempts, sleep
        self.failures = 0

    def moved(self) -> None:
        """Bytes came: begin to count anew."""
        self.failures = 0

    def wait(self, error: Transient) -> None:
        """Sleep before the next attempt.

        Raises:
            SourceError: there were enough.
        """
        self.failures += 1
        seconds = min(MOST_SECONDS, FIRST_SECONDS * 2 ** (self.failures - 1))
        if error.retry_after is not None:
            seconds = max(error.retry_after, seconds)
        if self.failures >= self.attempts or seconds > PATIENCE_SECONDS:
            raise SourceError(
                f"{self.what}: {error} (tried {self.failures} times). "
                "Check the network and the address, then run again; what is there is kept."
            ) from None
        self.sleep(seconds)


def retrying(what: str, action: Callable[[], T], attempts: int = ATTEMPTS) -> T:
    """What the action gives, tried until it does.

    Raises:
        SourceError: it raised Transient too often, or raised this itself.
    """
    counter = Attempts(what, attempts)
    while True:
        try:
            return action()
        except Transient as error:
            counter.wait(error)


def seconds_of(retry_after: str | None) -> float | None:
    """What a Retry-After header asks for: seconds, or a date."""
    if not retry_after:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    date = email.utils.parsedate_tz(retry_after)
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())
