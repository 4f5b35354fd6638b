"""The build as a whole: every document has a fate, every byte is a function of inputs and
settings."""

import errno
import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pipeline_runs import Lives, prepare, write_recipe, write_sources

from tokenmill import commands
from tokenmill.cli import main
from tokenmill.pipeline import batches, mill, plan
from tokenmill.pipeline.decisions import FIRST, LAST
from tokenmill.pipeline.engine import InlineEngine
from tokenmill.shards import files
from tokenmill.shards.listing import read_listing
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.shard import open_shard
from tokenmill.tokenizer import load_tokenizer


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Some ten units from some kilobytes of text."""
    monkeypatch.setattr(plan, "UNIT_BYTES", 4000)


def build(recipe, run, *arguments):
    """The exit code of an inline build."""
    return main(["build", str(recipe), "--out", str(run), "--engine", "inline", *arguments])


def root(run):
    return read_listing(run).root


def decisions(run):
    return ds.dataset(run / "decisions", format="parquet").to_table().to_pylist()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was built once and is only looked at."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = prepare(folder)
    assert build(recipe, folder / "run") == 1  # two lines were set aside
    return folder


def test_every_document_has_one_decision_and_every_bad_record_a_place(finished):
    rows = decisions(finished / "run")
    assert len(rows) == 60 + 60 + 40
    assert len({row["doc_id"] for row in rows}) == len(rows)
    assert {*FIRST.names, *LAST.names, "num_words"} <= set(rows[0])
    reasons = Counter(row["reason"] for row in rows)
    assert set(reasons) == {"", "length.min_words", "exact_duplicate"}
    lines = (finished / "run" / "set-aside.jsonl").read_text().splitlines()
    assert [json.loads(line)["place"] for line in lines] == ["record 20", "record 21"]


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


def test_a_build_that_dies_again_and_again_ends_with_the_same_root(tmp_path, monkeypatch):
    recipe, run = prepare(tmp_path), tmp_path / "run"
    build(recipe, tmp_path / "whole")
    lives = Lives(monkeypatch)
    number = 1
    while not lives.run(2 * number, lambda: build(recipe, run)):
        assert list(run.rglob("*.part-*"))
        number += 1
    assert number > 8
    assert root(run) == root(tmp_path / "whole")
    assert not list(run.rglob("*.part-*"))


@pytest.mark.parametrize("files", [*range(5, 40, 3), *range(40, 75, 7)])
def test_what_a_dead_build_of_other_settings_left_is_never_taken_for_done(
    tmp_path, monkeypatch, files
):
    recipe, run = prepare(tmp_path), tmp_path / "run"
    added = tmp_path / "in" / "web-7.parquet"
    build(recipe, run)
    first = root(run)
    pq.write_table(pa.table({"content": ["wind and water " * 9], "url": ["u"]}), added)
    with pytest.MonkeyPatch.context() as patch:
        other = ["--set", "filters.length.min_words=30", "--set", "packing.overlong=truncate"]
        Lives(patch).run(files, lambda: build(recipe, run, *other))
    added.unlink()
    build(recipe, run)
    assert main(["verify", str(run)]) == 0
    assert root(run) == first


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
    monkeypatch.setattr(commands, "InlineEngine", Backwards)
    build(recipe, tmp_path / "backwards")
    assert root(tmp_path / "forwards") == root(tmp_path / "backwards")


def test_sources_that_run_empty_leave_nothing_behind(tmp_path):
    recipe, run = prepare(tmp_path), tmp_path / "run"
    build(recipe, run)
    for file in (tmp_path / "in").glob("*.parquet"):
        file.write_bytes(b"no parquet")
    build(recipe, run)
    build(recipe, tmp_path / "fresh")
    assert root(run) == root(tmp_path / "fresh")
    (tmp_path / "in" / "code.jsonl").write_bytes(b"")
    build(recipe, run)
    build(recipe, tmp_path / "empty")
    assert decisions_of(run) == []
    assert root(run) == root(tmp_path / "empty")


def decisions_of(run):
    return [path for path in (run / "decisions").rglob("*") if path.is_file()]


def test_without_dedup_all_stay_and_switching_it_off_and_on_leaves_no_trace(tmp_path):
    recipe, run = prepare(tmp_path), tmp_path / "run"
    build(recipe, run)
    first = root(run)
    build(recipe, run, "--set", "dedup.exact=false", "--set", "text=drop")
    assert "exact_duplicate" not in {row["reason"] for row in decisions(run)}
    assert not list((run / "text").rglob("*.parquet"))
    build(recipe, run)
    assert root(run) == first


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path, capsys):
    mine = tmp_path / "mine"
    (mine / "shards" / "data").mkdir(parents=True)
    (mine / "dump.tar.part-01").write_text("x")
    assert build(prepare(tmp_path), mine) == 2
    assert "the folder holds other things and no run" in capsys.readouterr().err
    assert (mine / "dump.tar.part-01").exists()


def test_a_run_inside_its_own_source_is_refused_when_it_would_read_itself(tmp_path, capsys):
    recipe, run = prepare(tmp_path), tmp_path / "in" / "run"
    build(recipe, run)
    assert build(recipe, run) == 2
    assert "lies inside the run" in capsys.readouterr().err


def test_an_input_that_changes_while_it_is_read_stops_the_build(tmp_path, capsys, monkeypatch):
    recipe = prepare(tmp_path)
    read = mill.read_unit

    def read_and_touch(unit, config):
        yield from read(unit, config)
        os.utime(unit.files[0].path, ns=(1, 1))

    monkeypatch.setattr(mill, "read_unit", read_and_touch)
    assert build(recipe, tmp_path / "run") == 2
    assert "changed while the build was reading it" in capsys.readouterr().err


def test_a_full_disk_is_one_line_with_exit_code_2(tmp_path, capsys, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(files, "_sync", full)
    assert build(prepare(tmp_path), tmp_path / "run") == 2
    assert "No space left on device. Mend that, then run" in capsys.readouterr().err


def test_ray_gives_the_same_bytes_as_inline(tmp_path, monkeypatch):
    monkeypatch.undo()  # another process does not see the small units
    recipe = prepare(tmp_path)
    arguments = [sys.executable, "-m", "tokenmill", "build", str(recipe), "--out"]
    done = subprocess.run([*arguments, str(tmp_path / "ray"), "--workers", "2"], check=False)
    assert done.returncode == 1
    assert build(recipe, tmp_path / "inline") == 1
    assert root(tmp_path / "ray") == root(tmp_path / "inline")


def receipts(run, stage):
    return {path: path.stat().st_mtime_ns for path in (run / "receipts" / stage).rglob("*.json")}


def test_a_second_build_does_nothing_and_a_new_threshold_only_what_depends_on_it(tmp_path, capsys):
    recipe, run = prepare(tmp_path), tmp_path / "run"
    build(recipe, run)
    before, first = receipts(run, "mill"), root(run)
    build(recipe, run)
    assert (receipts(run, "mill"), root(run)) == (before, first)
    build(recipe, run, "--set", "packing.overlong=truncate")
    assert receipts(run, "mill") == before
    assert not (run / "shards" / "16-split-64").exists()
    capsys.readouterr()
    main(["plan", str(recipe), "--out", str(run), "--set", "filters.length.min_words=9"])
    assert "changed: filters" in capsys.readouterr().out
    build(recipe, run)
    assert root(run) == first


def test_a_new_file_mills_only_its_own_units_and_a_removed_one_leaves_nothing(tmp_path):
    recipe, run = prepare(tmp_path), tmp_path / "run"
    build(recipe, run)
    before, first = receipts(run, "mill"), root(run)
    added = tmp_path / "in" / "web-7.parquet"
    pq.write_table(pa.table({"content": ["wind and water " * 9], "url": ["u"]}), added)
    build(recipe, run)
    after = receipts(run, "mill")
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()
    added.unlink()
    build(recipe, run)
    assert root(run) == first


def test_other_inputs_have_another_root(tmp_path, finished):
    write_sources(tmp_path / "in", seed=3)
    (tmp_path / "vocab.txt").write_bytes((finished / "vocab.txt").read_bytes())
    build(write_recipe(tmp_path), tmp_path / "run")
    assert root(tmp_path / "run") != root(finished / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["packing.overlnog=split"], "packing.overlnog: unknown key. Did you mean overlong?"),
        (["tokenizer=nowhere/at/all"], "nowhere/at/all"),
        (["sources.web.path=nowhere"], "sources.web.path: nowhere: no such file or folder."),
        (
            ["phases.phase1.row_tokens=32"],
            "phases.phase1.row_tokens must be at least 4 x max_length",
        ),
        (["phases.phase1.loader.mixture={17+: 1}"], "subset 17+: no bucket begins there."),
        (["held_out=1"], "held_out must be at least 0 and below 1, got 1"),
        (["packing"], "--set packing: expected key=value"),
        (
            ["filters.language={model: no.bin}"],
            "no.bin: expected a fastText model, found none (No ",
        ),
        (
            ["filters.classifiers={q: {model: no.bin, label: x, min_probability: 0.1}}"],
            "no.bin: expected a fastText model, found none (No such file or directory). Correct",
        ),
        (
            ['filters.datatrove=[{filter: RegexFilter, arguments: {regex_exp: "("}}]'],
            "RegexFilter: cannot be made with these arguments",
        ),
        (["sources.web.columns.text=txet"], "sources.web.columns: txet: no file has such a column"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line_with_exit_code_2(tmp_path, capsys, changes, message):
    recipe = prepare(tmp_path)
    sets = [word for change in changes for word in ("--set", change)]
    assert build(recipe, tmp_path / "run", *sets) == 2
    error = capsys.readouterr().err
    assert error.startswith("tokenmill build: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_missing_recipe_and_an_unwritable_folder_are_refused(tmp_path, capsys):
    assert build(tmp_path / "none.yaml", tmp_path / "run") == 2
    assert "none.yaml: no such file" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert build(prepare(tmp_path), tmp_path / "file" / "run") == 2
    assert "cannot write there (Not a directory)" in capsys.readouterr().err


def test_two_builds_of_one_run_are_refused(tmp_path, capsys):
    from tokenmill.pipeline.lock import locked

    with locked(tmp_path / "run"):
        assert build(prepare(tmp_path), tmp_path / "run") == 2
    assert f"another build is at work in it (process {os.getpid()}" in capsys.readouterr().err


def test_a_disk_that_is_too_small_stops_before_the_work(tmp_path, capsys, monkeypatch):
    from tokenmill.pipeline import corpus

    monkeypatch.setattr(corpus.shutil, "disk_usage", lambda path: os.statvfs_result)
    monkeypatch.setattr(os.statvfs_result, "free", 0, raising=False)
    assert build(prepare(tmp_path), tmp_path / "run") == 2
    assert "GB of disk, 0.0 GB are free" in capsys.readouterr().err


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


def test_a_refused_build_leaves_a_finished_run_as_it_is(tmp_path):
    recipe, run = prepare(tmp_path), tmp_path / "run"
    build(recipe, run)
    first = root(run)
    assert build(recipe, run, "--set", "sources.web.path=nowhere") == 2
    assert build(recipe, run, "--set", "tokenizer=nowhere/vocab.txt") == 2
    assert main(["verify", str(run)]) == 0
    assert root(run) == first


def test_damaged_intermediate_files_never_reach_a_shard(tmp_path, capsys):
    recipe, run = prepare(tmp_path), tmp_path / "run"
    build(recipe, run)
    tokens = sorted((run / "milled").rglob("tokens-000.arrow"))[0]
    data = bytearray(tokens.read_bytes())
    data[len(data) // 2] ^= 1
    tokens.write_bytes(data)
    assert build(recipe, run, "--set", "packing.overlong=truncate") == 2
    assert "tokens-000.arrow: the bytes are not those that were written" in capsys.readouterr().err
    tokens.unlink()
    build(recipe, run)
    build(recipe, tmp_path / "fresh")
    assert root(run) == root(tmp_path / "fresh")


def test_a_side_column_may_miss_in_a_file_but_not_in_all(tmp_path, capsys):
    recipe, run = prepare(tmp_path), tmp_path / "run"
    pq.write_table(pa.table({"content": ["no url " * 9]}), tmp_path / "in" / "web-7.parquet")
    build(recipe, run)
    rows = [row for row in decisions(run) if row["source"] == "web"]
    assert [row["url"] for row in rows].count(None) == 1
    assert build(recipe, run, "--set", "sources.web.columns.url=ulr") == 2
    assert "sources.web.columns: ulr: no file has such a column" in capsys.readouterr().err


def test_pipes_are_passed_over_and_links_to_nowhere_refused(tmp_path, capsys):
    recipe = prepare(tmp_path)
    os.mkfifo(tmp_path / "in" / "pipe.parquet")
    build(recipe, tmp_path / "run")
    assert len(decisions(tmp_path / "run")) == 160
    (tmp_path / "in" / "gone.parquet").symlink_to(tmp_path / "nowhere")
    assert build(recipe, tmp_path / "run") == 2
    assert "gone.parquet: the link leads nowhere" in capsys.readouterr().err
