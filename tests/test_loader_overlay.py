"""The overlay: from its step on, documents that were taken back are padding; nothing else moves."""

import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_runs import MAX_LENGTH, ROW_TOKENS, TOKENIZER, make_run

from tokenmill.errors import FormatError, ResumeError
from tokenmill.loader import Loader, held_out_batches
from tokenmill.loader.describe import describe_step
from tokenmill.loader.masking import NO_TARGET
from tokenmill.shards.overlay import Entry, append_entry, overlay_path, read_overlay

PHASES = {
    "phase1": {"mixture": {"all": 0.5, "8+": "0.5"}, "masking": {"mask_share": 0.8}},
    "phase2": {"mixture": {"all": 0.2, "16+": 0.8}, "masking": {"rate": 0.3}},
}
STEPS = 9
ADVICE = "Bring back what the state was saved with, or start the phase anew."


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, PHASES, held_out={"8-15": 3})


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), PHASES, held_out={"8-15": 3})


def steps_of(run, phase="phase1", rank=0, world_size=1):
    with Loader(run, phase, rank, world_size, prefetch=0) as loader:
        return [loader.batch_at(step)[0] for step in range(STEPS)]


def content(batch):
    arrays = (batch.input_ids, batch.position_ids, batch.cu_seqlens, batch.doc_ids)
    arrays += (batch.masked_positions, batch.targets, batch.row_weights)
    return [*(array.tolist() for array in arrays), batch.num_tokens, batch.step_targets]


def documents_of(run, step, phase="phase1"):
    return np.unique(Loader(run, phase, prefetch=0).rows_at(step).pieces.doc_ids)


def check_hidden(before, after, doc_ids):
    """The batch without some documents, by the slow definition, from the batch with them."""
    assert np.array_equal(after.cu_seqlens, before.cu_seqlens)
    assert np.array_equal(after.position_ids, before.position_ids)
    assert np.array_equal(after.row_weights, before.row_weights)
    hidden = np.isin(before.doc_ids, doc_ids) & (before.doc_ids != 0)
    assert np.array_equal(after.doc_ids, np.where(hidden, 0, before.doc_ids))
    gone = np.zeros(len(before.input_ids), bool)
    for slot in np.flatnonzero(hidden):
        gone[before.cu_seqlens[slot] : before.cu_seqlens[slot + 1]] = True
    assert (after.input_ids[gone] == TOKENIZER.pad_id).all()
    assert after.num_tokens == before.num_tokens - gone.sum()
    own, theirs = labels(after), labels(before)
    assert not gone[list(own)].any()
    for first in range(0, len(before.input_ids), ROW_TOKENS):
        row = slice(first, first + ROW_TOKENS)
        if not gone[row].any():
            assert np.array_equal(after.input_ids[row], before.input_ids[row])
            assert {p: own[p] for p in own if first <= p < first + ROW_TOKENS} == {
                p: theirs[p] for p in theirs if first <= p < first + ROW_TOKENS
            }
        # What is not masked is as it was.
        same = ~gone[row] & ~np.isin(np.arange(first, first + ROW_TOKENS), [*own, *theirs])
        assert np.array_equal(after.input_ids[row][same], before.input_ids[row][same])


def labels(batch):
    used = batch.targets != NO_TARGET
    return dict(
        zip(batch.masked_positions[used].tolist(), batch.targets[used].tolist(), strict=True)
    )


def test_steps_before_an_entry_are_bit_equal_and_from_it_on_its_documents_are_padding(
    run, untouched
):
    doc_ids = documents_of(untouched, 4)[::3]
    append_entry(run, Entry("phase1", 4, tuple(doc_ids.tolist())))
    straight, changed = steps_of(untouched), steps_of(run)
    assert [content(batch) for batch in changed[:4]] == [content(batch) for batch in straight[:4]]
    for before, after in zip(straight[4:], changed[4:], strict=True):
        check_hidden(before, after, doc_ids)
    assert changed[4].num_tokens < straight[4].num_tokens


@settings(max_examples=25)
@given(data=st.data())
def test_any_entries_hide_what_they_say_in_both_phases(untouched, tmp_path_factory, data):
    run = make_run(tmp_path_factory.mktemp("run"), PHASES, held_out={"8-15": 3})
    known = np.unique([documents_of(untouched, step)[::7] for step in (0,)])
    entries = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(list(PHASES)),
                st.integers(0, STEPS),
                st.lists(st.sampled_from(known.tolist()), min_size=1, max_size=4, unique=True),
            ),
            max_size=3,
        )
    )
    for phase, step, doc_ids in entries:
        append_entry(run, Entry(phase, step, tuple(sorted(doc_ids))))
    for phase in PHASES:
        for step, (before, after) in enumerate(
            zip(steps_of(untouched, phase), steps_of(run, phase), strict=True)
        ):
            hidden = [
                doc_id
                for from_phase, from_step, doc_ids in entries
                for doc_id in doc_ids
                if (from_phase, from_step) <= (phase, step)
            ]
            check_hidden(before, after, np.array(hidden, np.uint64))


