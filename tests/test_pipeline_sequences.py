"""Sequences: each kind against a slow version over lists of tokens, and BERT's pairs against the
published algorithm's statistics."""

import dataclasses
import json
import random
from collections import Counter
from itertools import accumulate, islice, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pipeline_runs import WORDS, write_recipe, write_vocabulary

from tokenmill.cli import main
from tokenmill.errors import FormatError, RecipeError
from tokenmill.loader import Loader
from tokenmill.pipeline.dedup.steps import merge_spans
from tokenmill.pipeline.fill_rows import fill_rows
from tokenmill.pipeline.kept_documents import Kept, without_spans
from tokenmill.pipeline.pack import PackingConfig, PackTask, RowShape, make_sequences, pack
from tokenmill.pipeline.report import shard_table
from tokenmill.pipeline.sentences import Sentences
from tokenmill.pipeline.sequences import Template
from tokenmill.recipe import load_recipe
from tokenmill.shards.buckets import Buckets
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import TokenizerInfo, pack_folder, read_run
from tokenmill.shards.shard import open_shard

BERT = ((1,), (2,), (2,))
TEMPLATES = st.sampled_from([BERT, ((1,), (2, 2), (2,)), ((), (), (2,)), ((1, 3), (4,), (4, 5, 2))])
LENGTHS = st.lists(st.lists(st.integers(1, 14), min_size=1, max_size=5), min_size=1, max_size=6)
"""(documents, sentences) tokens."""


def make_documents(lengths):
    """Documents whose sentences have these lengths. Token k of document i is 100 * i + k + 10."""
    totals = [sum(sentences) for sentences in lengths]
    tokens = [100 * i + k + 10 for i, total in enumerate(totals) for k in range(total)]
    starts = [sum(sentences[:k]) for sentences in lengths for k in range(len(sentences))]
    ends = np.cumsum([len(sentences) for sentences in lengths], dtype=np.int64)
    num_tokens = np.array(totals, np.int64)
    n = len(lengths)
    kept = Kept(
        doc_ids=np.arange(n, dtype=np.uint64) + 1000,
        hashes=np.random.default_rng(n).integers(0, 1 << 64, n, np.uint64),
        held_out=np.zeros(n, np.bool_),
        file=np.zeros(n, np.int32),
        start=np.cumsum(num_tokens) - num_tokens,
        num_tokens=num_tokens,
        sentences=Sentences(np.array(starts, np.int32), ends),
    )
    return kept, np.array(tokens).astype(np.uint16)


def tokenizer_of(template):
    prefix, separator, suffix = template
    return TokenizerInfo(
        sha256="", vocab_size=60_000, pad_id=0, mask_id=9, prefix=prefix, separator=separator,
        suffix=suffix, unk_id=None, special_ids=tuple(range(10)),
    )  # fmt: skip


def read_sequences(lengths, template, max_length, **packing):
    """The tokens of each sequence, written one a row; the rows; how many tokens are left out."""
    kept, tokens = make_documents(lengths)
    tokenizer = tokenizer_of(template)
    config, shape = PackingConfig(**packing), RowShape(max_length, max_length)
    sequences, cut = make_sequences(kept, config, Template.of(tokenizer), shape)
    if not len(sequences.ends):
        return [], None, cut
    row_ends = np.arange(1, len(sequences.ends) + 1)
    rows = fill_rows(sequences, row_ends, max_length, kept, [tokens], tokenizer)
    assert (rows.real_tokens() == sequences.lengths).all()
    assert (rows.num_special <= rows.lengths).all()
    found = [row[:n].tolist() for row, n in zip(rows.tokens, rows.real_tokens(), strict=True)]
    assert all((row[n:] == 0).all() for row, n in zip(rows.tokens, rows.real_tokens(), strict=True))
    return found, rows, cut


def texts(lengths):
    """The documents as lists of sentences of tokens."""
    found = []
    for i, sentences in enumerate(lengths):
        ids = iter(range(100 * i + 10, 100 * i + 110))
        found.append([[next(ids) for _ in range(length)] for length in sentences])
    return found


