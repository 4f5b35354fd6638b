"""A sample is drawn by hashes, grows without losing a document, and says what the whole will be."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_runs import make_texts, prepare, write_sources

from tokenmill.cli import main
from tokenmill.errors import RecipeError
from tokenmill.pipeline import plan, sample
from tokenmill.pipeline.estimate import Drawn, interval, total
from tokenmill.pipeline.sample import (
    DocumentSample,
    Sample,
    draw,
    draw_names,
    is_drawn,
    parse_share,
)
from tokenmill.pipeline.sample_run import Forecast, Line, is_inside
from tokenmill.pipeline.sources import SourceConfig, SourceFile
from tokenmill.shards.listing import read_listing
from tokenmill.shards.settings import read_settings

IDS = np.arange(100_000, dtype=np.uint64) << np.uint64(24)


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Some ten units from some kilobytes of text."""
    monkeypatch.setattr(plan, "UNIT_BYTES", 4000)


def build(recipe, run, *arguments):
    return main(["build", str(recipe), "--out", str(run), "--engine", "inline", *arguments])


def decisions(run):
    return ds.dataset(run / "decisions", format="parquet").to_table().to_pylist()


def forecast_in(run):
    return read_settings(Forecast, json.loads((run / "forecast.json").read_text()), "forecast")


@pytest.mark.parametrize(
    ("text", "share"), [("0.1%", 0.001), ("10 %", 0.1), ("0.25", 0.25), ("99.9%", 0.999)]
)
def test_a_share_is_read_as_people_write_it(text, share):
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["0%", "200%", "100%", "1", "-3%", "abc", "", "%", "nan", "5%%"])
def test_what_is_no_share_is_refused_in_one_line(tmp_path, text, capsys):
    with pytest.raises(RecipeError, match="expected a share above 0 and below all"):
        parse_share(text)
    recipe = prepare(tmp_path)
    assert build(recipe, tmp_path / "run", f"--sample={text}") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"tokenmill build: --sample {text}: expected a share above 0")
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_share_of_the_documents_is_drawn():
    for share in (0.001, 0.1, 0.9):
        drawn = is_drawn(IDS, DocumentSample(share=share, seed=3)).mean()
        assert drawn == pytest.approx(share, abs=4 * (share * (1 - share) / len(IDS)) ** 0.5)
    assert is_drawn(IDS, DocumentSample(share=1.0, seed=3)).all()
    one, two = (is_drawn(IDS, DocumentSample(share=0.5, seed=seed)) for seed in (1, 2))
    assert (one & two).mean() == pytest.approx(0.25, abs=0.01)


@given(
    num=st.integers(1, 400),
    shares=st.lists(st.floats(1e-4, 0.9999), min_size=2, max_size=2, unique=True),
    seed=st.integers(0, 9),
)
def test_a_larger_sample_holds_a_smaller_one(num, shares, seed):
    names = {f"u{i}": 100 + i % 7 for i in range(num)}
    (few, some), (many, more) = (
        draw_names(names, 32, Sample(share=share, seed=seed)) for share in sorted(shares)
    )
    assert set(few) <= set(many)
    assert len(few) >= min(num, 32)
    assert (some.share if some else 1.0) <= (more.share if more else 1.0)
    small, large = (s or DocumentSample(share=1.0, seed=seed) for s in (some, more))
    assert not (is_drawn(IDS, small) & ~is_drawn(IDS, large)).any()


def test_of_a_source_far_away_files_are_drawn_with_what_belongs_to_them():
    names = [f"{i:02}.ds{suffix}" for i in range(40) for suffix in ("", ".index", ".metadata")]
    files = [SourceFile(name, f"https://host/{name}", 1000) for name in names]
    config = SourceConfig(kind="web", path="https://host", format="tokens")
    drew = draw("far", config, files, Sample(share=0.1))
    assert (drew.of, len(drew.drawn), len(drew.files)) == ("files", 8, 24)
    assert drew.total_bytes == 120_000
    assert drew.documents == DocumentSample(share=0.5, seed=0)
    assert {file.name.split(".")[0] for file in drew.files} == {n.split(".")[0] for n in drew.drawn}
    unknown = [SourceFile(name, f"https://host/{name}", None) for name in names]
    assert draw("far", config, unknown, Sample(share=0.1)).total_bytes == 120


