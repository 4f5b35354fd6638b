"""WARC and WET files as documents: ids, addresses, crawls, and a count for all the rest."""

import gzip
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warc_files import FORMS, joined, page, record, response

from tokenmill.pipeline import plan
from tokenmill.pipeline.documents import Documents, SetAside, Skipped
from tokenmill.pipeline.extract.config import ExtractionConfig
from tokenmill.pipeline.plan import plan_units
from tokenmill.pipeline.read import read_unit
from tokenmill.pipeline.sources import InputFile, SourceConfig, list_files

ALL_TEXT = ExtractionConfig(main_content=False)
INFO = record("warcinfo", b"software: Wget\r\nisPartOf: CC-MAIN-2024-22\r\n")


def read(path, kind="warc", **settings):
    """Rows of (text, doc_id, position, id, url, dump, language), set aside, skipped; over all
    units."""
    settings = {"extraction": ALL_TEXT, "patterns": ("*",), **settings}
    config = SourceConfig(kind="web", path=str(path), format=kind, **settings)
    files = [
        InputFile(name, str(file), file.stat().st_size, "")
        for name, file in list_files("s", config)
    ]
    units, unreadable = plan_units("s", config, files)
    assert not unreadable
    plan.check_ids(units)
    rows, aside, skipped = [], [], Counter()
    for unit in units:
        for item in read_unit(unit, config):
            if isinstance(item, Documents):
                rows += zip(
                    item.texts.to_pylist(), item.doc_ids.tolist(), item.positions.tolist(),
                    item.ids.to_pylist(), item.urls.to_pylist(), item.dumps.to_pylist(),
                    item.languages.to_pylist(), strict=True,
                )  # fmt: skip
            elif isinstance(item, SetAside):
                aside.append(item)
            else:
                assert isinstance(item, Skipped)
                skipped[item.reason] += item.count
    assert len({row[1] for row in rows}) == len(rows)
    return rows, aside, skipped


@pytest.mark.parametrize("form", FORMS)
def test_pages_become_documents_and_every_other_record_is_counted(tmp_path, form):
    target = {"WARC_Target_URI": "<http://a.example/>", "WARC_Record_ID": "<urn:uuid:1>"}
    records = [
        INFO,
        record("request", b"GET / HTTP/1.1\r\n\r\n"),
        record("response", page("one"), **target),
        record("response", response(b"x", status="404 Not Found")),
        record("response", response(b"GIF89a", content_type="image/gif")),
        record("response", response(b"")),
        record("revisit", b""),
        record("response", b"no http at all", WARC_Target_URI="http://bad.example/"),
        record("response", page("two"), WARC_Target_URI="http://b.example/"),
    ]
    path = tmp_path / "a.warc"
    path.write_bytes(joined(records, form))
    rows, aside, skipped = read(path)
    assert [row[0] for row in rows] == ["one", "two"]
    assert [row[2] for row in rows] == [2, 8]
    assert [row[1] & 0xFFFFFF for row in rows] == [2, 8]
    assert [row[3] for row in rows] == ["<urn:uuid:1>", None]
    assert [row[4] for row in rows] == ["http://a.example/", "http://b.example/"]
    assert [row[5] for row in rows] == ["CC-MAIN-2024-22"] * 2
    assert [entry.error for entry in aside] == ["no HTTP response: no status line"]
    assert aside[0].place.endswith(", http://bad.example/")
    assert skipped == {
        "warcinfo": 1, "request": 1, "revisit": 1,
        "status_not_200": 1, "not_html": 1, "empty_body": 1,
    }  # fmt: skip
    assert len(rows) + len(aside) + skipped.total() == len(records)


def test_a_wet_file_is_read_as_it_is(tmp_path):
    records = [
        INFO,
        record("conversion", "Größe\r\n".encode(), WARC_Identified_Content_Language="deu,eng"),
        record("conversion", b"  "),
        record("conversion", b"\xff\xfe", WARC_Target_URI="http://bad.example/"),
        record("conversion", b"x" * 2000),
    ]
    path = tmp_path / "CC-MAIN-20240517233122-20240518023122-00000.warc.wet.gz"
    path.write_bytes(joined(records, "members"))
    rows, aside, skipped = read(path, "wet", max_document_bytes=1000)
    assert [(row[0], row[2], row[5:]) for row in rows] == [
        ("Größe\r\n", 1, ("CC-MAIN-2024-22", "deu,eng"))
    ]
    assert "not UTF-8" in aside[0].error
    assert "2000 bytes, max_document_bytes is 1000" in aside[1].error
    assert skipped == {"warcinfo": 1, "empty_body": 1}


