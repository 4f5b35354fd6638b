"""The progress line, read as people see it: in a file, and on terminals of several widths."""

import io
import re
from dataclasses import replace

from test_training_curve import held_out, step

from tokenmill.training.progress import Progress, step_text

LINE = replace(
    step(12_340, 3.2141),
    tokens=12_000_000_000,
    lr=6e-4,
    tokens_per_second=301_234.0,
    mfu=0.412,
    padding=0.012,
    data_wait=0.003,
    seconds_left=11_530.0,
)
TOTAL = 100_000_000_000


def test_a_line_says_all_in_120_columns_and_in_80():
    assert step_text(LINE, TOTAL, 120) == (
        "phase1 step 12,340  12%  loss 3.214  301,234 tokens/s  3:12:10 left  MFU 41.2%  "
        "waiting 0.3%  padding 1.2%  lr 6.00e-04"
    )
    assert step_text(LINE, TOTAL, 80) == (
        "phase1 12,340  loss 3.214  301k tok/s  3:12:10 left  MFU 41%  wait 0.3%  pad 1%"
    )


def test_skipped_steps_are_shown_where_there_are_some():
    skipping = replace(LINE, skipped=2)
    assert "loss 3.214  2 skipped  301,234 tokens/s" in step_text(skipping, TOTAL)
    assert "loss 3.214  skip 2  301k tok/s" in step_text(skipping, TOTAL, 80)


def test_no_width_is_overrun_and_phase_step_and_loss_stay_longest():
    for width in range(13, 140):
        text = step_text(replace(LINE, skipped=2), TOTAL, width)
        assert len(text) <= width
        assert text.startswith("phase1 ")
        assert ("loss 3.214" in text) == (width >= len("phase1 12,340  loss 3.214"))


def test_what_is_not_known_is_left_out():
    text = step_text(replace(LINE, mfu=None, padding=None, seconds_left=None), TOTAL)
    assert not re.search("MFU|padding|left|None", text)
    assert "200d 0h left" in step_text(replace(LINE, seconds_left=200 * 86_400.0), TOTAL)


def test_without_a_terminal_progress_is_plain_lines():
    stream = io.StringIO()
    with Progress(4000, stream) as progress:
        progress.say("Going on after step 0, in phase1.")
        progress.step(step(1, 5.0))
        progress.step(step(2, 4.0))  # too soon after the one before
        progress.held_out([held_out(2, 4.5, "1024+"), held_out(2, 4.75, source="wiki")])
        progress.held_out([])
    assert stream.getvalue().splitlines() == [
        "Going on after step 0, in phase1.",
        "phase1 step 1  25%  loss 5.000  1 tokens/s  waiting 0.0%  lr 1.00e-01",
        "phase2 step 2, held out   loss  right  masked tokens",
        "1024+                    4.500  25.0%              5",
        "source wiki              4.750  25.0%              5",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one_line_that_fits_it_and_lines_of_their_own_above(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    with Progress(TOTAL, stream) as progress:
        progress.say("Going on [x].")
        progress.step(LINE)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue()).replace("\r", "\n")
    assert "Going on [x].\n" in shown
    assert shown.split("\n").count(step_text(LINE, TOTAL, 80)) == 1
