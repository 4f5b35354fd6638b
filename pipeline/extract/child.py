"""The process in which pages are extracted: python -m tokenmill.pipeline.extract.child SETTINGS

Extractors are C and Rust; no signal handler interrupts them. But the kernel ends a process whose
timer runs out, whatever it does. So this process sets a timer on its own processor time before
each page, bounds its memory, and lets itself be killed; the parent sees the pipe end and knows on
which page. A second timer, on the clock, is for one that waits for ever. When the parent is gone
the pipes are closed, and the first read or write ends the process.

    in     a batch: how many pages and seconds for each, then the pages, each with its length
    out    for each page an outcome, a length and a text

A batch is read whole before its first answer is written: two that write cannot wait for each other.
"""

import json
import resource
import signal
import struct
import sys
from contextlib import suppress
from enum import IntEnum
from typing import BinaryIO

from tokenmill.pipeline.extract.charset import decode_page
from tokenmill.pipeline.extract.config import ExtractionConfig
from tokenmill.pipeline.extract.html import close_elements, html_to_text
from tokenmill.pipeline.extract.response import BadResponse, NoPage, read_response

BATCH = struct.Struct("<Id")
PAGE = struct.Struct("<I")
ANSWER = struct.Struct("<BI")

MEMORY_BYTES = 8 << 30
"""Address space; a page of 64 MiB, the most by default, takes some GB."""
CLOCK_PER_SECOND = 20
"""Seconds on the clock for each of processor time: a machine may be as loaded as that."""


class Outcome(IntEnum):
    """What became of a page; says what the text of an answer is."""

    TEXT = 0
    NO_PAGE = 1
    """The text is the reason."""
    BAD = 2
    """The text is the error."""


def main() -> None:
    settings = json.loads(sys.argv[1])
    max_bytes = settings.pop("max_bytes")
    config = ExtractionConfig(**settings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with suppress(OSError, ValueError):  # macOS has no such limit; here a lower one may hold
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    html_to_text("", config)  # loads its library before any timer runs
    pages, answers = sys.stdin.buffer, sys.stdout.buffer
    while header := pages.read(BATCH.size):
        number, seconds = BATCH.unpack(header)
        for page in [_read_page(pages) for _ in range(number)]:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            signal.setitimer(signal.ITIMER_REAL, seconds * CLOCK_PER_SECOND)
            outcome, text = extract(page, config, max_bytes)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            data = text.encode(errors="replace")
            answers.write(ANSWER.pack(outcome, len(data)))
            answers.write(data)
            answers.flush()


def extract(block: bytes, config: ExtractionConfig, max_bytes: int) -> tuple[Outcome, str]:
    """What becomes of a response: the text of its page, or why there is none."""
    try:
        page = read_response(block, max_bytes)
        html = decode_page(page.body, page.charset)
        return Outcome.TEXT, html_to_text(close_elements(html) if page.xhtml else html, config)
    except NoPage as error:
        return Outcome.NO_PAGE, str(error)
    except BadResponse as error:
        return Outcome.BAD, str(error)
    except BaseException as error:  # a panic of Rust code is no Exception
        return Outcome.BAD, f"{config.extractor}: {type(error).__name__}: {error}"[:300]


def _read_page(pages: BinaryIO) -> bytes:
    (length,) = PAGE.unpack(pages.read(PAGE.size))
    return pages.read(length)


if __name__ == "__main__":
    main()
