"""The tables of a build: whose text was kept, what was cut, what was no document, what it cost."""

import csv
import json
from collections import Counter

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_runs import make_texts, prepare, write_vocabulary

from tokenmill.cli import main
from tokenmill.pipeline import licences, plan
from tokenmill.pipeline.costs import mill_seconds
from tokenmill.pipeline.decisions import reason_column
from tokenmill.pipeline.finish import Built, Stages, _skipped
from tokenmill.pipeline.generations import Generations
from tokenmill.pipeline.licences import NONE_STATED, OTHERS, UnitLicences, count_licences
from tokenmill.pipeline.receipts import Receipt
from tokenmill.pipeline.report import licence_table, report
from tokenmill.pipeline.rules.checks import Verdict
from tokenmill.shards.listing import read_listing


def receipt(unit, *, counts=None, details=None, seconds=0.0):
    return Receipt(
        stage="mill", name=unit, key="", parts={}, outputs=(), counts=counts or {},
        details=details or {}, seconds=seconds, versions={},
    )  # fmt: skip


def settled(rows):
    """A batch of decisions: (licence, tokens, whether kept)."""
    verdict = Verdict(len(rows))
    for i, (_, _, kept) in enumerate(rows):
        if not kept:
            verdict.codes[i] = 0
            verdict.drop(pa.array([j == i for j in range(len(rows))]).to_numpy(False), "gone")
    return pa.RecordBatch.from_pydict(
        {
            "licence": pa.array([row[0] for row in rows], pa.string()),
            "num_tokens": pa.array([row[1] for row in rows], pa.int32()),
            "reason": reason_column(verdict),
        }
    )


ROWS = st.tuples(
    st.one_of(st.none(), st.sampled_from(["MIT", " MIT ", "", "CC0", "MIT, Apache-2.0", "Ünï"])),
    st.integers(0, 2**31 - 1),
    st.booleans(),
)


@given(st.lists(st.lists(ROWS, max_size=8), max_size=5))
def test_licences_are_counted_as_python_does(batches):
    unit = UnitLicences()
    expected: Counter[tuple[str, str]] = Counter()
    for rows in batches:
        unit.add(settled(rows))
        for licence, tokens, kept in rows:
            name = (licence or "").strip() or NONE_STATED
            if kept:
                expected[name, "documents"] += 1
                expected[name, "tokens"] += tokens
    found = {(n, what): v for n, *both in unit.details()
             for what, v in zip(("documents", "tokens"), both, strict=True)}  # fmt: skip
    assert found == dict(expected)


def test_a_unit_of_many_licences_names_the_heaviest(monkeypatch):
    monkeypatch.setattr(licences, "MOST_IN_UNIT", 3)
    unit = UnitLicences()
    unit.add(settled([(f"licence {i}", 10 * i, True) for i in range(1, 8)]))
    assert unit.details() == [
        ["licence 7", 1, 70], ["licence 6", 1, 60], ["licence 5", 1, 50], [OTHERS, 4, 100],
    ]  # fmt: skip
    long = UnitLicences()
    long.add(settled([("all of its text " * 100, 1, True)]))
    assert len(long.details()[0][0]) == licences.MOST_CHARACTERS


def test_units_of_a_source_are_added_up_and_the_report_shows_ten():
    units = {
        f"{source}/u{i}": receipt(
            f"{source}/u{i}", details={"licences": [["MIT", 1, i], [f"L{i}", 2, 100]]}
        )
        for source in ("a", "b")
        for i in range(6)
    }
    rows = count_licences(units)
    assert sum(row.tokens for row in rows) == 2 * (15 + 600)
    assert {(r.source, r.documents, r.tokens) for r in rows if r.licence == "MIT"} == {
        ("a", 6, 15), ("b", 6, 15),
    }  # fmt: skip
    assert rows == sorted(rows, key=lambda row: (-row.tokens, row.source, row.licence))
    shown = licence_table(rows).split("\n")
    assert len(shown) == 1 + 10 + 1
    assert shown[-1].split() == ["4", "more", "in", "licences.csv", "16", "230", "18.7%"]


def build(recipe, run, *arguments):
    return main(["build", str(recipe), "--out", str(run), "--engine", "inline", *arguments])


def decisions(run):
    return ds.dataset(run / "decisions", format="parquet").to_table().to_pylist()


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    """Code under three licences, one of them none, in several units."""
    monkeypatch.setattr(plan, "UNIT_BYTES", 3000)
    recipe = prepare(tmp_path)
    names = ["MIT", "Apache-2.0", None]
    lines = [json.dumps({"text": text, "license": names[i % 3]}) for i, text in
             enumerate(make_texts(90, seed=4))]  # fmt: skip
    (tmp_path / "in" / "code.jsonl").write_text("\n".join(lines))
    return recipe


