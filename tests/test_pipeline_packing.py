"""Packing: every sequence in one row, rows filled to the last token, the same for any deal."""

from bisect import bisect_left, insort

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.pipeline.deal import deal_order
from tokenmill.pipeline.dedup.exact import later_equals
from tokenmill.pipeline.pack import (
    GROUP_TOKENS,
    PackingConfig,
    RowShape,
    pack_name,
    plan_groups,
)
from tokenmill.pipeline.packing import pack_rows
from tokenmill.pipeline.sequences import Template, cut_documents
from tokenmill.shards.buckets import Buckets

BERT = Template((101, 102, 102), range(1), range(1, 2), range(2, 3))
ROW_TOKENS = 16_384


def rows_of(lengths, row_tokens, max_sequences=100):
    order, row_ends = pack_rows(np.array(lengths, np.int32), row_tokens, max_sequences)
    return [row.tolist() for row in np.split(order, row_ends[:-1])] if len(row_ends) else []


def test_a_row_is_ended_by_an_exact_sum():
    lengths = [3, 4, 2, 5, 1, 5]
    assert [sum(lengths[i] for i in row) for row in rows_of(lengths, 10)] == [10, 10]


def test_no_documents_are_no_rows():
    assert rows_of([], 10) == []


@given(
    lengths=st.lists(st.integers(1, 40), max_size=200),
    extra=st.integers(0, 120),
    max_sequences=st.integers(1, 12),
)
def test_every_sequence_is_in_one_row_and_no_row_overflows(lengths, extra, max_sequences):
    row_tokens = 40 + extra
    rows = rows_of(lengths, row_tokens, max_sequences)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    for row in rows:
        assert 1 <= len(row) <= max_sequences
        assert sum(lengths[i] for i in row) <= row_tokens


def best_fit(lengths, row_tokens):
    """The number of rows: the longest first, each to the open row with the least room for it."""
    rooms, num_rows = [], 0
    for length in sorted(lengths, reverse=True):
        place = bisect_left(rooms, length)
        if place == len(rooms):
            num_rows += 1
            insort(rooms, row_tokens - length)
        else:
            insort(rooms, rooms.pop(place) - length)
    return num_rows


