"""Commands that look at training and change what it reads, on a run that a build has left."""

import json
import re
import shutil

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pipeline_runs import prepare, write_position

from tokenmill.cli import main
from tokenmill.errors import FormatError
from tokenmill.loader import Loader
from tokenmill.pipeline import build as building
from tokenmill.pipeline import plan
from tokenmill.pipeline.engine import InlineEngine
from tokenmill.pipeline.file_names import file_names
from tokenmill.recipe import dump_recipe, load_recipe
from tokenmill.shards.overlay import overlay_path
from tokenmill.shards.sources import read_sources


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "UNIT_BYTES", 4000)
        recipe = load_recipe(prepare(folder))
        building.build(recipe.corpus(), folder / "run", InlineEngine, recipe=dump_recipe(recipe))
    return folder / "run"


@pytest.fixture
def run(tmp_path, built):
    shutil.copytree(built, tmp_path / "run")
    return tmp_path / "run"


def decisions(run):
    rows = ds.dataset(run / "decisions", format="parquet").to_table().to_pylist()
    return {row["doc_id"]: row for row in rows}


def texts(run):
    rows = ds.dataset(run / "text", format="parquet").to_table().to_pylist()
    return {row["doc_id"]: row["text"] for row in rows}


def rows_read(run, phase="phase1", steps=10):
    with Loader(run, phase, prefetch_bytes=0) as loader:
        return [loader.rows_at(step).rows.tolist() for step in range(steps)]


def test_every_document_has_the_file_and_record_that_it_is_from(built):
    known = decisions(built)
    ids = np.array(sorted(known), np.uint64)
    for doc_id, name in zip(ids.tolist(), file_names(built, ids), strict=True):
        source, file, record = re.fullmatch(
            r"(\w+)/(\S+)(?: from byte \d+)? record (\d+)", name
        ).groups()
        row = known[doc_id]
        assert (source, int(record)) == (row["source"], row["position"])
        assert file.split(".")[0] == row["unit"].split("/")[1].rsplit("-", 2)[0]
        if row["url"]:  # https://example.org/PART/NUMBER
            assert row["url"].endswith(f"/{file[4]}/{record}")
    sources = read_sources(built)
    assert sources.names == tuple(sorted({row["source"] for row in known.values()}))
    found = [sources.names[place] for place in sources.of(ids)]
    assert found == [known[doc_id]["source"] for doc_id in ids.tolist()]
    with pytest.raises(FormatError, match="no file of document 77: it is of another build"):
        sources.of(np.array([77], np.uint64))
    starts = {row["start"] for row in pq.read_table(built / "files.parquet").to_pylist()}
    assert starts >= {0, 4000}  # of the jsonl file's ranges; parquet's row groups count on


def test_inspect_shows_a_step_with_the_source_and_text_of_its_documents(built, capsys):
    command = ["inspect", str(built), "--phase", "phase2", "--step", "3"]
    assert main([*command, "--world-size", "2", "--text"]) == 0
    out, whole = capsys.readouterr().out, texts(built)
    assert re.match(r"phase2 step 3: 2 rows, [\d,]+ tokens, [\d,]+ \(\d+\.\d%\) masked\n", out)
    assert re.findall(r", rank (\d):", out) == ["0", "1"]
    pieces = re.split(r"\n {2,}(?=\d+  tokens )", out.split("\n", 1)[1])[1:]
    with Loader(built, "phase2", prefetch_bytes=0) as loader:
        found = loader.rows_at(3).pieces
    assert [int(piece.split()[0]) for piece in pieces] == found.doc_ids.tolist()
    for piece, start in zip(pieces, found.doc_starts, strict=True):
        head, text = piece.split("\n")[:2]
        doc_id, first, name = re.fullmatch(
            r"(\d+)  tokens (\d+)-\d+  \d+ \(\d+\.\d%\) masked  (.*)", head
        ).groups()
        assert int(first) == start
        assert [name] == file_names(built, np.array([int(doc_id)], np.uint64))
        clean = re.sub(r"\W", "", whole[int(doc_id)].lower())
        assert re.sub(r"\W", "", text) in clean
    assert main(command) == 0
    short = capsys.readouterr().out.splitlines()
    assert len(short) == 1 + 2 + len(pieces)
    (built / "files.parquet").rename(built / "away")
    assert main(command) == 0
    (built / "away").rename(built / "files.parquet")
    assert "sources have no names: files.parquet is not in the run" in capsys.readouterr().out


