"""A batch's contract: static shapes, bounds that close, and tokens that stand in the shards."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from loader_runs import MAX_LENGTH, ROW_TOKENS, TOKENIZER, make_run
from numpy.testing import assert_array_equal

from tokenmill.errors import FormatError
from tokenmill.loader import Loader
from tokenmill.loader.layout import lay_out
from tokenmill.loader.masking import NO_TARGET
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import pack_folder
from tokenmill.shards.shard import block_crcs, crc_path, open_shard

STEPS = range(40)


def shards_of(run):
    return read_manifest(pack_folder(run, "short")).shards


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    phases = {
        "phase1": {"mixture": {"all": 0.5, "8+": 0.5}},
        "long": {"mixture": {"16+": 1.0}},
    }
    return make_run(tmp_path_factory.mktemp("run"), phases)


@pytest.fixture(scope="module")
def batches(run):
    with Loader(run, micro_batch_rows=3, prefetch_bytes=0) as loader:
        return [batch for step in STEPS for batch in loader.batch_at(step)]


def test_the_layout_of_the_header_is_this():
    cu_seqlens, position_ids, doc_ids = np.zeros(11, np.int32), np.zeros(20, np.int32), np.ones(10)
    doc_ids = doc_ids.astype(np.uint64)
    lengths, documents = np.array([3, 2], np.int32), np.array([7, 8], np.uint64)
    joined = np.zeros(2, np.uint8)
    lay_out(lengths, documents, joined, np.array([2]), 10, 4, cu_seqlens, position_ids, doc_ids)
    assert cu_seqlens.tolist() == [0, 3, 5, 9, 10, 14, 18, 20, 20, 20, 20]
    assert position_ids.tolist() == [*range(3), 0, 1, *range(4), 0, *range(4), *range(4), 0, 1]
    assert doc_ids.tolist() == [7, 8, 0, 0, 0, 0, 0, 0, 0, 0]


def test_all_batches_of_a_phase_have_one_shape(run, batches):
    def shape(batch):
        arrays = ("input_ids", "position_ids", "cu_seqlens", "masked_positions", "targets")
        return [
            (getattr(batch, name).shape, getattr(batch, name).dtype)
            for name in (*arrays, "doc_ids", "row_weights")
        ]

    max_pieces = max(info.max_pieces for info in shards_of(run))
    slots = max_pieces + 3  # a row of padding is 24 + 24 + 16
    assert shape(batches[0]) == [
        ((192,), np.int32),
        ((192,), np.int32),
        ((3 * slots + 1,), np.int32),
        ((3 * 13,), np.int64),  # ceil(0.2 * 64) slots a row
        ((3 * 13,), np.int64),
        ((3 * slots,), np.uint64),
        ((3,), np.float32),
    ]
    assert all(shape(batch) == shape(batches[0]) for batch in batches)
    assert {batch.max_length for batch in batches} == {MAX_LENGTH}


def test_a_phase_without_short_rows_has_fewer_sequence_slots(run, batches):
    with Loader(run, "long", micro_batch_rows=3, prefetch_bytes=0) as loader:
        assert len(next(loader).doc_ids) < len(batches[0].doc_ids)


def test_sequences_cover_every_token_once_and_none_is_too_long(batches):
    for batch in batches:
        assert batch.cu_seqlens[0] == 0
        assert batch.cu_seqlens[-1] == len(batch.input_ids)
        lengths = np.diff(batch.cu_seqlens)
        used = np.count_nonzero(lengths)
        assert (lengths[:used] > 0).all()  # unused slots stand at the end
        assert lengths.max() <= MAX_LENGTH
        # No sequence crosses the end of a row.
        assert np.isin(np.arange(0, 192, ROW_TOKENS), batch.cu_seqlens).all()


def test_position_ids_count_from_0_in_every_sequence(batches):
    for batch in batches:
        expected = np.concatenate([np.arange(n) for n in np.diff(batch.cu_seqlens)])
        assert_array_equal(batch.position_ids, expected)


def test_unmasked_batches_hold_the_rows_of_the_shards(run, batches):
    folder = pack_folder(run, "short")
    rows = {}
    for info in shards_of(run):
        shard = open_shard(folder / info.path)
        first = 0
        for tokens, last in zip(shard.tokens, shard.row_ends, strict=True):
            rows[tuple(tokens.tolist())] = shard.doc_ids[first:last].tolist()
            first = last
    for batch in batches:
        input_ids = batch.input_ids.copy()
        used = batch.targets != NO_TARGET
        input_ids[batch.masked_positions[used]] = batch.targets[used]
        doc_ids = []
        for row, weight in zip(input_ids.reshape(3, -1), batch.row_weights, strict=True):
            if weight:
                doc_ids += rows[tuple(row.tolist())]
            else:
                assert (row == TOKENIZER.pad_id).all()
        assert batch.doc_ids[batch.doc_ids > 0].tolist() == doc_ids


def test_sequences_begin_and_end_with_their_special_tokens_and_padding_is_padding(batches):
    for batch in batches:
        starts, ends = batch.cu_seqlens[:-1], batch.cu_seqlens[1:]
        real = batch.doc_ids > 0
        assert (batch.input_ids[starts[real]] == TOKENIZER.prefix[0]).all()
        assert (batch.input_ids[ends[real] - 1] == TOKENIZER.suffix[0]).all()
        assert batch.num_tokens == (ends - starts)[real].sum()
        assert np.count_nonzero(batch.input_ids) == batch.num_tokens


def test_slots_of_each_row_are_filled_from_the_front_in_rising_order(batches):
    for batch in batches:
        rows = zip(batch.masked_positions.reshape(3, 13), batch.targets.reshape(3, 13), strict=True)
        for row, (positions, targets) in enumerate(rows):
            num_used = np.count_nonzero(targets != NO_TARGET)
            assert (targets[num_used:] == NO_TARGET).all()
            assert (positions[num_used:] == 0).all()
            assert (np.diff(positions[:num_used]) > 0).all()
            assert (positions[:num_used] // ROW_TOKENS == row).all()


def test_step_targets_count_the_masked_tokens_of_all_micro_batches(batches):
    for step in STEPS:
        own = [batch for batch in batches if batch.step == step]
        masked = sum(np.count_nonzero(batch.targets != NO_TARGET) for batch in own)
        assert {batch.step_targets for batch in own} == {masked}


def test_torch_batches_hold_the_same_values(batches):
    batch = batches[0]
    tensors = batch.to_torch()
    assert tensors.input_ids.dtype == torch.int32
    assert tensors.targets.dtype == torch.int64
    assert_array_equal(tensors.cu_seqlens.numpy(), batch.cu_seqlens)
    assert_array_equal(tensors.doc_ids.numpy().view(np.uint64), batch.doc_ids)
    assert tensors.step_targets == batch.step_targets
    assert type(tensors.max_length) is int


def test_all_tensors_of_a_batch_move_and_those_that_a_phase_may_have_go_along(batches):
    pairs = replace(batches[0], segment_ids=batches[0].position_ids, span_ends=np.zeros((39, 2)))
    moved = pairs.to_torch("meta")
    tensors = [value for value in asdict(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 9
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.next_sentence is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory is for CUDA")
def test_a_pinned_batch_goes_to_the_device_without_waiting(batches):
    pinned = batches[0].to_torch().pin_memory()
    assert pinned.input_ids.is_pinned()
    assert pinned.targets.is_pinned()
    on_device = pinned.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    assert_array_equal(on_device.input_ids.cpu().numpy(), batches[0].input_ids)


def change(path, place, value):
    """Put other bytes into a shard, with checksums that agree with them."""
    data = bytearray(path.read_bytes())
    data[place : place + value.nbytes] = value.tobytes()
    path.write_bytes(data)
    crc_path(path).write_bytes(block_crcs(path).astype("<u4").tobytes())


def test_a_shard_of_another_size_than_its_manifest_says_is_refused(tmp_path):
    run = make_run(tmp_path, rows={"0-7": 5, "8-15": 3})
    folder = pack_folder(run, "short")
    expected, found = (folder / name / "00000.arrow" for name in ("8-15", "0-7"))
    sizes = expected.stat().st_size, found.stat().st_size
    expected.write_bytes(found.read_bytes())
    with pytest.raises(FormatError) as refusal, Loader(run, prefetch_bytes=0) as loader:
        loader.batch_at(0)
    assert str(refusal.value) == (
        f"{expected}: rows 0 to 2: the manifest says {sizes[0]} bytes, the file has {sizes[1]}. "
        "Delete what is left of it and build the run again; whole shards are kept. Or train "
        "without these rows: "
        f"`tokenmill skip {run} --phase phase1 --rows 8-15:0-2`."
    )


def test_lengths_that_do_not_fit_their_row_are_refused_with_its_place(tmp_path):
    run = make_run(tmp_path, rows={"16+": 1})
    path = pack_folder(run, "short") / "16+" / "00000.arrow"
    place = path.read_bytes().index(open_shard(path).lengths.tobytes())
    change(path, place, np.int32(65))
    with pytest.raises(FormatError, match=r"00000.arrow: row 0: its lengths do not fit into a row"):
        Loader(run, prefetch_bytes=0).batch_at(0)


def test_a_special_token_that_its_shard_does_not_count_is_refused_with_its_place(tmp_path):
    run = make_run(tmp_path, {"phase1": {"masking": {"rate": 1.0}}}, rows={"16+": 2})
    path = pack_folder(run, "short") / "16+" / "00000.arrow"
    tokens = open_shard(path).tokens
    place = path.read_bytes().index(tokens.tobytes()) + tokens[0].nbytes + 2 * 3
    change(path, place, np.uint16(TOKENIZER.suffix[0]))
    with pytest.raises(FormatError, match=r"00000.arrow: row 1: an id is no token, or there"):
        Loader(run, prefetch_bytes=0).batch_at(0)


def test_a_missing_shard_is_refused_by_its_name(tmp_path):
    run = make_run(tmp_path, rows={"16+": 1})
    path = pack_folder(run, "short") / "16+" / "00000.arrow"
    path.unlink()
    with pytest.raises(FormatError, match=r"16\+/00000.arrow: rows 0 to 0: no such shard"):
        Loader(run, prefetch_bytes=0).batch_at(0)
