"""Objectives in whole runs: the same on any rank, micro-batch and after any resume, counted right;
pairs and their labels; masks that a device makes."""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_runs import ROW_TOKENS, TOKENIZER, make_run

from tokenmill.errors import FormatError, RecipeError
from tokenmill.loader import Loader, MaskingConfig, held_out_batches
from tokenmill.loader.device_masks import DeviceMasks
from tokenmill.loader.masking import NO_TARGET, mask_rows, prepare_masking
from tokenmill.shards.manifest import read_manifest, root_of, write_manifest
from tokenmill.shards.overlay import Retraction, append_entry
from tokenmill.shards.run import BEGINS_WORD, pack_folder
from tokenmill.shards.shard import open_shard, write_shard
from tokenmill.shards.shard_list import ShardList

MASKING = {
    "bernoulli": {"count": "bernoulli", "rate": 0.3},
    "word": {"unit": "word", "mask_share": 0.8, "random_share": 0.1},
    "span": {"unit": "span", "rate": 0.15, "mask_share": 0.8, "random_share": 0.1},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    phases = {name: {"masking": masking} for name, masking in MASKING.items()}
    return with_words(make_run(tmp_path_factory.mktemp("run"), phases, held_out={"16+": 3}))


def with_words(run):
    """The run with a tokenizer of which every id that 3 divides goes on in a word."""
    (run / "tokenizer").mkdir()
    flags = (np.arange(TOKENIZER.vocab_size) % 3 != 0).astype(np.uint8) * np.uint8(BEGINS_WORD)
    np.save(run / "tokenizer" / "word_starts.npy", flags)
    return run


def masked_rows(batches):
    """Each row of weight 1: its ids, and place, target and span ends of each masked token."""
    rows = []
    for batch in batches:
        slots = len(batch.targets) // len(batch.row_weights)
        for row in np.flatnonzero(batch.row_weights):
            first = row * ROW_TOKENS
            own = slice(row * slots, (row + 1) * slots)
            used = batch.targets[own] != NO_TARGET
            masks = [batch.masked_positions[own][used] - first, batch.targets[own][used]]
            if batch.span_ends is not None:
                ends = batch.span_ends[own][used]
                masks.append(np.where(ends.any(1, keepdims=True), ends - first, 0))
            ids = batch.input_ids[first : first + ROW_TOKENS]
            rows.append([ids.tolist(), *(each.tolist() for each in masks)])
    return rows


@pytest.mark.parametrize("phase", MASKING)
@pytest.mark.parametrize("world_size", [2, 3])
def test_masks_are_the_same_on_any_ranks_in_any_micro_batches_and_counted_for_all(
    run, phase, world_size
):
    with Loader(run, phase, prefetch_bytes=0) as loader:
        (alone,) = loader.batch_at(7)
    ranks = []
    for rank in range(world_size):
        loader = Loader(run, phase, rank, world_size, micro_batch_rows=1, prefetch_bytes=0)
        other = Loader(run, phase, prefetch_bytes=0)
        other.seek(7)
        loader.load_state_dict(other.state_dict())
        ranks += [next(loader) for _ in range(loader.num_micro_batches)]
    assert masked_rows(ranks) == masked_rows([alone])
    num_targets = np.count_nonzero(alone.targets != NO_TARGET)
    assert {batch.step_targets for batch in [alone, *ranks]} == {num_targets}
    assert len({batch.targets.shape for batch in ranks}) == 1


@pytest.mark.parametrize(("vocab_size", "found"), [(None, "No such file"), (99, "found 99")])
def test_a_run_that_does_not_know_its_words_is_refused(tmp_path, vocab_size, found):
    run = make_run(tmp_path, {"phase1": {"masking": {"unit": "word"}}})
    if vocab_size:
        (run / "tokenizer").mkdir()
        np.save(run / "tokenizer" / "word_starts.npy", np.ones(vocab_size, np.uint8))
    with pytest.raises(FormatError, match=f"word_starts.npy: expected .*{found}.* Build the run"):
        Loader(run)


def test_held_out_rows_can_be_masked_by_words(run):
    masking = MaskingConfig(rate=0.15, unit="word")
    batches = held_out_batches(run, "word", micro_batch_rows=2, masking=masking)
    targets = sum(np.count_nonzero(batch.targets != NO_TARGET) for batch in batches)
    (batch,) = held_out_batches(run, "word", micro_batch_rows=4, masking=MaskingConfig(rate=0.15))
    assert targets == batch.step_targets > 0


def paired(rows):
    """[CLS] text [SEP] text [SEP] of each two sequences in a row, half of them of one document."""
    tokens, doc_ids = rows.tokens.copy(), rows.doc_ids.copy()
    joined, num_special = np.zeros_like(rows.joined), rows.num_special.copy()
    start = 0
    for row, end in enumerate(rows.row_ends.tolist()):
        for piece in range(start + 1, end, 2):
            place = rows.lengths[start:piece].sum()
            tokens[row, place] = 50  # in the place of [CLS]
            joined[piece], num_special[piece] = 1, 1
            doc_ids[piece] = doc_ids[piece - piece // 2 % 2]
        start = end
    return replace(rows, tokens=tokens, doc_ids=doc_ids, joined=joined, num_special=num_special)


@pytest.fixture
def pairs(tmp_path):
    run = make_run(tmp_path, rows={"0-7": 10}, held_out={"0-7": 3})
    folder = pack_folder(run, "short")
    manifest = read_manifest(folder)
    shards = ShardList.of(
        write_shard(
            folder / shard.path,
            paired(open_shard(folder / shard.path)),
            bucket=shard.bucket,
            held_out=shard.held_out,
            folder=folder,
        )
        for shard in manifest.shards
    )
    root = root_of(shards)
    write_manifest(folder, replace(manifest, sequences="pairs", shards=shards, root=root))
    return run


def pairs_of(run):
    """Of each sequence with text: by its ids before masking its segments and its label."""
    found = {}
    for step in (0, 1):
        (batch,) = Loader(run, prefetch_bytes=0).batch_at(step)
        ids = batch.input_ids.copy()
        used = batch.targets != NO_TARGET
        ids[batch.masked_positions[used]] = batch.targets[used]
        for start, end, label in zip(
            batch.cu_seqlens[:-1], batch.cu_seqlens[1:], batch.next_sentence, strict=True
        ):
            if end > start and ids[start] != TOKENIZER.pad_id:
                segments = batch.segment_ids[start:end].tolist()
                found[tuple(ids[start:end].tolist())] = (segments, label)
            else:
                assert label == -100
                assert not batch.segment_ids[start:end].any()
    return found


def expected_pairs(run, hidden=frozenset()):
    """The same, by the shards."""
    found = {}
    for info in read_manifest(pack_folder(run, "short")).of_bucket("0-7"):
        rows = open_shard(pack_folder(run, "short") / info.path)
        for row, (start, end) in enumerate(pairwise([0, *rows.row_ends.tolist()])):
            pieces, place = [], 0
            for piece in range(start, end):
                text = rows.tokens[row, place : place + rows.lengths[piece]].tolist()
                place += len(text)
                doc = rows.doc_ids[piece]
                if rows.joined[piece] and not {doc, pieces[-1][0]} & hidden:
                    other, ids, segments, _ = pieces.pop()
                    both = segments + [1] * len(text)
                    pieces.append((other, ids + text, both, int(other == doc)))
                else:
                    pieces.append((doc, text, [0] * len(text), -100))
            for doc, ids, segments, label in pieces:
                if doc not in hidden:
                    found[tuple(ids)] = (segments, label)
    return found


def test_second_texts_of_pairs_are_marked_and_labelled(pairs):
    found = pairs_of(pairs)
    assert found == expected_pairs(pairs)
    assert {label for _, label in found.values()} == {0, 1, -100}


def test_a_pair_of_which_one_text_was_taken_back_is_none(pairs):
    rows = open_shard(pack_folder(pairs, "short") / "0-7" / "00000.arrow")
    hidden = frozenset(rows.doc_ids[::3].tolist())
    append_entry(pairs, Retraction("phase1", 0, tuple(sorted(hidden))))
    assert pairs_of(pairs) == expected_pairs(pairs, hidden)


def num_pairs(batches):
    return sum(np.count_nonzero(batch.next_sentence != NO_TARGET) for batch in batches)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_step_pairs_count_the_pairs_of_all_ranks_that_are_left(pairs, world_size):
    rows = open_shard(pack_folder(pairs, "short") / "0-7" / "00000.arrow")
    append_entry(pairs, Retraction("phase1", 1, tuple(sorted(set(rows.doc_ids[::3].tolist())))))
    whole = []
    for step in (0, 1):
        batches = [
            batch
            for rank in range(world_size)
            for batch in Loader(
                pairs, rank=rank, world_size=world_size, micro_batch_rows=1, prefetch_bytes=0
            ).batch_at(step)
        ]
        assert {batch.step_pairs for batch in batches} == {num_pairs(batches)}
        whole.append(batches[0].step_pairs)
    assert whole[0] > whole[1] > 0  # the retraction took some


def test_step_pairs_of_held_out_batches_count_those_of_the_subset(pairs):
    batches = list(held_out_batches(pairs, "phase1", micro_batch_rows=2))
    assert {batch.step_pairs for batch in batches} == {num_pairs(batches)} != {0}


def test_documents_that_share_a_sequence_are_no_pairs(pairs):
    folder = pack_folder(pairs, "short")
    write_manifest(folder, replace(read_manifest(folder), sequences="documents"))
    (batch,) = Loader(pairs, prefetch_bytes=0).batch_at(0)
    assert (batch.step_pairs, batch.next_sentence) == (0, None)


CONFIGS = st.builds(
    MaskingConfig,
    rate=st.sampled_from([0.0, 0.15, 0.5, 1.0]),
    count=st.sampled_from(["fixed", "bernoulli"]),
    mask_share=st.sampled_from([0.0, 0.5, 0.8]),
    random_share=st.sampled_from([0.0, 0.1, 0.2]),
)


def both_masks(config, input_ids, keys, device, compiled=False):
    """What the host and what a device makes of the same rows."""
    masking = prepare_masking(config, TOKENIZER)
    maskable = (~masking.is_fixed[input_ids.reshape(-1, ROW_TOKENS)]).sum(1)
    num_targets = masking.counts.num_targets(maskable, keys)
    on_device = DeviceMasks(masking, ROW_TOKENS, device)
    mask = torch.compile(on_device.mask, fullgraph=True) if compiled else on_device.mask
    tensors = (
        torch.from_numpy(array).to(device)
        for array in (input_ids, keys.view(np.int64), num_targets)
    )
    found = [tensor.cpu().tolist() for tensor in mask(*tensors)]
    host_ids = input_ids.copy()
    slots = mask_rows(
        masking, host_ids, keys, num_targets, np.zeros(0, np.int64), row_tokens=ROW_TOKENS
    )
    return found, [array.tolist() for array in (host_ids, slots.positions, slots.targets)]


def random_rows(num_rows, seed):
    generator = np.random.default_rng(seed)
    input_ids = generator.integers(0, TOKENIZER.vocab_size, num_rows * ROW_TOKENS, np.int32)
    return input_ids, generator.integers(0, 1 << 64, num_rows, np.uint64)


@settings(deadline=None)
@given(config=CONFIGS, num_rows=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_a_device_masks_as_the_host_does_to_the_bit(config, num_rows, seed):
    on_device, on_host = both_masks(config, *random_rows(num_rows, seed), "cpu")
    assert on_device == on_host


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_masks_as_the_host_does_to_the_bit(compiled):
    config = MaskingConfig(rate=0.15, mask_share=0.8, random_share=0.1, count="bernoulli")
    on_device, on_host = both_masks(config, *random_rows(64, 0), "cuda", compiled)
    assert on_device == on_host


@pytest.mark.parametrize("rank", [0, 1])
def test_a_batch_for_a_device_becomes_the_one_for_the_host(run, rank):
    settings = {"rank": rank, "world_size": 2, "micro_batch_rows": 2, "prefetch_bytes": 0}
    host = Loader(run, "bernoulli", **settings)
    loader = Loader(run, "bernoulli", masks="device", **settings)
    masks = DeviceMasks(loader.masking, loader.row_tokens, "cpu")
    for unmasked, expected in zip(loader.batch_at(3), host.batch_at(3), strict=True):
        batch, wanted = masks(unmasked.to_torch()), expected.to_torch()
        for field in fields(wanted):
            value, other = getattr(batch, field.name), getattr(wanted, field.name)
            same = torch.equal(value, other) if torch.is_tensor(other) else value == other
            assert same, field.name
        assert masks(batch) is batch


def test_words_and_spans_are_refused_on_a_device(run):
    with pytest.raises(RecipeError, match=r"only single tokens .* got unit word"):
        Loader(run, "word", masks="device")
    loader = Loader(run, "word")
    with pytest.raises(RecipeError, match=r"only single tokens .* got unit word"):
        DeviceMasks(loader.masking, loader.row_tokens, "cpu")