def test_a_row_of_which_all_is_hidden_has_no_target_and_all_ranks_agree_on_their_number(run):
    with Loader(run, prefetch=0) as loader:
        sequences = loader.rows_at(3).pieces
    of_first_row = sequences.doc_ids[: sequences.row_ends[0]]
    append_entry(run, Entry("phase1", 3, tuple(sorted(of_first_row.tolist()))))
    (alone,) = [steps_of(run)[3]]
    slots = len(alone.targets) // 5
    assert (alone.targets[:slots] == NO_TARGET).all()
    ranks = [steps_of(run, rank=rank, world_size=3)[3] for rank in range(3)]
    assert {batch.step_targets for batch in ranks} == {alone.step_targets}
    assert sum(int((batch.targets != NO_TARGET).sum()) for batch in ranks) == alone.step_targets
    assert sum(batch.num_tokens for batch in ranks) == alone.num_tokens
    ids, mask, _ = alone.to_padded()
    assert mask.sum() == alone.num_tokens
    assert ids.shape[1] <= MAX_LENGTH
    assert " 0 " in describe_step(run, "phase1", 3).replace("\n", " \n")


def test_held_out_rows_lose_them_at_once(run):
    (before,) = held_out_batches(run, "phase1", micro_batch_rows=3)
    doc_ids = before.doc_ids[before.doc_ids != 0][::4]
    append_entry(run, Entry("phase2", 7, tuple(sorted(doc_ids.tolist()))))
    (after,) = held_out_batches(run, "phase1", micro_batch_rows=3)
    check_hidden(before, after, doc_ids)


def state_at(run, step, phase="phase1"):
    with Loader(run, phase, prefetch=0) as loader:
        loader.seek(step)
        return json.loads(json.dumps(loader.state_dict()))


def resumed(run, state, phase="phase1"):
    with Loader(run, phase, prefetch=0) as loader:
        loader.load_state_dict(state)
        return [content(batch) for batch in islice(loader, STEPS - loader.step)]


@pytest.mark.parametrize("entry_step", range(5, STEPS))
def test_a_state_goes_on_with_an_overlay_that_has_grown_from_its_step_on(run, entry_step):
    straight = [content(batch) for batch in steps_of(run)]
    state = state_at(run, 5)
    doc_ids = documents_of(run, entry_step)[:3]
    append_entry(run, Entry("phase1", entry_step, tuple(doc_ids.tolist())))
    rest = resumed(run, state)
    assert rest == [content(batch) for batch in steps_of(run)][5:]
    assert rest[: entry_step - 5] == straight[5:entry_step]
    assert rest[entry_step - 5] != straight[entry_step]
    # And again from a state that knows the entry.
    assert resumed(run, state_at(run, 7)) == rest[2:]


def refusal_of(run, state, phase="phase1"):
    with Loader(run, phase, prefetch=0) as loader, pytest.raises(ResumeError) as error:
        loader.load_state_dict(state)
    return str(error.value)


def test_an_overlay_that_would_change_steps_that_were_read_is_refused(run):
    state = state_at(run, 5)
    append_entry(run, Entry("phase1", 4, (7,)))
    assert refusal_of(run, state) == (
        "the overlay: entry 1 holds from phase1 step 4 on, but the steps up to phase1 5 were read "
        "without it. Let line 1 of overlay.jsonl hold from phase phase1, step 5 on."
    )
    state = state_at(run, 2, "phase2")
    append_entry(run, Entry("phase1", 9, (8,)))
    assert "entry 2 holds from phase1 step 9" in refusal_of(run, state, "phase2")


@pytest.mark.parametrize(
    "lines",
    [
        "",
        '{"doc_ids": [7, 8], "from": {"phase": "phase1", "step": 2}}\n',
        '{"doc_ids": [7], "from": {"phase": "phase1", "step": 3}}\n',
    ],
)
def test_an_entry_that_a_state_knew_may_not_change_or_go(run, lines):
    append_entry(run, Entry("phase1", 2, (7,)))
    state = state_at(run, 5)
    overlay_path(run).write_text(lines)
    assert refusal_of(run, state) == (
        "the overlay: the state was saved with 1 entries of overlay.jsonl, and among the "
        f"{1 if lines else 0} of today one of those is missing or changed. {ADVICE}"
    )


def test_a_line_that_is_no_entry_is_refused_with_its_number(run):
    append_entry(run, Entry("phase1", 2, (7,)))
    with overlay_path(run).open("a") as file:
        file.write('{"doc_ids": [0], "from": {"phase": "phase1", "step": 2}}\n')
    with pytest.raises(FormatError, match=r"overlay.jsonl: line 2: no entry of an overlay"):
        Loader(run)
    overlay_path(run).write_text('{"doc_ids": [7], "from": {"phase": "warm-up", "step": 2}}\n')
    with pytest.raises(FormatError, match=r"line 1: no phase warm-up in the run, which has phase1"):
        Loader(run)


def test_entries_are_kept_in_their_order_and_their_digest_tells_them_apart(run):
    entries = [
        Entry("phase1", 2, (7, 9)),
        Entry("phase2", 0, (2**64 - 1,)),
        Entry("phase1", 2, (7,)),
    ]
    for entry in entries:
        append_entry(run, entry)
    overlay = read_overlay(run, tuple(PHASES))
    assert overlay.entries == tuple(entries)
    assert overlay.doc_ids().tolist() == [7, 9, 2**64 - 1]
    assert len({overlay.digest(count) for count in range(4)}) == 4
    doc_ids, steps = overlay.first_steps(tuple(PHASES), "phase2")
    assert (doc_ids.tolist(), steps.tolist()) == ([7, 9, 2**64 - 1], [0, 0, 0])
    doc_ids, steps = overlay.first_steps(tuple(PHASES), "phase1")
    assert (doc_ids.tolist(), steps.tolist()) == ([7, 9], [2, 2])
