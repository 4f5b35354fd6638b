"""The order for remote shards: a permutation, cohort by cohort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.errors import RecipeError
from tokenmill.loader.cohorts import CohortOrder

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(SIZES, st.integers(1, 14), st.integers(0, 2**64 - 1))
def test_rows_are_permuted_cohort_by_cohort_and_back(sizes, cohort_shards, key):
    shard_rows = np.array(sizes)
    order = CohortOrder(shard_rows, cohort_shards)
    positions = np.arange(shard_rows.sum())
    rows = order.rows_at(positions, key)
    assert sorted(rows.tolist()) == positions.tolist()
    assert order.positions_of(rows, key).tolist() == positions.tolist()
    # The slow obvious version: which shards does each run of positions take, whole?
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    keyed = order.shards_at(0, len(rows), key).tolist()
    assert sorted(keyed) == list(range(len(sizes)))
    first = 0
    for start in range(0, len(keyed), cohort_shards):
        cohort = keyed[start : start + cohort_shards]
        last = first + int(shard_rows[cohort].sum())
        assert set(shard_of[rows[first:last]]) == set(cohort)
        assert order.shards_at(first, last, key).tolist() == cohort
        assert order.shards_at(first, first, key).tolist() == []
        first = last


def test_any_subset_of_positions_gives_the_same_rows():
    order = CohortOrder(np.full(40, 100), 7)
    positions = np.random.default_rng(0).permutation(4000)[:999]
    whole = order.rows_at(np.arange(4000), 5)
    np.testing.assert_array_equal(order.rows_at(positions, 5), whole[positions])
    assert not np.array_equal(order.rows_at(positions, 6), whole[positions])


def test_the_order_is_frozen():
    order = CohortOrder(np.array([3, 1, 4, 1, 5]), 2)
    assert order.rows_at(np.arange(14), 12345).tolist() == [
        11, 10, 12, 9, 13, 3, 8, 2, 0, 1, 4, 6, 5, 7,
    ]  # fmt: skip


def test_a_cohort_of_no_shards_is_refused():
    with pytest.raises(RecipeError, match=r"loader\.cohort_shards: need at least 1, got 0"):
        CohortOrder(np.array([1]), 0)
