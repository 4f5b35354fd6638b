"""Padded batches hold what the packed ones do, one sequence a line, and give the same loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loader_runs import MAX_LENGTH, TOKENIZER, make_run
from numpy.testing import assert_array_equal

from tokenmill.errors import RecipeError
from tokenmill.loader import Batch, Loader
from tokenmill.loader.masking import NO_TARGET
from tokenmill.training.initialise import initialise
from tokenmill.training.loss import batch_loss
from tokenmill.training.model import build_model
from tokenmill.training.presets import encoder_config

PAD = TOKENIZER.pad_id


def random_batch(seed: int, *, num_rows: int, row_tokens: int, max_length: int, full: bool = True):
    """A batch as the loader makes them; `full` gives it the fields that only some phases have.

    Some sequences were taken back, of some only the beginning; some rows only fill up a rank.
    """
    random = np.random.default_rng(seed)
    bounds, ids, doc_ids, segments = [0], [], [], []
    for row in range(num_rows):
        end, left = row * row_tokens, row_tokens * (random.random() < 0.9)
        while (length := int(random.integers(1, max_length + 1))) <= left:
            text, doc_id = random.integers(5, 100, length), int(random.integers(1, 1 << 63))
            if random.random() < 0.2:
                text[:], doc_id = PAD, 0
            elif random.random() < 0.2:
                text[: length // 2], doc_id = PAD, 0
            ids.extend(text)
            segments.extend(np.arange(length) > length // 3)
            doc_ids.append(doc_id)
            end, left = end + length, left - length
            bounds.append(end)
        while end < (row + 1) * row_tokens:
            length = min(max_length, (row + 1) * row_tokens - end)
            ids.extend([PAD] * length)
            segments.extend([0] * length)
            doc_ids.append(0)
            end += length
            bounds.append(end)
    slots = num_rows * row_tokens
    position_ids = np.concatenate([np.arange(n) for n in np.diff(bounds)])
    input_ids = np.array(ids, np.int32)
    masked = np.flatnonzero((input_ids != PAD) & (random.random(slots) < 0.3))
    positions = np.zeros((slots, 1), np.int64)
    targets = np.full(slots, NO_TARGET, np.int64)
    taken = np.sort(random.permutation(slots)[: len(masked)])  # unused slots stand anywhere
    positions[taken, 0], targets[taken] = masked, random.integers(5, 100, len(masked))
    # Somewhere in the same sequence; as far away as it goes.
    last = np.repeat(bounds[1:], np.diff(bounds)) - 1
    ends = np.concatenate([positions - position_ids[positions], last[positions]], axis=1)
    ends[targets == NO_TARGET] = 0
    unused = slots - len(doc_ids)
    is_next = np.concatenate([random.integers(0, 2, len(doc_ids)), np.full(unused, NO_TARGET)])
    return Batch(
        step=3,
        micro_batch=1,
        num_micro_batches=2,
        input_ids=input_ids,
        position_ids=position_ids.astype(np.int32),
        cu_seqlens=np.array(bounds + [slots] * unused, np.int32),
        max_length=max_length,
        masked_positions=positions[:, 0],
        targets=targets,
        doc_ids=np.array(doc_ids + [0] * unused, np.uint64),
        row_weights=np.ones(num_rows, np.float32),
        num_tokens=int((input_ids != PAD).sum()),
        step_targets=2 * len(masked),
        step_pairs=5,
        pad_id=PAD,
        segment_ids=np.array(segments, np.int32) if full else None,
        next_sentence=is_next if full else None,
        span_ends=ends if full else None,
    )


def sequences_of(batch):
    """Slow and obvious: ids, labels, document and the rest of every sequence that has text."""
    found = []
    used = zip(batch.masked_positions, batch.targets, range(len(batch.targets)), strict=True)
    slot_of = {place: slot for place, target, slot in used if target != NO_TARGET}
    for number, start in enumerate(batch.cu_seqlens[:-1]):
        places = range(start, batch.cu_seqlens[number + 1])
        if any(batch.input_ids[place] != PAD for place in places):
            slots = [slot_of.get(place) for place in places]
            one = {
                "input_ids": [batch.input_ids[place] for place in places],
                "labels": [NO_TARGET if slot is None else batch.targets[slot] for slot in slots],
                "doc_ids": batch.doc_ids[number],
            }
            if batch.segment_ids is not None:
                one["token_type_ids"] = [batch.segment_ids[place] for place in places]
                one["next_sentence"] = batch.next_sentence[number]
                ends = [(0, 0) if s is None else tuple(batch.span_ends[s] - start) for s in slots]
                one["span_ends"] = ends
            found.append(one)
    return found


def lines_of(padded, num_sequences):
    """The sequences in the first lines; the others are checked to be empty."""
    assert padded.input_ids.shape == padded.attention_mask.shape == padded.labels.shape
    fills = {"input_ids": PAD, "labels": NO_TARGET, "token_type_ids": 0, "span_ends": 0}
    found = []
    for line in range(len(padded.labels)):
        length = padded.attention_mask[line].sum()
        assert (padded.attention_mask[line, :length] == 1).all()
        one = {"doc_ids": padded.doc_ids[line]}
        if padded.next_sentence is not None:
            one["next_sentence"] = padded.next_sentence[line]
        for name, fill in fills.items():
            values = getattr(padded, name)
            if values is not None:
                assert (values[line, length:] == fill).all()
                own = values[line, :length].tolist()
                one[name] = [tuple(pair) for pair in own] if name == "span_ends" else own
        found.append(one)
    for one in found[num_sequences:]:
        assert (one["input_ids"], one["labels"], one["doc_ids"]) == ([PAD], [NO_TARGET], 0)
        assert one.get("next_sentence", NO_TARGET) == NO_TARGET
    return found[:num_sequences]


batches = st.builds(
    random_batch,
    st.integers(0, 1 << 32),
    num_rows=st.integers(1, 4),
    row_tokens=st.just(16),
    max_length=st.integers(1, 16),
    full=st.booleans(),
)


@given(batches, st.booleans(), st.integers(1, 5), st.integers(1, 5))
def test_every_sequence_with_text_is_one_line(batch, fixed, length_multiple, lines_multiple):
    padded = batch.to_padded(
        batch.max_length if fixed else None,
        pad_to_multiple_of=length_multiple,
        lines_multiple_of=lines_multiple,
    )
    expected = sequences_of(batch)
    assert lines_of(padded, len(expected)) == expected
    longest = max((len(one["input_ids"]) for one in expected), default=1)
    num_lines, length = padded.labels.shape
    least = batch.max_length if fixed else longest
    assert least <= length < least + length_multiple
    assert length % length_multiple == num_lines % lines_multiple == 0
    assert max(len(expected), 1) <= num_lines < max(len(expected), 1) + lines_multiple
    assert padded.num_tokens == batch.num_tokens
    assert (padded.step_targets, padded.step_pairs) == (batch.step_targets, batch.step_pairs)


@given(batches, st.sets(st.integers(1, 15)), st.integers(1, 3))
def test_length_groups_hold_every_sequence_once_in_the_shortest_line_that_fits(
    batch, edges, multiple
):
    edges = sorted({*edges, batch.max_length})
    edges = [edge for edge in edges if edge <= batch.max_length]
    groups = batch.to_length_groups(edges, lines_multiple_of=multiple)
    expected = {edge: [] for edge in edges}
    for one in sequences_of(batch):
        expected[next(edge for edge in edges if len(one["input_ids"]) <= edge)].append(one)
    for group in groups:
        own = expected.pop(group.labels.shape[1])
        assert len(group.labels) % multiple == 0
        assert own or len(groups) == 1  # a rank without text still has something to call on
        assert lines_of(group, len(own)) == own
    assert not any(expected.values())
    assert sum(group.num_tokens for group in groups) == batch.num_tokens


def test_rows_of_one_sequence_are_padded_by_a_reshape():
    batch = random_batch(0, num_rows=5, row_tokens=8, max_length=8)
    batch = replace(batch, cu_seqlens=np.arange(0, 48, 8, dtype=np.int32), doc_ids=np.arange(1, 6))
    batch = replace(batch, position_ids=np.tile(np.arange(8, dtype=np.int32), 5))
    batch = replace(batch, next_sentence=None, span_ends=None, input_ids=batch.input_ids + 1)
    padded = batch.to_padded(8)
    assert_array_equal(padded.input_ids, batch.input_ids.reshape(5, 8))
    assert_array_equal(padded.token_type_ids, batch.segment_ids.reshape(5, 8))


def test_a_line_too_short_and_edges_that_do_not_hold_all_are_refused():
    batch = random_batch(0, num_rows=2, row_tokens=16, max_length=10)
    longest = max(len(one["input_ids"]) for one in sequences_of(batch))
    with pytest.raises(
        RecipeError, match=rf"length: need at least {longest} tokens.*step 3, got 2"
    ):
        batch.to_padded(2)
    for edges in [(), (4, 4, 10), (10, 4), (4, 9)]:
        with pytest.raises(RecipeError, match=r"edges: need rising lengths.*max_length = 10, got"):
            batch.to_length_groups(edges)


def test_a_batch_that_a_device_is_to_mask_is_refused():
    batch = random_batch(0, num_rows=2, row_tokens=16, max_length=10)
    unmasked = replace(batch, mask_keys=np.zeros(2, np.uint64))
    with pytest.raises(RecipeError, match="masks='host'"):
        unmasked.to_padded()


def test_a_model_takes_what_it_is_given_by_name():
    batch = random_batch(1, num_rows=2, row_tokens=16, max_length=10)
    padded = batch.to_padded()
    tensors = padded.for_transformers()
    names = ["input_ids", "attention_mask", "labels", "token_type_ids", "next_sentence_label"]
    assert list(tensors) == names
    assert {tensor.dtype for tensor in tensors.values()} == {torch.int64}
    assert_array_equal(tensors["next_sentence_label"], padded.next_sentence)
    plain = random_batch(1, num_rows=2, row_tokens=16, max_length=10, full=False)
    assert list(plain.to_padded().for_transformers()) == names[:3]


def padded_loss(model, batch, padded):
    """The loss of lines by a model of packed sequences: the end of each line is one more."""
    num_lines, length = padded.labels.shape
    starts = np.arange(num_lines) * length
    bounds = np.stack([starts, starts + padded.attention_mask.sum(1)], axis=1).ravel()
    labels = torch.from_numpy(padded.labels.ravel())
    masked = torch.nonzero(labels != NO_TARGET)[:, 0]
    lines = replace(
        batch.to_torch(),
        input_ids=torch.from_numpy(padded.input_ids.ravel()),
        position_ids=torch.arange(length).repeat(num_lines),
        cu_seqlens=torch.from_numpy(np.append(bounds, num_lines * length).astype(np.int32)),
        max_length=length,
        masked_positions=masked,
        targets=labels[masked],
    )
    return batch_loss(model, lines)


def test_packed_padded_and_grouped_batches_have_one_loss(tmp_path):
    model = build_model(
        encoder_config("tiny", vocab_size=TOKENIZER.vocab_size, pad_id=PAD),
        "cpu",
        compute_dtype=torch.float64,
    )
    initialise(model, seed=0)
    losses = np.zeros(3)
    with (
        Loader(make_run(tmp_path), micro_batch_rows=2, prefetch_bytes=0) as loader,
        torch.no_grad(),
    ):
        for batch in loader.batch_at(1):
            padded = batch.to_padded(MAX_LENGTH, lines_multiple_of=8)
            groups = batch.to_length_groups((6, 12, MAX_LENGTH), lines_multiple_of=4)
            parts = (
                batch_loss(model, batch.to_torch()),
                padded_loss(model, batch, padded),
                sum(padded_loss(model, batch, group) for group in groups),
            )
            losses += [float(part) for part in parts]
    assert losses[0] > 1
    np.testing.assert_allclose(losses[1:], losses[0], rtol=1e-6)
