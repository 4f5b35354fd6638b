"""What a build refuses: one line that names it, exit code 2, and nothing harmed."""

import errno
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_runs import build, decisions, prepare, root

from tokenmill.cli import main
from tokenmill.pipeline import mill
from tokenmill.shards import files

pytestmark = pytest.mark.usefixtures("small_units")


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


def test_a_refused_build_leaves_a_finished_run_as_it_is(tmp_path):
    recipe, run = prepare(tmp_path), tmp_path / "run"
    build(recipe, run)
    first = root(run)
    assert build(recipe, run, "--set", "sources.web.path=nowhere") == 2
    assert build(recipe, run, "--set", "tokenizer=nowhere/vocab.txt") == 2
    assert main(["verify", str(run)]) == 0
    assert root(run) == first


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
