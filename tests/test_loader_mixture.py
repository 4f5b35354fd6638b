"""The mixture: exact weights over buckets, exact counts at every step, and the table of both."""

from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loader_runs import ROW_TOKENS, make_run

from tokenmill.cli import main
from tokenmill.errors import RecipeError
from tokenmill.loader import BatchWarmup, LoaderConfig, MixtureChange, mixture_tables
from tokenmill.loader.batch_size import BatchSizes
from tokenmill.loader.mixture import BucketSize, RowMixture, bucket_weights
from tokenmill.loader.plan import read_plan

WEIGHTS = st.lists(st.integers(0, 10**9), min_size=1, max_size=40).filter(any)

SHORT = BucketSize("0-1023", rows=60, tokens=600)
LONG = BucketSize("1024+", rows=20, tokens=100)
SUBSETS = {"all": ("0-1023", "1024+"), "1024+": ("1024+",)}


@given(weights=WEIGHTS, num_rows=st.integers(0, 10**12))
def test_from_one_row_to_the_next_exactly_one_bucket_gives_one_row(weights, num_rows):
    mixture = RowMixture(weights)
    before, after = mixture.counts(num_rows), mixture.counts(num_rows + 1)
    assert sum(before) == num_rows
    grown = sorted(b - a for a, b in zip(before, after, strict=True))
    assert grown == [0] * (len(weights) - 1) + [1]


def largest_error(weights, num_rows):
    counts, total = RowMixture(weights).counts(num_rows), sum(weights)
    errors = (c * total - num_rows * w for c, w in zip(counts, weights, strict=True))
    return Fraction(max(map(abs, errors)), total)


SKEWED = {
    "even": lambda random: random.randint(1, 10**6),
    "heavy-tailed": lambda random: int(1000 * random.paretovariate(0.5)),
    "geometric": lambda random: int(1.5 ** random.randint(0, 100)) + 1,
    "one above all": lambda random: random.choice([1] * 100 + [10**9]),
}


@pytest.mark.parametrize("kind", SKEWED)
def test_of_128_subsets_none_is_ever_off_by_4_rows(kind):
    random = Random(kind)
    for _ in range(8):
        weights = [SKEWED[kind](random) for _ in range(128)]
        for _ in range(25):
            assert largest_error(weights, random.randrange(10 ** random.randint(1, 12))) < 4


@given(weights=WEIGHTS, num_rows=st.integers(0, 10**12))
def test_counts_are_never_off_by_4_rows(weights, num_rows):
    assert largest_error(weights, num_rows) < 4


@given(weights=WEIGHTS)
def test_whole_rounds_of_the_weights_are_met_exactly(weights):
    assert RowMixture(weights).counts(3 * sum(weights)) == tuple(3 * weight for weight in weights)


def test_counts_of_the_header_are_these():
    mixture = RowMixture([3, 1, 4])
    assert [mixture.counts(n) for n in (1, 2, 3, 6, 7, 8)] == [
        (1, 0, 0), (1, 0, 1), (2, 0, 1), (3, 0, 3), (3, 1, 3), (3, 1, 4),
    ]  # fmt: skip