def flat(lists):
    return [value for values in lists for value in values]


@pytest.mark.parametrize("overlong", ["split", "truncate", "drop"])
@given(lengths=LENGTHS, template=TEMPLATES, max_length=st.integers(6, 20))
def test_documents_are_cut_as_the_policy_says(overlong, lengths, template, max_length):
    prefix, _, suffix = map(list, template)
    longest = max_length - len(prefix) - len(suffix)
    expected = []
    for document in map(flat, texts(lengths)):
        parts = [document[k : k + longest] for k in range(0, len(document), longest)]
        if len(parts) > 1:
            parts = {"split": parts, "truncate": parts[:1], "drop": []}[overlong]
        expected += [prefix + part + suffix for part in parts]
    found, _, cut = read_sequences(lengths, template, max_length, overlong=overlong)
    assert found == expected
    assert cut == sum(flat(lengths)) - sum(len(row) - len(prefix + suffix) for row in found)


@given(lengths=LENGTHS, template=TEMPLATES, max_length=st.integers(6, 20))
@example(lengths=[[5], [7]], template=((1, 3), (4,), (4, 5, 2)), max_length=11)  # cut in a prefix
def test_concatenated_documents_are_one_stream_of_which_nothing_is_lost(
    lengths, template, max_length
):
    prefix, _, suffix = map(list, template)
    stream = flat(prefix + flat(document) + suffix for document in texts(lengths))
    found, rows, cut = read_sequences(lengths, template, max_length, sequences="concatenated")
    assert found == [stream[k : k + max_length] for k in range(0, len(stream), max_length)]
    assert cut == 0
    assert rows.num_special.sum() == len(lengths) * (len(prefix) + len(suffix))


def slow_sentences(lengths, template, max_length, *, across):
    """Sentences one after the other into the open sequence, as long as it holds them."""
    prefix, _, suffix = map(list, template)
    longest = max_length - len(prefix) - len(suffix)
    sequences, parts = [], {}  # the open sequence: document to its tokens

    def close():
        if parts:
            sequences.append(prefix + flat(part + suffix for part in parts.values()))
            parts.clear()

    for i, document in enumerate(texts(lengths)):
        if not across:
            close()
        for sentence in document:
            for k in range(0, len(sentence), longest):
                part = sentence[k : k + longest]
                longer = {**parts, i: parts.get(i, []) + part}
                if len(prefix) + sum(len(p) + len(suffix) for p in longer.values()) > max_length:
                    close()
                parts[i] = parts.get(i, []) + part
    close()
    return sequences


@pytest.mark.parametrize("kind", ["full_sentences", "doc_sentences"])
@given(lengths=LENGTHS, template=TEMPLATES, max_length=st.integers(6, 20))
def test_sequences_hold_as_many_whole_sentences_as_fit(kind, lengths, template, max_length):
    found, rows, cut = read_sequences(lengths, template, max_length, sequences=kind)
    across = kind == "full_sentences"
    assert found == slow_sentences(lengths, template, max_length, across=across)
    assert cut == 0
    assert across or not rows.joined.any()


def test_a_part_of_a_sequence_knows_its_document_and_its_place_in_it():
    _, rows, _ = read_sequences([[4, 3], [5], [9]], BERT, 14, sequences="full_sentences")
    # [CLS] a a a a a a a [SEP] | b b b b b [SEP] is one too long: b goes to the next sequence.
    assert rows.doc_ids.tolist() == [1000, 1001, 1002]
    _, rows, _ = read_sequences([[4, 3], [4], [9]], BERT, 14, sequences="full_sentences")
    assert rows.joined.tolist() == [0, 1, 0]
    assert rows.lengths.tolist() == [9, 5, 11]
    assert rows.num_special.tolist() == [2, 1, 2]
    _, rows, _ = read_sequences([[5], [7]], BERT, 6, sequences="concatenated")
    assert rows.doc_ids.tolist() == [1000, 1000, 1001, 1001]
    assert rows.starts.tolist() == [0, 5, 0, 4]
    assert rows.num_special.tolist() == [1, 1, 1, 1]
    assert rows.joined.tolist() == [0, 0, 1, 0]


