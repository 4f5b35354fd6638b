"""The extraction process: it may hang, crash or be killed; every page gets its answer, or its
error, and nothing is left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warc_files import page, response

from tokenmill.pipeline.extract.child import Outcome, extract
from tokenmill.pipeline.extract.config import ExtractionConfig
from tokenmill.pipeline.extract.extractor import Extractor

DEEP = response(b"<html><body>" + b"<div>" * 60_000 + b"deep" + b"</div>" * 60_000)
"""resiliparse looks for the main content of it for more than a minute."""
QUICK = ExtractionConfig(seconds=0.03)
MAX = 1 << 20


def texts(answers):
    return [text if outcome is Outcome.TEXT else outcome for outcome, text in answers]


def test_answers_are_those_of_this_process_in_the_order_of_the_pages():
    pages = [page(f"page number {i} " * i) for i in range(1, 60)]
    pages += [response(b"x", status="404 Gone"), b"no http", DEEP[:100]]
    config = ExtractionConfig(main_content=False)
    with Extractor(config, MAX) as extractor:
        assert extractor.extract(pages) == [extract(one, config, MAX) for one in pages]


def test_batches_come_back_with_their_labels_while_the_next_is_extracted():
    batches = [(label, [page(f"page {label}")] * label) for label in range(5)]
    with Extractor(ExtractionConfig(main_content=False), MAX) as extractor:
        found = [(label, texts(answers)) for label, answers in extractor.run(iter(batches))]
    assert found == [(label, [f"page {label}"] * label) for label in range(5)]


def test_batches_larger_than_any_pipe_do_not_stall():
    large = page("x " * (1 << 20))
    with Extractor(ExtractionConfig(main_content=False), 1 << 24) as extractor:
        answers = [one for _, found in extractor.run([(0, [large] * 3)] * 3) for one in found]
    assert [len(text) for _, text in answers] == [(1 << 21) - 1] * 9


def test_a_page_that_takes_too_long_costs_itself_alone():
    pages = [page("before it"), DEEP, page("after it")]
    with Extractor(QUICK, MAX) as extractor:
        answers = extractor.extract(pages)
    assert texts(answers) == ["before it", Outcome.BAD, "after it"]
    assert answers[1][1] == "resiliparse: too slow (0.3 s are allowed)"


def test_a_page_gets_ten_times_the_time_alone():
    """Of processor time, however busy the machine is."""
    deep = response(b"<html><body>" + b"<div>" * 4000 + b"deep" + b"</div>" * 4000)
    start = time.process_time()
    extract(deep, ExtractionConfig(), MAX)
    seconds = time.process_time() - start
    with Extractor(ExtractionConfig(seconds=seconds / 4), MAX) as extractor:
        assert texts(extractor.extract([deep])) == ["deep"]
        first = extractor._child
        assert texts(extractor.extract([page("next")])) == ["next"]
        assert extractor._child is first


@pytest.mark.parametrize("cause", [signal.SIGKILL, signal.SIGSEGV])
def test_a_child_that_something_else_killed_costs_no_page(cause):
    with Extractor(QUICK, MAX) as extractor:
        extractor.extract([page("first")])
        os.kill(extractor._child.pid, cause)
        extractor._child.wait()
        assert texts(extractor.extract([page("one"), page("two")])) == ["one", "two"]


def test_a_page_on_which_the_child_dies_twice_is_named_with_the_signal(monkeypatch):
    # A child that cannot get memory: Rust ends the process, Python raises.
    monkeypatch.setattr(Extractor, "_ask", _ask_and_kill)
    with Extractor(QUICK, MAX) as extractor:
        answers = extractor.extract([page("one")])
    assert answers == [(Outcome.BAD, "resiliparse: died of SIGSEGV (0.3 s are allowed)")]


_real_ask = Extractor._ask


def _ask_and_kill(self, pages, seconds, answers):
    _real_ask(self, [page("warm")], seconds, [])
    os.kill(self._child.pid, signal.SIGSEGV)
    self._child.wait()
    _real_ask(self, pages, seconds, answers)


def test_memory_is_bounded():
    script = (
        "import sys, resource; import tokenmill.pipeline.extract.child as child\n"
        "big = lambda html: child.MEMORY_BYTES if html else 1\n"
        "child.html_to_text = lambda html, config: str(len(bytearray(big(html))))\n"
        "child.main()"
    )
    with Extractor(ExtractionConfig(), MAX) as extractor:
        settings = extractor._command[-1]
        extractor._command = [sys.executable, "-c", script, settings]
        ((outcome, error),) = extractor.extract([page("one")])
    assert outcome is Outcome.BAD
    assert "MemoryError" in error


def test_leaving_ends_the_child():
    with Extractor(QUICK, MAX) as extractor:
        extractor.extract([page("one")])
        child = extractor._child
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize("busy", [False, True])
def test_a_killed_parent_takes_its_child_along(busy):
    script = """
import sys, threading
from warc_files import page
from test_extractor import DEEP, MAX
from tokenmill.pipeline.extract.config import ExtractionConfig
from tokenmill.pipeline.extract.extractor import Extractor
extractor = Extractor(ExtractionConfig(seconds=0.5), MAX)
extractor.extract([page("one")])
print(extractor._child.pid, flush=True)
extractor.extract([DEEP] if sys.argv[1] == "True" else [])
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(busy)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent,
    )  # fmt: skip
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while _runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # a zombie waits for an init that reaps