@given(weights=WEIGHTS, count=st.integers(0, 10**6), data=st.data())
def test_rows_until_is_the_first_number_of_rows_that_reaches_a_count(weights, count, data):
    mixture = RowMixture(weights)
    bucket = data.draw(st.integers(0, len(weights) - 1))
    reached = mixture.rows_until(count, bucket)
    if reached is None:
        assert count > 0
        assert weights[bucket] == 0
    else:
        assert mixture.counts(reached)[bucket] == count
        assert reached == 0 or mixture.counts(reached - 1)[bucket] < count


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: BatchWarmup(start_tokens=0, tokens=5),
            "loader.batch_warmup.start_tokens: need at least 1, got 0",
        ),
        (
            lambda: LoaderConfig(
                mixture={"all": 1},
                batch_tokens=4,
                batch_warmup=BatchWarmup(start_tokens=5, tokens=5),
            ),
            "loader.batch_warmup.start_tokens: need at most batch_tokens = 4, got 5",
        ),
        (
            lambda: MixtureChange(after_tokens=9, mixture={"all": 0.5}),
            "mixture: the shares must add up to 1, got {'all': 0.5}, which is 0.5",
        ),
        (
            lambda: LoaderConfig(
                mixture={"all": 1},
                batch_tokens=4,
                changes=(MixtureChange(after_tokens=9, mixture={"all": 1}),) * 2,
            ),
            "loader.changes: after_tokens must rise, got 9 before 9",
        ),
        (
            lambda: LoaderConfig(mixture={"all": 1}, batch_tokens=4, max_epochs=0),
            "loader.max_epochs: need above 0, got 0",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(RecipeError) as refusal:
        make()
    assert str(refusal.value) == message


SIZES = st.builds(
    lambda start, more, warmup_rows: BatchSizes(start, start + more, warmup_rows),
    st.integers(1, 9),
    st.integers(0, 60),
    st.integers(0, 900),
)


@given(sizes=SIZES)
def test_a_batch_grows_by_its_first_size_in_steps_that_add_up(sizes):
    rows = [sizes.rows_of(step) for step in range(sizes.warmup_steps + 3)]
    assert rows == sorted(rows)
    assert rows[-3:] == [sizes.full] * 3
    assert all(size % sizes.start == 0 for size in rows[:-3])
    before = [sum(rows[:step]) for step in range(len(rows))]
    assert [sizes.rows_before(step) for step in range(len(rows))] == before
    if sizes.stairs:
        assert abs(before[sizes.warmup_steps] - sizes.warmup_rows) <= sizes.full
    for wanted in range(0, before[-1], 11):
        expected = next(step for step, total in enumerate(before) if total >= wanted)
        assert sizes.steps_until(wanted) == expected


def test_modernberts_warm_up_has_its_five_stairs():
    # 768 to 4,608 sequences of 1,024 tokens over 50 billion tokens.
    sizes = BatchSizes(48, 288, 50_000_000_000 // 16_384)
    assert sizes.warmup_steps == 21_193
    firsts = [0, 4_239, 8_478, 12_716, 16_955, 21_193]
    assert [sizes.rows_of(step) for step in firsts] == [48, 96, 144, 192, 240, 288]
    assert [sizes.rows_of(step - 1) for step in firsts[1:]] == [48, 96, 144, 192, 240]


NEOBERT_2 = {"all": 0.2, "8+": 0.4, "16+": 0.4}


def test_neoberts_second_phase_is_20_40_40_at_every_step(tmp_path):
    # Buckets as the RefinedWeb sample fills them from 1,024 and 2,048 tokens on.
    rows = {"0-7": 33, "8-15": 43, "16+": 98}
    run = make_run(
        tmp_path,
        {
            "phase1": {"tokens": 75 * ROW_TOKENS},
            "phase2": {"mixture": NEOBERT_2, "tokens": 1000 * ROW_TOKENS},
        },
        rows=rows,
    )
    plan = read_plan(run, "phase2")
    subsets = {"all": [0, 1, 2], "8+": [1, 2], "16+": [2]}
    size = {name: sum(plan.buckets[b].rows for b in members) for name, members in subsets.items()}
    share = {name: Fraction(str(NEOBERT_2[name])) for name in subsets}
    # What a bucket's rows are worth to each subset that they are taken for.
    part = {
        name: [share[name] * bucket.rows / size[name] * (b in members)
               for b, bucket in enumerate(plan.buckets)]
        for name, members in subsets.items()
    }  # fmt: skip
    whole = [sum(part[name][bucket] for name in subsets) for bucket in range(3)]
    assert sum(whole) == 1
    for step in range(plan.num_steps + 1):
        read = [b - a for a, b in zip(plan.counts_before, plan.counts_until(step), strict=True)]
        assert sum(read) == 5 * step
        for name in subsets:
            credit = sum(read[b] * part[name][b] / whole[b] for b in range(3))
            assert abs(credit - share[name] * sum(read)) < 2  # the depth of a tree of three


def test_a_mixture_changes_in_the_middle_of_a_phase_and_counts_go_on(tmp_path):
    changes = [
        {"after_tokens": 12 * ROW_TOKENS, "mixture": {"16+": 1.0}},
        {"after_tokens": 30 * ROW_TOKENS, "mixture": {"all": 0.5, "8+": 0.5}},
    ]
    run = make_run(tmp_path, {"phase1": {"changes": changes, "tokens": 80 * ROW_TOKENS}})
    plan = read_plan(run, "phase1")
    assert [section.first_step for section in plan.sections] == [0, 3, 6]  # 5 rows a step
    positions = [0, 0, 0]
    for step in range(plan.num_steps):
        assert plan.counts_until(step) == tuple(positions)
        buckets, rows, visits = (column.tolist() for column in plan.rows_of(step))
        assert set(buckets) == {2} if 3 <= step < 6 else set(buckets) != {2}
        for bucket in range(3):
            here = [i for i in range(len(buckets)) if buckets[i] == bucket]
            first, last = positions[bucket], positions[bucket] + len(here)
            expected = plan.orders[bucket].rows_at(first, last)
            assert sorted((rows[i], visits[i]) for i in here) == sorted(
                zip(*(column.tolist() for column in expected), strict=True)
            )
            for position in range(first, last):
                assert plan.order_step_of(bucket, position) == step
            positions[bucket] = last


def test_each_step_shuffles_its_rows_anew(tmp_path):
    run = make_run(tmp_path, {"phase1": {"batch_tokens": 20 * ROW_TOKENS}}, rows={"16+": 20})
    plan, shuffles = read_plan(run, "phase1"), {tuple(range(20))}
    for step in range(10):
        dealt = plan.orders[2].rows_at(20 * step, 20 * step + 20)[0].tolist()
        shuffles.add(tuple(dealt.index(row) for row in plan.rows_of(step)[1]))
    assert len(shuffles) == 11


def test_a_phase_with_warm_up_is_as_long_as_its_tokens(tmp_path):
    warmup = {"start_tokens": 2 * ROW_TOKENS, "tokens": 18 * ROW_TOKENS}
    settings = {"batch_tokens": 6 * ROW_TOKENS, "batch_warmup": warmup, "tokens": 36 * ROW_TOKENS}
    plan = read_plan(make_run(tmp_path, {"phase1": settings}), "phase1")
    assert [plan.num_rows(step) for step in range(8)] == [2, 2, 2, 4, 4, 4, 6, 6]
    assert [len(plan.rows_of(step)[0]) for step in range(8)] == [2, 2, 2, 4, 4, 4, 6, 6]
    assert plan.num_steps == 9
    assert [plan.tokens_before(step) // ROW_TOKENS for step in (0, 3, 6, 9)] == [0, 6, 18, 36]


def test_rows_of_a_grown_corpus_join_where_a_later_phase_begins(tmp_path):
    phases = {
        "phase1": {"tokens": 30 * ROW_TOKENS},
        "phase2": {"generation": 1, "tokens": 30 * ROW_TOKENS},
    }
    before_it_grew = read_plan(make_run(tmp_path / "old", {"phase1": phases["phase1"]}), "phase1")
    run = make_run(tmp_path / "run", phases, grown={"8-15": 6, "16+": 3})
    first, second = read_plan(run, "phase1"), read_plan(run, "phase2")
    assert first.manifest.root == before_it_grew.manifest.root
    assert first.manifest.root != second.manifest.root
    assert [bucket.rows for bucket in first.buckets] == [7, 11, 4]
    assert [bucket.rows for bucket in second.buckets] == [7, 17, 7]
    for step in range(first.num_steps):
        assert np.array_equal(first.rows_of(step), before_it_grew.rows_of(step))
    read = {bucket: [] for bucket in range(3)}
    for plan in (first, second):
        for step in range(plan.num_steps):
            for bucket, *row_and_visit in zip(*plan.rows_of(step), strict=True):
                read[bucket].append(tuple(row_and_visit))
    for bucket, rows in read.items():
        assert len(set(rows)) == len(rows)
        on_visit_1 = {row for row, visit in rows if visit == 1}
        assert len(on_visit_1) == second.buckets[bucket].rows  # old and new ones


def test_a_phase_that_sees_less_than_the_one_before_it_is_refused(tmp_path):
    run = make_run(
        tmp_path, {"phase1": {"generation": 1}, "phase2": {"generation": 0}}, grown={"16+": 3}
    )
    with pytest.raises(RecipeError) as refusal:
        read_plan(run, "phase2")
    assert str(refusal.value) == (
        "phase2.generation: phase1 before it reads the pack short with generation 1, so phase2 "
        "needs at least that, got 0."
    )


# The dry run.


def test_the_table_says_what_a_phase_reads(tmp_path):
    # 22 rows of all in 3 steps of 5 rows from phase 1, then 12 steps of the 4 rows of 16+.
    run = make_run(
        tmp_path,
        {
            "phase1": {"tokens": 15 * ROW_TOKENS},
            "phase2": {"mixture": {"16+": 1.0}, "tokens": 12 * ROW_TOKENS, "batch_tokens": 64},
        },
    )
    first, second = mixture_tables(run).values()
    assert (first.num_steps, first.rows_per_step, second.num_steps) == (3, 5, 12)
    assert [line.rows for line in first.buckets] == [7, 11, 4]
    read = RowMixture([7, 11, 4]).counts(15)
    assert [line.share_of_rows for line in first.buckets] == [count / 15 for count in read]
    assert [line.epochs for line in first.buckets] == [read[0] / 7, read[1] / 11, read[2] / 4]
    assert first.subsets[0].epochs_after == pytest.approx(15 / 22)
    assert first.subsets[0].first_repeat_step == 4  # row 23 is in the fifth step
    assert sum(line.share_of_tokens for line in first.buckets) == pytest.approx(1)

    line = second.subsets[0]
    assert (line.name, line.share) == ("16+", "1.0")
    assert line.epochs_before == read[2] / 4
    assert line.epochs == line.epochs_after == (read[2] + 12) / 4
    assert line.first_repeat_step == 4 - read[2]
    assert second.buckets[0].first_repeat_step is None
    assert second.buckets[0].tokens_read == 0


def test_the_first_repeat_of_the_table_is_the_first_in_the_order(tmp_path):
    warmup = {"start_tokens": 2 * ROW_TOKENS, "tokens": 12 * ROW_TOKENS}
    change = {"after_tokens": 12 * ROW_TOKENS, "mixture": {"all": 0.3, "8+": 0.7}}
    settings = {"batch_warmup": warmup, "changes": [change], "mixture": {"16+": 1.0}}
    run = make_run(tmp_path, {"phase1": settings})
    plan, (table,) = read_plan(run, "phase1"), mixture_tables(run).values()
    shares = {line.name: line.share for line in table.subsets}
    assert shares == {"16+": "1.0 > 0", "all": "0 > 0.3", "8+": "0 > 0.7"}
    for index, line in enumerate(table.buckets):
        repeats = [
            step
            for step in range(60)
            for bucket, _, visit in zip(*plan.rows_of(step), strict=True)
            if bucket == index and visit > 0
        ]
        assert line.first_repeat_step == repeats[0]


def test_epochs_of_documents_are_counted_through_phases_with_different_packs(tmp_path, capsys):
    # 22 rows of either pack: 20 are read of one, then 10 of the other.
    phases = {
        "phase1": {"tokens": 20 * ROW_TOKENS},
        "phase2": {"pack": "long", "tokens": 10 * ROW_TOKENS, "max_epochs": 1.2},
    }
    run = make_run(tmp_path, phases, packs=("short", "long"))
    tables = mixture_tables(run)
    assert tables["phase2"].subsets[0].epochs_after == pytest.approx(10 / 22)
    assert tables["phase2"].subsets[0].epochs == pytest.approx(30 / 22)
    assert main(["mix", str(run), "--phase", "phase1"]) == 0
    capsys.readouterr()
    assert main(["mix", str(run)]) == 2
    said = capsys.readouterr()
    assert "phase2: 2 steps of 5 rows x 64 tokens\n" in said.out
    assert said.err == (
        "tokenmill mix: phase2.loader.max_epochs: by the end of phase2 documents of the bucket 0-7 "
        "are read 1.571 times in all phases, and 1.2 is the most allowed. Lower the shares of the "
        "subsets with that bucket or the phase's tokens, build from more documents, or raise "
        "max_epochs.\n"
    )


def test_the_dry_run_prints_warm_up_and_changes(tmp_path, capsys):
    warmup = {"start_tokens": 2 * ROW_TOKENS, "tokens": 12 * ROW_TOKENS}
    change = {"after_tokens": 30 * ROW_TOKENS, "mixture": {"8+": 1.0}}
    settings = {"batch_warmup": warmup, "changes": [change], "batch_tokens": 6 * ROW_TOKENS}
    run = make_run(tmp_path, {"phase1": {**settings, "tokens": 60 * ROW_TOKENS}})
    assert main(["mix", str(run)]) == 0
    title = capsys.readouterr().out.splitlines()[0]
    assert title == (
        "phase1: 12 steps of 6 rows x 64 tokens; from 2 rows up over 4 steps; another mixture from "
        "step 7 on"
    )


@pytest.mark.parametrize(("setting", "first", "second"), [("seed", 3, 4), ("cohort_shards", 2, 1)])
def test_another_order_over_the_same_pack_is_refused(tmp_path, setting, first, second):
    run = make_run(tmp_path, {"phase1": {setting: first}, "phase2": {setting: second}})
    with pytest.raises(RecipeError) as refusal:
        read_plan(run, "phase2")
    assert str(refusal.value) == (
        f"phase2.loader.{setting}: phase2 goes on with the pack short where phase1 ends, so it "
        f"needs its {setting} {first}, got {second}."
    )


def test_phases_over_different_packs_start_their_own_counts(tmp_path):
    run = make_run(
        tmp_path, {"phase1": {}, "phase2": {"pack": "long", "seed": 9}}, packs=("short", "long")
    )
    assert read_plan(run, "phase2").counts_before == (0, 0, 0)