@given(lengths=LENGTHS, template=TEMPLATES, max_length=st.integers(10, 24))
def test_a_pair_is_a_text_and_what_follows_or_a_text_of_another_document(
    lengths, template, max_length
):
    prefix, separator, suffix = map(list, template)
    found, rows, cut = read_sequences(lengths, template, max_length, sequences="pairs")
    documents = [flat(document) for document in texts(lengths)]
    used, last = 0, {}
    piece = 0
    for sequence in found:
        assert len(sequence) <= max_length
        document, start = int(rows.doc_ids[piece]) - 1000, int(rows.starts[piece])
        length = int(rows.lengths[piece]) - int(rows.num_special[piece])
        first = documents[document][start : start + length]
        assert first
        assert last.get(document, 0) <= start
        used, last[document] = used + length, start + length
        piece += 1
        if piece == len(rows.joined) or not rows.joined[piece]:
            assert sequence == prefix + first + suffix
            assert len(lengths) == 1
            continue
        other, start = int(rows.doc_ids[piece]) - 1000, int(rows.starts[piece])
        length = int(rows.lengths[piece]) - int(rows.num_special[piece])
        second = documents[other][start : start + length]
        assert sequence == prefix + first + separator + second + suffix
        assert second
        if other == document:
            assert last[document] <= start
            used, last[document] = used + length, start + length
        piece += 1
    assert piece == len(rows.joined)
    assert cut == sum(flat(lengths)) - used
    assert {int(doc_id) for doc_id in rows.doc_ids} == {1000 + i for i in range(len(lengths))}


def published_pairs(documents, longest, rng):
    """create_instances_from_document of google-research/bert over lengths of sentences: for each
    pair the tokens of A and of B, whether B is random, and whether A begins inside a sentence."""
    for index, document in enumerate(documents):
        target = rng.randint(2, longest) if rng.random() < 0.1 else longest
        chunk, i = [], 0
        while i < len(document):
            chunk.append(document[i])
            if i == len(document) - 1 or sum(chunk) >= target:
                a_end = rng.randint(1, len(chunk) - 1) if len(chunk) >= 2 else 1
                a, b = sum(chunk[:a_end]), sum(chunk[a_end:])
                is_random = len(chunk) == 1 or rng.random() < 0.5
                if is_random:
                    other = index
                    while other == index:
                        other = rng.randrange(len(documents))
                    b = 0
                    for length in documents[other][rng.randrange(len(documents[other])) :]:
                        b += length
                        if b >= target - a:
                            break
                    i -= len(chunk) - a_end
                front = 0
                while a + b > longest:
                    if a > b:
                        a -= 1
                        front += rng.random() < 0.5
                    else:
                        b -= 1
                yield a, b, is_random, front not in accumulate([0, *chunk])
                chunk = []
            i += 1


def test_pairs_have_the_statistics_of_the_published_code():
    rng = random.Random(0)
    lengths = [
        [rng.randint(3, 14) for _ in range(rng.choice([1, 2, 5, 12, 25]))] for _ in range(12_000)
    ]
    kept, _ = make_documents(lengths)
    template = Template.of(tokenizer_of(BERT))
    packing, shape = PackingConfig(sequences="pairs"), RowShape(64, 256)
    sequences, _ = make_sequences(kept, packing, template, shape)
    pieces, first = sequences.pieces, sequences.ends - 2
    begins = {
        (i, place) for i, document in enumerate(lengths) for place in accumulate([0, *document])
    }
    starts = zip(pieces.document[first].tolist(), pieces.start[first].tolist(), strict=True)
    ours = [
        pieces.num_tokens[first],
        pieces.num_tokens[first + 1],
        pieces.document[first] != pieces.document[first + 1],
        np.array([start not in begins for start in starts]),
    ]
    theirs = np.array([*published_pairs(lengths, 61, rng)]).T
    assert len(ours[0]) == pytest.approx(theirs.shape[1], rel=0.03)
    for found, expected in zip(ours, theirs, strict=True):
        assert found.mean() == pytest.approx(expected.mean(), rel=0.04)
        assert found.std() == pytest.approx(expected.std(), rel=0.03)
    full = [(a + b == 61).mean() for a, b in (ours[:2], theirs[:2])]
    assert full[0] == pytest.approx(full[1], rel=0.03)


