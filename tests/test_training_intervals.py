"""Intervals of a mean, against the tables and by simulation."""

import numpy as np
import pytest

from tokenmill.training.intervals import interval, t_quantile


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)],
)
def test_quantiles_of_students_t_are_those_of_the_tables(degrees, expected):
    assert t_quantile(0.975, degrees) == pytest.approx(expected, abs=5e-5)


def test_an_interval_covers_the_true_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 3))
    covered = [abs(found.mean - 3.0) <= found.half_width for found in map(interval, draws.tolist())]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)
