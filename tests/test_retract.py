"""Documents that are taken back: found by name and by text, gone from training and later builds."""

import json
from itertools import islice

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_runs import prepare, write_position, write_recipe, write_sources, write_vocabulary

from tokenmill.cli import main
from tokenmill.loader import Loader
from tokenmill.pipeline import plan
from tokenmill.pipeline.dedup.steps import NO_DOCUMENT, Removals
from tokenmill.pipeline.retracted import what_leaves
from tokenmill.shards.listing import read_listing
from tokenmill.shards.overlay import overlay_path, read_overlay
from tokenmill.shards.run import read_run


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr(plan, "UNIT_BYTES", 4000)


@pytest.fixture
def run(tmp_path):
    recipe = prepare(tmp_path)
    assert build(recipe, tmp_path / "run") == 1  # two lines were set aside
    return tmp_path / "run"


def build(recipe, run, *arguments):
    return main(["build", str(recipe), "--out", str(run), "--engine", "inline", *arguments])


def retract(run, text, *arguments, kind="ids", name="file.txt"):
    path = run.parent / name
    path.write_text(text)
    return main(["retract", str(run), f"--{kind}", str(path), *arguments])


def decisions(run):
    return ds.dataset(run / "decisions", format="parquet").to_table().to_pylist()


def entries(run):
    return read_overlay(run, tuple(read_run(run).phases)).entries


def kept(run):
    return [row for row in decisions(run) if not row["reason"] and not row["held_out"]]


def shown(run, phase="phase1", steps=60):
    with Loader(run, phase) as loader:
        return set(np.concatenate([batch.doc_ids for batch in islice(loader, steps)]).tolist())


def texts_by_url(folder):
    tables = [pq.read_table(folder / "in" / f"web-{part}.parquet").to_pylist() for part in range(2)]
    return {row["url"]: row["content"] for table in tables for row in table}


def test_names_of_all_kinds_are_found_and_what_is_not_found_is_listed(run, capsys):
    first, second, third = kept(run)[:3]
    text = (
        f"{first['doc_id']}\n\n{second['url'] or second['doc_id']}\n{third['doc_id']}\nnobody\n99\n"
    )
    assert retract(run, text) == 1
    (entry,) = entries(run)
    assert entry.doc_ids == tuple(sorted(row["doc_id"] for row in (first, second, third)))
    assert (entry.phase, entry.step) == ("phase1", 0)
    out = capsys.readouterr().out
    assert "       3 documents in rows to train on" in out
    assert "3 documents are left out from phase1 step 0 on, and by every later build" in out
    assert out.endswith("not found: 2\n  nobody\n  99\n")
    # Again: nothing new, and no entry.
    assert retract(run, str(first["doc_id"])) == 0
    assert "nothing new: the overlay stays as it is" in capsys.readouterr().out
    assert len(entries(run)) == 1


def test_training_no_longer_sees_them_and_the_root_stays(run):
    root = read_listing(run).root
    gone = {row["doc_id"] for row in kept(run)[::4]}
    before = shown(run)
    assert gone <= before
    assert retract(run, "\n".join(map(str, gone))) == 0
    assert shown(run) == before - gone
    assert main(["verify", str(run)]) == 0
    assert read_listing(run).root == root


def test_a_duplicate_brings_the_document_that_stands_for_it(run, tmp_path):
    duplicate = next(row for row in decisions(run) if row["reason"] == "exact_duplicate")
    stands = duplicate["duplicate_of"]
    assert retract(run, str(duplicate["doc_id"])) == 0
    assert set(entries(run)[0].doc_ids) == {duplicate["doc_id"], stands}
    assert stands not in shown(run)


def test_a_later_build_leaves_out_documents_and_their_duplicates(run, tmp_path):
    rows = decisions(run)
    duplicate = next(row for row in rows if row["reason"] == "exact_duplicate")
    alone = next(row for row in kept(run) if row["doc_id"] != duplicate["duplicate_of"])
    assert retract(run, f"{duplicate['doc_id']}\n{alone['doc_id']}") == 0
    shared = [row for row in rows if row["content_hash"] == duplicate["content_hash"]]
    gone = {row["doc_id"] for row in (*shared, alone)}
    assert build(tmp_path / "recipe.yaml", run) == 1
    after = {row["doc_id"]: row for row in decisions(run)}
    assert {after[doc_id]["reason"] for doc_id in gone} == {"exact_duplicate", "retracted"}
    assert after[alone["doc_id"]]["reason"] == "retracted"
    assert after[alone["doc_id"]]["duplicate_of"] == 0
    assert {row["doc_id"] for row in kept(run)} == {
        r["doc_id"] for r in rows if not r["reason"] and not r["held_out"]
    } - gone
    # Another run over the same files is told by the overlay, or by numbers.
    numbers = tmp_path / "gone.txt"
    numbers.write_text("\n".join(map(str, sorted(gone))))
    roots = set()
    for name in (str(overlay_path(run)), str(numbers)):
        other = tmp_path / f"other-{len(roots)}"
        assert build(write_recipe(tmp_path, retracted=[name]), other) == 1
        roots.add(read_listing(other).root)
        assert not gone & {row["doc_id"] for row in kept(other)}
    assert roots == {read_listing(run).root}


