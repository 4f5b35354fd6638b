"""Equal texts and equal addresses: the first in the plan stays."""

import numpy as np
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import recipe, write_lines

from tokenmill.cli import main
from tokenmill.pipeline.dedup import exact
from tokenmill.pipeline.dedup.address import normal_address
from tokenmill.pipeline.dedup.exact import later_equals

PAGE = "example.org/a?id=3"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a?id=3",
        "http://example.org/a?id=3",
        "HTTPS://EXAMPLE.ORG:443/a?id=3",
        "http://example.org:80/a/?id=3",
        " https://example.org/a?id=3#part ",
        "https://example.org/a?utm_source=x&id=3&UTM_medium=y",
        "https://example.org/a?&id=3&gclid=1",
        "example.org/a?id=3",
    ],
)
def test_what_names_the_same_page_has_one_spelling(url):
    assert normal_address(url) == PAGE


@pytest.mark.parametrize(
    "url",
    [
        "https://www.example.org/a?id=3",
        "https://example.org/A?id=3",
        "https://example.org:8080/a?id=3",
        "http://example.org:443/a?id=3",
        "https://example.org/a?id=4",
        "https://example.org/a?id=3&b=",
        "https://example.org/a?id=3#!page",
        "ftp://example.org/a?id=3",
        "https://example.org/a",
    ],
)
def test_what_may_be_another_page_has_another(url):
    assert normal_address(url) != PAGE


@pytest.mark.parametrize("url", ["", "   ", "https://", "http:///", "#top"])
def test_an_address_without_a_place_is_none(url):
    assert normal_address(url) == ""


letters = st.text("abZ09-._~", min_size=1, max_size=8)


@given(
    st.lists(letters.filter(lambda part: part.strip(".")), min_size=1, max_size=3),
    st.lists(st.tuples(letters, letters), max_size=3),
    st.booleans(),
    st.integers(0, 3),
    st.sampled_from(["utm_source=a", "gclid=b", "FBCLID", "utm_x=1&mc_eid=2"]),
)
def test_what_tells_nothing_of_the_page_may_be_added_anywhere(path, query, secure, place, tracking):
    parameters = [f"{name}={value}" for name, value in query]
    bare = "/".join(["example.org", *path]) + ("?" + "&".join(parameters) if query else "")
    parameters.insert(place, tracking)
    scheme, port = ("HTTPS", ":443") if secure else ("http", ":80")
    dressed = f"{scheme}://Example.ORG{port}/{'/'.join(path)}//?{'&'.join(parameters)}#part"
    assert normal_address(dressed) == normal_address(bare) == bare


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3))))
def test_of_equal_keys_the_first_stays(keys):
    high, low = np.array(keys, np.uint64).reshape(-1, 2).T
    later, first = later_equals(high, low)
    expected = {n: keys.index(key) for n, key in enumerate(keys) if keys.index(key) != n}
    assert dict(zip(later.tolist(), first.tolist(), strict=True)) == expected


def decided(folder, records, **dedup):
    """(reason, place of what stays) of each record; two files, and several partitions."""
    half = len(records) // 2
    for name, part in (("a", records[:half]), ("b", records[half:])):
        lines = [{"id": str(records.index(record)), **record} for record in part]
        write_lines(folder / "in" / f"{name}.jsonl", lines)
    path = recipe(folder, dedup=dedup, held_out=0.0)
    command = ["build", str(path), "--out", str(folder / "run"), "--engine", "inline"]
    assert main(command) == 0
    rows = ds.dataset(folder / "run" / "decisions", format="parquet").to_table().to_pylist()
    rows = sorted(rows, key=lambda row: int(row["id"]))
    places = {row["doc_id"]: place for place, row in enumerate(rows)} | {0: None}
    return [(row["reason"], places[row["duplicate_of"]], row["similarity"]) for row in rows]


def record(number, text="", url="", dump=""):
    """A record; equal ones differ in `n`, so that each is found by its place."""
    return {"n": number, "text": text or f"text number {number}", "url": url, "dump": dump}


@pytest.mark.parametrize("task_documents", [4_000_000, 2])
def test_equal_texts_leave_before_equal_addresses(tmp_path, monkeypatch, task_documents):
    monkeypatch.setattr(exact, "TASK_DOCUMENTS", task_documents)
    records = [
        record(0, "one text", "https://a.example/"),
        record(1, "other text", "https://b.example"),
        record(2, "one text", "https://b.example"),
        record(3, "third text", "http://A.example#x"),
        record(4, "fourth text"),
        record(5, "fifth text"),
        record(6, "one text"),
        record(7, "sixth text", "https://b.example?utm_source=mail"),
    ]
    assert decided(tmp_path, records, url=True) == [
        ("", None, 0),
        ("", None, 0),
        ("exact_duplicate", 0, 1),
        ("url_duplicate", 0, 0),
        ("", None, 0),
        ("", None, 0),
        ("exact_duplicate", 0, 1),
        ("url_duplicate", 1, 0),
    ]


def test_only_what_is_of_one_dump_is_compared(tmp_path):
    url = "https://a.example/"
    records = [
        record(0, "same", url, "2013-20"),
        record(1, "same", url, "2014-10"),
        record(2, "same", url, "2013-20"),
        record(3, "other", url, "2014-10"),
        record(4, "same", url),
        record(5, "same", url),
    ]
    reasons = [reason for reason, _, _ in decided(tmp_path, records, url=True, scope="dump")]
    assert reasons == ["", "", "exact_duplicate", "url_duplicate", "", "exact_duplicate"]


def test_only_what_is_of_one_source_is_compared(tmp_path):
    sources = {}
    for name in ("one", "two"):
        lines = [{"id": f"{name}{n}", "text": "the same words"} for n in range(2)]
        write_lines(tmp_path / "in" / name / "a.jsonl", lines)
        sources[name] = {
            "kind": "web", "path": str(tmp_path / "in" / name), "format": "jsonl",
            "columns": {"id": "id"},
        }  # fmt: skip
    found = {}
    for scope in ("source", "all"):
        path = recipe(tmp_path, sources=sources, dedup={"scope": scope}, held_out=0.0)
        command = ["build", str(path), "--out", str(tmp_path / scope), "--engine", "inline"]
        assert main(command) == 0
        table = ds.dataset(tmp_path / scope / "decisions", format="parquet").to_table()
        found[scope] = {row["id"] for row in table.to_pylist() if not row["reason"]}
    assert found == {"source": {"one0", "two0"}, "all": {"one0"}}
