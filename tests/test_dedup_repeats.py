"""Repeated text: every window that stands earlier is covered, and nothing else is."""

import random

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repeat_runs import (
    Found,
    files_of,
    patched,
    planted,
    read,
    removals_of,
    run_stage,
    search,
    write_units,
)

from tokenmill.errors import RecipeError
from tokenmill.pipeline.dedup import repeat_tables, repeats
from tokenmill.pipeline.dedup.repeat_config import RepeatConfig
from tokenmill.pipeline.dedup.repeats import repeated_text
from tokenmill.pipeline.dedup.steps import NO_DOCUMENT
from tokenmill.tokenizer import load_tokenizer

MIB = 1 << 20


def oracle(documents, min_tokens, removed=()):
    """Spans by document number from 1 on, and the document in which each window stood first."""
    first, spans = {}, {}
    for number, document in enumerate(documents, 1):
        if number in removed:
            continue
        for start in range(len(document) - min_tokens + 1):
            window = tuple(document[start : start + min_tokens])
            if window not in first:
                first[window] = number
                continue
            mine = spans.setdefault(number, [])
            if mine and start <= mine[-1][1]:
                mine[-1] = (mine[-1][0], start + min_tokens)
            else:
                mine.append((start, start + min_tokens))
    return spans, first


def covered_by_ranks(documents, min_tokens):
    """As the oracle for long texts, by the ranks of all suffixes as far as min_tokens.

    Returns (tokens,) of all documents joined, true in windows that stand earlier. Ranks double
    their reach each round, as where a suffix array is built by sorting (Manber and Myers 1993).
    """
    lengths = np.array([len(document) for document in documents])
    tokens = np.concatenate(documents).astype(np.int64)
    rank, reach = np.unique(tokens, return_inverse=True)[1], 1
    while reach < min_tokens:
        step = min(reach, min_tokens - reach)
        after = np.zeros(len(rank), np.int64)  # what lies beyond the end is cut off below
        after[:-step] = rank[step:] + 1
        rank = np.unique(rank * (len(rank) + 2) + after, return_inverse=True)[1]
        reach += step
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))
    places = np.flatnonzero(left >= min_tokens)
    _, first = np.unique(rank[places], return_index=True)
    repeated = np.delete(places, first)
    edge = np.zeros(len(tokens) + 1, np.int64)
    np.add.at(edge, repeated, 1)
    np.add.at(edge, repeated + min_tokens, -1)
    return np.cumsum(edge[:-1]) > 0


def covered_by_spans(found, documents):
    covered = [np.zeros(len(document), np.bool_) for document in documents]
    for number, spans in found.spans.items():
        for start, stop in spans:
            covered[number - 1][start:stop] = True
    for number in found.removals:
        covered[number - 1][:] = True
    return np.concatenate(covered)


corpora = st.integers(1, 3).flatmap(
    lambda most: st.lists(
        st.lists(st.lists(st.integers(0, most), max_size=60), max_size=4), min_size=1, max_size=4
    )
)


@settings(max_examples=25)
@given(corpora, st.integers(2, 9), st.sets(st.integers(1, 12)))
def test_spans_are_what_windows_that_stand_earlier_cover(
    tmp_path_factory, units, min_tokens, removed
):
    run = tmp_path_factory.mktemp("run")
    documents = [document for unit in units for document in unit]
    removed = {number for number in removed if number <= len(documents)}
    with pytest.MonkeyPatch.context() as patch:
        patched(patch)
        earlier = [removals_of(run, removed)] if removed else []
        found = search(run, units, RepeatConfig(min_tokens=min_tokens), earlier)
    spans, _ = oracle(documents, min_tokens, removed)
    whole = {n for n, s in spans.items() if s == [(0, len(documents[n - 1]))]}
    assert found.spans == {n: s for n, s in spans.items() if n not in whole}
    assert set(found.removals) == whole


def test_windows_of_fifty_tokens_in_long_documents(tmp_path):
    units = planted()
    documents = [document for unit in units for document in unit]
    found = search(tmp_path, units, RepeatConfig())
    covered = covered_by_ranks(documents, 50)
    assert (covered_by_spans(found, documents) == covered).all()
    spans, _ = oracle(documents[:40], 50)
    assert spans == {number: s for number, s in found.spans.items() if number <= 40}
    assert 0.1 < covered.mean() < 0.9


