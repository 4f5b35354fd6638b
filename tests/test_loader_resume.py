"""Order and resume: any stop, any world size, no repeat too early, refusals that say why."""

import json
import threading
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from loader_runs import ROW_TOKENS, make_pack, make_run

from tokenmill.errors import FormatError, RecipeError, ResumeError
from tokenmill.loader import Loader
from tokenmill.loader.keys import derive_key
from tokenmill.loader.masking import NO_TARGET
from tokenmill.loader.plan import read_plan
from tokenmill.loader.prefetch import Prefetch

# 22 rows, 5 a step: an epoch of all ends inside the fifth step, one of 16+ inside the fourth.
PHASES = {
    "phase1": {"mixture": {"all": 0.5, "8+": "0.5"}, "masking": {"mask_share": 0.8}},
    "phase2": {"mixture": {"all": 0.2, "16+": 0.8}, "masking": {"rate": 0.3}},
}
NUM_STEPS = 14


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), PHASES)


def content(batch):
    """All that a batch says, to compare."""
    arrays = (batch.input_ids, batch.cu_seqlens, batch.doc_ids, batch.masked_positions)
    values = [array.tolist() for array in (*arrays, batch.targets, batch.row_weights)]
    return (batch.step, batch.micro_batch, batch.num_tokens, batch.step_targets, *values)


def read(run, num_batches, phase="phase1", state=None, **options):
    """The next batches, and the state after them."""
    with Loader(run, phase, **options) as loader:
        if state is not None:
            loader.load_state_dict(json.loads(json.dumps(state)))
        return [content(batch) for batch in islice(loader, num_batches)], loader.state_dict()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("stop", range(NUM_STEPS + 1))
def test_a_resumed_loader_and_its_resumed_successor_give_what_was_left(run, phase, stop):
    straight, end = read(run, NUM_STEPS, phase, prefetch=0)
    first, state = read(run, stop, phase)
    middle = (NUM_STEPS - stop) // 2
    second, state = read(run, middle, phase, state)
    third, state = read(run, NUM_STEPS - stop - middle, phase, state, prefetch=0)
    assert first + second + third == straight
    assert state == end


def test_a_step_counts_as_read_when_its_last_micro_batch_was_given_out(run):
    with Loader(run, micro_batch_rows=2) as loader:
        steps = []
        for _ in range(7):
            next(loader)
            steps.append(loader.step)
    assert steps == [0, 0, 1, 1, 1, 2, 2]


def test_batches_at_a_step_and_after_seeking_are_those_of_the_straight_run(run):
    straight, _ = read(run, 3 * 10, micro_batch_rows=2)
    with Loader(run, micro_batch_rows=2) as loader:
        for step in (7, 0, 9, 3):
            loader.seek(step)
            expected = straight[3 * step : 3 * step + 3]
            assert [content(batch) for batch in loader.batch_at(step)] == expected
            assert [content(batch) for batch in islice(loader, 3)] == expected


def rows_with_masks(batches):
    """What each row of weight 1 says, in order: ids, masked places, targets, documents."""
    rows = []
    for batch in batches:
        num_rows = len(batch.row_weights)
        ids = batch.input_ids.reshape(num_rows, ROW_TOKENS)
        positions = batch.masked_positions.reshape(num_rows, -1) % ROW_TOKENS
        targets = batch.targets.reshape(num_rows, -1)
        for row in np.flatnonzero(batch.row_weights):
            used = targets[row] != NO_TARGET
            rows.append((ids[row].tolist(), positions[row][used].tolist(), targets[row].tolist()))
    return rows


@pytest.mark.parametrize("micro_batch_rows", [None, 1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8])
def test_all_ranks_together_read_what_one_reads(run, world_size, micro_batch_rows):
    alone = Loader(run, prefetch=0)
    ranks = [
        Loader(run, "phase1", rank, world_size, micro_batch_rows=micro_batch_rows, prefetch=0)
        for rank in range(world_size)
    ]
    for step in range(NUM_STEPS):
        of_ranks = [rank.batch_at(step) for rank in ranks]
        together = [row for batches in of_ranks for row in rows_with_masks(batches)]
        (whole,) = alone.batch_at(step)
        assert together == rows_with_masks([whole])
        assert {len(batches) for batches in of_ranks} == {ranks[0].num_micro_batches}
        every = [batch for batches in of_ranks for batch in batches]
        assert {batch.step_targets for batch in every} == {whole.step_targets}
        assert sum(batch.num_tokens for batch in every) == whole.num_tokens
        assert len({batch.input_ids.shape for batch in every}) == 1
    assert len({json.dumps(loader.state_dict()) for loader in [alone, *ranks]}) == 1


