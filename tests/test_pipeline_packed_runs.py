"""Packed runs: each kind of sequence from the mill to the loader, budgets, and what was cut off."""

import dataclasses
import json
import random
from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_runs import WORDS, write_recipe, write_vocabulary

from tokenmill.cli import main
from tokenmill.errors import FormatError, RecipeError
from tokenmill.loader import Loader
from tokenmill.pipeline.pack import PackingConfig, PackTask, RowShape, pack
from tokenmill.pipeline.report import shard_table
from tokenmill.recipe import load_recipe
from tokenmill.shards.buckets import Buckets
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import pack_folder, read_run
from tokenmill.shards.shard import open_shard

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
