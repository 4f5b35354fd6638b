"""Readers: every sound record comes out, every other one is set aside with its place."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.errors import SourceError
from tokenmill.pipeline import plan
from tokenmill.pipeline.documents import Documents, SetAside
from tokenmill.pipeline.plan import plan_units
from tokenmill.pipeline.read import read_unit
from tokenmill.pipeline.sources import Columns, InputFile, SourceConfig, list_files


def read_all(config):
    """Texts, doc ids and what was set aside, over all units."""
    files = [
        InputFile(name, str(path), path.stat().st_size, "")
        for name, path in list_files("s", config)
    ]
    units, unreadable = plan_units("s", config, files)
    texts, ids, aside = [], [], list(unreadable)
    for unit in units:
        for item in read_unit(unit, config):
            if isinstance(item, SetAside):
                aside.append(item)
            else:
                assert isinstance(item, Documents)
                texts += item.texts.to_pylist()
                ids += item.doc_ids.tolist()
    assert len(set(ids)) == len(ids)
    return texts, ids, aside


def jsonl(path, **settings):
    return SourceConfig(kind="web", path=str(path), format="jsonl", **settings)


def lines(*texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"text": "\xff"}', "not UTF-8"),
        (b'{"text": "a"', "no JSON"),
        (b'{"other": "a"}', "expected a string in text, found nothing"),
        (b'{"text": 3}', "expected a string in text, found int"),
        (b'["text"]', "expected an object, found list"),
        (b'{"text": "\\ud800"}', "not UTF-8"),
        (b'{"text": "' + b"x" * 200 + b'"}', "longer than max_document_bytes"),
    ],
)
def test_a_bad_line_is_set_aside_with_its_place_and_the_rest_is_read(tmp_path, line, error):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines("one") + b"\n" + line + b"\n" + lines("two"))
    texts, ids, aside = read_all(jsonl(path, max_document_bytes=100))
    assert texts == ["one", "two"]
    assert [doc_id & 0xFFFFFF for doc_id in ids] == [0, 2]
    assert [(entry.file, entry.place) for entry in aside] == [("a.jsonl", "record 1")]
    assert error in aside[0].error


def test_columns_may_lie_inside_objects_and_hold_lists_and_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x", "meta": {"lic": ["MIT", "BSD"]}, "n": 7}\n{"text": "y"}\n')
    columns = Columns(id="n", licence="meta.lic")
    config = jsonl(path, columns=columns, licence="unknown")
    (unit,), _ = plan_units("s", config, [InputFile("a.jsonl", str(path), 99, "")])
    (documents,) = read_unit(unit, config)
    assert documents.ids.to_pylist() == ["7", None]
    assert documents.licences.to_pylist() == ["MIT, BSD", "unknown"]


@given(texts=st.lists(st.text(max_size=30), max_size=30), unit_bytes=st.integers(1, 200))
def test_byte_ranges_give_each_line_once_whatever_their_size(tmp_path_factory, texts, unit_bytes):
    path = tmp_path_factory.mktemp("ranges") / "a.jsonl"
    usual = [text for text in texts if "\0" not in text]
    path.write_bytes(lines(*usual).rstrip(b"\n"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "UNIT_BYTES", unit_bytes)
        found, _, aside = read_all(jsonl(path))
    assert (found, aside) == (usual, [])


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_a_stream_that_is_cut_gives_what_stands_before_and_names_the_place(tmp_path, name):
    pack = gzip.compress if name.endswith(".gz") else zstandard.ZstdCompressor().compress
    first, second = lines("one", "two"), lines(*(f"{i} {i * 7919}" for i in range(5000)))
    path = tmp_path / name
    path.write_bytes(pack(first) + pack(second)[:-100])
    texts, _, aside = read_all(jsonl(path))
    assert texts[:2] == ["one", "two"]
    assert all(text == f"{i} {i * 7919}" for i, text in enumerate(texts[2:]))
    assert len(aside) == 1
    assert aside[0].place.startswith("before record")


def test_no_line_of_a_damaged_zstd_frame_comes_out(tmp_path):
    pack = zstandard.ZstdCompressor(write_checksum=True).compress
    frames = [pack(lines(f"{i} one", f"{i} two")) for i in range(3)]
    damaged = bytearray(frames[1])
    damaged[-1] ^= 1  # the checksum: the text itself decompresses
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(frames[0] + damaged + frames[2])
    texts, _, aside = read_all(jsonl(path))
    assert texts == ["0 one", "0 two"]
    assert "checksum" in aside[0].error.lower()


def parquet(path, **settings):
    return SourceConfig(kind="web", path=str(path), format="parquet", **settings)


def test_parquet_rows_keep_their_numbers_across_row_groups_and_nulls(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["a", None, "c", "d", "e"], "url": ["u"] * 5})
    pq.write_table(table, path, row_group_size=2)
    texts, ids, aside = read_all(parquet(path, columns=Columns(url="url")))
    assert texts == ["a", "c", "d", "e"]
    assert [doc_id & 0xFFFFFF for doc_id in ids] == [0, 2, 3, 4]
    assert [(entry.place, entry.error) for entry in aside] == [("record 1", "no text (null)")]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_text_may_be_typed_string_or_binary(tmp_path, kind):
    path = tmp_path / "a.parquet"
    values = [b"good", b"\xff bad", b"fine"] if "binary" in str(kind) else ["good", "x", "fine"]
    pq.write_table(pa.table({"text": pa.array(values, kind)}), path)
    texts, _, aside = read_all(parquet(path))
    bad = 1 if "binary" in str(kind) else 0
    assert (len(texts), len(aside)) == (3 - bad, bad)


def test_a_parquet_file_without_the_text_column_is_set_aside_by_that_name(tmp_path):
    pq.write_table(pa.table({"content": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["b"]}), tmp_path / "b.parquet")
    texts, _, aside = read_all(parquet(tmp_path))
    assert texts == ["b"]
    assert aside[0].file == "a.parquet"
    assert "no column text; it has content" in aside[0].error


def test_small_files_are_documents_named_by_their_path(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("alpha")
    (tmp_path / "sub" / "b.txt").write_text("beta")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe")
    config = SourceConfig(kind="web", path=str(tmp_path), format="files", patterns=("*.txt",))
    texts, _, aside = read_all(config)
    assert texts == ["alpha", "beta"]
    assert [entry.file for entry in aside] == ["c.txt"]


def test_two_ranges_of_one_file_with_one_id_are_refused(monkeypatch):
    monkeypatch.setattr(plan, "UNIT_BYTES", 10)
    monkeypatch.setattr(plan, "name_hash", lambda source, name, range_start="": 7 << 24)
    units, _ = plan_units("s", jsonl("p"), [InputFile("a.jsonl", "p", 25, "")])
    with pytest.raises(SourceError, match=r"s/a\.jsonl and s/a\.jsonl: both names hash to id"):
        plan.check_ids(units)


def test_a_line_without_end_is_read_once_and_in_bounded_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "UNIT_BYTES", 1 << 20)
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines("one") + b'{"text": "' + b"x" * (5 << 20))
    texts, _, aside = read_all(jsonl(path, max_document_bytes=1000))
    assert texts == ["one"]
    assert [entry.error for entry in aside] == ["longer than max_document_bytes"]


def test_odd_values_in_side_columns_cost_no_document(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x", "l": ["\\ud800"]}\n')
    texts, _, aside = read_all(jsonl(tmp_path, columns=Columns(licence="l")))
    assert (texts, aside) == (["x"], [])
    table = pa.table({
        "text": pa.array(["a", "b"]).dictionary_encode(),
        "url": pa.array([b"\xff", b"u"], pa.binary()),
        "licence": pa.array([["MIT", "BSD"], None], pa.large_list(pa.string())),
        "id": pa.array([{"n": 1}, None]),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    columns = Columns(url="url", licence="licence", id="id")
    texts, _, aside = read_all(parquet(tmp_path, columns=columns))
    assert (texts, aside) == (["a", "b"], [])


def test_a_file_name_that_is_not_utf8_is_read_and_shown_with_question_marks(tmp_path):
    (tmp_path / "b\udcff.txt").write_text("beta")
    config = SourceConfig(kind="web", path=str(tmp_path), format="files", patterns=("*.txt",))
    assert read_all(config)[0] == ["beta"]


def test_linked_folders_are_entered_once(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_bytes(lines("one"))
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "link").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    assert read_all(jsonl(tmp_path / "top"))[0] == ["one"]


def test_a_new_small_file_leaves_most_units_as_they_are(monkeypatch):
    monkeypatch.setattr(plan, "UNIT_BYTES", 1000)
    files = [InputFile(f"{i:04d}.txt", "p", 100, "") for i in range(0, 2000, 2)]
    config = SourceConfig(kind="web", path="p", format="files")
    before, _ = plan_units("s", config, files)
    after, _ = plan_units(
        "s", config, sorted([*files, InputFile("1001.txt", "p", 100, "")], key=lambda f: f.name)
    )
    assert len(set(after) - set(before)) < 15 < len(before) / 4


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("hf://datasets/x/y", r"sources\.s\.path: hf://datasets/x/y is remote"),
        ("nowhere", r"sources\.s\.path: nowhere: no such file or folder"),
        ("", r"no file named \*\.parquet in it"),
    ],
)
def test_a_source_that_is_not_there_is_refused_with_what_to_do(
    tmp_path, monkeypatch, path, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=message):
        list_files("s", parquet(path or str(tmp_path)))


def test_two_files_with_one_id_are_refused(monkeypatch):
    monkeypatch.setattr(plan, "name_hash", lambda source, name, range_start="": 7)
    config = SourceConfig(kind="web", path="p", format="files")
    units, _ = plan_units("s", config, [InputFile("a", "p", 1, ""), InputFile("b", "p", 1, "")])
    with pytest.raises(SourceError, match="s/a and s/b: both names hash to id 7"):
        plan.check_ids(units)


BROKEN = ("jsonl", "zstd", "parquet")
EXPECTED = {
    # (documents, set aside) where the manifest leaves it open, or where we are stricter
    "two-objects-on-a-line.jsonl": (1, 1),
    "empty-and-whitespace-text.jsonl": (4, 0),  # all are strings; the mill finds no tokens in three
    "null-bytes.jsonl": (3, 2),  # one of the three is nothing but NUL
    "odd-numbers.jsonl": (3, 0),
    "truncated.jsonl.gz": (39, 1),
    "corrupt-page.parquet": (200, 1),
    "long-window.jsonl.zst": (0, 1),  # 512 MiB for a window: refused
    "bomb-200mb.jsonl.zst": (0, 1),  # longer than a document may be
}


def test_every_broken_file_gives_its_good_records_and_a_reason_for_the_rest(test_data):
    manifest = (test_data / "bad" / "MANIFEST.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in manifest]
    entries = [entry for entry in entries if entry["file"].split("/")[0] in BROKEN]
    assert len(entries) == 40
    for entry in entries:
        path = test_data / "bad" / entry["file"]
        if entry["file"].startswith("parquet"):
            config = parquet(path, columns=Columns(text="content"))
        else:
            config = jsonl(path)
        texts, _, aside = read_all(config)
        if path.name in EXPECTED:
            assert (len(texts), len(aside)) == EXPECTED[path.name], entry
        else:
            assert len(texts) == entry["good_records"], entry
            unsound = not entry["what"].endswith("is valid") and path.name not in SOUND
            assert bool(aside) == unsound, (entry, aside)


SOUND = {
    "empty.jsonl", "blank-lines.jsonl", "bom-and-crlf.jsonl", "no-final-newline.jsonl",
    "duplicate-ids.jsonl", "duplicate-keys.jsonl", "unicode.jsonl", "one-30mb-line.jsonl.zst",
    "no-content-size.jsonl.zst", "empty.jsonl.zst", "zero-rows.parquet", "binary-content.parquet",
}  # fmt: skip
