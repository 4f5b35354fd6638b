"""Decontamination in a build: what leaves, what is cut, what the report and `why` say."""

import http.server
import json
import os
import subprocess
import sys
import threading
from typing import ClassVar

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pipeline_runs import prepare, write_recipe

from tokenmill.cli import main
from tokenmill.pipeline import plan
from tokenmill.pipeline.decontaminate.report import decontamination_table, describe_evidence
from tokenmill.shards.files import read_json
from tokenmill.shards.listing import read_listing
from tokenmill.tokenizer import load_tokenizer

ITEM = "The grain, the flour: a miller's wheel turned by cold river water, early on windy mornings!"
"""17 words, the s of the miller among them."""
PHRASE = "stone upon stone upon stone and nothing but stone upon stone upon stone again"
"""14 words that many documents have."""


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr(plan, "UNIT_BYTES", 4000)


def lines(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return str(path)


def build(recipe, run, *arguments):
    return main(["build", str(recipe), "--out", str(run), "--engine", "inline", *arguments])


def decisions(run):
    rows = ds.dataset(run / "decisions", format="parquet").to_table().to_pylist()
    return {row["url"] or row["id"]: row for row in rows}


def texts_of(run):
    """What the shards hold of each document, decoded, by the source's name for it."""
    names = {row["doc_id"]: name for name, row in decisions(run).items()}
    encoder = load_tokenizer(run / "tokenizer")
    found = {}
    pack = min((run / "shards").iterdir())
    for path in sorted(pack.rglob("*.arrow")):
        table = ds.dataset(path, format="arrow").to_table().to_pylist()
        for row in table:
            start = 0
            pieces = zip(row["doc_ids"], row["starts"], row["lengths"], strict=True)
            for doc_id, first, length in pieces:
                body = row["tokens"][start + 1 : start + length - 1]
                found.setdefault(names[doc_id], {})[first] = body
                start += length
    return {
        name: encoder.library.decode([t for first in sorted(parts) for t in parts[first]])
        for name, parts in found.items()
    }


@pytest.fixture
def corpus(tmp_path):
    """A folder with a recipe over documents that hold items, and others."""
    others = " ".join(f"sail {word} bread" for word in "abcdefghijklmnopqrstuvw")
    texts = {
        "whole": ITEM,
        "inside": f"{others} {ITEM.lower().replace(',', '')} {others}",
        "half": f"{others} {' '.join(ITEM.split()[:8])} {others}",
        "clean": f"{others} wind",
        "twice": f"{ITEM} {others} {ITEM} {others}",
        **{f"common-{i}": f"{others} water {i} {PHRASE}" for i in range(12)},
    }
    recipe = prepare(tmp_path)
    lines(tmp_path / "in" / "code.jsonl", [{"text": t, "id": n} for n, t in texts.items()])
    lines(
        tmp_path / "eval.jsonl",
        [
            {"q": ITEM, "name": "wheel"},
            {"q": f"{PHRASE} so many words more that nobody has written until today, not one of "
                  "them known to the mill nor to the river nor to the wind", "name": "stones"},
            {"q": "too short", "name": "short"},
        ],
    )  # fmt: skip
    return recipe


def settings(folder, **changes):
    sets = {"mill": {"path": str(folder / "eval.jsonl"), "fields": ["q"], "id": "name"}}
    source = {
        "kind": "code",
        "path": str(folder / "in"),
        "format": "jsonl",
        "columns": {"id": "id"},
    }
    return {
        "sources": {"code": source},
        "filters": {},
        "held_out": 0.0,
        "decontamination": {"sets": sets, **changes},
    }


def test_documents_that_hold_an_item_leave_and_common_phrases_stay(corpus, tmp_path):
    run = tmp_path / "run"
    assert build(write_recipe(tmp_path, **settings(tmp_path)), run) == 0
    found = decisions(run)
    gone = {name for name, row in found.items() if row["reason"] == "evaluation_text"}
    assert gone == {"whole", "inside", "twice"}
    assert set(texts_of(run)) == set(found) - gone
    assert read_json(run / "decontamination" / "report.json")["mill"] == {
        "items": 3, "too_short": 1, "found": 1, "documents": 3, "cut": 0,
        "tokens": sum(found[name]["num_tokens"] for name in gone),
    }  # fmt: skip
    assert "mill      3          1      1          3    0" in decontamination_table(run)
    words = describe_evidence(run, found["inside"]["doc_id"])
    assert words.startswith("mill wheel: 17 words, 100% of it, in tokens 69 to ")
    assert describe_evidence(run, found["clean"]["doc_id"]) == ""
    common = describe_evidence(run, found["common-3"]["doc_id"])
    assert common.startswith("mill stones: 14 words, 35% of it")
    assert common.endswith("(not enough)")


def test_a_phrase_of_few_documents_is_evidence(corpus, tmp_path):
    run = tmp_path / "run"
    assert build(write_recipe(tmp_path, **settings(tmp_path, common_documents=12)), run) == 0
    gone = [name for name, row in decisions(run).items() if row["reason"] == "evaluation_text"]
    assert len(gone) == 3 + 12
    assert (
        build(write_recipe(tmp_path, **settings(tmp_path, common_documents=12, min_share=0.4)), run)
        == 0
    )
    gone = [name for name, row in decisions(run).items() if row["reason"] == "evaluation_text"]
    assert len(gone) == 3


def test_a_cut_leaves_what_stands_around_the_item(corpus, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    plain = settings(tmp_path)
    del plain["decontamination"]
    assert build(write_recipe(tmp_path, **plain), whole) == 0
    recipe = write_recipe(tmp_path, **settings(tmp_path, action="cut", min_tokens=20))
    assert build(recipe, run) == 0
    before, after, found = texts_of(whole), texts_of(run), decisions(run)
    assert found["whole"]["reason"] == "evaluation_text"
    item = load_tokenizer(run / "tokenizer").library
    spelled = {
        "inside": item.decode(
            item.encode(ITEM.lower().replace(",", ""), add_special_tokens=False).ids
        ),
        "twice": item.decode(item.encode(ITEM, add_special_tokens=False).ids),
    }
    for name, gone in spelled.items():
        assert found[name]["tokens_cut"] > 0
        left = before[name].replace(gone, " ").split()
        assert after[name].split() == left
    assert {n: t for n, t in after.items() if n not in spelled} == {
        n: t for n, t in before.items() if n not in (*spelled, "whole")
    }
    assert read_json(run / "decontamination" / "report.json")["all"]["cut"] == 2
    assert read_json(run / "decontamination" / "report.json")["all"]["documents"] == 1


def test_another_set_mills_nothing_anew_and_a_build_ends_the_same_either_way(corpus, tmp_path):
    run, straight = tmp_path / "run", tmp_path / "straight"
    one = settings(tmp_path)
    lines(tmp_path / "more.jsonl", [{"text": "sail a bread sail b bread sail c bread sail d"}])
    two = settings(tmp_path)
    two["decontamination"]["sets"]["more"] = {"path": str(tmp_path / "more.jsonl")}
    assert build(write_recipe(tmp_path, **one), run) == 0
    first = read_listing(run).root
    stamps = {path: path.stat().st_mtime_ns for path in (run / "receipts" / "mill").rglob("*.json")}
    assert build(write_recipe(tmp_path, **two), run) == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    second = read_listing(run).root
    assert build(write_recipe(tmp_path, **two), straight) == 0
    assert read_listing(straight).root == second != first
    evidence = [pq.read_table(r / "decontamination" / "evidence.parquet") for r in (run, straight)]
    assert evidence[0].equals(evidence[1])
    assert build(write_recipe(tmp_path, **one), run) == 0
    assert read_listing(run).root == first


def test_documents_that_left_before_count_for_nothing(corpus, tmp_path):
    with (tmp_path / "in" / "code.jsonl").open("a") as file:
        file.write(json.dumps({"text": ITEM, "id": "again"}) + "\n")
    run = tmp_path / "run"
    assert build(write_recipe(tmp_path, **settings(tmp_path)), run) == 0
    assert decisions(run)["again"]["reason"] == "exact_duplicate"
    assert read_json(run / "decontamination" / "report.json")["all"]["documents"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"path": "nowhere.jsonl"},
            "decontamination.sets.mill: nowhere.jsonl: no such file or folder, and no "
            "organisation/name of a hub.",
        ),
        (
            {"fields": ["question"]},
            "expected a string in question, found nothing. Repair it, or correct fields.",
        ),
        (
            {"path": "{folder}", "files": ["*.csv"]},
            "has no file named *.csv. Correct path or files.",
        ),
    ],
)
def test_a_set_that_cannot_be_read_ends_the_build_in_one_line(
    corpus, tmp_path, capsys, changes, message
):
    wrong = settings(tmp_path)
    changes = {
        k: v.format(folder=tmp_path) if isinstance(v, str) else v for k, v in changes.items()
    }
    wrong["decontamination"]["sets"]["mill"] |= changes
    assert build(write_recipe(tmp_path, **wrong), tmp_path / "run") == 2
    assert message in capsys.readouterr().err


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of a dataset hub as bringing its files takes."""

    files: ClassVar = {"test.jsonl": b"", "main/test-0.parquet": b"", "README.md": b"no set"}

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        if self.path.startswith("/api/datasets/mills/eval/tree/"):
            data = json.dumps(
                [{"type": "file", "path": name, "size": len(content), "oid": "b" * 40}
                 for name, content in self.files.items()]
            ).encode()  # fmt: skip
        elif self.path.startswith("/api/datasets/mills/eval"):
            names = [{"rfilename": name} for name in self.files]
            data = json.dumps({"id": "mills/eval", "sha": "a" * 40, "siblings": names,
                               "private": False, "downloads": 0, "tags": []}).encode()  # fmt: skip
        else:
            data = self.files[self.path.split("/resolve/")[1].split("/", 1)[1]]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hash(data)}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def test_a_set_of_the_hub_comes_through_its_endpoint_and_a_lost_hub_is_one_line(
    corpus, tmp_path, monkeypatch
):
    monkeypatch.setitem(Hub.files, "test.jsonl", (tmp_path / "eval.jsonl").read_bytes())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings_ = settings(tmp_path)
    hub = {"path": "mills/eval", "files": ["test.jsonl"], "fields": ["q"], "id": "name"}
    settings_["decontamination"]["sets"]["mill"] = hub
    recipe = write_recipe(tmp_path, **settings_)
    command = [
        sys.executable,
        "-m",
        "tokenmill",
        "build",
        str(recipe),
        "--engine",
        "inline",
        "--out",
    ]
    endpoint = f"http://127.0.0.1:{server.server_port}"
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hub")}
    try:
        subprocess.run([*command, str(tmp_path / "run")], env=environment, check=True)
    finally:
        server.shutdown()
        server.server_close()
    assert read_json(tmp_path / "run" / "decontamination" / "report.json")["mill"]["found"] == 1
    lost = subprocess.run(
        [*command, str(tmp_path / "other")],
        env=environment | {"HF_HUB_OFFLINE": "1"},  # else it tries for half a minute
        capture_output=True,
        text=True,
    )
    assert lost.returncode == 2
    assert (
        "decontamination.sets.mill: mills/eval: no such file or folder, and no dataset from the hub"
        in lost.stderr
    )
    assert "Traceback" not in lost.stderr
