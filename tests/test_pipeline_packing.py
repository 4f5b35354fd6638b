"""Packing: nothing lost, nothing twice, rows filled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.pipeline.dedup.exact import later_equals
from tokenmill.pipeline.pack import GROUP_TOKENS, plan_groups
from tokenmill.pipeline.packing import pack_rows
from tokenmill.pipeline.pieces import cut_documents


def rows_of(lengths, row_tokens, max_sequences=100):
    order, row_ends = pack_rows(np.array(lengths, np.int32), row_tokens, max_sequences)
    return [row.tolist() for row in np.split(order, row_ends[:-1])] if len(row_ends) else []


def test_a_row_is_ended_by_an_exact_pair():
    rows = rows_of([3, 4, 2, 5, 1, 5], 10)
    assert [sum([3, 4, 2, 5, 1, 5][i] for i in row) for row in rows] == [10, 10]


def test_no_documents_are_no_rows():
    assert rows_of([], 10) == []


@given(
    lengths=st.lists(st.integers(1, 40), max_size=200),
    extra=st.integers(0, 60),
    max_sequences=st.integers(1, 12),
)
def test_every_sequence_is_in_one_row_and_no_row_overflows(lengths, extra, max_sequences):
    row_tokens = 40 + extra
    rows = rows_of(lengths, row_tokens, max_sequences)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    for row in rows:
        assert 1 <= len(row) <= max_sequences
        assert sum(lengths[i] for i in row) <= row_tokens


@pytest.mark.parametrize(
    ("low", "high", "row_tokens"), [(3, 1024, 16384), (1024, 2048, 16384), (2048, 4096, 16384)]
)
def test_no_row_but_the_last_is_wasted(low, high, row_tokens):
    lengths = np.random.default_rng(0).integers(low, high, 5000).astype(np.int32)
    assert len(rows_of(lengths, row_tokens)) == -(-int(lengths.sum()) // row_tokens)


@pytest.mark.parametrize("overlong", ["split", "truncate", "drop"])
@given(num_tokens=st.lists(st.integers(1, 30), max_size=40), longest=st.integers(1, 12))
def test_pieces_cover_a_document_as_the_policy_says(overlong, num_tokens, longest):
    lengths = np.array(num_tokens, np.int64)
    hashes = np.arange(len(lengths), dtype=np.uint64) * np.uint64(7919)
    pieces, left_out = cut_documents(lengths, hashes, longest, overlong)
    covered = {}
    for document, start, length in zip(
        pieces.document, pieces.start, pieces.num_tokens, strict=True
    ):
        assert 1 <= length <= longest
        covered.setdefault(int(document), set()).update(range(start, start + length))
    for document, total in enumerate(num_tokens):
        kept = {"split": total, "truncate": min(total, longest)}.get(
            overlong, total if total <= longest else 0
        )
        assert covered.get(document, set()) == set(range(kept))
    assert left_out == sum(num_tokens) - int(pieces.num_tokens.sum())


def test_pieces_of_one_document_are_dealt_apart():
    lengths = np.full(1000, 100)
    hashes = np.sort(np.random.default_rng(0).integers(0, 2**64, 1000, np.uint64))
    pieces, _ = cut_documents(lengths, hashes, 10, "split")
    assert (np.diff(pieces.document) == 0).mean() < 0.01


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
