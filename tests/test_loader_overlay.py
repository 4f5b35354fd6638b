"""The overlay: from an entry's step on documents and rows are padding, steps are skipped or come
again; what was before it, and all else, is as it was to the bit."""

import json
import shutil
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_runs import MAX_LENGTH, ROW_TOKENS, TOKENIZER, make_run, write_phases
from overlay_entries import moved_steps, order_of

from tokenmill.errors import FormatError, ResumeError
from tokenmill.loader import Loader, held_out_batches
from tokenmill.loader.masking import NO_TARGET
from tokenmill.shards.overlay import (
    ReplayedSteps,
    Retraction,
    SkippedRows,
    SkippedSteps,
    append_entry,
    overlay_path,
    read_overlay,
)

PHASES = {
    "phase1": {"mixture": {"all": 0.5, "8+": "0.5"}, "masking": {"mask_share": 0.8}},
    "phase2": {"mixture": {"all": 0.2, "16+": 0.8}, "masking": {"rate": 0.3}},
}
STEPS = 9
ADVICE = "Bring back what the state was saved with, or start the phase anew."


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), PHASES, held_out={"8-15": 3})


@pytest.fixture
def run(tmp_path, untouched):
    """A run of one's own: writing the same shards again would take longer."""
    shutil.copytree(untouched, tmp_path / "run")
    return tmp_path / "run"


def fresh(run, phases=PHASES):
    """The shards of a run without an overlay, perhaps in other phases."""
    other = run.with_name("other")
    if other.exists():
        overlay_path(other).unlink(missing_ok=True)
    else:
        other.mkdir()
        (other / "shards").symlink_to(run / "shards")
    write_phases(other, phases)
    return other


def steps_of(run, phase="phase1", rank=0, world_size=1):
    with Loader(run, phase, rank, world_size, prefetch_bytes=0) as loader:
        return [loader.batch_at(step)[0] for step in range(STEPS)]


def content(batch):
    arrays = (batch.input_ids, batch.position_ids, batch.cu_seqlens, batch.doc_ids)
    arrays += (batch.masked_positions, batch.targets, batch.row_weights)
    return [*(array.tolist() for array in arrays), batch.num_tokens, batch.step_targets]


def documents_of(run, step, phase="phase1"):
    return np.unique(Loader(run, phase, prefetch_bytes=0).rows_at(step).pieces.doc_ids)


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
    append_entry(run, Retraction("phase1", 4, tuple(doc_ids.tolist())))
    straight, changed = steps_of(untouched), steps_of(run)
    assert [content(batch) for batch in changed[:4]] == [content(batch) for batch in straight[:4]]
    for before, after in zip(straight[4:], changed[4:], strict=True):
        check_hidden(before, after, doc_ids)
    assert changed[4].num_tokens < straight[4].num_tokens


@settings(max_examples=12)
@given(data=st.data())
def test_any_entries_hide_what_they_say_in_both_phases(untouched, data):
    run = fresh(untouched)
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
        append_entry(run, Retraction(phase, step, tuple(sorted(doc_ids))))
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
    with Loader(run, prefetch_bytes=0) as loader:
        sequences = loader.rows_at(3).pieces
    of_first_row = sequences.doc_ids[: sequences.row_ends[0]]
    append_entry(run, Retraction("phase1", 3, tuple(sorted(of_first_row.tolist()))))
    (alone,) = [steps_of(run)[3]]
    slots = len(alone.targets) // 5
    assert (alone.targets[:slots] == NO_TARGET).all()
    ranks = [steps_of(run, rank=rank, world_size=3)[3] for rank in range(3)]
    assert {batch.step_targets for batch in ranks} == {alone.step_targets}
    assert sum(int((batch.targets != NO_TARGET).sum()) for batch in ranks) == alone.step_targets
    assert sum(batch.num_tokens for batch in ranks) == alone.num_tokens
    padded = alone.to_padded()
    assert padded.attention_mask.sum() == alone.num_tokens
    assert padded.input_ids.shape[1] <= MAX_LENGTH


def test_held_out_rows_lose_them_at_once(run):
    (before,) = held_out_batches(run, "phase1", micro_batch_rows=3)
    doc_ids = before.doc_ids[before.doc_ids != 0][::4]
    append_entry(run, Retraction("phase2", 7, tuple(sorted(doc_ids.tolist()))))
    (after,) = held_out_batches(run, "phase1", micro_batch_rows=3)
    check_hidden(before, after, doc_ids)


def state_at(run, step, phase="phase1"):
    with Loader(run, phase, prefetch_bytes=0) as loader:
        loader.seek(step)
        return json.loads(json.dumps(loader.state_dict()))


def resumed(run, state, phase="phase1"):
    with Loader(run, phase, prefetch_bytes=0) as loader:
        loader.load_state_dict(state)
        return [content(batch) for batch in islice(loader, STEPS - loader.step)]


