"""A corpus grows: what a phase has read stays as it is, what came since is read by later ones."""

import json
import re
import shutil

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pipeline_runs import Lives, make_texts, write_position, write_recipe, write_vocabulary

from tokenmill.cli import main
from tokenmill.pipeline import plan
from tokenmill.shards.files import sha256_file
from tokenmill.shards.listing import read_listing
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import read_run
from tokenmill.shards.shard import open_shard

NEAR = {"near": {"bands": 16, "band_rows": 2, "min_similarity": 0.45, "keep": "longest"}}
PACKS = ("16-split-64", "32-split-128")


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr(plan, "UNIT_BYTES", 4000)


def write_file(folder, name, texts):
    pq.write_table(pa.table({"content": texts}), folder / "in" / name, row_group_size=20)


def run_of_words(start, stop):
    return " ".join(f"w{number}" for number in range(start, stop))


def small_corpus(folder, **changes):
    """A recipe over one source of one file, and its build."""
    (folder / "in").mkdir()
    apart = [run_of_words(0, 120), run_of_words(60, 180)]
    write_file(folder, "m.parquet", [*make_texts(80, seed=1), *apart])
    write_vocabulary(folder)
    source = {
        "kind": "web", "path": str(folder / "in"), "format": "parquet",
        "columns": {"text": "content"}, "licence": "CC0",
    }  # fmt: skip
    return write_recipe(folder, sources={"web": source}, **changes)


def build(recipe, run, *arguments):
    return main(["build", str(recipe), "--out", str(run), "--engine", "inline", *arguments])


def digests(run, *folders):
    """The files below some folders of a run, without manifests."""
    files = [file for folder in folders for file in (run / folder).rglob("*") if file.is_file()]
    kept = [file for file in files if file.name != "manifest.json"]
    return {file.relative_to(run).as_posix(): sha256_file(file) for file in kept}


def documents(run, pack, generation):
    """The documents in the shards of a generation."""
    folder = run / "shards" / pack
    shards = [shard for shard in read_manifest(folder).shards if shard.generation == generation]
    return {int(i) for shard in shards for i in open_shard(folder / shard.path).doc_ids}


