"""Builds from servers: the root of the folder that they serve, whatever happens on the way."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fetch_servers import Hub, nginx, write
from pipeline_runs import prepare, write_sources

from tokenmill import build_commands
from tokenmill.cli import main
from tokenmill.pipeline import plan
from tokenmill.pipeline.engine import InlineEngine
from tokenmill.pipeline.fetch import retry
from tokenmill.pipeline.fetch.in_turn import fetch_tasks
from tokenmill.pipeline.sources import Checksum, SourceConfig, SourceFile
from tokenmill.shards.listing import read_listing

__all__ = ["nginx"]


@pytest.fixture(autouse=True)
def small_units_and_no_waiting(monkeypatch):
    monkeypatch.setattr(plan, "UNIT_BYTES", 4000)
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.001)


def build(recipe, run, *arguments) -> int:
    return main(["build", str(recipe), "--out", str(run), "--engine", "inline", *arguments])


def root(run) -> str:
    return read_listing(run).root


def sources(path: str, code: str = "", **settings: object) -> dict[str, object]:
    """write_recipe's sources at another place."""
    return {
        "web": {
            "kind": "web", "path": path, "format": "parquet",
            "columns": {"text": "content", "url": "url"}, "licence": "CC0", **settings,
        },
        "code": {
            "kind": "code", "path": code or path, "format": "jsonl",
            "columns": {"licence": "license"}, **settings,
        },
    }  # fmt: skip


@pytest.fixture
def served(nginx, tmp_path):
    """The test's sources at nginx, by a list of names, and the root of a build from the folder."""
    write_sources(nginx.root)
    found = sorted(path.name for path in nginx.root.iterdir())
    for kind in ("parquet", "jsonl"):
        lines = "\n".join(name for name in found if name.endswith(kind))
        write(nginx.root / f"{kind}.txt", lines.encode())
    local = prepare(tmp_path / "local", sources=sources(str(nginx.root)))
    assert build(local, tmp_path / "from-folder") == 1
    both = sources(nginx.url)
    for name, kind in (("web", "parquet"), ("code", "jsonl")):
        both[name]["file_list"] = f"{nginx.url}/{kind}.txt"
    recipe = prepare(tmp_path / "far", sources=both)
    return recipe, root(tmp_path / "from-folder")


def fetched(run) -> dict[str, int]:
    """When each file was fetched last, by its name."""
    found = (run / "receipts" / "fetch").rglob("*.json")
    return {path.name.rpartition("-")[0]: path.stat().st_mtime_ns for path in found}


def came(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name for name in after if before.get(name) != after[name]}


@pytest.mark.parametrize("keep", ["all", "none"])
def test_a_server_gives_the_root_of_the_folder_it_serves(nginx, served, tmp_path, keep):
    recipe, expected = served
    run = tmp_path / "run"
    assert build(recipe, run, "--keep-downloads", keep, "--set", "downloads.max_bytes=4000") in (
        1,
        2,
    )
    assert build(recipe, run, "--keep-downloads", keep) == 1
    assert root(run) == expected
    there = sorted(p.name for p in (run / "downloads").rglob("*") if p.is_file())
    assert there == ([] if keep == "none" else ["code.jsonl", "web-0.parquet", "web-1.parquet"])
    assert main(["verify", str(run)]) == 0


def test_a_hub_gives_it_too_and_no_token_stays(nginx, served, tmp_path, monkeypatch):
    _, expected = served
    hub = Hub(token="hf_secret")
    files = [path for path in nginx.root.iterdir() if path.suffix != ".txt"]
    hub.push({f"data/{path.name}": path.read_bytes() for path in files})
    recipe = prepare(tmp_path / "hub", sources=sources("hf://datasets/ada/texts/data"))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run = tmp_path / "run"
    with hub.running():
        assert build(recipe, run, "--keep-downloads", "none") == 1
    assert root(run) == expected
    assert secrets_in(run, b"hf_secret", hub.signature.encode()) == []