def entry_at(run, kind, step):
    """An entry that changes what phase1 reads at a step and nothing before."""
    if kind == "retract":
        return Retraction("phase1", step, tuple(documents_of(run, step)[:3].tolist()))
    if kind == "rows":
        bucket, row = first_row_of(run, step)
        return SkippedRows("phase1", step, "short", bucket, row, row)
    if kind == "skip":
        return SkippedSteps("phase1", step, step, step + 1)
    return ReplayedSteps("phase1", step, step - 3, step - 2)


def first_row_of(run, step):
    """Bucket and number of the first row of a step."""
    with Loader(run, prefetch_bytes=0) as loader:
        buckets, rows, _ = loader.plan.rows_of(step)
        return loader.plan.buckets[buckets[0]].name, int(rows[0])


@pytest.mark.parametrize("kind", ["retract", "rows", "skip", "replay"])
@pytest.mark.parametrize("entry_step", [5, 6, STEPS - 1])
def test_a_state_goes_on_with_an_overlay_that_has_grown_from_its_step_on(run, kind, entry_step):
    straight = [content(batch) for batch in steps_of(run)]
    states = [state_at(run, step) for step in range(entry_step + 1)]
    append_entry(run, entry_at(run, kind, entry_step))
    changed = [content(batch) for batch in steps_of(run)]
    assert changed[:entry_step] == straight[:entry_step]
    assert changed[entry_step] != straight[entry_step]
    for step, state in enumerate(states):
        assert resumed(run, state) == changed[step:]
    # And again from states that know the entry.
    for step in range(STEPS):
        assert resumed(run, state_at(run, step)) == changed[step:]


@pytest.mark.parametrize("kind", ["retract", "rows", "skip", "replay"])
def test_an_entry_for_steps_that_a_state_has_read_is_refused(run, kind):
    state, behind = state_at(run, 5), state_at(run, 2, "phase2")
    append_entry(run, entry_at(run, kind, 4))
    mend = "Let line 1 of overlay.jsonl hold from phase phase1, step 5 on."
    if kind in ("skip", "replay"):
        mend = "Take line 1 out of overlay.jsonl, or go back to a state before it."
    assert refusal_of(run, state) == (
        "the overlay: entry 1 holds from phase1 step 4 on, but the steps up to phase1 5 were read "
        f"without it. {mend}"
    )
    assert "entry 1 holds from phase1 step 4 on" in refusal_of(run, behind, "phase2")


@settings(max_examples=12)
@given(moved=moved_steps(steps=STEPS, most=3), hidden_from=st.integers(0, STEPS))
def test_skipped_and_replayed_steps_are_those_of_the_order_to_the_bit(
    untouched, moved, hidden_from
):
    run = fresh(untouched)
    doc_ids = documents_of(untouched, 2)[::5]
    # A retraction counts steps of training, whatever these read.
    for entry in (
        *moved[:1],
        Retraction("phase1", hidden_from, tuple(doc_ids.tolist())),
        *moved[1:],
    ):
        append_entry(run, entry)
    order = order_of(moved)[:STEPS]
    with Loader(untouched, prefetch_bytes=0) as loader:
        straight = {step: loader.batch_at(step)[0] for step in set(order)}
    for step, found in enumerate(steps_of(run)):
        hidden = doc_ids if step >= hidden_from else doc_ids[:0]
        check_hidden(straight[order[step]], found, hidden)
    # The next phase over the pack goes on behind the furthest step.
    used = 1 + max(order[:4], default=-1)
    longer = {**PHASES, "phase1": {**PHASES["phase1"], "tokens": 5 * ROW_TOKENS * used}}
    last = steps_of(run, "phase2")
    for before, after in zip(steps_of(fresh(untouched, longer), "phase2"), last, strict=True):
        check_hidden(before, after, doc_ids)


def row_numbers(run, step, phase="phase1"):
    """BUCKET:NUMBER of the rows of a step."""
    with Loader(run, phase, prefetch_bytes=0) as loader:
        buckets, rows, _ = loader.plan.rows_of(step)
        names = [bucket.name for bucket in loader.plan.buckets]
        return [f"{names[bucket]}:{row}" for bucket, row in zip(buckets, rows, strict=True)]


def check_skipped(before, after, is_skipped):
    """The batch without some rows, row by row, from the batch with them."""
    own, theirs = labels(after), labels(before)
    bounds, real = after.cu_seqlens, np.diff(after.cu_seqlens) > 0
    for row, skipped in enumerate(is_skipped):
        first, end = row * ROW_TOKENS, (row + 1) * ROW_TOKENS
        inside = (bounds[:-1] >= first) & (bounds[:-1] < end) & real
        assert {bounds[:-1][inside].min(), bounds[1:][inside].max()} == {first, end}
        assert [p for p in own if first <= p < end] == (
            [] if skipped else [p for p in theirs if first <= p < end]
        )
        if skipped:
            assert (after.input_ids[first:end] == TOKENIZER.pad_id).all()
            assert not after.doc_ids[np.flatnonzero(inside)].any()
        else:
            assert np.array_equal(after.input_ids[first:end], before.input_ids[first:end])
            assert np.array_equal(after.position_ids[first:end], before.position_ids[first:end])
    assert after.step_targets == len(own)
    assert after.num_tokens == np.count_nonzero(after.input_ids != TOKENIZER.pad_id)


