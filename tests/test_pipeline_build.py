"""The build as a whole: every document has a fate, every byte is a function of inputs and
settings."""

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pipeline_runs import (
    SMALL_UNIT_BYTES,
    build,
    decisions,
    prepare,
    root,
    write_recipe,
    write_sources,
)

from tokenmill import build_commands
from tokenmill.cli import main
from tokenmill.pipeline import batches, mill, plan
from tokenmill.pipeline.decisions import FIRST, LAST
from tokenmill.pipeline.engine import InlineEngine
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.shard import open_shard
from tokenmill.tokenizer import load_tokenizer

pytestmark = pytest.mark.usefixtures("small_units")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of small units that was built once and is only looked at."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = prepare(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "UNIT_BYTES", SMALL_UNIT_BYTES)
        assert build(recipe, folder / "run") == 1  # two lines were set aside
    return folder


def test_every_document_has_one_decision_and_every_bad_record_a_place(finished):
    rows = decisions(finished / "run")
    assert len(rows) == 60 + 60 + 40
    assert len({row["doc_id"] for row in rows}) == len(rows)
    assert {*FIRST.names, *LAST.names, "num_words"} <= set(rows[0])
    reasons = Counter(row["reason"] for row in rows)
    assert set(reasons) == {"", "length.min_words", "exact_duplicate"}
    text = (finished / "in" / "code.jsonl").read_bytes()
    of_unit = text.count(b"\n", 0, SMALL_UNIT_BYTES) + 1  # the first that begins in the second unit
    lines = (finished / "run" / "set-aside.jsonl").read_text().splitlines()
    places = [f"record {number - of_unit} after byte {SMALL_UNIT_BYTES}" for number in (20, 21)]
    assert [json.loads(line)["place"] for line in lines] == places


def test_decisions_say_what_is_true_of_the_text(finished):
    texts = [
        text
        for part in range(2)
        for text in pq.read_table(finished / "in" / f"web-{part}.parquet")["content"].to_pylist()
    ]
    first: dict[str, int] = {}
    rows = sorted(
        (row for row in decisions(finished / "run") if row["source"] == "web"),
        key=lambda row: (row["url"].split("/")[-2], row["position"]),
    )
    assert len(rows) == len(texts)
    for row, text in zip(rows, texts, strict=True):
        assert row["num_words"] == len(text.split())
        assert row["num_characters"] == len("".join(text.split()))
        assert row["licence"] == "CC0"
        if row["num_words"] < 5:
            assert row["reason"] == "length.min_words"
        elif row["reason"] == "exact_duplicate":
            assert row["duplicate_of"] == first[text]
        else:
            assert (row["reason"], row["duplicate_of"]) == ("", 0)
            assert text not in first
            first[text] = row["doc_id"]


@pytest.mark.parametrize(("pack", "max_length"), [("16-split-64", 16), ("32-split-128", 32)])
def test_rows_hold_the_tokens_of_every_kept_document_once(finished, pack, max_length):
    run = finished / "run"
    encoder = load_tokenizer(run / "tokenizer")
    special = encoder.special
    texts = ds.dataset(run / "text", format="parquet").to_table().to_pylist()
    expected = {row["doc_id"]: encoder.encode([row["text"]])[0].tolist() for row in texts}
    kept = {row["doc_id"]: row for row in decisions(run) if row["reason"] == ""}
    manifest = read_manifest(run / "shards" / pack)
    found: dict[int, dict[int, list[int]]] = {}
    for info in manifest.shards:
        rows = open_shard(run / "shards" / pack / info.path)
        starts = np.concatenate([[0], rows.row_ends[:-1]])
        for row in range(rows.num_rows):
            place = 0
            for i in range(starts[row], rows.row_ends[row]):
                sequence = rows.tokens[row, place : place + rows.lengths[i]].tolist()
                place += rows.lengths[i]
                assert len(sequence) <= max_length
                assert (sequence[0], sequence[-1]) == (*special.prefix, *special.suffix)
                document = int(rows.doc_ids[i])
                assert kept[document]["held_out"] == info.held_out
                low, _, high = info.bucket.rstrip("+").partition("-")
                assert int(low) <= len(expected[document]) + 2 <= int(high or 10**9)
                found.setdefault(document, {})[int(rows.starts[i])] = sequence[1:-1]
            assert (rows.tokens[row, place:] == special.pad_id).all()
    joined = {
        document: [token for start in sorted(pieces) for token in pieces[start]]
        for document, pieces in found.items()
    }
    assert joined == {document: expected[document] for document in kept}
    assert any(row["held_out"] for row in kept.values())


