"""A build over what another left, dead or alive: its bytes are those of a fresh one."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_runs import Lives, build, decisions, prepare, root

from tokenmill.cli import main

pytestmark = pytest.mark.usefixtures("small_units")


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