def test_a_shard_that_is_gone_trains_on_when_its_rows_are_skipped(run, untouched):
    gone = {f"8-15:{row}" for row in range(5)}
    state = state_at(run, 5)
    assert all(gone & {*row_numbers(run, step)} for step in (4, 5))  # the witness's steps
    (run / "shards/short/8-15/00000.arrow").unlink()
    with pytest.raises(FormatError, match=r"8-15/00000.arrow"):
        steps_of(run)
    append_entry(run, SkippedRows("phase1", 5, "short", "8-15", 0, 4))
    with Loader(run, prefetch_bytes=0) as loader:
        loader.load_state_dict(state)
        rest = list(islice(loader, STEPS - 5))
    for phase, found in (("phase1", rest), ("phase2", steps_of(run, "phase2"))):
        for before, after in zip(steps_of(untouched, phase)[-len(found) :], found, strict=True):
            is_skipped = [name in gone for name in row_numbers(run, after.step, phase)]
            check_skipped(before, after, is_skipped)
            ranks = [
                Loader(run, phase, rank, 3, prefetch_bytes=0).batch_at(after.step)[0]
                for rank in range(3)
            ]
            assert {batch.step_targets for batch in ranks} == {after.step_targets}
            assert sum(len(labels(batch)) for batch in ranks) == after.step_targets
    assert resumed(run, state_at(run, 7)) == [content(batch) for batch in rest[2:]]


def test_held_out_rows_are_skipped_at_once_and_have_numbers_of_their_own(run, untouched):
    (before,) = held_out_batches(untouched, "phase1", micro_batch_rows=3)
    append_entry(run, SkippedRows("phase2", 7, "short", "held-out/8-15", 0, 1))
    append_entry(run, SkippedRows("phase1", 0, "short", "8-15", 2, 2))
    (after,) = held_out_batches(run, "phase1", micro_batch_rows=3)
    check_skipped(before, after, [True, True, False])


def refusal_of(run, state, phase="phase1"):
    with Loader(run, phase, prefetch_bytes=0) as loader, pytest.raises(ResumeError) as error:
        loader.load_state_dict(state)
    return str(error.value)


@pytest.mark.parametrize(
    "lines",
    [
        "",
        '{"doc_ids": [7, 8], "from": {"phase": "phase1", "step": 2}}\n',
        '{"doc_ids": [7], "from": {"phase": "phase1", "step": 3}}\n',
    ],
)
def test_an_entry_that_a_state_knew_may_not_change_or_go(run, lines):
    append_entry(run, Retraction("phase1", 2, (7,)))
    state = state_at(run, 5)
    overlay_path(run).write_text(lines)
    assert refusal_of(run, state) == (
        "the overlay: the state was saved with 1 entries of overlay.jsonl, and among the "
        f"{1 if lines else 0} of today one of those is missing or changed. {ADVICE}"
    )


def test_a_line_that_is_no_entry_is_refused_with_its_number(run):
    append_entry(run, Retraction("phase1", 2, (7,)))
    with overlay_path(run).open("a") as file:
        file.write('{"doc_ids": [0], "from": {"phase": "phase1", "step": 2}}\n')
    with pytest.raises(FormatError, match=r"overlay.jsonl: line 2: no entry of an overlay"):
        Loader(run)
    overlay_path(run).write_text('{"doc_ids": [7], "from": {"phase": "warm-up", "step": 2}}\n')
    with pytest.raises(FormatError, match=r"line 1: no phase warm-up in the run, which has phase1"):
        Loader(run)


def test_entries_are_kept_in_their_order_and_their_digest_tells_them_apart(run):
    entries = [
        Retraction("phase1", 2, (7, 9)),
        Retraction("phase2", 0, (2**64 - 1,)),
        Retraction("phase1", 2, (7,)),
        SkippedRows("phase1", 3, "short", "8-15", 0, 4),
        SkippedSteps("phase2", 1, 1, 1),
        ReplayedSteps("phase1", 3, 1, 2),
    ]
    for entry in entries:
        append_entry(run, entry)
    overlay = read_overlay(run, tuple(PHASES))
    assert overlay.entries == tuple(entries)
    assert overlay.doc_ids().tolist() == [7, 9, 2**64 - 1]
    assert len({overlay.digest(count) for count in range(7)}) == 7
    doc_ids, steps = overlay.first_steps(tuple(PHASES), "phase2")
    assert (doc_ids.tolist(), steps.tolist()) == ([7, 9, 2**64 - 1], [0, 0, 0])
    doc_ids, steps = overlay.first_steps(tuple(PHASES), "phase1")
    assert (doc_ids.tolist(), steps.tolist()) == ([7, 9], [2, 2])