@pytest.mark.parametrize(
    ("name", "first", "dump"),
    [
        ("CC-MAIN-2013-20/a.warc", INFO, "CC-MAIN-2013-20"),
        ("CC-MAIN-20240517233122-1.warc", INFO, "CC-MAIN-2024-22"),
        ("a.warc", record("warcinfo", b"isPartOf: my crawl\r\n"), "my crawl"),
        ("a.warc", record("warcinfo", b"software: Wget\r\n"), None),
        ("a.warc", record("metadata", b"isPartOf: x\r\n"), None),
        ("a.warc", b"", None),
    ],
)
def test_the_crawl_is_told_by_the_name_or_by_the_first_record(tmp_path, name, first, dump):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(first + record("conversion", b"text"))
    rows, _, _ = read(tmp_path, "wet")
    assert [row[5] for row in rows] == [dump]


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), max_size=12),
    form=st.sampled_from(FORMS),
    unit_bytes=st.integers(1, 2000),
)
def test_units_of_any_size_give_the_same_documents_in_the_same_order(
    tmp_path_factory, texts, form, unit_bytes
):
    usual = [f"text {text}" for text in texts]
    path = tmp_path_factory.mktemp("ranges") / ("a.wet" if form == "plain" else "a.wet.gz")
    path.write_bytes(joined([INFO, *(record("conversion", t.encode()) for t in usual)], form))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "UNIT_BYTES", unit_bytes)
        rows, aside, skipped = read(path, "wet")
    assert [row[0] for row in rows] == usual
    assert {row[5] for row in rows} <= {"CC-MAIN-2024-22"}
    assert (aside, skipped) == ([], {"warcinfo": 1})


def test_units_of_pages_give_the_same_documents_too(tmp_path, monkeypatch):
    path = tmp_path / "a.warc.gz"
    path.write_bytes(joined([record("response", page(f"page {i}")) for i in range(40)], "members"))
    whole = read(path)
    monkeypatch.setattr(plan, "UNIT_BYTES", 400)
    parts = read(path)
    assert [row[0] for row in parts[0]] == [row[0] for row in whole[0]]
    assert len(parts[0]) == 40
    assert parts[1:] == whole[1:]


def test_a_page_that_decompresses_to_more_than_a_document_is_set_aside(tmp_path):
    bomb = response(gzip.compress(bytes(1 << 24)), headers={"Content-Encoding": "gzip"})
    path = tmp_path / "a.warc.gz"
    path.write_bytes(joined([record("response", bomb), record("response", page("x"))], "members"))
    rows, aside, _ = read(path, max_document_bytes=1 << 20)
    assert [row[0] for row in rows] == ["x"]
    assert aside[0].error == "the body has more than max_document_bytes = 1048576 bytes"


def test_both_extractors_are_at_hand(tmp_path):
    story = " ".join(f"The miller ground grain number {i} into flour." for i in range(20))
    path = tmp_path / "a.warc.gz"
    path.write_bytes(joined([record("response", page(story))], "members"))
    for extractor in ("resiliparse", "trafilatura"):
        rows, aside, _ = read(path, extraction=ExtractionConfig(extractor=extractor))
        assert ([row[0].strip() for row in rows], aside) == ([story], [])


def test_the_crawl_gives_its_pages_and_a_count_for_all_the_rest(test_data):
    rows, aside, skipped = read(test_data / "web" / "warc", extraction=ExtractionConfig())
    assert len(rows) == 4346
    assert aside == []
    assert skipped == {
        "request": 4524, "status_not_200": 60, "revisit": 60, "not_html": 53, "warcinfo": 6,
        "empty_body": 5, "metadata": 2, "resource": 2,
    }  # fmt: skip
    assert all(row[4].startswith("http://") for row in rows)


DOCUMENTS = {
    # (documents, set aside): fewer documents than whole records where a page is too slow
    "truncated.warc.gz": (11, 1),
    "truncated-in-gzip-header.warc.gz": (5, 1),
    "crc-error.warc.gz": (5, 1),
    "content-length-too-long.warc": (4, 1),
    "content-length-too-short.warc": (4, 1),
    "content-length-past-end.warc.gz": (2, 1),
    "content-length-not-a-number.warc": (2, 1),
    "garbage-between-records.warc.gz": (2, 1),
    "one-member.warc.gz": (8, 0),
    "named-gz-but-plain.warc.gz": (3, 0),
    "empty.warc.gz": (0, 0),
    "empty-gzip.warc.gz": (0, 0),
    "html-not-warc.warc.gz": (0, 1),
    "lies-about-encoding.warc.gz": (3, 0),
    "bad-html.warc.gz": (2, 1),
    "nul-bytes-page.warc.gz": (1, 0),
}


def test_every_broken_file_gives_its_pages_and_a_reason_for_the_rest(test_data):
    manifest = (test_data / "bad" / "MANIFEST.jsonl").read_text().splitlines()
    names = [json.loads(line)["file"] for line in manifest]
    assert {name[5:] for name in names if name.startswith("warc/")} == set(DOCUMENTS)
    quick = ExtractionConfig(seconds=0.1)
    for name, expected in DOCUMENTS.items():
        rows, aside, _ = read(test_data / "bad" / "warc" / name, extraction=quick)
        assert (len(rows), len(aside)) == expected, (name, aside)
        assert not any("\0" in row[0] for row in rows)
    deep = test_data / "bad" / "warc" / "bad-html.warc.gz"
    assert len(read(deep)[0]) == 3  # all of a page's text is found at once, however deep


def test_samples_that_others_publish_are_read(test_data):
    folder = test_data / "web" / "published-samples"
    rows, aside, _ = read(folder)
    assert len(rows) == 8
    assert sorted(entry.file for entry in aside) == [
        "bad.arc", "example-trunc.warc", "example.arc", "example.arc.gz"
    ]  # fmt: skip
    ((_, _, _, _, url, dump, language),), _, _ = read(folder / "whirlwind.warc.wet.gz", "wet")
    assert (url, dump, language) == (
        "https://an.wikipedia.org/wiki/Escopete", "CC-MAIN-2024-22", "spa"
    )  # fmt: skip
