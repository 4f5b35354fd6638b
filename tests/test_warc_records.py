"""Records of WARC files: every whole one comes out once, whatever is cut, damaged or in ranges."""

import gzip
import io
import json

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given
from hypothesis import strategies as st
from warc_files import FORMS, joined, record

from tokenmill.pipeline import warc_records
from tokenmill.pipeline.warc_records import Damage, Record, read_records

ALL = WarcRecordType.any_type
A, B, C = (record("resource", letter * 50, WARC_Target_URI="u") for letter in (b"a", b"b", b"c"))
SOUND = [b"a" * 50, b"b" * 50, b"c" * 50]


def read(data, start=0, stop=None, max_bytes=1 << 20):
    """The blocks of whole records, and the damage."""
    stop = len(data) if stop is None else stop
    found = list(read_records(io.BytesIO(data), len(data), start, stop, ALL, max_bytes))
    blocks = [one.block for one in found if isinstance(one, Record)]
    return blocks, [one for one in found if isinstance(one, Damage)]


@pytest.mark.parametrize("form", FORMS)
def test_a_sound_file_gives_all_its_records(form):
    assert read(joined([A, B, C], form)) == (SOUND, [])


@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_at_any_byte_gives_what_is_whole_and_names_the_cut(form):
    whole = joined([A, B, C], form)
    bounds = {len(joined([A, B, C][:number], form)) for number in (0, 1, 2, 3)}
    for stop in range(1, len(whole)):
        blocks, damage = read(whole[:stop])
        assert blocks == SOUND[: len(blocks)]
        at_a_bound = form != "one member" and stop in bounds
        # A record with its whole Content-Length is whole, also without the empty line after it.
        in_its_end = form == "plain" and stop + 4 >= min(b for b in bounds if b >= stop)
        assert bool(damage) == (not (at_a_bound or in_its_end)), (stop, damage)


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_is_named_also_in_a_record_that_nobody_wants(form):
    whole = joined([A, B], form)
    found = list(
        read_records(io.BytesIO(whole), len(whole) - 20, 0, len(whole) - 20,
                     WarcRecordType.response, 1 << 20)
    )  # fmt: skip
    assert isinstance(found[-1], Damage)


DAMAGED = {
    "a length too long": record("resource", b"b" * 50, length=80),
    "a length that swallows all": record("resource", b"b" * 50, length=10_000),
    "a length past all numbers": record("resource", b"b" * 50, length=10**30),
    "a length too short": record("resource", b"b" * 50, length=20),
    "no number": record("resource", b"b" * 50, length="x50"),
    "no length": B.replace(b"Content-Length: 50\r\n", b""),
    "a length below zero": record("resource", b"b" * 50, length=-5),
    "no record": b"<html>not a record</html>\r\n",
}


@pytest.mark.parametrize("form", ["members", "plain"])
@pytest.mark.parametrize("what", DAMAGED)
def test_damage_costs_its_record_and_no_other(what, form):
    data = joined([A, DAMAGED[what], C], form)
    blocks, damage = read(data)
    assert blocks == [SOUND[0], SOUND[2]]
    assert [one.place for one in damage] == [len(joined([A], form))]


def test_a_wrong_checksum_and_bytes_between_members_cost_no_other_record():
    a, b, c = (gzip.compress(one, mtime=0) for one in (A, B, C))
    damaged = b[:-5] + bytes([b[-5] ^ 1]) + b[-4:]
    assert read(a + damaged + c)[0] == [SOUND[0], SOUND[2]]
    blocks, damage = read(a + b + b"no gzip at all" + c)
    assert blocks == SOUND
    assert [one.place for one in damage] == [len(a + b)]


def test_what_holds_nothing_is_no_damage():
    nothing = gzip.compress(b"")
    data = [gzip.compress(one, mtime=0) for one in (A, B, C)]
    assert read(data[0] + nothing * 2 + data[1] + data[2] + bytes(20)) == (SOUND, [])
    assert read(A + B + C + bytes(20)) == (SOUND, [])
    assert read(nothing) == ([], [])