def test_inspect_marks_what_is_taken_out(run, capsys):
    with Loader(run, prefetch_bytes=0) as loader:
        doc_id = int(loader.rows_at(4).pieces.doc_ids[0])
        bucket, row, _ = (int(column[1]) for column in loader.plan.rows_of(4))
        name = loader.plan.buckets[bucket].name
    (run.parent / "ids.txt").write_text(f"{doc_id}\n")
    assert main(["retract", str(run), "--ids", str(run.parent / "ids.txt")]) == 0
    assert main(["skip", str(run), "--rows", f"{name}:{row}"]) == 0
    assert main(["inspect", str(run), "--step", "4"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"{doc_id}  tokens \d+-\d+  taken back: padding  \w+/", out)
    assert f"{name}:{row}, visit 0, rank 0: skipped, all of it is padding\n" in out


def test_when_says_which_steps_read_a_document_and_where_training_stands(run, capsys):
    with Loader(run, prefetch_bytes=0) as loader:
        doc_id = int(loader.rows_at(4).pieces.doc_ids[0])
        buckets, rows, _ = loader.plan.rows_of(4)
        first = f"{loader.plan.buckets[buckets[0]].name}:{rows[0]}"
    url = decisions(run)[doc_id]["url"] or str(doc_id)
    write_position(run, "phase1", 5)
    assert main(["when", str(run), url, "--phase", "phase1", "--world-size", "2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"document {doc_id} ")
    assert re.search(r"phase1: read [1-9] times in its 10 steps, [1-9] of them so far\n", out)
    assert re.search(rf"\n4 +read +{re.escape(first)} +0 +tokens \d+-\d+ +0\n", out)
    assert main(["when", str(run), str(doc_id)]) == 0
    assert "phase2: " in capsys.readouterr().out
    shutil.rmtree(run / "decisions")
    assert main(["when", str(run), str(doc_id), "--phase", "phase1"]) == 0
    assert "times in its 10 steps, " in capsys.readouterr().out
    assert main(["when", str(run), "https://example.org/0/1"]) == 2
    assert "expected a doc_id: names are in " in capsys.readouterr().err


@pytest.mark.parametrize("fate", ["held_out", "exact_duplicate"])
def test_when_says_why_no_step_reads_a_document(built, capsys, fate):
    rows = decisions(built).values()
    row = next(
        row for row in rows if (row["held_out"] if fate == "held_out" else row["reason"] == fate)
    )
    assert main(["when", str(built), str(row["doc_id"])]) == 0
    out = capsys.readouterr().out
    if fate == "held_out":
        assert ": kept, held out for evaluation\nphase1: held out for evaluation, in " in out
    else:
        assert f": leaves: exact_duplicate of document {row['duplicate_of']}" in out
        assert "\nphase1: in no row of the pack 16-split-64\n" in out
    assert main(["when", str(built), "nobody"]) == 2
    assert "nobody: no document of " in capsys.readouterr().err


def test_skip_and_replay_say_what_they_do_and_training_does_it(run, capsys):
    before = rows_read(run, steps=20)
    write_position(run, "phase1", 4)
    assert main(["skip", str(run), "--phase", "phase1", "--steps", "6-7"]) == 0
    assert main(["replay", str(run), "--steps", "1-3", "--from-step", "phase1:5"]) == 0
    assert capsys.readouterr().out == (
        "phase1 never reads the data of its steps 6 to 7: step 6 reads what step 8 would have "
        "read, and so on. The phase keeps its 10 steps and ends 2 steps further in the order.\n"
        "phase1 reads the data of its steps 1 to 3 again at steps 5 to 7, with the same masks, and "
        "goes on at step 8 with what step 5 would have read. The phase keeps its 10 steps and ends "
        "3 steps earlier in the order.\n"
    )
    order = [0, 1, 2, 3, 4, 1, 2, 3, 5, 8]
    assert rows_read(run) == [before[step] for step in order]
    assert [json.loads(line) for line in overlay_path(run).read_text().splitlines()] == [
        {"skip": [6, 7], "from": {"phase": "phase1", "step": 6}},
        {"replay": [1, 3], "from": {"phase": "phase1", "step": 5}},
    ]


def test_rows_are_skipped_from_where_training_stands_and_once(run, capsys):
    write_position(run, "phase1", 4)
    assert main(["skip", str(run), "--phase", "phase2", "--rows", "32+:3-5"]) == 0
    assert capsys.readouterr().out == (
        "3 of the 41 rows of 32-split-128/32+, 3 to 5, are padding from phase1 step 4 on. Their "
        "shard is not read for them; all other rows stay where they are.\n"
    )
    assert main(["skip", str(run), "--phase", "phase2", "--rows", "32+:4"]) == 0
    assert main(["skip", str(run), "--phase", "phase1", "--rows", "held-out/32+:0"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "nothing new: these rows are skipped, and the overlay stays as it is\n1 of"
    )
    assert "are padding at once" in out
    assert len(overlay_path(run).read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("skip --rows 32+:3-999", "--rows 32+:3-999: expected rows of a bucket of"),
        ("skip --rows 31+:3", "31+ has 0 rows."),
        ("skip --rows held-out:0", "held-out has 0 rows."),
        ("skip --rows 32+:5-3", "--rows 32+:5-3: expected rows of a bucket"),
        ("skip --rows 32+:3 --from-step phase1:3", "training has read up to phase1:4"),
        ("skip --steps 3-5", "training has read up to phase1:4, and what was read never changes"),
        ("skip --steps 10-11", "expected steps of phase1, first and last; it has 10"),
        ("skip --steps 5-10", "expected steps of phase1, first and last; it has 10"),
        ("skip --rows 32+:3 --from-step phase2:1099511627776", "need a step below 1,099,511,627"),
        ("skip --steps 5-6 --from-step phase1:5", "--from-step: steps are skipped from the first"),
        (
            "skip --steps 5-6 --phase phase9",
            "phase phase9: not in the run, which has phase1, phase",
        ),
        ("replay --steps 2-4", "expected past steps of phase1, first and last, to come again at"),
        ("replay --steps 1-2 --from-step phase1:3", "training has read up to phase1:4"),
        ("replay --steps 1-2 --from-step phase1:10", "phase1 has 10 steps."),
        ("replay --steps 1-2 --phase phase2", "Give --from-step phase2:STEP with a step of it"),
    ],
)
def test_what_cannot_be_skipped_or_replayed_is_refused(run, capsys, command, message):
    write_position(run, "phase1", 4)
    name, *rest = command.split()
    assert main([name, str(run), *rest]) == 2
    assert message in capsys.readouterr().err
    assert not overlay_path(run).exists()


def test_a_training_that_is_not_the_run_s_is_refused(run, capsys):
    write_position(run, "phase9", 4)
    for command in ("when --phase phase1 7", "skip --steps 5-6", "replay --steps 1-2"):
        name, *rest = command.split()
        assert main([name, str(run), *rest]) == 2
        assert "its newest checkpoint is of phase phase9, the run has" in capsys.readouterr().err
    assert main(["skip", str(run), "--steps", "5-6", "--training", str(run / "away")]) == 2
    assert "away: no such folder." in capsys.readouterr().err
    assert main(["inspect", str(run), "--step", str(1 << 60)]) == 2
    assert "step: need a whole number from 0 to" in capsys.readouterr().err


@pytest.mark.parametrize("rows", ["32+", "32+:a-b", ":3", "32+:3-"])
def test_rows_that_are_no_rows_are_refused_by_the_parser(rows, capsys):
    with pytest.raises(SystemExit):
        main(["skip", "run", "--rows", rows])
    assert "FIRST-LAST, found" in capsys.readouterr().err