@given(
    lengths=LENGTHS,
    spans=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 40), st.integers(1, 20)), max_size=6
    ),
)
def test_a_sentence_begins_at_what_spans_leave_of_it(lengths, spans):
    kept, _ = make_documents(lengths)
    inside = [
        (document, start, min(start + length, sum(lengths[document])))
        for document, start, length in spans
        if document < len(lengths) and start < sum(lengths[document])
    ]
    columns = np.array(inside, np.int64).reshape(-1, 3).T
    cuts = merge_spans(columns[0].astype(np.uint64) + np.uint64(1000), columns[1], columns[2])
    found = without_spans(kept.sentences, kept.num_tokens, kept.doc_ids, cuts)
    expected = []
    for document, sentences in enumerate(lengths):
        number = np.repeat(np.arange(len(sentences)), sentences)
        stays = np.ones(len(number), np.bool_)
        for of, start, stop in inside:
            if of == document:
                stays[start:stop] = False
        expected.append(np.flatnonzero(np.diff(number[stays], prepend=-1)).tolist())
    parts = np.split(found.starts, found.ends[:-1]) if len(found.ends) else []
    assert [part.tolist() for part in parts] == expected


@pytest.mark.parametrize(
    ("packing", "phase", "message"),
    [
        ({"sequences": "pairs", "overlong": "drop"}, {}, "drop is for sequences: documents, found"),
        ({"sequences": "sentences"}, {}, "one of documents, full_sentences"),
        ({}, {"row_tokens": 32}, "row_tokens must be at least 4 x max_length = 128, got 32"),
        ({"max_sequences": 1}, {}, "at most packing.max_sequences x max_length = 32, got 128"),
        ({"max_sequences": 3}, {}, "at most packing.max_sequences x max_length = 96, got 128"),
        ({"max_sequences": 1}, {"row_tokens": 16}, "at least 1 x max_length = 32, got 16"),
        ({}, {"token_budget": 0}, "token_budget must be at least 1, or null"),
    ],
)
def test_what_has_no_meaning_together_is_refused(tmp_path, packing, phase, message):
    phases = {"phase1": {**PHASE, **phase}}
    with pytest.raises(RecipeError, match=message):
        load_recipe(write_recipe(tmp_path, packing=packing, phases=phases))


PHASE = {
    "max_length": 32,
    "row_tokens": 128,
    "loader": {"mixture": {"all": 1.0}, "batch_tokens": 128, "masking": {"rate": 0.0}},
    "schedule": {"tokens": 1280, "learning_rate": 0.001},
}
ONE_CLASS = {"bucket_edges": []}
BUILDS = {
    "documents": {"bucket_edges": [16, 32]},
    "one a row": {"bucket_edges": [16, 32], "max_sequences": 1, "overlong": "truncate"},
    "concatenated": {**ONE_CLASS, "sequences": "concatenated"},
    "full_sentences": {**ONE_CLASS, "sequences": "full_sentences"},
    "doc_sentences": {"bucket_edges": [16, 32], "sequences": "doc_sentences", "max_sequences": 4},
    "pairs": {**ONE_CLASS, "sequences": "pairs"},
}