@pytest.mark.parametrize(("low", "high"), [(3, 1024), (1024, 2048), (2048, 4096), (4096, 4097)])
def test_no_row_but_the_last_is_wasted(low, high):
    lengths = np.random.default_rng(0).integers(low, high, 3000).tolist()
    num_rows = len(rows_of(lengths, ROW_TOKENS))
    assert num_rows == -(-sum(lengths) // ROW_TOKENS)
    assert num_rows <= best_fit(lengths, ROW_TOKENS)


def test_best_fit_wastes_a_twentieth_where_five_sequences_fill_a_row():
    lengths = np.random.default_rng(0).integers(2048, 4096, 3000).tolist()
    assert best_fit(lengths, ROW_TOKENS) > 1.04 * len(rows_of(lengths, ROW_TOKENS))


@pytest.mark.parametrize("max_length", [1024, 4096])
def test_padding_is_a_two_thousandth_in_every_bucket_of_a_hundred_thousand_documents(max_length):
    generator = np.random.default_rng(0)
    # RefinedWeb's sample of the test data: half below 682 tokens, 37 % over 1,024, 9 % over 4,096.
    num_tokens = np.exp(generator.normal(6.5, 1.35, 100_000)).astype(np.int64) + 1
    hashes = generator.integers(0, 1 << 64, 100_000, np.uint64)
    bucket_of = Buckets((1024, 2048, 4096)).of_lengths(num_tokens + 2)
    for bucket in range(4):
        mine = bucket_of == bucket
        sequences, cut = cut_documents(num_tokens[mine], BERT, max_length, "split")
        assert cut == 0
        lengths = sequences.lengths[sequences.deal(hashes[mine])]
        _, row_ends = pack_rows(lengths, ROW_TOKENS, 2048)
        full = lengths.sum(dtype=np.int64) / ROW_TOKENS
        assert len(row_ends) == -(-full // 1)
        assert 1 - full / len(row_ends) <= 0.0005


def test_the_first_rows_are_a_sample_of_all():
    # Pieces of 4,096 and what is left of documents: what ends rows runs out before the rest does.
    generator = np.random.default_rng(0)
    lengths = np.where(generator.random(20_000) < 0.7, 4096, generator.integers(3, 4096, 20_000))
    order, _ = pack_rows(lengths.astype(np.int32), ROW_TOKENS, 2048)
    tenths = [float((part == 4096).mean()) for part in np.array_split(lengths[order], 10)]
    assert max(tenths) - min(tenths) < 0.06


@pytest.mark.parametrize("max_sequences", [1, 3, 24])
def test_a_row_has_as_many_sequences_as_it_may_where_that_ends_it(max_sequences):
    rows = rows_of(np.random.default_rng(0).integers(3, 500, 1000), ROW_TOKENS, max_sequences)
    assert {len(row) for row in rows[:-1]} <= {max_sequences, 1000 % max_sequences}


def slow_mixed(value, counter):
    mask = (1 << 64) - 1
    bits = (value + (counter + 1) * 0x9E3779B97F4A7C15) & mask
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & mask
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & mask
    return bits ^ (bits >> 31)


@given(
    st.lists(st.tuples(st.integers(0, (1 << 64) - 1) | st.integers(0, 3), st.integers(0, 2))),
)
def test_a_deal_is_a_stable_sort_of_hashes(pairs):
    hashes = np.array([value for value, _ in pairs], np.uint64)
    counters = np.array([counter for _, counter in pairs], np.int32)
    expected = sorted(range(len(pairs)), key=lambda i: slow_mixed(*pairs[i]))
    assert deal_order(hashes, counters).tolist() == expected


def test_pieces_of_one_document_are_dealt_apart():
    hashes = np.sort(np.random.default_rng(0).integers(0, 1 << 64, 1000, np.uint64))
    sequences, _ = cut_documents(np.full(1000, 100), BERT, 12, "split")
    document = sequences.pieces.document[sequences.deal(hashes)]
    assert (np.diff(document) == 0).mean() < 0.01


def test_a_pack_is_named_by_what_decides_its_rows():
    names = [
        pack_name(PackingConfig(), RowShape(1024, 4096)),
        pack_name(PackingConfig(overlong="drop"), RowShape(1024, 4096)),
        pack_name(PackingConfig(sequences="pairs"), RowShape(512, 4096)),
        pack_name(PackingConfig(max_sequences=1), RowShape(512, 512)),
        pack_name(PackingConfig(), RowShape(1024, 4096, 10**9)),
    ]
    assert names == [
        "1024-split-4096",
        "1024-drop-4096",
        "512-pairs-4096",
        "512-split-512-max1",
        "1024-split-4096-1000000000tokens",
    ]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60))
def test_the_first_of_equal_hashes_stays(pairs):
    high, low = (np.array([p[i] for p in pairs], np.uint64) for i in range(2))
    later, first = later_equals(high, low)
    expected = {i: pairs.index(pair) for i, pair in enumerate(pairs) if pairs.index(pair) != i}
    assert dict(zip(later.tolist(), first.tolist(), strict=True)) == expected


def test_groups_are_a_power_of_two_and_a_unit_keeps_its_group_when_others_come():
    tokens = {f"unit-{i}": GROUP_TOKENS // 20 for i in range(150)}
    groups = plan_groups(tokens)
    assert len(groups) == 8
    assert sorted(unit for group in groups for unit in group) == sorted(tokens)
    assert plan_groups(dict(reversed(tokens.items()))) == groups
    more = plan_groups({**tokens, "unit-new": 1})
    assert sum(group not in more for group in groups) == 1
    assert plan_groups({}) == [[]]
