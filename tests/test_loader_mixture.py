"""The mixture: exact weights over buckets, exact counts at every step, and the table of both."""

from fractions import Fraction
from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loader_runs import ROW_TOKENS, make_run

from tokenmill.errors import RecipeError
from tokenmill.loader import LoaderConfig, mixture_table
from tokenmill.loader.mixture import BucketSize, bucket_weights, counts, rows_until
from tokenmill.loader.plan import read_plan

WEIGHTS = st.lists(st.integers(0, 10**9), min_size=1, max_size=40).filter(any)

SHORT = BucketSize("0-1023", rows=60, tokens=600)
LONG = BucketSize("1024+", rows=20, tokens=100)
SUBSETS = {"all": ("0-1023", "1024+"), "1024+": ("1024+",)}


@given(weights=WEIGHTS, num_rows=st.integers(0, 10**12))
def test_from_one_row_to_the_next_exactly_one_bucket_gives_one_row(weights, num_rows):
    before, after = counts(num_rows, weights), counts(num_rows + 1, weights)
    assert sum(before) == num_rows
    assert sorted(b - a for a, b in zip(before, after, strict=True)) == [0] * (len(weights) - 1) + [
        1
    ]


@given(weights=WEIGHTS, num_rows=st.integers(0, 10**12))
def test_counts_are_never_off_by_more_than_the_depth_of_the_tree(weights, num_rows):
    depth = ceil(log2(len(weights)))
    for count, weight in zip(counts(num_rows, weights), weights, strict=True):
        assert abs(count - Fraction(num_rows * weight, sum(weights))) <= depth


@given(weights=WEIGHTS)
def test_whole_rounds_of_the_weights_are_met_exactly(weights):
    assert counts(3 * sum(weights), weights) == tuple(3 * weight for weight in weights)


def test_a_bucket_of_weight_0_gives_nothing():
    assert counts(1000, [0, 5, 0, 3]) == (0, 625, 0, 375)


def test_counts_of_the_header_are_these():
    assert [counts(n, [3, 1, 4]) for n in (1, 2, 3, 8)] == [
        (1, 0, 0),
        (1, 1, 0),
        (2, 1, 0),
        (3, 1, 4),
    ]


@given(weights=WEIGHTS, count=st.integers(0, 10**6), data=st.data())
def test_rows_until_is_the_first_number_of_rows_that_reaches_a_count(weights, count, data):
    bucket = data.draw(st.integers(0, len(weights) - 1))
    reached = rows_until(count, bucket, weights)
    if reached is None:
        assert count > 0
        assert weights[bucket] == 0
    else:
        assert counts(reached, weights)[bucket] == count
        assert reached == 0 or counts(reached - 1, weights)[bucket] < count


def weights_of(mixture, weights_by="rows", buckets=(SHORT, LONG)):
    return bucket_weights(mixture, SUBSETS, buckets, weights_by=weights_by, where="phase1")


def test_a_share_of_all_is_dealt_to_the_buckets_by_their_rows():
    assert weights_of({"all": 1}) == (3, 1)


def test_shares_of_overlapping_subsets_add_up_exactly():
    # short: 0.2 * 60 / 80 = 0.15; long: 0.2 * 20 / 80 + 0.8 = 0.85
    assert weights_of({"all": 0.2, "1024+": 0.8}) == (3, 17)
    assert weights_of({"all": "0.2", "1024+": "4/5"}) == (3, 17)


def test_shares_of_tokens_become_rows_of_other_number():
    # Half of the tokens from the long bucket: its rows hold 5 tokens each, all of them 8.75.
    weights = weights_of({"all": 0.5, "1024+": 0.5}, weights_by="tokens")
    tokens = [
        weight * bucket.tokens / bucket.rows
        for weight, bucket in zip(weights, (SHORT, LONG), strict=True)
    ]
    long_alone = 0.5 + 0.5 * 100 / 700
    assert tokens[1] / sum(tokens) == pytest.approx(long_alone)


