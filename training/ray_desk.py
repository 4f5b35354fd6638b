"""Where the process that started Ray Train and its rank 0 leave each other word.

In a file of its own, which imports no torch: Ray gives it a process, ready in a second, not five.
"""


class Desk:
    """An actor, where the first process leaves a signal and rank 0 what training came to."""

    def __init__(self) -> None:
        self._signal: str | None = None
        self._summary: bytes | None = None

    def ask(self, signal: str) -> None:
        self._signal = signal

    def asked(self) -> str | None:
        return self._signal

    def leave(self, summary: bytes) -> None:
        """Pickled, so that this process need not import what it is of."""
        self._summary = summary

    def summary(self) -> bytes | None:
        return self._summary