def kept(run, file):
    """The kept documents of one file."""
    rows = ds.dataset(run / "decisions", format="parquet").to_table().to_pylist()
    return {row["doc_id"] for row in rows if not row["reason"] and f"/{file}-" in row["unit"]}


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A run that has grown twice, and what was in it before each time."""
    folder = tmp_path_factory.mktemp("grown")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "UNIT_BYTES", 4000)
        recipe = small_corpus(folder, dedup=NEAR)
        assert build(recipe, folder / "run") == 0
        shutil.copytree(folder / "run", folder / "first")
        befores = [digests(folder / "run", "shards", "decisions")]
        old = pq.read_table(folder / "in" / "m.parquet")["content"].to_pylist()
        # Before the old file by name: old texts again, old ones that go on, and one between two.
        longer = [f"{text} mill {number} and on" for number, text in enumerate(old[:20])]
        more = [*old[:10], *longer, run_of_words(30, 150)]
        for name, phase, seed in (("b", "phase2", 5), ("a", "phase2", 6)):
            write_file(folder, f"{name}.parquet", [*make_texts(30, seed=seed), *more])
            assert build(recipe, folder / "run", "--grow", phase) == 0
            befores.append(digests(folder / "run", "shards", "decisions"))
    return folder, befores


def test_what_was_there_keeps_its_path_and_its_bytes(grown):
    folder, befores = grown
    now = digests(folder / "run", "shards", "decisions")
    for before in befores:
        assert before.items() <= now.items()
    new = [name for name in now if name not in befores[1] and name.endswith(".arrow")]
    assert new
    assert all(name.rsplit("/", 1)[-1].startswith("g2-00000-") for name in new)
    assert main(["verify", str(folder / "run")]) == 0


@pytest.mark.parametrize("pack", PACKS)
def test_each_generation_has_the_kept_documents_of_its_files(grown, pack):
    run = grown[0] / "run"
    for generation, file in enumerate("mba"):
        assert documents(run, pack, generation) == kept(run, file) != set()
    rows = ds.dataset(run / "decisions", format="parquet").to_table().to_pylist()
    first = {row["doc_id"] for row in rows if "/m-" in row["unit"]}
    left = {row["duplicate_of"] for row in rows if "/m-" not in row["unit"]} - {0}
    assert left & first
    reasons = {row["reason"] for row in rows if "/m-" not in row["unit"]}
    assert {"exact_duplicate", "near_duplicate"} <= reasons
    order = [shard.generation for shard in read_manifest(run / "shards" / pack).shards]
    assert order == sorted(order)


def test_a_phase_reads_its_generation_and_those_before(grown):
    folder, _ = grown
    generations = {
        name: phase.generation for name, phase in read_run(folder / "run").phases.items()
    }
    assert generations == {"phase1": 0, "phase2": 2}


def test_generations_the_recipe_and_the_files_make_the_root(grown, tmp_path):
    folder, _ = grown
    (tmp_path / "run").mkdir()
    shutil.copy(folder / "run" / "generations.json", tmp_path / "run")
    assert build(folder / "recipe.yaml", tmp_path / "run") == 0
    assert read_listing(tmp_path / "run").root == read_listing(folder / "run").root
    content = json.loads((tmp_path / "run" / "generations.json").read_text())
    files = [each["files"]["web"] for each in content["generations"]]
    assert files == [["m.parquet"], ["b.parquet"], ["a.parquet"]]


def test_growing_killed_at_any_file_goes_on_with_either_command(grown, tmp_path, monkeypatch):
    folder, _ = grown
    recipe, runs = folder / "recipe.yaml", [tmp_path / "run", tmp_path / "whole"]
    for run in runs:
        shutil.copytree(folder / "first", run)
    lives = Lives(monkeypatch)
    files = 4
    while not lives.run(files, lambda: build(recipe, runs[0], "--grow", "phase2")):
        files += 9
        assert not lives.run(2, lambda: build(recipe, runs[0]))
    assert files > 20
    lives.left = -1
    assert build(recipe, runs[1], "--grow", "phase2") == 0
    assert read_listing(runs[0]).root == read_listing(runs[1]).root


def test_files_that_no_generation_has_are_refused_with_what_to_do(tmp_path, capsys):
    recipe, run = small_corpus(tmp_path), tmp_path / "run"
    assert build(recipe, run, "--grow", "phase2") == 2
    assert "no finished build there that could grow" in capsys.readouterr().err
    build(recipe, run)
    for phase, said in (("phase3", "no such phase"), ("phase1", "the first phase reads what was")):
        assert build(recipe, run, "--grow", phase) == 2
        assert said in capsys.readouterr().err
    write_file(tmp_path, "a.parquet", make_texts(20, seed=7))
    assert build(recipe, run) == 0  # everything anew, as one generation
    assert documents(run, PACKS[0], 0) == kept(run, "m") | kept(run, "a")
    write_position(run, "phase2", 7)
    write_file(tmp_path, "c.parquet", make_texts(20, seed=5))
    assert build(recipe, run, "--grow", "phase2") == 2
    assert "training stands at phase2:7" in capsys.readouterr().err
    shutil.rmtree(run / "training")
    assert build(recipe, run, "--grow", "phase2") == 0
    assert re.search(r"\n1 +phase2 +1 +\d+\n", capsys.readouterr().out)
    write_file(tmp_path, "b.parquet", make_texts(20, seed=6))
    assert build(recipe, run) == 2
    assert "1 files are of no generation, for instance web/b.parquet" in capsys.readouterr().err
    assert main(["plan", str(recipe), "--out", str(run)]) == 0
    assert "1 files are of no generation: build with --grow PHASE" in capsys.readouterr().out
    assert read_listing(run)


def test_what_changes_an_older_generation_is_said_aloud(grown, tmp_path, capsys):
    recipe, run = grown[0] / "recipe.yaml", tmp_path / "run"
    shutil.copytree(grown[0] / "run", run)
    longer = ["--set", "filters.length.min_words=30"]
    assert build(recipe, run, *longer) == 1
    said = capsys.readouterr().out
    for pack in PACKS:
        for generation in (0, 1):
            assert f"changed: pack {pack}: " in said
            assert f"shards of generation {generation} are not what they were" in said
    assert "is refused when it goes on" in said
    assert build(recipe, run, *longer) == 0