def test_a_task_travels_to_a_worker(tmp_path):
    config = SourceConfig(kind="web", path="s3://b", format="jsonl", storage_options={"anon": True})
    file = SourceFile("a", "s3://b/a", 9, "tag", Checksum("md5", "0" * 32))
    (task,) = fetch_tasks(tmp_path, "web", config, [file])
    assert pickle.loads(pickle.dumps(task)) == task


def test_what_is_milled_is_not_fetched_again_and_a_new_threshold_fetches_it(
    nginx, served, tmp_path
):
    recipe, expected = served
    run = tmp_path / "run"
    none = ("--keep-downloads", "none")
    build(recipe, run, *none)
    first = fetched(run)
    build(recipe, run, *none)
    assert fetched(run) == first
    build(recipe, run, *none, "--set", "filters.length.min_words=9")
    assert came(first, fetched(run)) == {"web-0_parquet", "web-1_parquet", "code_jsonl"}
    build(recipe, run, *none)
    assert root(run) == expected
    pq.write_table(pq.read_table(nginx.root / "web-0.parquet"), nginx.root / "web-2.parquet")
    with (nginx.root / "parquet.txt").open("a") as lines:
        lines.write("\nweb-2.parquet")
    before = fetched(run)
    build(recipe, run, *none)
    assert came(before, fetched(run)) == {"web-2_parquet"}


def test_kept_downloads_serve_a_new_threshold_and_come_again_when_they_are_gone(
    nginx, served, tmp_path
):
    recipe, expected = served
    run = tmp_path / "run"
    build(recipe, run)
    first = fetched(run)
    build(recipe, run, "--set", "filters.length.min_words=9")
    assert fetched(run) == first
    (run / "downloads" / "web" / "web-1.parquet").unlink()
    os.truncate(run / "downloads" / "code" / "code.jsonl", 10)
    build(recipe, run)
    assert came(first, fetched(run)) == {"web-1_parquet", "code_jsonl"}
    assert root(run) == expected


def test_a_changed_file_is_fetched_and_milled_and_nothing_else(nginx, served, tmp_path):
    recipe, expected = served
    run = tmp_path / "run"
    build(recipe, run)
    first = fetched(run)
    mill = {p: p.stat().st_mtime_ns for p in (run / "receipts" / "mill" / "web").iterdir()}
    code = nginx.root / "code.jsonl"
    code.write_bytes(code.read_bytes() + b'\n{"text": "one more line of words here"}')
    build(recipe, run)
    assert came(first, fetched(run)) == {"code_jsonl"}
    assert mill == {p: p.stat().st_mtime_ns for p in (run / "receipts" / "mill" / "web").iterdir()}
    assert root(run) != expected


class Recorder(InlineEngine):
    """Notes the most bytes that stood in downloads when a task was done."""

    most = 0

    def run(self, function, tasks):
        for task in tasks:
            yield function(task)
            there = (p for p in (task.run / "downloads").rglob("*") if p.is_file())
            Recorder.most = max(Recorder.most, sum(p.stat().st_size for p in there))


def test_never_more_is_there_than_the_cap(nginx, served, tmp_path, monkeypatch, capsys):
    recipe, expected = served
    sizes = [p.stat().st_size for p in nginx.root.iterdir() if p.suffix != ".txt"]
    monkeypatch.setattr(build_commands, "InlineEngine", Recorder)
    none = ("--keep-downloads", "none", "--set")
    build(recipe, tmp_path / "run", *none, f"downloads.max_bytes={max(sizes)}")
    assert 0 < Recorder.most <= max(sizes) < sum(sizes)
    assert root(tmp_path / "run") == expected
    capsys.readouterr()
    assert build(recipe, tmp_path / "other", *none, f"downloads.max_bytes={max(sizes) - 1}") == 2
    assert "GB must be there at once, downloads.max_bytes is" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["web", "code"])