def test_only_files_of_drawn_units_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "MIN_UNITS", 2)
    recipe = prepare(tmp_path)
    build(recipe, tmp_path / "run", "--sample", "10%")
    read = {row["unit"] for row in decisions(tmp_path / "run" / "sample")}
    assert Counter(unit.split("/")[0] for unit in read) == {"web": 2, "code": 2}
    hashed = (tmp_path / "run" / "sample" / "receipts" / "identify").rglob("*.json")
    assert sum(json.loads(path.read_text())["counts"]["files"] for path in hashed) < 4


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Six more files of 120 short documents, some forty units, and a recipe over them."""
    folder = tmp_path_factory.mktemp("corpus")
    recipe = prepare(folder)
    for part in range(6):
        texts = make_texts(120, seed=part + 50)
        table = pa.table(
            {"content": texts, "url": [f"https://a.example/{part}/{i}" for i in range(120)]}
        )
        pq.write_table(table, folder / "in" / f"more-{part:02}.parquet", row_group_size=30)
    return recipe


def test_a_sample_is_a_run_that_the_whole_run_finds_beside_it(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    build(recipe, run, "--sample", "20%")
    said = capsys.readouterr().out
    assert "a sample of 20.0000% of the corpus" in said
    assert main(["verify", str(run / "sample")]) == 0
    before = forecast_in(run)
    assert {line.actual for line in before.lines} == {None}
    capsys.readouterr()
    build(recipe, run)
    said = capsys.readouterr().out
    rows = decisions(run)
    lines = {line.name: line for line in forecast_in(run).lines}
    assert lines["documents read"].actual == len(rows)
    kept = [row for row in rows if row["reason"] in ("", "exact_duplicate")]
    assert lines["tokens kept"].actual == sum(row["num_tokens"] for row in kept)
    assert lines["documents kept, 16-31"].actual == sum(
        16 <= row["num_tokens"] + 2 < 32 for row in kept
    )
    assert lines["documents out by length.min_words"].actual == len(rows) - len(kept)
    packed = sum(row["num_tokens"] + 2 * -(-row["num_tokens"] // 14) for row in kept)
    assert lines["tokens packed, 16-split-64"].actual == packed
    sampled = [line for line in lines.values() if line.name.startswith(("documents", "tokens"))]
    assert sum(bool(is_inside(line)) for line in sampled) >= 0.7 * len(sampled)
    for line in before.lines:
        assert (lines[line.name].value, lines[line.name].low) == (line.value, line.low)
    for name in ("tokens kept, 32+", "disk, milled", "peak memory of a worker"):
        (row,) = [row for row in said.split("\n") if row.startswith(name + "  ")]
        assert row.split()[-1] in ("yes", "no")
    # The whole run is what it would have been without the sample.
    build(recipe, tmp_path / "plain")
    assert read_listing(run).root == read_listing(tmp_path / "plain").root


def test_a_sample_s_documents_fare_as_in_the_whole(recipe, tmp_path):
    build(recipe, tmp_path / "run", "--sample", "30%")
    build(recipe, tmp_path / "run")
    whole = {row["doc_id"]: row for row in decisions(tmp_path / "run")}
    part = decisions(tmp_path / "run" / "sample")
    assert 0.15 * len(whole) < len(part) < 0.45 * len(whole)
    compared = ("source", "unit", "position", "url", "num_tokens", "num_words", "content_hash")
    for row in part:
        assert {name: row[name] for name in compared} == {
            name: whole[row["doc_id"]][name] for name in compared
        }
        if row["reason"] != whole[row["doc_id"]]["reason"]:
            assert whole[row["doc_id"]]["reason"] == "exact_duplicate"  # of one left out


def test_the_same_sample_is_the_same_bytes_and_a_larger_one_holds_it(recipe, tmp_path):
    for name in ("a", "b"):
        build(recipe, tmp_path / name, "--sample", "5%")
    assert read_listing(tmp_path / "a/sample").root == read_listing(tmp_path / "b/sample").root
    few = {row["doc_id"] for row in decisions(tmp_path / "a/sample")}
    build(recipe, tmp_path / "a", "--sample", "20%")
    many = {row["doc_id"] for row in decisions(tmp_path / "a/sample")}
    assert few < many


def test_a_finished_sample_is_not_milled_again(recipe, tmp_path):
    build(recipe, tmp_path / "run", "--sample", "5%")
    receipts = sorted((tmp_path / "run/sample/receipts/mill").rglob("*.json"))
    before = [path.stat().st_mtime_ns for path in receipts]
    build(recipe, tmp_path / "run", "--sample", "5%")
    assert [path.stat().st_mtime_ns for path in receipts] == before


def test_a_forecast_of_another_recipe_is_not_compared(recipe, tmp_path, capsys):
    build(recipe, tmp_path / "run", "--sample", "5%")
    capsys.readouterr()
    build(recipe, tmp_path / "run", "--set", "filters.length.min_words=9")
    said = capsys.readouterr().out
    assert "is of another recipe" in said
    assert "90 % interval" not in said
    assert {line.actual for line in forecast_in(tmp_path / "run").lines} == {None}


def drawn_from(lengths, chosen, cluster, sizes, of):
    """The sample of some documents in some clusters."""
    seen = np.isin(cluster, chosen)
    milled = seen & of
    return milled, Drawn(
        cluster_bytes=sizes[chosen],
        total_bytes=int(sizes.sum()),
        seen=lengths[seen],
        milled=lengths[milled],
        cluster=np.searchsorted(chosen, cluster[milled]),
    )


@pytest.mark.parametrize(("clusters", "share"), [(1, 0.2), (100, 1.0), (100, 0.5)])
def test_nine_intervals_of_ten_hold_the_truth(clusters, share):
    """Lengths with a long tail, as those of documents; 200 samples each."""
    rng = np.random.default_rng(5)
    lengths = rng.lognormal(6, 1, 6000).astype(np.int64) + 1
    cluster = np.sort(rng.integers(0, clusters, len(lengths)))
    sizes = np.bincount(cluster, lengths, clusters).astype(np.int64)
    tokens = (lengths / rng.uniform(3, 6, len(lengths))).astype(np.int64)
    measures = {
        "documents": ((tokens > 0).astype(float), "documents"),
        "kept": ((rng.random(len(lengths)) < 0.6).astype(float), "documents"),
        "rare": ((rng.random(len(lengths)) < 0.002).astype(float), "documents"),
        "tokens": (tokens.astype(float), "bytes"),
        "tokens of the long": (np.where(tokens > 800, tokens, 0.0), "bytes"),
    }
    held = dict.fromkeys(measures, 0)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(clusters, min(clusters, 32), replace=False))
        of = rng.random(len(lengths)) < share
        milled, drawn = drawn_from(lengths, chosen, cluster, sizes, of)
        for name, (values, by) in measures.items():
            guess = interval(total(drawn, values[milled], by))
            held[name] += guess.low - 0.5 <= values.sum() <= guess.high + 0.5
    assert all(count >= 0.83 * 200 for count in held.values()), held


def test_a_sample_of_everything_knows_everything():
    lengths = np.array([5, 10, 20, 4000])
    values = np.array([1.0, 0.0, 1.0, 7.0])
    _, drawn = drawn_from(
        lengths, np.array([0]), np.zeros(4, np.int64), np.array([99]), np.ones(4, bool)
    )
    for by in ("documents", "bytes"):
        guess = interval(total(drawn, values, by))
        assert (guess.value, guess.low, guess.high) == (9.0, 9.0, 9.0)


def test_what_the_sample_has_not_may_still_be_there():
    lengths = np.full(1000, 50)
    of = np.arange(1000) < 100
    _, drawn = drawn_from(lengths, np.array([0]), np.zeros(1000, np.int64), np.array([99]), of)
    guess = interval(total(drawn, np.zeros(100), "documents"))
    assert (guess.value, guess.low) == (0.0, 0.0)
    assert guess.high == pytest.approx(3 * (10 - 1))


@pytest.mark.parametrize(
    ("line", "inside"),
    [
        (Line(name="a", value=2, low=1, high=3, actual=3), True),
        (Line(name="a", value=2, low=1, high=3, actual=4), False),
        (Line(name="a", value=2.4, low=2.4, high=2.4, actual=2), True),  # there is no 2.4
        (Line(name="a", value=2, low=1, high=3), None),
        (Line(name="a", value=2, actual=4), None),
    ],
)
def test_inside_means_between_the_bounds(line, inside):
    assert is_inside(line) == inside


def test_a_tenth_of_real_pages_forecasts_the_rest(test_data, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "UNIT_BYTES", 64 << 20)
    recipe = Path(__file__).parent.parent / "manifests" / "neobert.yaml"
    arguments = (
        "--set", f"sources.refinedweb.path={test_data / 'refinedweb'}",
        "--set", f"tokenizer={test_data / 'tokenizers' / 'bert-base-uncased'}",
        "--set", "filters.length={}",
    )  # fmt: skip
    build(recipe, tmp_path / "run", "--sample", "10%", *arguments)
    build(recipe, tmp_path / "run", *arguments)
    lines = forecast_in(tmp_path / "run").lines
    sampled = [line for line in lines if line.name.startswith(("documents", "tokens"))]
    assert len(sampled) > 14
    # Nine of ten are expected; these lean on the same documents and fail together.
    assert sum(bool(is_inside(line)) for line in sampled) >= 0.5 * len(sampled)
    assert all(abs(line.value - line.actual) < 3 * (line.high - line.low) + 1 for line in sampled)


def test_an_added_file_or_source_mills_its_own_units_only(tmp_path, capsys):
    recipe, run = prepare(tmp_path), tmp_path / "run"
    build(recipe, run)
    milled = run / "receipts" / "mill"
    before = {path: path.stat().st_mtime_ns for path in milled.rglob("*.json")}
    write_sources(tmp_path / "new", seed=77)
    (tmp_path / "new" / "web-0.parquet").rename(tmp_path / "in" / "dump-2.parquet")
    build(recipe, run)
    after = {path: path.stat().st_mtime_ns for path in milled.rglob("*.json")}
    assert {path: after[path] for path in before} == before
    assert all(path.name.startswith("dump-2") for path in after.keys() - before.keys())
    assert len(decisions(run)) == 160 + 60
    late = {"kind": "web", "path": str(tmp_path / "new"), "format": "parquet"}
    added = f"sources.late={json.dumps({**late, 'columns': {'text': 'content'}})}"
    build(recipe, run, "--set", added)
    last = {path: path.stat().st_mtime_ns for path in milled.rglob("*.json")}
    assert {path: last[path] for path in after} == after
    assert {path.parent.name for path in last.keys() - after.keys()} == {"late"}
    assert len(decisions(run)) == 160 + 60 + 60
    # What grew is what would have been built at once.
    build(recipe, tmp_path / "at-once", "--set", added)
    assert read_listing(run).root == read_listing(tmp_path / "at-once").root