@pytest.mark.parametrize("kind", BUILDS)
def test_a_build_of_each_kind_is_read_back_by_the_loader(tmp_path, capsys, kind):
    packing = BUILDS[kind]
    run = build_of(tmp_path, packing)
    assert "padding" in capsys.readouterr().out
    manifest, rows = read_pack(run)
    bucket, joined = manifest.shards[0].bucket, rows[0][-1]
    assert main(["inspect", str(run), "--row", f"{bucket}:0"]) == 0
    said = capsys.readouterr().out
    assert f"row 0: {(joined == 0).sum()} sequences" in said
    assert said.count(", joined to the one before\n") == joined.sum()
    documents = kept_documents(run)
    special = set(read_run(run).tokenizer.special_ids) - {read_run(run).tokenizer.unk_id}
    sequences, covered = [], Counter()
    for tokens, lengths, doc_ids, starts, num_special, joined in rows:
        assert len(lengths) - joined.sum() <= packing.get("max_sequences", 2048)
        for k, end in enumerate(np.cumsum(lengths)):
            piece = tokens[end - lengths[k] : end].tolist()
            body = [token for token in piece if token not in special]
            assert len(piece) - len(body) == num_special[k]
            assert body == documents[int(doc_ids[k])][starts[k] : starts[k] + len(body)]
            covered.update((int(doc_ids[k]), int(starts[k]) + i) for i in range(len(body)))
            if joined[k]:
                sequences[-1] = (sequences[-1][0], sequences[-1][1] + tuple(piece))
            else:
                sequences.append((int(doc_ids[k]), tuple(piece)))
    assert max(len(ids) for _, ids in sequences) <= manifest.max_length
    if kind in ("one a row", "pairs"):
        assert manifest.tokens_cut > 0
    else:
        whole = {(doc_id, i) for doc_id, ids in documents.items() for i in range(len(ids))}
        assert covered == Counter(whole)
    found, labels = read_by_loader(run, len(rows))
    assert sorted(found) == sorted(sequences)
    assert labels == ({0, 1} if kind == "pairs" else set())


def test_the_report_tells_what_was_cut_off_held_out_documents_apart(tmp_path):
    run = build_of(tmp_path, BUILDS["one a row"], held_out=0.3)
    manifest, _ = read_pack(run)
    cut = Counter()
    for path in (run / "decisions").rglob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            bucket = Buckets((16, 32)).of_lengths(np.array([row["num_tokens"] + 2]))[0]
            name = "held out" if row["held_out"] else ("0-15", "16-31", "32+")[bucket]
            for group in (name, *(() if row["held_out"] else ("all",))):
                cut[group] += max(0, row["num_tokens"] - 30) if not row["reason"] else 0
    assert cut["held out"] > 0
    assert cut["32+"] > 0
    said = {line[:9].strip(): line.split()[-1] for line in shard_table(manifest).splitlines()[2:]}
    assert said == {name: f"{tokens:,}" for name, tokens in cut.items()}
    held_out = manifest.shards.where(manifest.shards.column("held_out"))
    assert "no rows to train on" in shard_table(dataclasses.replace(manifest, shards=held_out))


def pack_task(run, packing, shape, corpus_tokens=0):
    """The packing of all documents of a run."""
    return PackTask(
        run=run,
        packing=packing,
        shape=shape,
        group=0,
        token_files=paths_below(run, "milled", "tokens-*"),
        decision_files=paths_below(run, "decisions", "*.parquet"),
        spans=(),
        tokenizer=read_run(run).tokenizer,
        inputs=(),
        corpus_tokens=corpus_tokens,
    )


def paths_below(run, folder, name):
    return tuple(path.relative_to(run).as_posix() for path in sorted((run / folder).rglob(name)))