def test_a_subset_without_rows_is_refused_with_the_rows_there_are():
    with pytest.raises(RecipeError) as refusal:
        weights_of({"all": 0.5, "1024+": 0.5}, buckets=(SHORT, BucketSize("1024+", 0, 0)))
    assert str(refusal.value) == (
        "phase1: the mixture takes 0.5 from the subset 1024+, which has no rows (rows by bucket: "
        "0-1023: 60, 1024+: 0). Take 1024+ out of the mixture, or build from more or longer "
        "documents."
    )


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (
            {"all": 0.5},
            "loader.mixture: the shares must add up to 1, got {'all': 0.5}, which is 0.5",
        ),
        ({"all": 1.5, "8+": -0.5}, "loader.mixture: the share of 8+ must be above 0, got -0.5"),
        (
            {"all": "most"},
            "'most' is no share: write a number like 0.2, or a fraction like \"1/3\"",
        ),
        ({}, "loader.mixture: the shares must add up to 1, got {}, which is 0"),
    ],
)
def test_shares_that_are_none_are_refused(mixture, message):
    with pytest.raises(RecipeError) as refusal:
        LoaderConfig(mixture=mixture, batch_tokens=1)
    assert str(refusal.value) == message


def test_decimal_shares_are_what_they_say():
    LoaderConfig(mixture={"all": 0.1, "8+": 0.2, "16+": 0.7}, batch_tokens=1)
    LoaderConfig(mixture={"all": "1/3", "8+": "1/3", "16+": "1/3"}, batch_tokens=1)


def test_the_table_says_what_a_phase_reads(tmp_path):
    # 22 rows of all in 3 steps of 5 rows from phase 1, then 12 steps of the 4 rows of 16+.
    run = make_run(
        tmp_path,
        {
            "phase1": {"tokens": 15 * ROW_TOKENS},
            "phase2": {"mixture": {"16+": 1.0}, "tokens": 12 * ROW_TOKENS, "batch_tokens": 64},
        },
    )
    first, second = mixture_table(run, "phase1"), mixture_table(run, "phase2")
    assert (first.num_steps, first.rows_per_step, second.num_steps) == (3, 5, 12)
    assert [line.rows for line in first.buckets] == [7, 11, 4]
    assert [line.share_of_rows for line in first.buckets] == pytest.approx(
        [7 / 22, 11 / 22, 4 / 22]
    )
    assert first.subsets[0].epochs_after == 15 / 22
    assert first.subsets[0].first_repeat_step == 4  # row 23 is in the fifth step
    assert sum(line.share_of_tokens for line in first.buckets) == pytest.approx(1)

    read_before = counts(15, [7, 11, 4])[2]
    line = second.subsets[0]
    assert (line.name, line.share) == ("16+", "1.0")
    assert line.epochs_before == read_before / 4
    assert line.epochs_after == (read_before + 12) / 4
    assert line.first_repeat_step == 4 - read_before
    assert second.buckets[0].first_repeat_step is None
    assert second.buckets[0].tokens_read == 0


def test_the_first_repeat_of_the_table_is_the_first_in_the_order(tmp_path):
    run = make_run(tmp_path, {"phase1": {"mixture": {"all": 0.3, "8+": 0.7}}})
    plan = read_plan(run, "phase1")
    for index, line in enumerate(mixture_table(run, "phase1").buckets):
        repeats = [
            step
            for step in range(60)
            for bucket, _, visit in zip(*plan.rows_of(step), strict=True)
            if bucket == index and visit > 0
        ]
        assert line.first_repeat_step == repeats[0]


def test_another_seed_over_the_same_pack_is_refused(tmp_path):
    run = make_run(tmp_path, {"phase1": {"seed": 3}, "phase2": {"seed": 4}})
    with pytest.raises(RecipeError) as refusal:
        read_plan(run, "phase2")
    assert str(refusal.value) == (
        "phase2.loader.seed: phase2 goes on with the pack short where phase1 ends, so it needs its "
        "seed 3, got 4."
    )


def test_phases_over_different_packs_start_their_own_counts(tmp_path):
    run = make_run(
        tmp_path, {"phase1": {}, "phase2": {"pack": "long", "seed": 9}}, packs=("short", "long")
    )
    assert read_plan(run, "phase2").counts_before == (0, 0, 0)
