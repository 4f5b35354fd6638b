"""Learning rates: the shapes, the published schedules, and what holds for all of them."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.errors import RecipeError
from tokenmill.training.config import ScheduleConfig, TrainingConfig
from tokenmill.training.schedule import learning_rate, share_of_peak


def schedule(decay, **changes):
    settings = {"tokens": 1000, "learning_rate": 0.5, "warmup_tokens": 200, **changes}
    return ScheduleConfig(decay=decay, **settings)


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine", "1-sqrt"])
def test_the_warm_up_rises_from_0_in_a_straight_line(decay):
    rates = [learning_rate(schedule(decay), tokens) for tokens in (0, 50, 100, 200)]
    assert rates == [0, 0.125, 0.25, 0.5]


@pytest.mark.parametrize(
    ("decay", "a_quarter", "half"),
    [
        ("linear", 0.775, 0.55),
        ("cosine", 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2, 0.55),
        ("1-sqrt", 0.55, 0.1 + 0.9 * (1 - math.sqrt(0.5))),
        ("constant", 1, 1),
    ],
)
def test_the_fall_has_its_shape(decay, a_quarter, half):
    config = schedule(decay, final_fraction=0.1)
    assert learning_rate(config, 400) == pytest.approx(0.5 * a_quarter)
    assert learning_rate(config, 600) == pytest.approx(0.5 * half)


def test_a_shorter_fall_leaves_the_rest_of_the_phase_at_the_floor():
    config = schedule("linear", decay_tokens=400, final_fraction=0.1)
    assert learning_rate(config, 400) == pytest.approx(0.275)
    assert learning_rate(config, 600) == learning_rate(config, 900) == pytest.approx(0.05)


def test_warm_up_stable_decay():
    config = schedule("linear", stable_tokens=500, final_fraction=0)
    rates = [learning_rate(config, tokens) for tokens in (100, 200, 450, 700, 850, 1000)]
    assert rates == [0.25, 0.5, 0.5, 0.5, 0.25, 0]


def test_without_a_warm_up_the_fall_begins_at_once():
    config = schedule("linear", warmup_tokens=0, final_fraction=0)
    assert [learning_rate(config, tokens) for tokens in (0, 500, 1000)] == [0.5, 0.25, 0]


@pytest.mark.parametrize("stable", [0, 400])
def test_a_phase_that_ends_before_its_fall_ends_at_the_peak(stable):
    config = schedule("cosine", warmup_tokens=1000 - stable, stable_tokens=stable)
    assert learning_rate(config, 1000) == 0.5


STEP = 2**21
"""Tokens of a step of NeoBERT."""


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        # NeoBERT: 2,000 steps up, a cosine to a tenth at step 900,000, that to the end.
        (
            {
                "tokens": 1_050_000 * STEP,
                "learning_rate": 6e-4,
                "warmup_tokens": 2_000 * STEP,
                "decay": "cosine",
                "decay_tokens": 898_000 * STEP,
                "final_fraction": 0.1,
            },
            {
                1_000 * STEP: 3e-4,
                2_000 * STEP: 6e-4,
                451_000 * STEP: 3.3e-4,
                900_000 * STEP: 6e-5,
                1_050_000 * STEP: 6e-5,
            },
        ),
        # ModernBERT-base: 3 billion tokens up, then the height; its last phase 1 - sqrt to 0.001.
        (
            {"tokens": 1719 * 10**9, "learning_rate": 8e-4, "warmup_tokens": 3 * 10**9},
            {1_500_000_000: 4e-4, 3 * 10**9: 8e-4, 1719 * 10**9: 8e-4},
        ),
        (
            {
                "tokens": 50 * 10**9,
                "learning_rate": 3e-4,
                "decay": "1-sqrt",
                "final_fraction": 0.001,
            },
            {0: 3e-4, 12_500_000_000: 3e-4 * (0.001 + 0.999 / 2), 50 * 10**9: 3e-7},
        ),
        # BERT: 10,000 steps up, a straight line to 0 at step 1,000,000.
        (
            {
                "tokens": 1_000_000,
                "learning_rate": 1e-4,
                "warmup_tokens": 10_000,
                "decay": "linear",
                "final_fraction": 0.0,
            },
            {5_000: 5e-5, 10_000: 1e-4, 505_000: 5e-5, 1_000_000: 0},
        ),
    ],
)
def test_published_schedules_have_their_rates(settings, rates):
    config = ScheduleConfig(**settings)
    assert {tokens: learning_rate(config, tokens) for tokens in rates} == pytest.approx(rates)


@given(
    decay=st.sampled_from(["constant", "linear", "cosine", "1-sqrt"]),
    warmup=st.integers(0, 1000),
    stable=st.integers(0, 1000),
    decay_tokens=st.none() | st.integers(1, 1500),
    floor=st.floats(0, 1),
)
def test_the_rate_rises_to_the_peak_and_falls_to_the_floor_without_a_leap(
    decay, warmup, stable, decay_tokens, floor
):
    stable = min(stable, 1000 - warmup)
    config = schedule(
        decay,
        warmup_tokens=warmup,
        stable_tokens=stable,
        decay_tokens=decay_tokens,
        final_fraction=floor,
    )
    shares = [share_of_peak(config, tokens) for tokens in range(1001)]
    top = warmup + stable
    assert shares[: warmup + 1] == sorted(shares[: warmup + 1])
    assert shares[warmup:] == sorted(shares[warmup:], reverse=True)
    assert set(shares[warmup : top + 1]) == {1}
    length = decay_tokens or 1000 - top
    if decay != "constant" and length:
        assert set(shares[top + length :]) <= {floor}
    # The steepest are the straight line up and the begin of 1 - sqrt.
    steepest = max(1 / max(warmup, 1), 1 / math.sqrt(max(length, 1)))
    assert max(abs(after - before) for before, after in pairwise(shares)) <= steepest + 1e-9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 0}, "tokens: expected at least 1, found 0"),
        ({"learning_rate": 0.0}, "learning_rate: expected above 0, found 0.0"),
        ({"warmup_tokens": 1001}, "expected 0 to the phase's 1000 tokens, found 1001"),
        (
            {"stable_tokens": 801},
            "what the phase's tokens leave after warmup_tokens, 800, found 801",
        ),
        ({"decay_tokens": 0}, "decay_tokens: expected at least 1, found 0"),
        ({"final_fraction": 1.5}, "final_fraction: expected 0 to 1, found 1.5"),
        ({"weight_decay": -1.0}, "weight_decay: expected at least 0, found -1.0"),
    ],
)
def test_an_impossible_schedule_is_refused_with_its_value(changes, message):
    with pytest.raises(RecipeError, match=message):
        schedule("linear", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"betas": (0.9,)}, r"betas: expected two numbers of \[0, 1\), found \[0.9\]"),
        ({"eps": 0.0}, "eps: expected above 0, found 0.0"),
        ({"clip_norm": float("nan")}, "clip_norm: expected above 0, or null, found nan"),
        ({"weight_decay": -0.1}, "weight_decay: expected at least 0, found -0.1"),
        ({"z_loss": -1.0}, "z_loss: expected at least 0, found -1.0"),
        ({"muon_momentum": 1.0}, "muon_momentum: expected at least 0 and below 1, found 1.0"),
        ({"ema_decay": 1.0}, "ema_decay: expected between 0 and 1, found 1.0"),
    ],
)
def test_an_impossible_optimizer_is_refused_with_its_value(changes, message):
    with pytest.raises(RecipeError, match=message):
        TrainingConfig(preset="tiny", micro_batch_tokens=64, **changes)
