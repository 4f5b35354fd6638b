"""The parts of the search for repeated text: pieces, anchors, and the tables that count them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from repeat_runs import patched, write_units

from tokenmill.pipeline.dedup.repeat_pieces import read_pieces
from tokenmill.pipeline.dedup.repeat_tables import AnchorTable, WindowTable
from tokenmill.pipeline.dedup.repeat_windows import (
    find_anchors,
    first_of_equal,
    hash_windows,
    num_anchors,
)
from tokenmill.pipeline.dedup.steps import Removals
from tokenmill.pipeline.receipts import paths

MIB = 1 << 20


@given(
    st.lists(st.lists(st.integers(0, 70), max_size=5), max_size=5),
    st.sets(st.integers(1, 20)),
    st.integers(2, 9),
)
def test_pieces_hold_every_window_once_and_stay_small(
    tmp_path_factory, lengths, removed, min_tokens
):
    run = tmp_path_factory.mktemp("run")
    units = [[list(range(1000 * i, 1000 * i + n)) for i, n in enumerate(u)] for u in lengths]
    files = [path for unit in write_units(run, units) for path in paths(unit.receipt, "tokens-")]
    documents = [document for unit in units for document in unit]
    ids = np.array(sorted(removed), np.uint64)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patched(patch)
        for piece in read_pieces(run, files, [Removals(ids, ids, ids)], min_tokens):
            assert len(piece.tokens) < 2 * 16 + min_tokens
            runs = piece.runs
            for start, stop, document, origin in zip(
                runs.starts, runs.stops, runs.documents, runs.origins, strict=True
            ):
                for at in range(start, stop - min_tokens + 1):
                    window = piece.tokens[at : at + min_tokens].tolist()
                    found.append((document, origin + at - start, window))
    assert found == [
        (number, start, document[start : start + min_tokens])
        for number, document in enumerate(documents)
        if number + 1 not in removed
        for start in range(len(document) - min_tokens + 1)
    ]


@given(st.lists(st.integers(0, 2), min_size=9, max_size=200), st.integers(2, 9))
def test_equal_windows_have_equal_anchors_at_places_of_their_own(tokens, window_tokens):
    tokens = np.array(tokens, np.uint16)
    num = len(tokens) - window_tokens + 1
    anchors = find_anchors(tokens, np.array([0]), np.array([len(tokens)]), window_tokens)
    assert anchors.starts.tolist() == [0, *anchors.stops[:-1]]
    assert anchors.stops[-1] == num
    of_window = np.repeat(np.arange(len(anchors.hashes)), anchors.stops - anchors.starts)
    low, high = hash_windows(tokens, np.array([0]), np.array([num]), window_tokens)
    first = first_of_equal(low, high)
    for window in range(num):
        here = tokens[window : window + window_tokens].tolist()
        equal = [at for at in range(num) if tokens[at : at + window_tokens].tolist() == here]
        assert first[window] == equal[0]
        assert (low[equal] == low[window]).all()
        assert (high[equal] == high[window]).all()
        places = of_window[equal]
        assert len(set(places.tolist())) == len(equal)
        assert (anchors.hashes[places] == anchors.hashes[places[0]]).all()


def test_ordinary_text_has_few_anchors_evenly_spread():
    tokens = np.random.default_rng(5).integers(0, 30_000, 200_000).astype(np.uint16)
    anchors = find_anchors(tokens, np.array([0]), np.array([len(tokens)]), 50)
    expected = num_anchors(len(tokens), 50)
    assert abs(len(anchors.hashes) / expected - 1) < 0.05
    for half in (anchors.hashes >> np.uint64(32), anchors.hashes & np.uint64(0xFFFFFFFF)):
        shares = np.bincount((half >> np.uint64(29)).astype(np.int64), minlength=8) / len(half)
        assert (abs(shares - 1 / 8) < 0.02).all()


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=30), max_size=4), st.integers(1, 3))
def test_no_common_anchor_is_missed(batches, copies):
    anchors = [np.array(batch * copies, np.uint32) for batch in batches]
    table = AnchorTable(sum(map(len, anchors)), MIB)
    for batch in anchors:
        table.add(batch)
    everything = np.concatenate([np.zeros(0, np.uint32), *anchors])
    values, counts = np.unique(everything, return_counts=True)
    assert table.is_common(values[counts > 1]).all()


def test_few_anchors_are_called_common_by_mistake():
    anchors = np.random.default_rng(1).permutation(1 << 20).astype(np.uint32) << 12
    for memory_bytes, most in [(32 * MIB, 0.05), (MIB, 0.3)]:
        table = AnchorTable(len(anchors), memory_bytes)
        table.add(anchors)
        assert table.is_common(anchors).mean() < most


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 9)), max_size=60))
def test_a_window_stands_first_where_its_whole_hash_came_first(rows):
    # All fall on the last place of the table, so it is searched beyond its end.
    windows = np.array(
        [(low, (0xFFFFFFF0 + high) << 32 | document) for low, high, document in rows], np.uint64
    ).reshape(-1, 2)
    table, first = WindowTable(len(windows)), {}
    for group, (low, high, document) in enumerate(rows):
        known, places = table.find_or_add(windows[group : group + 1], group)
        assert known.tolist() == [(low, high) in first]
        place = first.setdefault((low, high), group << 32 | document)
        assert places.tolist() == [place] * known.sum()
    low, high = windows[:, 0].copy(), windows[:, 1] >> np.uint64(32) << np.uint64(32)
    hashes = [row[:2] for row in rows]
    assert first_of_equal(low, high).tolist() == [hashes.index(each) for each in hashes]
