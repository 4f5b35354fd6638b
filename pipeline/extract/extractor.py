"""Pages to texts in a child process that may hang, crash or run out of memory.

    with Extractor(config, max_bytes) as extractor:
        for batch, answers in extractor.run(batches): ...

A page on which the child dies is tried once more, alone and with ten times the time, because the
machine may have been at fault; then the answer says what happened. A child is spawned, never
forked, serves a unit, and is gone with its parent. The next batch is extracted while the caller
works on the last one.
"""

import fcntl
import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from typing import Self, TypeVar

from tokenmill.pipeline.extract.child import ANSWER, BATCH, PAGE, Outcome
from tokenmill.pipeline.extract.config import ExtractionConfig

RETRY_TIMES = 10
PIPE_BYTES = 1 << 20
"""What a pipe holds where the system allows it: a batch goes through at once, not in turns."""

Answer = tuple[Outcome, str]
T = TypeVar("T")


class _Died(Exception):
    """The child is gone; the argument says of what."""


class Extractor:
    """A child process that turns HTTP responses into text, started when it is needed."""

    def __init__(self, config: ExtractionConfig, max_bytes: int) -> None:
        self.config = config
        settings = json.dumps({**asdict(config), "max_bytes": max_bytes})
        self._command = [sys.executable, "-P", "-m", "tokenmill.pipeline.extract.child", settings]
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, batches: Iterable[tuple[T, Sequence[bytes]]]) -> Iterator[tuple[T, list[Answer]]]:
        """Each batch's label and the answers to its pages, in their order."""
        with ThreadPoolExecutor(1) as thread:
            waiting: tuple[T, Future[list[Answer]]] | None = None
            for label, pages in batches:
                extracted = thread.submit(self.extract, pages)
                if waiting:
                    yield waiting[0], waiting[1].result()
                waiting = label, extracted
            if waiting:
                yield waiting[0], waiting[1].result()

    def extract(self, pages: Sequence[bytes]) -> list[Answer]:
        """What became of each page, in their order."""
        answers: list[Answer] = []
        while len(answers) < len(pages):
            try:
                self._ask(pages[len(answers) :], self.config.seconds, answers)
            except _Died:
                answers.append(self._once_more(pages[len(answers)]))
        return answers

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child:
            child.kill()
            child.communicate()

    def _once_more(self, page: bytes) -> Answer:
        answers: list[Answer] = []
        seconds = self.config.seconds * RETRY_TIMES
        try:
            self._ask([page], seconds, answers)
        except _Died as death:
            return Outcome.BAD, f"{self.config.extractor}: {death} ({seconds:g} s are allowed)"
        return answers[0]

    def _ask(self, pages: Sequence[bytes], seconds: float, answers: list[Answer]) -> None:
        """Append the answer to each page.

        Raises:
            _Died: after the last answer that was appended.
        """
        child = self._child = self._child or self._start()
        assert child.stdin
        assert child.stdout
        parts = [BATCH.pack(len(pages), seconds)]
        for page in pages:
            parts += PAGE.pack(len(page)), page
        with suppress(BrokenPipeError):  # the answers end, too
            child.stdin.write(b"".join(parts))
            child.stdin.flush()
        for _ in pages:
            header = child.stdout.read(ANSWER.size)
            if len(header) == ANSWER.size:
                outcome, length = ANSWER.unpack(header)
                data = child.stdout.read(length)
                if len(data) == length:
                    answers.append((Outcome(outcome), data.decode()))
                    continue
            raise self._died(child)

    def _start(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for pipe in filter(None, (child.stdin, child.stdout)):
            with suppress(OSError, AttributeError):  # a user's many workers may not have so much
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return child

    def _died(self, child: subprocess.Popen[bytes]) -> _Died:
        self._child = None
        with suppress(BrokenPipeError):
            child.communicate()
        code = child.returncode
        # It answers for whatever a page makes it raise: the rest is ours.
        assert code < 0, f"the extraction process ended by itself with {code}: see its traceback"
        causes = {signal.SIGPROF: "too slow", signal.SIGALRM: "too slow by the clock"}
        return _Died(causes.get(signal.Signals(-code), f"died of {signal.Signals(-code).name}"))
