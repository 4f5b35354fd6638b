"""What if, and why, of a run whose steps after the mill took documents."""

import re
from collections import Counter

import numpy as np
import pyarrow.dataset as ds
import pytest
from planted import pair, random_words, recipe, write_lines

from tokenmill.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Near duplicates, one of them too short for the rule; equal texts and addresses."""
    folder = tmp_path_factory.mktemp("whatif")
    rng = np.random.default_rng(12)
    one, other = pair(rng, num_runs=190, shared=185)
    short = " ".join(random_words(rng, 60))
    texts = [one, other, short, short + " more", one, "some text of a page " * 40]
    urls = [f"https://a.example/{number}" for number in range(5)] + ["http://a.example/0#top"]
    records = [
        {"id": str(number), "text": text, "url": url}
        for number, (text, url) in enumerate(zip(texts, urls, strict=True))
    ]
    write_lines(folder / "in" / "a.jsonl", records)
    path = recipe(
        folder,
        filters={"length": {"min_words": 100}},
        dedup={"near": {}, "url": True},
        held_out=0.0,
    )
    assert main(["build", str(path), "--out", str(folder / "run"), "--engine", "inline"]) == 0
    return folder / "run"


def removed(printed):
    lines = re.findall(r"^(\S+) +-(\d+) +-(\d+) ", printed, re.MULTILINE)
    return {reason: (int(now), int(was)) for reason, now, was in lines}


def test_what_the_steps_took_stays_taken(run, capsys):
    capsys.readouterr()
    assert main(["whatif", str(run), "--set", "filters.length.min_words=100"]) == 0
    assert removed(capsys.readouterr().out) == {
        "length.min_words": (2, 2),
        "exact_duplicate": (1, 1),
        "url_duplicate": (1, 1),
        "near_duplicate": (1, 1),
    }


def test_documents_that_the_steps_have_not_seen_are_counted_as_kept_and_said(run, capsys):
    capsys.readouterr()
    assert main(["whatif", str(run), "--set", "filters.length.min_words=5"]) == 0
    printed = capsys.readouterr().out
    assert removed(printed)["near_duplicate"] == (1, 1)
    assert "url_duplicate, near_duplicate: as in the run. 2 documents that it did not" in printed


def test_what_if_compares_what_the_run_compared(tmp_path, capsys):
    lines = [
        {"text": "the same words", "dump": dump} for dump in ("2013-20", "2013-20", "2014-10", None)
    ]
    write_lines(tmp_path / "in" / "a.jsonl", lines)
    for scope, expected in (("dump", 1), ("source", 3), ("all", 3)):
        filters = {"length": {"min_words": 1}}
        path = recipe(tmp_path, filters=filters, dedup={"scope": scope}, held_out=0.0)
        run = tmp_path / scope
        assert main(["build", str(path), "--out", str(run), "--engine", "inline"]) == 0
        capsys.readouterr()
        assert main(["whatif", str(run), "--set", "filters.length.min_words=1"]) == 0
        assert removed(capsys.readouterr().out) == {"exact_duplicate": (expected, expected)}
        decided = ds.dataset(run / "decisions", format="parquet").to_table()["reason"].to_pylist()
        assert Counter(decided)["exact_duplicate"] == expected
