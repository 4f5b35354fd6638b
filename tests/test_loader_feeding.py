"""From shards to the device: damage is found when it is touched, threads change nothing, and what
goes wrong in one is heard."""

import threading
import time
import weakref
from itertools import count, islice

import numpy as np
import pytest
import torch
from loader_runs import ROW_TOKENS, make_run

from tokenmill.errors import FormatError
from tokenmill.loader import Loader
from tokenmill.loader.device import DeviceFeed
from tokenmill.loader.open_shards import LocalShards
from tokenmill.loader.prefetch import Prefetch
from tokenmill.loader.rows import PackRows
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.mapped import MappedShard
from tokenmill.shards.run import pack_folder
from tokenmill.shards.shard import open_shard


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), rows={"0-7": 12, "8-15": 7})


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def place_of(path, column):
    """The byte of a file at which a column's values begin."""
    columns = ("tokens", "bounds", "lengths", "doc_ids", "starts", "num_special", "joined")
    (info,) = (info for info in read_manifest(path.parents[1]).shards if path.match(info.path))
    return info.offsets[columns.index(column)]


def read_all(run):
    with Loader(run, prefetch_bytes=0) as loader:
        for step in range(4):
            loader.batch_at(step)


def message_of(run):
    with pytest.raises(FormatError) as refusal:
        read_all(run)
    return str(refusal.value)


ADVICE = (
    "Delete what is left of it and build the run again; whole shards are kept. Or train without "
    "these rows: "
    "`tokenmill skip {run} --phase phase1 --rows 8-15:{rows}`."
)


def test_mapped_rows_are_those_that_arrow_reads(run):
    folder = pack_folder(run, "short")
    manifest = read_manifest(folder)
    for info in manifest.shards:
        ours = MappedShard(folder / info.path, info, manifest.row_tokens, manifest.dtype)
        arrows = open_shard(folder / info.path)
        np.testing.assert_array_equal(ours.bounds[1:], arrows.row_ends)
        for name in ("tokens", "lengths", "doc_ids", "starts", "num_special", "joined"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(arrows, name))
        assert [ours.damage_in_tokens(row) for row in range(info.rows)] == [None] * info.rows
        assert [ours.damage_in_pieces(row) for row in range(info.rows)] == [None] * info.rows


def damaged_run(tmp_path, monkeypatch):
    """A run with small blocks, and a shard of it with the rows 5 and 6 of 8-15."""
    for module in ("shard", "mapped"):
        monkeypatch.setattr(f"tokenmill.shards.{module}.CRC_BLOCK_BYTES", 64)
    run = make_run(tmp_path, rows={"8-15": 7})
    return run, pack_folder(run, "short") / "8-15" / "00005.arrow"


def test_damaged_tokens_are_found_and_their_rows_named(tmp_path, monkeypatch):
    run, path = damaged_run(tmp_path, monkeypatch)
    flip(path, place_of(path, "tokens") + ROW_TOKENS * 2 + 70)
    assert message_of(run) == (
        f"{path}: rows 1 to 1: damaged. " + ADVICE.format(run=run, rows="6-6")
    )


@pytest.mark.parametrize(
    "column", ["bounds", "lengths", "doc_ids", "starts", "num_special", "joined"]
)
def test_a_damaged_column_names_all_rows_of_its_shard(tmp_path, monkeypatch, column):
    run, path = damaged_run(tmp_path, monkeypatch)
    flip(path, place_of(path, column))
    assert message_of(run) == (
        f"{path}: rows 0 to 1: damaged. " + ADVICE.format(run=run, rows="5-6")
    )


def test_a_shard_that_is_cut_off_missing_or_without_checksums_is_named(tmp_path, monkeypatch):
    run, path = damaged_run(tmp_path, monkeypatch)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    told = f"the manifest says {len(whole)} bytes, the file has {len(whole) - 100}. "
    end = ADVICE.format(run=run, rows="5-6")
    assert message_of(run) == f"{path}: rows 0 to 1: {told}{end}"
    path.unlink()
    assert message_of(run) == f"{path}: rows 0 to 1: no such shard. {end}"
    path.write_bytes(whole)
    path.with_name(path.name + ".crc32").unlink()
    told = "00005.arrow.crc32, its checksums, is missing. "
    assert message_of(run) == f"{path}: rows 0 to 1: {told}{end}"


def test_a_page_that_was_read_wrong_is_read_again_from_the_disk(tmp_path, monkeypatch):
    run, path = damaged_run(tmp_path, monkeypatch)
    folder = pack_folder(run, "short")
    manifest = read_manifest(folder)
    pack = PackRows(folder, manifest, ["8-15"])
    good = path.read_bytes()
    flip(path, place_of(path, "tokens"))

    class Repaired(LocalShards):
        def get_again(self, info):
            with path.open("r+b") as file:
                file.write(good)
            return super().get_again(info)

    repaired = PackRows(folder, manifest, ["8-15"], shards=Repaired(folder, manifest))
    out = np.empty(ROW_TOKENS, np.int32)
    with pytest.raises(FormatError, match="rows 0 to 0: damaged"):
        pack.copy_tokens(np.array([5]), np.array([False]), out)
    repaired.copy_tokens(np.array([5]), np.array([False]), out)
    np.testing.assert_array_equal(out, open_shard(path).tokens[0])