def test_a_budget_takes_the_same_share_of_each_group_and_all_that_is_held_out(tmp_path):
    run = build_of(tmp_path, ONE_CLASS, held_out=0.2)
    total = sum(map(len, kept_documents(run).values()))
    packed, taken = {}, {}
    for budget in (None, total, total // 2, total // 4):
        task = pack_task(run, PackingConfig(**ONE_CLASS), RowShape(32, 128, budget), total)
        packed[budget] = pack(task).counts
        paths = sorted((run / "shards" / task.pack).rglob("*.arrow"))
        shards = [open_shard(path) for path in paths]
        taken[budget] = {int(doc_id) for shard in shards for doc_id in shard.doc_ids}
    assert taken[None] == taken[total] > taken[total // 2] > taken[total // 4]
    held_out = {
        int(doc_id)
        for path in (run / "shards").rglob("held-out/*/*.arrow")
        for doc_id in open_shard(path).doc_ids
    }
    assert held_out
    assert all(held_out < ids for ids in taken.values())
    documents = kept_documents(run)
    training = sum(len(ids) for doc_id, ids in documents.items() if doc_id not in held_out)
    for budget in (total // 2, total // 4):
        tokens = sum(len(documents[doc_id]) for doc_id in taken[budget] - held_out)
        longest = max(map(len, documents.values()))
        assert 0 <= training * budget / total - tokens < longest
        assert packed[budget]["tokens_over_budget"] == training - tokens


def test_tokens_without_sentences_are_refused_where_sequences_need_them(tmp_path):
    run = build_of(tmp_path, {})
    with pytest.raises(FormatError, match="expected the column sentence_starts"):
        pack(pack_task(run, PackingConfig(sequences="pairs"), RowShape(32, 128)))
    with pytest.raises(RecipeError, match="at least 5, got 4: the tokenizer puts 3 special"):
        pack(pack_task(run, PackingConfig(sequences="pairs"), RowShape(4, 128)))


def build_of(folder, packing, held_out=0.0):
    """A run of 60 documents of up to 12 sentences, in rows of 128, sequences of at most 32."""
    folder.joinpath("in").mkdir()
    write_vocabulary(folder)
    rng = random.Random(0)
    lines = [
        " ".join(" ".join(rng.choices(WORDS, k=rng.randint(1, 14))) + "." for _ in range(n))
        for n in rng.choices(range(1, 13), k=60)
    ]
    text = "".join(json.dumps({"text": line}) + "\n" for line in lines)
    folder.joinpath("in", "web.jsonl").write_text(text)
    phase = {**PHASE, "row_tokens": 32 if packing.get("max_sequences") == 1 else 128}
    source = {"kind": "web", "path": str(folder / "in"), "format": "jsonl"}
    changes = {"sources": {"web": source}, "filters": {}, "phases": {"phase1": phase}}
    recipe = write_recipe(folder, packing=packing, held_out=held_out, **changes)
    assert main(["build", str(recipe), "--out", str(folder / "run"), "--engine", "inline"]) == 0
    return folder / "run"


def kept_documents(run):
    """The tokens of each document, as the mill has written them."""
    documents = {}
    for path in sorted(run.glob("milled/**/tokens-*.arrow")):
        table = pa.ipc.open_file(path).read_all()
        columns = (table["doc_id"].to_pylist(), table["tokens"].to_pylist())
        documents.update(zip(*columns, strict=True))
    return documents


def read_pack(run):
    """The manifest, and tokens and pieces of every row."""
    folder = pack_folder(run, read_run(run).phase("phase1").pack)
    manifest, found = read_manifest(folder), []
    for info in manifest.shards:
        rows = open_shard(folder / info.path)
        columns = (rows.lengths, rows.doc_ids, rows.starts, rows.num_special, rows.joined)
        parts = [np.split(column, rows.row_ends[:-1]) for column in columns]
        found += zip(rows.tokens, *parts, strict=True)
    return manifest, found


def read_by_loader(run, num_rows):
    """The first document and the tokens of every sequence of an epoch; the labels of pairs."""
    found, labels = [], set()
    with Loader(run, micro_batch_rows=1) as loader:
        for batch in islice(loader, num_rows):
            bounds = pairwise(batch.cu_seqlens.tolist())
            for doc_id, (start, stop) in zip(batch.doc_ids.tolist(), bounds, strict=True):
                assert batch.position_ids[start:stop].tolist() == list(range(stop - start))
                if doc_id:
                    found.append((doc_id, tuple(batch.input_ids[start:stop].tolist())))
            if batch.next_sentence is not None:
                labels.update(batch.next_sentence[batch.doc_ids > 0].tolist())
    return found, labels
