import io
import re

import pytest
from test_training_curve import held_out, step

from tokenmill.errors import FormatError
from tokenmill.training.log import Log, latest, read_log
from tokenmill.training.progress import Progress


def test_what_was_written_is_read_also_after_opening_again(tmp_path):
    lines = [step(1, 5.0), held_out(1, 4.5, "all"), step(2, 4.0)]
    path = tmp_path / "log.jsonl"
    with Log(path) as log:
        log.write(lines[0])
    with Log(path) as log:
        log.write(lines[1])
        log.write(lines[2])
    assert read_log(path) == lines


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_half_a_line_of_a_killed_process_is_dropped(tmp_path, cut):
    path = tmp_path / "log.jsonl"
    with Log(path) as log:
        log.write(step(1, 5.0))
        log.write(step(2, 4.0))
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_log(path) == [step(1, 5.0)]
    with Log(path) as log:
        log.write(step(2, 4.0))
    assert read_log(path) == [step(1, 5.0), step(2, 4.0)]


def test_of_repeated_steps_the_last_counts():
    lines = [step(1, 5.0), step(2, 4.0), held_out(2, 1.0, "all"), step(2, 4.25), step(3, 3.0)]
    assert latest(lines) == [step(1, 5.0), step(2, 4.25), held_out(2, 1.0, "all"), step(3, 3.0)]


def test_a_line_that_is_none_of_ours_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    with Log(path) as log:
        log.write(step(1, 5.0))
    path.write_text(path.read_text() + '{"event": "party"}\n')
    with pytest.raises(FormatError, match=r"log.jsonl, line 2: no line of a training log"):
        read_log(path)
    with pytest.raises(FormatError, match="no such log"):
        read_log(tmp_path / "other")


def test_without_a_terminal_progress_is_plain_lines():
    stream = io.StringIO()
    with Progress(4000, stream) as progress:
        progress.say("Going on after step 0, in phase1.")
        progress.step(step(1, 5.0))
        progress.step(step(2, 4.0))  # too soon after the one before
        progress.held_out(held_out(2, 4.5, "1024+"))
    assert stream.getvalue().splitlines() == [
        "Going on after step 0, in phase1.",
        "phase1 step 1  loss 5.000  lr 1.00e-01  1 tokens/s  waiting 0.0%  49:30 left",
        "phase2 step 2  held-out loss of 1024+: 4.500 nats over 5 masked tokens",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_progress_is_a_bar():
    stream = Terminal()
    with Progress(2000, stream) as progress:
        progress.step(step(2, 4.0))
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "100%" in shown
    assert "loss 4.000" in shown