def test_a_run_goes_on_with_another_world_size_and_other_micro_batches(run):
    straight = [rows_with_masks(Loader(run, prefetch=0).batch_at(step)) for step in range(8)]
    _, state = read(run, 4 * 3, rank=1, world_size=2, micro_batch_rows=1)
    loaders = [Loader(run, "phase1", rank, 3, micro_batch_rows=2) for rank in range(3)]
    for loader in loaders:
        loader.load_state_dict(state)
    for step in range(4, 8):
        assert [row for loader in loaders for row in rows_with_masks([next(loader)])] == straight[
            step
        ]
    for loader in loaders:
        loader.close()


@pytest.mark.parametrize("phase", PHASES)
def test_no_row_comes_again_before_its_bucket_was_seen_whole(run, phase):
    seen = [Counter(), Counter(), Counter()]
    plans = [read_plan(run, name) for name in PHASES]
    if phase == "phase1":
        plans = plans[:1]
    for plan in plans:  # phase 2 goes on where phase 1 ends
        for step in range(plan.num_steps if plan.name != phase else 60):
            buckets, rows, visits = plan.rows_of(step)
            for bucket, row, visit in sorted(
                zip(buckets, rows, visits, strict=True), key=lambda item: item[2]
            ):
                assert seen[bucket][row] == visit
                seen[bucket][row] += 1
            for bucket, size in enumerate(plan.buckets):
                times = [seen[bucket][row] for row in range(size.rows)]
                assert max(times) - min(times) <= 1
                assert sum(times) == plan.counts_until(step + 1)[bucket]


def test_every_epoch_has_an_order_of_its_own(tmp_path):
    run = make_run(tmp_path, {"phase1": {"batch_tokens": ROW_TOKENS}}, rows={"8-15": 12})
    plan = read_plan(run, "phase1")
    order = [int(plan.rows_of(step)[1][0]) for step in range(10 * 12)]
    epochs = [tuple(order[first : first + 12]) for first in range(0, 120, 12)]
    assert {tuple(sorted(epoch)) for epoch in epochs} == {tuple(range(12))}
    assert len(set(epochs)) == 10


def test_every_visit_of_a_row_has_masks_of_its_own(run):
    loader = Loader(run, "phase2", prefetch=0)  # 30 rows of 22
    rows = [row for step in range(6) for row in rows_with_masks(loader.batch_at(step))]
    assert len({tuple(places) for _, places, _ in rows}) == len(rows)


def test_a_late_step_is_read_without_what_comes_before_it(run):
    with Loader(run, prefetch=0) as loader:
        loader.seek(1_000_000_000)
        assert next(loader).step == 1_000_000_000
        assert loader.step == 1_000_000_001


def test_a_state_is_small_json_and_the_same_after_loading_it(run):
    _, state = read(run, 3)
    assert len(json.dumps(state)) <= 2048
    assert state["step"] == 3
    assert read(run, 0, state=state)[1] == state


def refusal_of(run, state, phase="phase1"):
    with pytest.raises(ResumeError) as refusal:
        Loader(run, phase).load_state_dict(state)
    return str(refusal.value)


ADVICE = "Bring back what the state was saved with, or start the phase anew."


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        (
            {"seed": 5},
            "the loader's settings: the state was saved with seed 0, the run has seed 5.",
        ),
        (
            {"batch_tokens": 64},
            "the loader's settings: the state was saved with batch_tokens 320, the run has "
            "batch_tokens 64.",
        ),
        (
            {"masking": {"rate": 0.3}},
            "the loader's settings: the state was saved with masking {'rate': 0.2, 'mask_share': "
            "1.0, 'random_share': 0.0}, the run has masking {'rate': 0.3, 'mask_share': 1.0, "
            "'random_share': 0.0}.",
        ),
        (
            {"mixture": {"8+": 1.0}},
            "the loader's settings: the state was saved with mixture {'all': 1.0}, the run has "
            "mixture {'8+': 1.0}.",
        ),
    ],
)
def test_a_state_of_other_settings_is_refused_by_their_name(tmp_path, changed, cause):
    _, state = read(make_run(tmp_path), 2)
    assert refusal_of(make_run(tmp_path, {"phase1": changed}), state) == f"{cause} {ADVICE}"


def test_a_state_of_another_phase_order_or_file_is_refused(run):
    _, state = read(run, 2)
    assert refusal_of(run, state, "phase2") == (
        f"the phase: the state was saved with phase1, the run has phase2. {ADVICE}"
    )
    assert refusal_of(run, {**state, "order": "order-0"}) == (
        f"the version of the order: the state was saved with order-0, the run has order-1. {ADVICE}"
    )
    assert refusal_of(run, {"step": 3, "order": "order-1"}) == (
        "this is no loader state: counts_before, manifest, overlay, phase, settings, witness "
        "missing. " + ADVICE
    )


