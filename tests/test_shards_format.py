"""The format on disk: what is written is read back, by us and by others, and damage is found."""

import dataclasses

import datasets
import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.errors import FormatError, RecipeError
from tokenmill.shards.buckets import Buckets
from tokenmill.shards.files import read_json, write_json, write_whole, writing
from tokenmill.shards.manifest import (
    FORMAT_VERSION,
    Manifest,
    read_manifest,
    root_of,
    write_manifest,
)
from tokenmill.shards.shard import (
    CRC_BLOCK_BYTES,
    Rows,
    block_crcs,
    crc_path,
    open_shard,
    write_shard,
)
from tokenmill.shards.shard_list import ShardList


def two_rows(dtype=np.uint16):
    """[1 2 3][4 5] pad pad pad | [6 7 8 9 10 11 12 13]"""
    return Rows(
        tokens=np.array([[1, 2, 3, 4, 5, 0, 0, 0], [6, 7, 8, 9, 10, 11, 12, 13]], dtype),
        row_ends=np.array([2, 3]),
        lengths=np.array([3, 2, 8], np.int32),
        doc_ids=np.array([100, 2**64 - 1, 300], np.uint64),
        starts=np.array([0, 1022, 0], np.int32),
        num_special=np.array([2, 1, 2], np.uint8),
        joined=np.array([0, 1, 0], np.uint8),
    )


def write(tmp_path, rows):
    path = tmp_path / "0-1023" / "00000-000.arrow"
    return path, write_shard(path, rows, bucket="0-1023", held_out=False, folder=tmp_path)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_a_shard_reads_back_as_it_was_written(tmp_path, dtype):
    path, info = write(tmp_path, two_rows(dtype))
    rows, expected = open_shard(path), two_rows(dtype)
    for name in ("tokens", "row_ends", "lengths", "doc_ids", "starts", "num_special", "joined"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(expected, name))
        assert getattr(rows, name).dtype == getattr(expected, name).dtype
    assert rows.real_tokens().tolist() == [5, 8]
    assert (info.path, info.rows, info.real_tokens) == ("0-1023/00000-000.arrow", 2, 13)
    assert (info.sequences, info.max_pieces, info.bytes) == (2, 2, path.stat().st_size)


def test_equal_rows_are_equal_bytes(tmp_path):
    assert write(tmp_path / "a", two_rows())[1] == write(tmp_path / "b", two_rows())[1]


def test_datasets_and_polars_open_a_shard(tmp_path):
    path, _ = write(tmp_path, two_rows())
    frame = polars.read_ipc(path)
    assert frame["tokens"].to_list()[0] == [1, 2, 3, 4, 5, 0, 0, 0]
    assert frame["lengths"].to_list() == [[3, 2], [8]]
    loaded = datasets.load_dataset(
        "arrow", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded[0]["doc_ids"] == [100, 2**64 - 1]
    assert loaded["num_padding"][:] == [3, 0]


def test_each_block_has_its_checksum(tmp_path):
    rows = two_rows()
    tokens = np.arange(1 << 16, dtype=np.uint32).reshape(1, -1)  # 16 blocks
    big = dataclasses.replace(
        rows, tokens=tokens, row_ends=np.array([3]), lengths=np.array([1 << 16, 0, 0], np.int32)
    )
    path, _ = write(tmp_path, big)
    before = np.frombuffer(crc_path(path).read_bytes(), "<u4")
    data = bytearray(path.read_bytes())
    data[2 * CRC_BLOCK_BYTES + 5] ^= 1
    path.write_bytes(data)
    assert np.flatnonzero(block_crcs(path) != before).tolist() == [2]


def manifest_of(shards):
    return Manifest(
        format_version=FORMAT_VERSION, pack="p", row_tokens=8, max_length=8, overlong="split",
        dtype="uint16", bucket_edges=(), tokenizer_sha256="", keys=(), tokens_cut=0,
        shards=ShardList.of(shards), root=root_of(ShardList.of(shards)),
    )  # fmt: skip


def test_a_manifest_reads_back_and_says_where_it_is_damaged(tmp_path):
    _, info = write(tmp_path, two_rows())
    other = dataclasses.replace(info, path="0-1023/00001-000.arrow", held_out=True)
    manifest = manifest_of((info, other))
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    write_manifest(tmp_path / "empty", manifest_of(()))
    assert len(read_manifest(tmp_path / "empty").shards) == 0
    path = tmp_path / "manifest.json"
    good = read_json(path)
    for column, bad, told in (
        ("rows", [2, "2"], r"shards\.rows: expected 2 values of one type, found 2 of int, str"),
        ("rows", [2], r"shards\.rows: expected 2 values of one type, found 1 of int"),
        ("rows", ["2", "2"], r"shards\[0\]\.rows: expected a whole number, found '2'"),
        ("shape", [1, 1], r"shards\[0\]\.shape: unknown key"),
    ):
        write_json(path, {**good, "shards": {**good["shards"], column: bad}})
        with pytest.raises(FormatError, match=told):
            read_manifest(tmp_path)


def test_what_is_no_shard_is_refused_by_name(tmp_path):
    path = tmp_path / "x.arrow"
    with pytest.raises(FormatError, match=r"x\.arrow: no such shard"):
        open_shard(path)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match=r"x\.arrow: expected an Arrow file of rows"):
        open_shard(path)
    whole, _ = write(tmp_path, two_rows())
    path.write_bytes(whole.read_bytes()[:500])
    with pytest.raises(FormatError, match=r"x\.arrow: expected an Arrow file of rows"):
        open_shard(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail_half_way():
        with writing(path) as part:
            part.write_bytes(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"a\.json: no such file"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(FormatError, match=r"a\.json: no JSON"):
        read_json(tmp_path / "a.json")


def test_buckets_are_named_by_their_bounds_and_subsets_join_them():
    buckets = Buckets((1024, 2048))
    assert buckets.names == ("0-1023", "1024-2047", "2048+")
    assert buckets.of_lengths(np.array([1, 1023, 1024, 2047, 2048, 9999])).tolist() == [
        0, 0, 1, 1, 2, 2,
    ]  # fmt: skip
    assert buckets.of_subset("all") == buckets.names
    assert buckets.of_subset("1024+") == ("1024-2047", "2048+")
    with pytest.raises(
        RecipeError, match=r"subset 512\+: no bucket begins there\. Known subsets: all"
    ):
        buckets.of_subset("512+")
    with pytest.raises(RecipeError, match="must be positive and rise"):
        Buckets((2048, 1024))


@given(st.lists(st.integers(1, 10**6), unique=True).map(sorted), st.integers(0, 10**6))
def test_every_length_is_in_the_bucket_that_its_name_says(edges, length):
    buckets = Buckets(tuple(edges))
    (index,) = buckets.of_lengths(np.array([length]))
    low, _, high = buckets.names[index].rstrip("+").partition("-")
    assert int(low) <= length <= int(high or 10**7)
