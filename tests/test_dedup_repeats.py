"""Repeated text: every window that stands earlier is covered, and nothing else is."""

import itertools
import pickle
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmill.errors import RecipeError
from tokenmill.pipeline.dedup import repeat_exchange, repeat_pieces, repeat_tables, repeats
from tokenmill.pipeline.dedup.repeat_config import RepeatConfig
from tokenmill.pipeline.dedup.repeat_pieces import read_pieces
from tokenmill.pipeline.dedup.repeat_tables import AnchorTable, WindowTable
from tokenmill.pipeline.dedup.repeat_windows import (
    find_anchors,
    first_of_equal,
    hash_windows,
    num_anchors,
)
from tokenmill.pipeline.dedup.repeats import repeated_text
from tokenmill.pipeline.dedup.steps import (
    NO_DOCUMENT,
    MilledUnit,
    Removals,
    Step,
    open_removals,
    open_spans,
    removals_batch,
)
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.plan import Unit
from tokenmill.pipeline.receipts import Receipt, find_receipt, paths, sweep
from tokenmill.shards.listing import describe_output
from tokenmill.tokenizer import load_tokenizer

MIB = 1 << 20
KINDS = ("anchors", "common", "windows", "earlier", "spans")


def write_units(run, units, dtype=np.uint16, batch_documents=3):
    """Milled token files of units of documents; doc_ids count from 1 on, in the order of all."""
    milled, number = [], itertools.count(1)
    for index, documents in enumerate(units):
        name = f"web/file-{index}"
        with Tables(run) as tables:
            for first in range(0, max(len(documents), 1), batch_documents):
                chosen = documents[first : first + batch_documents]
                tokens = np.array([token for document in chosen for token in document], dtype)
                ends = np.cumsum([0, *map(len, chosen)])
                batch = {
                    "doc_id": pa.array([next(number) for _ in chosen], pa.uint64()),
                    "content_hash": pa.array([b"0" * 16 for _ in chosen], pa.binary(16)),
                    "tokens": pa.LargeListArray.from_arrays(pa.array(ends), pa.array(tokens)),
                }
                tables.append(
                    run / "milled" / name / "tokens-000.arrow", pa.RecordBatch.from_pydict(batch)
                )
        outputs = tables.described()
        receipt = Receipt(
            stage="mill", name=name, key=outputs[0].sha256, parts={}, outputs=outputs,
            counts={"tokens": sum(map(len, documents))}, details={}, seconds=0, versions={},
        )  # fmt: skip
        milled.append(MilledUnit(Unit(name, "web", ()), receipt))
    return milled


def run_stage(run, die_at=None):
    """What a build does for a stage; `die_at` counts tasks down to one that fails at its end."""
    left = [die_at]

    def stage(name, function, tasks, below=""):
        sweep(run, name, [task.name for task in tasks], below)
        receipts = {}
        for task in tasks:
            receipts[task.name] = find_receipt(task)
            if receipts[task.name] is None:
                if left[0] == 0:
                    raise KeyboardInterrupt(name)
                left[0] = None if left[0] is None else left[0] - 1
                receipts[task.name] = function(task)
        return receipts

    return stage


@dataclass
class Found:
    spans: dict
    removals: dict


def search(run, units, config, earlier=(), **options):
    milled = write_units(run, units, **options)
    return read(run, repeated_text(run, run_stage(run), config, milled, earlier))


def read(run, step):
    found = {}
    for spans in open_spans(run, step.spans):
        for doc_id, start, stop in zip(spans.doc_ids, spans.starts, spans.stops, strict=True):
            found.setdefault(int(doc_id), []).append((int(start), int(stop)))
    removals = {}
    for file in open_removals(run, step.removals):
        for doc_id, original, share in zip(
            file.doc_ids, file.duplicate_of, file.similarity, strict=True
        ):
            removals[int(doc_id)] = (int(original), float(share))
    return Found(found, removals)


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


def files_of(run, *folders):
    return {
        path.relative_to(run): path.read_bytes()
        for folder in folders
        for path in sorted((run / folder).rglob("*"))
        if path.is_file()
    }


def patched(patch, piece=16, group=40, batch=20):
    """Pieces, groups and batches of so few tokens that small corpora have many."""
    patch.setattr(repeat_pieces, "PIECE_TOKENS", piece)
    patch.setattr(repeats, "GROUP_TOKENS", group)
    patch.setattr(repeat_exchange, "BATCH_VALUES", batch)