def test_a_state_of_other_shards_is_refused_by_their_root_hash(tmp_path):
    run = make_run(tmp_path)
    _, state = read(run, 2)
    make_pack(run, "short", {"0-7": 7, "8-15": 12, "16+": 4}, {})
    message = refusal_of(run, state)
    assert message.startswith(
        f"the manifest's root hash: the state was saved with {state['manifest']}"
    )


def test_a_state_after_another_earlier_phase_is_refused(tmp_path):
    phases = {"phase1": {"tokens": 640}, "phase2": {}}
    _, state = read(make_run(tmp_path, phases), 2, "phase2")
    make_run(tmp_path, {**phases, "phase1": {"tokens": 1280}})
    assert refusal_of(tmp_path, state, "phase2") == (
        "what earlier phases read of the pack: the state was saved with 0-7 4, 8-15 5, 16+ 1, the "
        f"run has 0-7 7, 8-15 10, 16+ 3. {ADVICE}"
    )


def test_the_witness_refuses_replaced_rows_under_the_same_manifest(tmp_path):
    run = make_run(tmp_path)
    _, state = read(run, 2)
    manifest = run / "shards" / "short" / "manifest.json"
    before = manifest.read_bytes()
    make_pack(run, "short", {"0-7": 7, "8-15": 11, "16+": 4}, {}, seed=1)
    found = json.loads(manifest.read_bytes())
    old = json.loads(before)
    for shard, now in zip(old["shards"], found["shards"], strict=True):
        shard["max_pieces"] = now["max_pieces"]
    manifest.write_text(json.dumps(old))
    assert refusal_of(run, state).startswith("rows: the order around step 2 is another one")


@pytest.mark.parametrize("module", ["plan", "phase"])
def test_the_witness_refuses_code_with_another_order_or_other_masks(run, monkeypatch, module):
    _, state = read(run, 2)
    monkeypatch.setattr(
        f"tokenmill.loader.{module}.derive_key", lambda *parts: derive_key(*parts, "new")
    )
    assert refusal_of(run, state).startswith("rows: the order around step 2 is another one")


def test_a_refused_state_leaves_the_loader_where_it_was(run):
    with Loader(run) as loader:
        first = [content(next(loader)) for _ in range(3)]
        with pytest.raises(ResumeError):
            loader.load_state_dict({**loader.state_dict(), "manifest": "0" * 64})
        assert loader.step == 3
        assert [*first, content(next(loader))] == read(run, 4)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world_size": 2}, "rank: need 0 to world_size - 1 = 1, got 2"),
        ({"micro_batch_rows": 0}, "micro_batch_rows: need at least 1, got 0"),
        ({"phase": "phase9"}, "phase phase9: not in the run, which has phase1, phase2."),
    ],
)
def test_impossible_options_are_refused(run, options, message):
    with pytest.raises(RecipeError) as refusal:
        Loader(run, **options)
    assert str(refusal.value) == message


def test_shards_of_another_tokenizer_are_refused(tmp_path):
    run = make_run(tmp_path)
    path = run / "run.json"
    path.write_text(path.read_text().replace("f" * 64, "e" * 64))
    with pytest.raises(FormatError, match="made with the tokenizer ffffffffffff, the run has eeee"):
        Loader(run)


def test_no_more_than_the_depth_is_made_ahead():
    made = []
    prefetch = Prefetch(lambda number: made.append(number) or number, first=5, depth=2)
    assert [prefetch.take() for _ in range(4)] == [5, 6, 7, 8]
    prefetch.close()
    assert made in ([5, 6, 7, 8], [5, 6, 7, 8, 9], [5, 6, 7, 8, 9, 10])


def test_an_error_in_the_thread_reaches_the_caller_and_the_loader_can_go_on(tmp_path):
    run = make_run(tmp_path, rows={"16+": 4})
    shard = run / "shards" / "short" / "16+" / "00000.arrow"
    shard.rename(shard.with_suffix(".away"))
    with Loader(run) as loader:
        with pytest.raises(FormatError, match="no such shard"):
            next(loader)
        shard.with_suffix(".away").rename(shard)
        assert next(loader).step == 0


def test_a_closed_or_forgotten_loader_leaves_no_thread(run):
    def ours():
        return [thread for thread in threading.enumerate() if "tokenmill" in thread.name]

    with Loader(run) as loader:
        next(loader)
        assert len(ours()) == 1
    assert ours() == []
    forgotten = Loader(run)
    next(forgotten)
    (thread,) = ours()
    del forgotten
    thread.join(timeout=10)
    assert not thread.is_alive()