def test_verify_accepts_the_run_and_prints_the_root_last(finished, capsys):
    assert main(["verify", str(finished / "run")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == root(finished / "run")


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "add"])
def test_verify_finds_any_damage(tmp_path, damage, capsys):
    assert build(prepare(tmp_path), tmp_path / "run") == 1
    shard = sorted((tmp_path / "run" / "shards").rglob("*.arrow"))[0]
    data = bytearray(shard.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    elif damage == "cut":
        shard.write_bytes(data[:-1])
    elif damage == "remove":
        shard.unlink()
    else:
        (shard.parent / "extra.arrow").write_bytes(b"x")
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "run")]) == 1
    assert shard.parent.name in capsys.readouterr().out


def test_a_long_stream_is_milled_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(mill, "UNIT_BYTES", 3000)
    monkeypatch.setattr(batches, "BATCH_BYTES", 1000)
    recipe, run = prepare(tmp_path), tmp_path / "run"
    whole = tmp_path / "in" / "code.jsonl"
    (tmp_path / "in" / "code.jsonl.gz").write_bytes(gzip.compress(whole.read_bytes()))
    whole.unlink()
    build(recipe, run)
    assert len(list((run / "decisions" / "code").iterdir())) > 2
    rows = [row for row in decisions(run) if row["source"] == "code"]
    assert sorted(row["position"] for row in rows) == [i for i in range(42) if i not in (20, 21)]
    kept = {row["doc_id"] for row in rows if not row["reason"]}
    texts = ds.dataset(run / "text" / "code", format="parquet").to_table()
    assert kept <= set(texts["doc_id"].to_pylist())


class Backwards(InlineEngine):
    """Does the last task first."""

    def run(self, function, tasks):
        return super().run(function, list(reversed(tasks)))


def test_the_order_of_work_is_not_in_the_bytes(tmp_path, monkeypatch):
    recipe = prepare(tmp_path)
    build(recipe, tmp_path / "forwards")
    monkeypatch.setattr(build_commands, "InlineEngine", Backwards)
    build(recipe, tmp_path / "backwards")
    assert root(tmp_path / "forwards") == root(tmp_path / "backwards")


def test_other_inputs_have_another_root(tmp_path, finished):
    write_sources(tmp_path / "in", seed=3)
    (tmp_path / "vocab.txt").write_bytes((finished / "vocab.txt").read_bytes())
    build(write_recipe(tmp_path), tmp_path / "run")
    assert root(tmp_path / "run") != root(finished / "run")


def test_inspect_shows_a_row_and_a_document_as_text(finished, capsys):
    run = str(finished / "run")
    row = next(row for row in decisions(finished / "run") if row["reason"] == "")
    assert main(["inspect", run, "--document", str(row["doc_id"])]) == 0
    assert "reason          kept" in capsys.readouterr().out
    assert main(["inspect", run, "--row", "16-31:0"]) == 0
    assert "[CLS]" in capsys.readouterr().out
    assert main(["inspect", run]) == 0
    assert root(finished / "run") in capsys.readouterr().out
    assert main(["inspect", run, "--row", "16-31:99999"]) == 2
    assert "numbered from 0" in capsys.readouterr().err


def test_the_real_sample_has_its_known_duplicates_and_little_padding(
    tmp_path, test_data, monkeypatch
):
    monkeypatch.undo()
    arguments = [
        f"sources.refinedweb.path={test_data / 'refinedweb'}",
        f"tokenizer={test_data / 'tokenizers' / 'bert-base-uncased'}",
    ]
    sets = [word for change in arguments for word in ("--set", change)]
    recipe = Path(__file__).parent.parent / "manifests" / "neobert.yaml"
    assert build(recipe, tmp_path / "run", *sets) == 0
    rows = ds.dataset(tmp_path / "run" / "decisions", format="parquet").to_table(columns=["reason"])
    assert Counter(rows["reason"].to_pylist()) == {"": 10864, "exact_duplicate": 81}
    for pack in ("1024-truncate-4096", "4096-truncate-16384"):
        manifest = read_manifest(tmp_path / "run" / "shards" / pack)
        for bucket in ("0-1023", "1024-2047", "2048-4095", "4096+"):
            shards = manifest.of_bucket(bucket)
            room = sum(shard.rows for shard in shards) * manifest.row_tokens
            assert sum(shard.real_tokens for shard in shards) / room > 0.995
