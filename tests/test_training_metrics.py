"""Speed as a step's line says it, on a clock that the test moves."""

import time

import pytest
import torch

from tokenmill.training.flops import flops_of_token
from tokenmill.training.metrics import StepStats
from tokenmill.training.presets import encoder_config

CONFIG = encoder_config("tiny")


class Clock:
    """Stands for time.perf_counter."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def make_stats(**settings):
    stats = StepStats(CONFIG, device="cpu", dtype="bfloat16", **settings)
    stats.begin_phase(0.2)
    return stats


def do_steps(stats, clock, waits, seconds=10.0):
    """Steps of 900 real tokens of 1,000, in three sequences of 300, each after a wait."""
    for wait in waits:
        with stats.meter.waiting():
            clock.now += wait
        stats.meter.count(900, 1000, 3 * 300**2)
        clock.now += seconds - wait
        stats.end_step()


def test_a_line_measures_since_the_line_before(clock):
    stats = make_stats()
    do_steps(stats, clock, [9.0])
    stats.speed(1000, 100_000)
    do_steps(stats, clock, [0.1] * 19 + [2.0])
    speed = stats.speed(21_000, 100_000)
    assert speed.tokens_per_second == pytest.approx(90)
    assert speed.padding == pytest.approx(0.1)
    assert speed.data_wait == pytest.approx((19 * 0.1 + 2.0) / 200)
    assert speed.data_wait_p95 == pytest.approx((0.1 + 0.05 * 1.9) / 10)  # numpy's, between two
    assert (speed.mfu, speed.peak_memory_gb) == (None, None)


def test_what_comes_between_steps_counts_for_the_time_left_alone(clock):
    stats = make_stats()
    do_steps(stats, clock, [0.0])
    assert stats.speed(1000, 11_000).seconds_left == pytest.approx(100)
    do_steps(stats, clock, [0.0])
    clock.now += 30  # an evaluation
    stats.restart()
    do_steps(stats, clock, [0.0] * 2)
    speed = stats.speed(4000, 11_000)
    assert speed.tokens_per_second == pytest.approx(90)
    assert speed.seconds_left == pytest.approx(7000 / 3000 * 60)
    stats.begin_phase(0.2)  # whose tokens take longer
    do_steps(stats, clock, [0.0], seconds=40)
    assert stats.speed(5000, 11_000).seconds_left == pytest.approx(240)


def test_mfu_is_of_the_tokens_lengths_and_devices_that_there_were(clock, monkeypatch):
    stats = make_stats(rank=1, world_size=2, sum_over_ranks=lambda own: own + own.flip(0))
    monkeypatch.setattr(stats, "_peak", 1e12)
    do_steps(stats, clock, [0.0] * 4)
    flops = flops_of_token(CONFIG, mask_rate=0.2, seen=300)
    assert stats.speed(1, 1).mfu == pytest.approx(2 * 90 * flops / 2e12)


def test_tokens_of_ranks_add_up_and_the_longest_wait_counts(clock):
    def of_both(own):
        assert own[1].count_nonzero() == 0
        return own + torch.tensor([[0.0] * 5, [300.0, 1000.0, 7.0, 0.5, 0.75]])

    stats = make_stats(rank=0, world_size=2, sum_over_ranks=of_both)
    do_steps(stats, clock, [1.0])
    speed = stats.speed(2000, 4000)
    assert speed.tokens_per_second == pytest.approx(120)
    assert speed.padding == pytest.approx(0.4)
    assert (speed.data_wait, speed.data_wait_p95) == (0.5, 0.75)
    assert speed.seconds_left == pytest.approx(10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_memory_is_that_of_the_tensors():
    held = torch.zeros(250_000_000, device="cuda")
    stats = StepStats(CONFIG, device="cuda", dtype="bfloat16")
    stats.begin_phase(0.2)
    assert stats.speed(1, 1).peak_memory_gb >= held.nbytes / 1e9