def test_runs_of_small_files_are_planned_as_in_a_folder(nginx, tmp_path, kind):
    """Source files are read with the licences of their folders, which many units share."""
    names = [f"{n % 3}/{n:04d}.txt" for n in range(120)] + ["0/LICENSE.txt", "2/LICENSE.txt"]
    for n, name in enumerate(names):
        write(nginx.root / name, f"the mill number {n} grinds flour from grain".encode() * 3)
    write(nginx.root / "list.txt.gz", "\n".join(names).encode())
    files = {"kind": kind, "format": "files", "patterns": ["[0-9]/*.txt", "[0-9]/LICENSE.txt"]}
    near = prepare(tmp_path / "near", sources={"s": {**files, "path": str(nginx.root)}})
    far = {**files, "path": nginx.url, "file_list": f"{nginx.url}/list.txt.gz"}
    far_recipe = prepare(tmp_path / "far", sources={"s": far})
    assert build(near, tmp_path / "a") == build(far_recipe, tmp_path / "b") == 0
    assert root(tmp_path / "a") == root(tmp_path / "b")
    none = ("--keep-downloads", "none", "--set", "downloads.max_bytes=9000")
    assert build(far_recipe, tmp_path / "c", *none) == 0
    assert root(tmp_path / "c") == root(tmp_path / "a")
    tasks = len(list((tmp_path / "b" / "receipts" / "fetch").rglob("*.json")))
    assert (2 if kind == "code" else 3) <= tasks < 20


def refused(recipe, run, capsys, *arguments) -> str:
    """The one line of a build that ends with 2."""
    capsys.readouterr()
    assert build(recipe, run, *arguments) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("tokenmill build: ")]
    assert len(lines) == 1
    assert "Traceback" not in error
    assert not (run / "run.json").exists()
    return lines[0]


def test_a_vanished_file_and_a_closed_place_are_one_clear_error(
    nginx, served, tmp_path, capsys, monkeypatch
):
    recipe, expected = served
    run = tmp_path / "run"
    closed = f"sources.web.path={nginx.url}/closed"
    line = refused(recipe, run, capsys, "--set", closed)
    assert "/closed/web-0.parquet: the server refuses access (401)" in line
    away = (nginx.root / "web-1.parquet").rename(tmp_path / "away")
    assert "web-1.parquet: not there (404)" in refused(recipe, run, capsys)
    away.rename(nginx.root / "web-1.parquet")
    build(recipe, run)
    assert root(run) == expected


def test_a_file_that_changes_between_its_listing_and_its_coming_is_one_clear_error(
    nginx, served, tmp_path, capsys, monkeypatch
):
    recipe, expected = served
    run = tmp_path / "run"
    code = nginx.root / "code.jsonl"
    before = code.read_bytes()

    class Meddler(InlineEngine):
        def run(self, function, tasks):
            if tasks and tasks[0].stage == "fetch":
                code.write_bytes(before + b"\n")
                os.utime(code, (10**9, 10**9))
            return super().run(function, tasks)

    with monkeypatch.context() as patch:
        patch.setattr(build_commands, "InlineEngine", Meddler)
        assert "code.jsonl: changed since it was listed" in refused(recipe, run, capsys)
    code.write_bytes(before)
    build(recipe, run)
    assert root(run) == expected


def test_a_wrong_column_is_refused_before_a_file_comes(nginx, served, tmp_path, capsys):
    recipe, _ = served
    line = refused(recipe, tmp_path / "run", capsys, "--set", "sources.web.columns.text=txet")
    assert "sources.web.columns: txet: no file has such a column. They have content, url" in line
    assert not (tmp_path / "run" / "downloads").exists()


def test_the_plan_says_what_has_to_come(nginx, served, tmp_path, capsys):
    recipe, _ = served
    run = tmp_path / "run"
    main(["plan", str(recipe), "--out", str(run)])
    assert "2 files to fetch (0.00 GB) before they can be planned" in capsys.readouterr().out
    assert not run.exists()
    build(recipe, run, "--keep-downloads", "none")
    capsys.readouterr()
    main(["plan", str(recipe), "--out", str(run)])
    said = capsys.readouterr().out
    assert "to fetch" not in said
    assert "6 done" in said