def planted(seed=0, num_documents=120):
    """Units of documents of random tokens, in which passages of other documents come back."""
    rng = random.Random(seed)
    documents = []
    for _ in range(num_documents):
        document = rng.choices(range(3000), k=rng.randint(0, 1500))
        for _ in range(rng.randint(0, 3)):
            if documents and document:
                source = rng.choice(documents)
                start, length = rng.randint(0, len(source)), rng.randint(40, 400)
                place = rng.randint(0, len(document))
                document[place:place] = source[start : start + length]
        documents.append(document)
    return [documents[first : first + 30] for first in range(0, num_documents, 30)]


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


def removals_of(run, doc_ids):
    """A step that removed these documents."""
    path = run / "removals" / "exact_duplicate" / "00000.arrow"
    ids = np.array(sorted(doc_ids), np.uint64)
    with Tables(run) as tables:
        tables.append(path, removals_batch(Removals(ids, ids, np.ones(len(ids)))))
    return Step("exact_duplicate", removals=(describe_output(run, path),))


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


@pytest.mark.parametrize("die_at", range(8))  # two groups in three stages, a partition in two
def test_a_search_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    tmp_path, monkeypatch, die_at
):
    patched(monkeypatch, piece=200, group=8000)
    units = planted(seed=2, num_documents=40)
    search(tmp_path / "whole", units, RepeatConfig())
    run = tmp_path / "killed"
    milled = write_units(run, units)
    with pytest.raises(KeyboardInterrupt) as death:
        repeated_text(run, run_stage(run, die_at), RepeatConfig(), milled, ())
    done = set(files_of(run, "receipts"))
    again = []

    def stage(name, function, tasks, below=""):
        def noted(task):
            again.append(f"receipts/{task.stage}/{task.name}.json")
            return function(task)

        return run_stage(run)(name, noted, tasks, below)

    step = repeated_text(run, stage, RepeatConfig(), milled, ())
    assert not done & set(map(Path, again))
    stages = [f"repeats-{kind}" for kind in KINDS]
    assert {path.split("/")[1] for path in again} == set(stages[stages.index(*death.value.args) :])
    assert files_of(run, "spans", "removals") == files_of(tmp_path / "whole", "spans", "removals")
    assert not (run / "dedup" / "repeated_text").exists()
    assert {path.parent.name for path in files_of(run, "receipts")} == {"repeats-spans"}
    again.clear()
    assert repeated_text(run, stage, RepeatConfig(memory_bytes=MIB), milled, ()) == step
    assert again == []


def test_a_search_that_was_killed_after_its_last_task_only_tidies_up(tmp_path, monkeypatch):
    milled = write_units(tmp_path, planted(num_documents=30))
    with monkeypatch.context() as patch:
        patch.setattr(repeats, "clear", lambda folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            repeated_text(tmp_path, run_stage(tmp_path), RepeatConfig(), milled, ())
    assert (tmp_path / "dedup" / "repeated_text").exists()
    repeated_text(tmp_path, run_stage(tmp_path, die_at=0), RepeatConfig(), milled, ())
    assert not (tmp_path / "dedup" / "repeated_text").exists()


def test_other_settings_and_inputs_are_searched_anew(tmp_path):
    milled = write_units(tmp_path, planted(num_documents=30))
    names = []

    def stage(name, function, tasks, below=""):
        def noted(task):
            names.append(name)
            return function(pickle.loads(pickle.dumps(task)))

        return run_stage(tmp_path)(name, noted, tasks, below)

    earlier = [removals_of(tmp_path, {3})]
    for config, steps in [
        (RepeatConfig(), []),
        (RepeatConfig(min_tokens=60), []),
        (RepeatConfig(spans="keep"), []),
        (RepeatConfig(max_share=0.1), []),
        (RepeatConfig(max_share=0.1), earlier),
    ]:
        names.clear()
        repeated_text(tmp_path, stage, config, milled, steps)
        assert set(names) == {f"repeats-{kind}" for kind in KINDS}


def test_a_run_without_tokens(tmp_path):
    assert search(tmp_path, [[], [[]], [[1] * 49]], RepeatConfig()) == Found({}, {})


def test_a_recipe_that_leaves_the_step_out_leaves_nothing_of_it(tmp_path, monkeypatch):
    milled = write_units(tmp_path, planted(num_documents=30))
    with monkeypatch.context() as patch:
        patch.setattr(repeats, "clear", lambda folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            repeated_text(tmp_path, run_stage(tmp_path), RepeatConfig(), milled, ())
    assert files_of(tmp_path, "spans")
    step = repeated_text(tmp_path, run_stage(tmp_path), RepeatConfig(), (), ())
    assert step == Step("repeated_text")
    assert not files_of(tmp_path, "receipts", "spans", "removals", "dedup")


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