def test_licences_csv_is_what_the_decisions_say_and_part_of_the_run(mixed, tmp_path, capsys):
    run = tmp_path / "run"
    build(mixed, run)
    expected: Counter[tuple[str, str]] = Counter()
    for row in decisions(run):
        if not row["reason"]:
            expected[row["source"], row["licence"] or NONE_STATED] += row["num_tokens"]
    with (run / "licences.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["source"], row["licence"]): int(row["tokens"]) for row in rows} == dict(expected)
    assert {row["licence"] for row in rows} == {"CC0", "MIT", "Apache-2.0", NONE_STATED}
    said = capsys.readouterr().out
    for row in rows:
        assert f"{int(row['tokens']):,}" in said
    before = (run / "licences.csv").read_bytes()
    (run / "licences.csv").unlink()
    build(mixed, run)
    assert (run / "licences.csv").read_bytes() == before


def built(tmp_path, counts, milled=None, not_judged=0):
    stages = Stages(units=[], mill=milled or {}, settle={}, pack={})
    return Built(
        run=tmp_path, root="", counts=counts, reasons=[], num_set_aside=0, not_judged=not_judged,
        skipped=_skipped(stages.mill), licences=[], manifests=[], stages=stages, draws={},
        decontaminated=False, generations=Generations(generations=()), changed=(),
    )  # fmt: skip


def test_the_report_says_what_the_waterfall_does_not_show(tmp_path):
    mill = {
        "a/1": receipt("a/1", counts={"skipped.redirect": 3, "documents": 9}),
        "a/2": receipt("a/2", counts={"skipped.redirect": 4, "skipped.no HTML": 1200}),
    }
    said = report(built(tmp_path, {"documents": 9, "tokens_cut": 1234}, mill, not_judged=5))
    assert "1,234 more tokens of kept documents were left out, in spans" in said
    assert "no documents, and not counted above: 1,200 no HTML, 7 redirect" in said
    assert "5 of the documents came as tokens: no rule has judged them" in said
    quiet = report(built(tmp_path, {"documents": 9, "tokens_cut": 0}))
    for word in ("left out", "no documents, and", "came as tokens"):
        assert word not in quiet


def timed(seconds, *, read=0.0, start=0.0, start_bytes=0, batches=0.0, num_bytes=0):
    details = {"read_seconds": read, "start_seconds": start, "start_bytes": start_bytes,
               "batch_seconds": batches, "peak_bytes": 0}  # fmt: skip
    return receipt("u", counts={"bytes": num_bytes}, details=details, seconds=seconds)


def test_a_start_is_not_scaled_and_the_rest_each_by_its_own():
    units = [
        timed(6, start=3, start_bytes=10, batches=2, num_bytes=30),  # 1 second of reading and files
        timed(3, batches=2, num_bytes=20),  # again
    ]
    whole = mill_seconds(units, 10, 1000)
    assert whole.value == pytest.approx(2 * 10 + 4 / 40 * 1000)
    assert whole.low == pytest.approx(20 + 0.1 / 2 * 1000)
    assert whole.high == pytest.approx(20 + 2 * 0.1 * 1000)
    many = [timed(1 + 20 * rate, batches=20 * rate, num_bytes=20) for rate in (0.1, 0.2, 0.3, 0.4)]
    whole = mill_seconds(many, 1, 80)
    assert (whole.low, whole.high) == (pytest.approx(4 + 4), pytest.approx(4 + 32))


def test_only_first_batches_still_give_a_time():
    whole = mill_seconds([timed(5, start=4, start_bytes=100, num_bytes=100)], 2, 1000)
    assert (whole.value, whole.high) == (2 * 1 + 40, 2 + 80)
    assert mill_seconds([], 1, 0).value == 0


def test_a_plain_run_measures_itself(tmp_path):
    write_vocabulary(tmp_path)
    recipe = prepare(tmp_path)
    build(recipe, tmp_path / "run")
    for path in (tmp_path / "run" / "receipts" / "mill").rglob("*.json"):
        found = json.loads(path.read_text())
        of = found["details"]
        spent = of["read_seconds"] + of["start_seconds"] + of["batch_seconds"]
        assert 0 < spent <= found["seconds"]
        assert 1 << 24 < of["peak_bytes"] < 1 << 36
    assert read_listing(tmp_path / "run").root