def test_a_limit_takes_the_first_bytes_or_a_sample(nginx, served, tmp_path):
    recipe, _ = served
    size = (nginx.root / "web-0.parquet").stat().st_size
    build(recipe, tmp_path / "run", "--set", f"sources.web.limit={{bytes: {size}}}")
    assert set(fetched(tmp_path / "run")) == {"web-0_parquet", "code_jsonl"}


def secrets_in(run: Path, *secrets: bytes) -> list[str]:
    """The files of a run that hold one."""
    files = [path for path in run.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(s in path.read_bytes() for s in secrets)]


def test_a_signature_in_an_address_stays_out_of_the_run(nginx, served, tmp_path, capsys):
    recipe, _ = served
    one = f"sources.web={{kind: web, format: parquet, path: '{nginx.url}/web-0.parquet?sig=t0p'"
    one += ", columns: {text: content}}"
    assert build(recipe, tmp_path / "run", "--set", one) == 1
    assert any("?sig=t0p" in line for line in nginx.log())
    assert secrets_in(tmp_path / "run", b"t0p") == []
    (nginx.root / "web-0.parquet").unlink()
    assert main(["build", str(recipe), "--out", str(tmp_path / "run"), "--set", one]) == 2
    said = capsys.readouterr()
    assert "web-0.parquet: not there" in said.err
    assert "t0p" not in said.out + said.err


def test_a_tokenizer_is_trained_on_far_texts_as_on_near_ones(nginx, served, tmp_path):
    recipe, _ = served
    training = {"kind": "wordpiece", "vocab_size": 100}
    near = prepare(tmp_path / "n", sources=sources(str(nginx.root)), tokenizer_training=training)
    arguments = ["--set", f"tokenizer_training={json.dumps(training)}"]
    assert main(["train-tokenizer", str(near), "--out", str(tmp_path / "a")]) == 1
    assert main(["train-tokenizer", str(recipe), "--out", str(tmp_path / "b"), *arguments]) == 1
    made = [(tmp_path / x / "tokenizer.json").read_bytes() for x in "ab"]
    assert made[0] == made[1]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(
        p.name for p in (tmp_path / "b").iterdir()
    )


@pytest.mark.parametrize("keep", ["all", "none"])
def test_a_build_killed_while_files_come_ends_with_the_same_root(
    nginx, served, tmp_path, keep, monkeypatch
):
    monkeypatch.undo()  # another process does not see the small units
    recipe, _ = served
    run = tmp_path / "run"
    code = nginx.root / "code.jsonl"
    code.write_bytes(code.read_bytes() + b" " * (3 << 20))
    command = [sys.executable, "-m", "tokenmill", "build", str(recipe), "--out", str(run)]
    command += ["--engine", "inline", "--keep-downloads", keep]
    command += ["--set", f"sources.code.path={nginx.url}/slow"]
    rng = random.Random(0)
    for _ in range(2):
        child = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
        while not list((run / "downloads" / ".coming").rglob("*.journal")):
            assert child.poll() is None
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
    assert build(recipe, run, "--keep-downloads", keep) == 1
    assert build(tmp_path / "local" / "recipe.yaml", tmp_path / "whole") == 1
    assert root(run) == root(tmp_path / "whole")
    assert not (run / "downloads" / ".coming").exists()


def test_a_source_may_name_its_files_as_a_build_names_its_unfinished_ones(nginx, tmp_path):
    lines = b'{"text": "the mill and the stone and the river"}\n' * 9
    for name in ("a.part-1.jsonl", "b.journal.jsonl"):
        write(nginx.root / name, lines)
    write(nginx.root / "list", b"a.part-1.jsonl\nb.journal.jsonl")
    far = {"kind": "web", "format": "jsonl", "path": nginx.url, "file_list": f"{nginx.url}/list"}
    recipe, run = prepare(tmp_path / "far", sources={"s": far}), tmp_path / "run"
    assert build(recipe, run) == 0
    first = fetched(run)
    assert build(recipe, run, "--set", "filters.length.min_words=6") == 0
    assert fetched(run) == first
    assert len(list((run / "downloads" / "s").iterdir())) == 2
