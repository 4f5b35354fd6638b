import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.errors import RecipeError
from tokenmill.training.config import ScheduleConfig
from tokenmill.training.schedule import learning_rate


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


@pytest.mark.parametrize("decay", ["linear", "cosine", "1-sqrt"])
def test_the_last_step_stands_at_the_floor_and_the_rate_stays_there(decay):
    config = schedule(decay, final_fraction=0.25)
    assert learning_rate(config, 1000) == learning_rate(config, 5000) == pytest.approx(0.125)


def test_a_shorter_fall_leaves_the_rest_of_the_phase_at_the_floor():
    config = schedule("linear", decay_tokens=400, final_fraction=0.1)
    assert learning_rate(config, 400) == pytest.approx(0.275)
    assert learning_rate(config, 600) == learning_rate(config, 900) == pytest.approx(0.05)


def test_without_a_warm_up_the_fall_begins_at_once():
    config = schedule("linear", warmup_tokens=0, final_fraction=0)
    assert [learning_rate(config, tokens) for tokens in (0, 500, 1000)] == [0.5, 0.25, 0]


def test_a_phase_that_is_all_warm_up_ends_at_the_peak():
    config = schedule("cosine", warmup_tokens=1000)
    assert learning_rate(config, 1000) == 0.5


@given(
    st.sampled_from(["constant", "linear", "cosine", "1-sqrt"]),
    st.integers(0, 1000),
    st.integers(1, 1500),
    st.floats(0, 1),
)
def test_the_rate_rises_to_the_peak_and_never_again(decay, warmup, decay_tokens, floor):
    config = schedule(decay, warmup_tokens=warmup, decay_tokens=decay_tokens, final_fraction=floor)
    rising = [learning_rate(config, tokens) for tokens in range(0, warmup + 1)]
    falling = [learning_rate(config, tokens) for tokens in range(warmup, 1001)]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert falling[0] == 0.5
    assert min(rising + falling) >= 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 0}, "tokens: expected at least 1, found 0"),
        ({"learning_rate": 0.0}, "learning_rate: expected above 0, found 0.0"),
        ({"warmup_tokens": 1001}, "expected 0 to the phase's 1000 tokens, found 1001"),
        ({"decay_tokens": 0}, "decay_tokens: expected at least 1, found 0"),
        ({"final_fraction": 1.5}, "final_fraction: expected 0 to 1, found 1.5"),
    ],
)
def test_an_impossible_schedule_is_refused_with_its_value(changes, message):
    with pytest.raises(RecipeError, match=message):
        schedule("linear", **changes)