def test_documents_that_hold_a_text_are_found_in_another_dress(run, tmp_path, capsys):
    texts = texts_by_url(tmp_path)
    long = sorted(url for url, text in texts.items() if len(text.split()) > 30)
    whole, part = texts[long[0]], " ".join(texts[long[1]].split()[5:20])
    lines = [
        whole.upper().replace(" ", "  "),
        part.replace(" ", ", "),
        "no document has this one, surely not one of them",
    ]
    path_text = "".join(json.dumps({"text": line}) + "\n" for line in lines)
    assert retract(run, path_text, kind="texts", name="texts.jsonl") == 1
    urls = {row["url"] for row in decisions(run) if row["doc_id"] in entries(run)[0].doc_ids}
    expected = {url for url, text in texts.items() if text == whole or part in text}
    assert urls == expected
    assert "not found: 1\n  no document has this one" in capsys.readouterr().out


def test_a_short_text_takes_only_documents_that_are_equal_to_it(run, tmp_path):
    texts = texts_by_url(tmp_path)
    url = next(url for url, text in texts.items() if 5 <= len(text.split()) <= 7)
    assert retract(run, texts[url], kind="texts") == 0
    found = {row["url"] for row in decisions(run) if row["doc_id"] in entries(run)[0].doc_ids}
    assert found == {other for other, text in texts.items() if text == texts[url]}


def test_an_entry_holds_from_the_newest_checkpoint_on_or_later_and_never_before(run, capsys):
    rows = kept(run)
    for step in (2, 10, 5):
        write_position(run, "phase1", step)
    assert retract(run, str(rows[0]["doc_id"])) == 0
    assert (entries(run)[0].phase, entries(run)[0].step) == ("phase1", 10)
    assert retract(run, str(rows[1]["doc_id"]), "--from-step", "phase2:3") == 0
    assert (entries(run)[1].phase, entries(run)[1].step) == ("phase2", 3)
    assert retract(run, str(rows[2]["doc_id"]), "--from-step", "phase1:9") == 2
    assert capsys.readouterr().err.endswith(
        "tokenmill retract: --from-step phase1:9: training has read up to phase1:10, and what was "
        "read never changes. Give a later step.\n"
    )
    # The same document from an earlier step on is a new entry.
    assert retract(run, str(rows[1]["doc_id"]), "--from-step", "phase1:12") == 0
    assert len(entries(run)) == 3
    assert retract(run, str(rows[1]["doc_id"]), "--from-step", "warm-up:0") == 2
    assert "phase warm-up: not in the run, which has phase1, phase2." in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["ids", "texts"])
def test_an_empty_or_missing_file_is_refused_and_leaves_no_entry(run, capsys, kind):
    assert retract(run, " \n\n", kind=kind) == 2
    assert (
        "file.txt: the file is empty. Give a document or a text a line." in capsys.readouterr().err
    )
    assert main(["retract", str(run), f"--{kind}", str(run / "nowhere")]) == 2
    assert "nowhere: no such file." in capsys.readouterr().err
    assert entries(run) == ()


def test_a_run_that_is_not_finished_is_refused(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    assert retract(tmp_path / "run", "7") == 2
    assert "no finished run there (no outputs.json). Build it first." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.txt", "nowhere.txt: no such file. Correct the recipe."),
        ("words.txt", "words.txt: line 2: expected a doc_id, found 'https://example.org/0/1'."),
    ],
)
def test_a_recipe_with_a_file_of_no_numbers_is_refused(tmp_path, capsys, name, message):
    write_sources(tmp_path / "in")
    write_vocabulary(tmp_path)
    (tmp_path / "words.txt").write_text("12\nhttps://example.org/0/1\n")
    recipe = write_recipe(tmp_path, retracted=[str(tmp_path / name)])
    assert build(recipe, tmp_path / "run") == 2
    assert message in capsys.readouterr().err


def removals(pairs):
    ids = np.array(sorted(pairs), np.uint64)
    of = np.array([pairs[i] for i in sorted(pairs)], np.uint64)
    return Removals(ids, of, np.full(len(ids), 0.5, np.float32))


@given(
    links=st.lists(st.dictionaries(st.integers(1, 9), st.integers(0, 9), max_size=6), max_size=4),
    wanted=st.sets(st.integers(1, 12), max_size=6),
)
def test_chains_of_duplicates_end_at_the_document_that_stays(links, wanted):
    # What a step removes stands for nothing later, and nothing it lets stand was removed by it.
    steps, gone = [], set()
    for step in links:
        pairs = {d: o for d, o in step.items() if o not in step and d not in gone and o not in gone}
        gone |= set(pairs)
        steps.append([removals(pairs)])
    found = what_leaves(np.array(sorted(wanted), np.uint64), steps)
    expected: dict[int, int] = {}
    for document in sorted(wanted):
        at = document
        for (step,) in steps:
            at = dict(zip(step.doc_ids.tolist(), step.duplicate_of.tolist(), strict=True)).get(
                at, at
            )
        if at:
            expected.setdefault(at, 0 if at in wanted else document)
    assert dict(zip(found.doc_ids.tolist(), found.duplicate_of.tolist(), strict=True)) == expected
    assert NO_DOCUMENT not in found.doc_ids