def test_skipped_rows_are_not_looked_for(tmp_path, monkeypatch):
    run, path = damaged_run(tmp_path, monkeypatch)
    path.unlink()
    folder = pack_folder(run, "short")
    pack = PackRows(folder, read_manifest(folder), ["8-15"])
    rows, skipped = np.array([6, 0, 5]), np.array([True, False, True])
    pieces = pack.pieces(rows, skipped)
    assert np.diff(pieces.row_ends, prepend=0).tolist()[::2] == [0, 0]
    assert len(pieces.lengths) == pieces.row_ends[1] > 0
    out = np.full(3 * ROW_TOKENS, -1, np.int32)
    pack.copy_tokens(rows, skipped, out)
    assert (out.reshape(3, -1) == -1).all(axis=1).tolist() == [True, False, True]


def test_few_shards_stay_open_and_all_rows_are_read(run):
    folder = pack_folder(run, "short")
    manifest = read_manifest(folder)
    shards = LocalShards(folder, manifest, most=2)
    pack = PackRows(folder, manifest, ["0-7", "8-15"], shards=shards)
    held = weakref.ref(shards.get(manifest.shards[0]))
    rows = np.tile(np.arange(19), 3)
    out = np.empty(len(rows) * ROW_TOKENS, np.int32)
    pack.copy_tokens(rows, np.zeros(len(rows), np.bool_), out)
    expected = [open_shard(folder / info.path).tokens for info in manifest.shards]
    np.testing.assert_array_equal(out.reshape(3, -1)[0], np.concatenate(expected).ravel())
    assert held() is None
    assert len(shards._open) == 2


def values(batch):
    return batch.step, batch.micro_batch, batch.input_ids.tolist(), batch.targets.tolist()


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_and_bytes_ahead_change_no_batch(run, threads):
    options = {"micro_batch_rows": 2}
    with Loader(run, prefetch_bytes=0, **options) as plain:
        expected = [values(next(plain)) for _ in range(20)]
    for prefetch_bytes in (1, 1 << 20):
        options |= {"prefetch_bytes": prefetch_bytes, "threads": threads}
        with Loader(run, **options) as loader:
            assert [values(next(loader)) for _ in range(20)] == expected


def made_ahead(max_bytes, threads=1):
    """Items of 100 bytes that are begun when one was taken and nothing more happens."""
    begun = []

    def make(place):
        begun.append(place)
        return np.zeros(100, np.uint8)

    prefetch = Prefetch(make, count(), max_bytes, threads)
    prefetch.take()
    time.sleep(0.05)
    prefetch.close()
    return len(begun) - 1


def test_what_waits_is_bounded_in_bytes_and_at_least_one_item():
    assert made_ahead(max_bytes=350) == 3
    assert made_ahead(max_bytes=350, threads=5) == 3
    assert made_ahead(max_bytes=1) == 1
    assert made_ahead(max_bytes=0) == 0


@pytest.mark.parametrize("error", [FormatError("damaged"), SystemExit(3), KeyboardInterrupt()])
def test_what_ends_a_thread_is_raised_at_once_where_its_item_is_waited_for(error):
    def make(place):
        if place == 2:
            time.sleep(0.05)  # the caller waits by now
            raise error
        return np.zeros(1)

    prefetch = Prefetch(make, count(), 1 << 20, threads=3)
    prefetch.take()
    prefetch.take()
    began = time.monotonic()
    with pytest.raises(type(error)):
        prefetch.take()
    assert time.monotonic() - began < 1
    prefetch.close()


def test_items_before_a_failure_are_given_out():
    failed = threading.Event()

    def make(place):
        if place == 2:
            failed.set()
            raise FormatError("damaged")
        if place == 1:
            failed.wait()
        return np.zeros(1)

    prefetch = Prefetch(make, count(), 1 << 20, threads=2)
    prefetch.take()
    prefetch.take()
    with pytest.raises(FormatError):
        prefetch.take()
    prefetch.close()


DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("prefetch_bytes", [0, 1 << 20])
def test_a_feed_gives_the_loaders_batches_and_moves_it_on(run, device, prefetch_bytes):
    options = {"micro_batch_rows": 2, "prefetch_bytes": 0}
    with Loader(run, **options) as plain:
        expected = [values(next(plain)) for _ in range(9)]
        state = plain.state_dict()
    with (
        Loader(run, **options) as loader,
        DeviceFeed(loader, device, prefetch_bytes=prefetch_bytes) as feed,
    ):
        batches = [next(feed) for _ in range(9)]
        assert [values(batch) for batch in batches] == expected
        assert {batch.input_ids.device.type for batch in batches} == {device}
        assert feed.meter.real_tokens == sum(batch.num_tokens for batch in batches)
        assert feed.meter.all_tokens == sum(len(batch.input_ids) for batch in batches)
        squares = [
            (batch.cu_seqlens.diff().long() ** 2)[batch.doc_ids != 0].sum().item()
            for batch in batches
        ]
        assert feed.meter.squared_lengths == sum(squares)
        assert 0 < feed.meter.data_wait() <= 1
        assert loader.state_dict() == state
        loader.seek(1)
        assert values(next(feed)) == expected[3]
        assert loader.step == 1
        next(feed), next(feed)
        assert loader.step == 2


def test_an_error_reaches_whoever_waits_for_the_feed(tmp_path, monkeypatch):
    run, path = damaged_run(tmp_path, monkeypatch)
    path.unlink()
    with Loader(run) as loader, DeviceFeed(loader, "cpu") as feed:
        with pytest.raises(FormatError, match="no such shard"):
            list(islice(feed, 4))
        assert loader.step < 2
    assert not [thread for thread in threading.enumerate() if "tokenmill" in thread.name]
