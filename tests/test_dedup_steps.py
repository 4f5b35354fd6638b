"""Removals and spans: each document finds its own; what is left out is what they say."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.pipeline.dedup.steps import (
    NO_DOCUMENT,
    Removals,
    Spans,
    find_removed,
    find_spans,
    leave_out,
    merge_spans,
    open_removals,
    removals_batch,
    removals_path,
    tokens_in_spans,
)
from tokenmill.pipeline.outputs import Tables

span = st.tuples(st.integers(0, 4), st.integers(0, 30), st.integers(1, 10))


def columns(rows):
    ids, starts, lengths = np.array(rows, np.int64).reshape(-1, 3).T
    return ids.astype(np.uint64), starts, starts + lengths


def as_sets(spans):
    covered = {}
    for doc_id, start, stop in zip(spans.doc_ids, spans.starts, spans.stops, strict=True):
        covered.setdefault(int(doc_id), set()).update(range(start, stop))
    return covered


@given(st.lists(span))
def test_merged_spans_cover_the_same_tokens_and_never_touch(rows):
    ids, starts, stops = columns(rows)
    merged = merge_spans(ids, starts, stops)
    assert as_sets(merged) == as_sets(Spans(ids, starts, stops))
    same = merged.doc_ids[1:] == merged.doc_ids[:-1]
    assert (merged.starts[1:][same] > merged.stops[:-1][same]).all()
    assert (np.diff(merged.doc_ids.astype(np.int64)) >= 0).all()


@given(st.lists(st.lists(span), max_size=3), st.permutations(range(5)), st.integers(0, 5))
def test_what_is_left_of_documents_is_what_no_span_covers(files, order, num_documents):
    documents = np.array([np.arange(40) + 100 * d for d in order[:num_documents]]).reshape(-1, 40)
    doc_ids = np.array(order[:num_documents], np.uint64)
    spans = []
    for rows in files:
        ids, starts, stops = columns(rows)
        merged = merge_spans(ids, starts, stops)
        spans.append(merged)
    mine = find_spans(spans, doc_ids)
    covered = [
        set().union(*(as_sets(file).get(int(doc_id), set()) for file in spans))
        for doc_id in doc_ids
    ]
    tokens = np.concatenate([[99], documents.ravel(), [99]])
    starts = 1 + 40 * np.arange(num_documents)
    left, begins, lengths = leave_out(tokens, starts, np.full(num_documents, 40), doc_ids, mine)
    for number, document in enumerate(documents):
        expected = [token for place, token in enumerate(document) if place not in covered[number]]
        begin = begins[number]
        assert left[begin : begin + lengths[number]].tolist() == expected
    assert (lengths + tokens_in_spans(mine, doc_ids) == 40).all()


def test_removals_of_several_files_are_found_with_their_evidence(tmp_path):
    files = []
    with Tables(tmp_path) as tables:
        for number, (gone, stays) in enumerate([([9, 3], [1, 1]), ([], []), ([7], [0])]):
            removals = Removals(
                np.array(gone, np.uint64), np.array(stays, np.uint64), np.full(len(gone), 0.75)
            )
            path = removals_path(tmp_path, "near_duplicate", number)
            tables.append(path, removals_batch(removals))
            files.append(path)
    opened = open_removals(tmp_path, tables.described())
    removed, stands, similarity = find_removed(opened, np.array([1, 9, 7, 3, 2**63], np.uint64))
    assert removed.tolist() == [False, True, True, True, False]
    assert stands.tolist() == [0, 1, NO_DOCUMENT, 1, 0]
    assert similarity.tolist() == [0, 0.75, 0.75, 0.75, 0]
    assert pa.ipc.open_file(str(files[0])).get_batch(0)["doc_id"].to_pylist() == [3, 9]