@pytest.mark.parametrize(
    "data", [b"<html></html>", gzip.compress(b"<html></html>", mtime=0), b"filedesc:"]
)
def test_a_file_without_records_is_damage(data):
    blocks, damage = read(data)
    assert blocks == []
    assert "no WARC record" in damage[0].error


def test_a_block_that_is_too_long_is_passed_over():
    for form in FORMS:
        blocks, damage = read(joined([A, record("resource", b"b" * 999), C], form), max_bytes=500)
        assert blocks == [SOUND[0], SOUND[2]]
        assert "999 bytes, max_document_bytes is 500" in damage[0].error


lines = st.sampled_from(
    [b"x", b"\r\n", b"\r\n\r\n", b"WARC/1.0\r\n", b"\x1f\x8b\x08", b"\n", b"\0"]
)
blocks_of_bytes = st.lists(lines | st.binary(max_size=20), max_size=8).map(b"".join)


@given(
    blocks=st.lists(blocks_of_bytes, max_size=8),
    form=st.sampled_from(FORMS),
    step=st.integers(1, 300),
    chunk=st.integers(40, 200),
)
def test_ranges_give_each_record_once_and_in_order_whatever_their_size(blocks, form, step, chunk):
    data = joined([record("resource", block) for block in blocks], form)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warc_records, "CHUNK_BYTES", chunk)
        parts = [read(data, at, min(at + step, len(data))) for at in range(0, len(data), step)]
        assert read(data) == (blocks, [])
    assert [block for found, _ in parts for block in found] == blocks
    assert not any(damage for _, damage in parts)


@given(data=st.data())
def test_ranges_of_a_damaged_file_give_what_the_whole_gives(data):
    form = data.draw(st.sampled_from(["members", "plain"]))
    kinds = data.draw(st.lists(st.sampled_from([A, B, C, *DAMAGED.values()]), max_size=8))
    step = data.draw(st.integers(1, 400))
    file = joined(kinds, form)
    parts = [read(file, at, min(at + step, len(file)))[0] for at in range(0, len(file), step)]
    assert [block for found in parts for block in found] == read(file)[0]


@pytest.mark.parametrize("step", [100_000, 1_234_567, 1 << 30])
def test_ranges_of_a_crawl_hold_what_fastwarc_finds(test_data, step):
    for path in sorted((test_data / "web" / "warc").glob("*.warc.gz")):
        data = path.read_bytes()
        with path.open("rb") as stream:
            expected = [one.reader.read() for one in ArchiveIterator(stream, parse_http=False)]
        parts = [read(data, at, min(at + step, len(data))) for at in range(0, len(data), step)]
        assert [block for found, _ in parts for block in found] == expected
        assert not any(damage for _, damage in parts)


WHOLE_RECORDS = {
    # where the manifest leaves it open, or where we are stricter
    "content-length-too-long.warc": 4,
    "content-length-too-short.warc": 4,
    "content-length-not-a-number.warc": 2,
    "garbage-between-records.warc.gz": 2,
    "lies-about-encoding.warc.gz": 3,
}
SOUND_FILES = {
    "one-member.warc.gz", "named-gz-but-plain.warc.gz", "empty.warc.gz", "empty-gzip.warc.gz",
    "lies-about-encoding.warc.gz", "bad-html.warc.gz", "nul-bytes-page.warc.gz",
}  # fmt: skip


def test_every_broken_file_gives_its_good_records(test_data):
    manifest = (test_data / "bad" / "MANIFEST.jsonl").read_text().splitlines()
    entries = [entry for entry in map(json.loads, manifest) if entry["file"].startswith("warc/")]
    assert len(entries) == 16
    for entry in entries:
        path = test_data / "bad" / entry["file"]
        blocks, damage = read(path.read_bytes())
        expected = WHOLE_RECORDS.get(path.name, entry["good_records"])
        assert len(blocks) == expected, entry
        assert bool(damage) == (path.name not in SOUND_FILES), (entry, damage)
