"""The log: what is written is read, also after a kill, from other versions, and without numbers."""

import json
import math
import resource
from dataclasses import replace

import pytest
from test_training_curve import held_out, step

from tokenmill.errors import FormatError, RunError
from tokenmill.training.log import Log, latest, read_log


def test_what_was_written_is_read_also_after_opening_again(tmp_path):
    full = {"grad_norm": 1.5, "skipped": 2, "mfu": 0.4, "padding": 0.01, "data_wait_p95": 0.02}
    lines = [
        replace(step(1, 5.0), grad_norm=0.5),
        held_out(1, 4.5, "all"),
        held_out(1, 4.75, source="wiki"),
        replace(step(2, 4.0), **full, seconds_left=7.5, peak_memory_gb=80.0),
    ]
    path = tmp_path / "log.jsonl"
    with Log(path) as log:
        log.write(lines[0])
    with Log(path) as log:
        for line in lines[1:]:
            log.write(line)
    assert read_log(path) == lines


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_null_in_valid_json_and_read_as_nan(tmp_path, value):
    path = tmp_path / "log.jsonl"
    with Log(path) as log:
        log.write(replace(step(1, value), grad_norm=value))

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    (text,) = path.read_text().splitlines()
    fields = json.loads(text, parse_constant=refuse)
    assert (fields["loss"], fields["grad_norm"]) == (None, None)
    (line,) = read_log(path)
    assert math.isnan(line.loss)
    assert math.isnan(line.grad_norm)
    assert (line.lr, line.mfu) == (0.1, None)


def test_a_log_of_the_first_version_is_read(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"event": "step", "phase": "phase1", "step": 1, "tokens": 9, "real_tokens": 8, '
        '"loss": 5.0, "lr": 0.1, "tokens_per_second": 1.0, "data_wait": 0.0}\n'
        '{"event": "held_out", "phase": "phase1", "step": 1, "tokens": 9, "subset": "all", '
        '"loss": 4.5, "masked_tokens": 5}\n'
    )
    first, second = read_log(path)
    assert math.isnan(first.grad_norm)
    assert (first.skipped, first.mfu, first.padding, first.seconds_left) == (0, None, None, None)
    assert (second.name, second.accuracy) == ("all", None)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_half_a_line_of_a_killed_process_is_dropped(tmp_path, cut):
    path = tmp_path / "log.jsonl"
    lines = [held_out(1, 5.0, "all"), held_out(2, 4.0, "all")]
    with Log(path) as log:
        for line in lines:
            log.write(line)
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_log(path) == lines[:1]
    with Log(path) as log:
        log.write(lines[1])
    assert read_log(path) == lines


def test_a_step_that_is_done_again_takes_back_what_was_said_of_it_and_of_later_ones():
    lines = [step(1, 5.0), step(2, 4.0), held_out(2, 1.0, "all"), step(3, 3.0), step(4, 2.0)]
    again = [step(2, 4.25), held_out(2, 1.5, "all"), held_out(2, 2.0, source="wiki")]
    found = [(line.step, line.loss) for line in latest([*lines, *again])]
    assert found == [(1, 5.0), (2, 4.25), (2, 1.5), (2, 2.0)]
    assert latest([*lines, *again, step(1, 6.0)]) == [step(1, 6.0)]  # begun anew


def test_of_evaluations_after_the_same_step_the_last_counts():
    first, made_up_for = held_out(2, 1.0, "all"), held_out(2, 1.5, "all")
    lines = [step(2, 4.0), first, step(3, 3.0), made_up_for]
    assert latest(lines) == [lines[0], made_up_for, lines[2]]


@pytest.mark.parametrize("room", [0, 9])
def test_a_full_disk_is_told_with_the_file_and_leaves_a_log_that_goes_on(tmp_path, room):
    path = tmp_path / "log.jsonl"
    lines = [step(1, 5.0), step(2, 4.0)]
    with Log(path) as log:
        log.write(lines[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, hard))
        try:
            with pytest.raises(
                RunError, match=r"log.jsonl: a line could not be written \(File too large\)"
            ):
                log.write(lines[1])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with Log(path) as log:
        log.write(lines[1])
    assert read_log(path) == lines


@pytest.mark.parametrize("text", ['{"event": "party"}', "[]", "{", '{"event": "step", "x": 1}'])
def test_a_line_that_is_none_of_ours_is_named(tmp_path, text):
    path = tmp_path / "log.jsonl"
    with Log(path) as log:
        log.write(step(1, 5.0))
    path.write_text(f"{path.read_text()}{text}\n")
    with pytest.raises(FormatError, match=r"log.jsonl, line 2: no line of this version's training"):
        read_log(path)
    with pytest.raises(FormatError, match="no such log"):
        read_log(tmp_path / "other")