def test_the_answer_does_not_depend_on_how_the_work_is_dealt(tmp_path, monkeypatch):
    units, config = planted(seed=1), RepeatConfig()
    search(tmp_path / "whole", units, config)
    expected = files_of(tmp_path / "whole", "spans", "removals")
    # A counter for few anchors, so that many are called common by mistake.
    monkeypatch.setattr(repeats, "WINDOW_BYTES", 1 << 10)
    monkeypatch.setattr(repeats, "COUNTERS", 1 << 10)
    monkeypatch.setattr(repeat_tables, "COUNTERS", 1)
    patched(monkeypatch, piece=1000, group=repeats.GROUP_TOKENS, batch=500)
    partitions = {}

    def stage(name, function, tasks, below=""):
        partitions[name] = len(tasks)
        return run_stage(tmp_path / "dealt")(name, function, tasks, below)

    milled = write_units(tmp_path / "dealt", units)
    repeated_text(tmp_path / "dealt", stage, RepeatConfig(memory_bytes=MIB), milled, ())
    assert partitions["repeats-common"] > 1
    assert partitions["repeats-earlier"] > 1
    assert files_of(tmp_path / "dealt", "spans", "removals") == expected


def test_token_ids_of_32_bits(tmp_path):
    passage = list(range(70_000, 70_060))
    other = [token - 65_536 for token in passage]  # equal in their lower 16 bits
    found = search(tmp_path, [[passage, other, [1, *passage]]], RepeatConfig(), dtype=np.uint32)
    assert found == Found({3: [(1, 61)]}, {})


def test_a_window_never_reaches_into_the_next_document(tmp_path):
    tokens = list(range(100))
    units = [[tokens[:49], tokens[49:98], tokens[:98]], [tokens[:49]]]
    assert search(tmp_path, units, RepeatConfig()) == Found({}, {})


def test_one_token_a_million_times_costs_no_more_than_other_text(tmp_path):
    num, written = 1_000_000, {}

    def stage(name, function, tasks, below=""):
        receipts = run_stage(tmp_path)(name, function, tasks, below)
        outputs = [output.bytes for receipt in receipts.values() for output in receipt.outputs]
        written[name] = sum(outputs)
        return receipts

    units = write_units(tmp_path, [[[7] * num], [[7] * 500, [7] * 49]])
    found = read(tmp_path, repeated_text(tmp_path, stage, RepeatConfig(), units, ()))
    assert found == Found({1: [(1, num)]}, {2: (1, 1.0)})
    assert written["repeats-anchors"] < 5 * num
    assert sum(written.values()) - written["repeats-anchors"] < num


def test_a_document_leaves_for_the_one_that_holds_its_longest_span(tmp_path, monkeypatch):
    patched(monkeypatch, piece=200, group=100)
    rng = random.Random(3)
    a, b, own = (rng.choices(range(1000, 9000), k=length) for length in (100, 120, 80))
    half = rng.choices(range(1000, 9000), k=60)
    units = [
        [a, b],
        [[*a[:55], *own, *b[:65]]],  # 120 of 200 tokens, most of them b's
        [[*half, *half[:50]]],  # 50 of 110 tokens are its own
        [[*own, *a[:50]]],  # own was first seen in a document that leaves
        [a[:49] + own[:40]],
        [a, a[:60]],  # both in one piece, and both a's
    ]
    config = RepeatConfig(max_share=0.4)
    found = search(tmp_path / "cut", units, config)
    assert found.removals == {
        3: (2, pytest.approx(0.6)),
        4: (int(NO_DOCUMENT), pytest.approx(50 / 110)),
        5: (3, 1.0),
        7: (1, 1.0),
        8: (1, 1.0),
    }
    assert found.spans == {}
    config = RepeatConfig(max_share=0.6)
    found = search(tmp_path / "less", units, config)
    assert found.removals == {5: (3, 1.0), 7: (1, 1.0), 8: (1, 1.0)}
    assert found.spans == {3: [(0, 55), (135, 200)], 4: [(60, 110)]}
    config = RepeatConfig(max_share=0.5, spans="keep")
    found = search(tmp_path / "keep", units, config)
    assert set(found.removals) == {3, 5, 7, 8}
    assert found.spans == {}


def test_a_run_without_tokens(tmp_path):
    assert search(tmp_path, [[], [[]], [[1] * 49]], RepeatConfig()) == Found({}, {})


def test_real_text_as_by_the_order_of_suffixes(tmp_path, test_data):
    encoder = load_tokenizer(str(test_data / "tokenizers" / "bert-base-uncased"))
    file = sorted((test_data / "refinedweb").glob("*.parquet"))[0]
    texts = pq.read_table(file, columns=["content"])["content"].combine_chunks()[:400]
    tokens, ends = encoder.encode(texts)
    documents = np.split(tokens, ends[:-1])
    found = search(tmp_path, [documents[:150], documents[150:]], RepeatConfig())
    expected = covered_by_ranks(documents, 50)
    assert (covered_by_spans(found, documents) == expected).all()
    assert expected.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_tokens": 1}, "min_tokens must be at least 2, got 1"),
        ({"max_share": 1.5}, "max_share must be from 0 to 1, got 1.5"),
        (
            {"memory_bytes": 5},
            "memory_bytes must be from 1048576 (1 MiB) to 17179869184 (16 GiB), got 5",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(RecipeError) as error:
        RepeatConfig(**settings)
    assert str(error.value) == message
