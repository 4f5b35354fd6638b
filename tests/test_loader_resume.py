"""Resume: any stop, any world size, any loader of before or after; refusals that say why."""

import json
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from loader_runs import ROW_TOKENS, make_pack, make_run, write_phases

from tokenmill.errors import FormatError, RecipeError, ResumeError
from tokenmill.loader import Loader
from tokenmill.loader.keys import derive_key
from tokenmill.loader.masking import NO_TARGET
from tokenmill.loader.plan import read_plan

# 22 rows, at first 2 and then 5 a step. Epochs of all buckets end inside of steps; the mixture
# changes at step 6; phase 2 goes on inside of a visit, and new rows join there.
PHASES = {
    "phase1": {
        "mixture": {"all": 0.5, "8+": "0.5"},
        "masking": {"mask_share": 0.8},
        "batch_warmup": {"start_tokens": 2 * ROW_TOKENS, "tokens": 12 * ROW_TOKENS},
        "changes": [{"after_tokens": 20 * ROW_TOKENS, "mixture": {"16+": 0.6, "all": 0.4}}],
        "tokens": 35 * ROW_TOKENS,
    },
    "phase2": {
        "mixture": {"all": 0.2, "16+": 0.8},
        "masking": {"rate": 0.3},
        "generation": 1,
    },
}
NUM_STEPS = 14
WORLD_SIZES = [1, 2, 3, 5, 8]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), PHASES, grown={"8-15": 6, "16+": 3})


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("shards")) / "shards"


def other_run(folder, shards, settings, then=None):
    """A run over the same shards with other settings of its phase, or phases."""
    if not (folder / "shards").exists():
        (folder / "shards").symlink_to(shards)
    write_phases(folder, {"phase1": settings, **(then or {})})
    return folder


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


def rows_with_masks(batches):
    """What each row of weight 1 says, in order: its ids, masked places and targets."""
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


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("stop", range(NUM_STEPS + 1))
def test_a_resumed_loader_and_its_resumed_successor_give_what_was_left(run, phase, stop):
    straight, end = read(run, NUM_STEPS, phase, prefetch_bytes=0)
    first, state = read(run, stop, phase)
    middle = (NUM_STEPS - stop) // 2
    second, state = read(run, middle, phase, state, threads=2)
    third, state = read(run, NUM_STEPS - stop - middle, phase, state, prefetch_bytes=0)
    assert first + second + third == straight
    assert state == end


@pytest.mark.parametrize("micro_batch_rows", [None, 1, 2])
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_all_ranks_together_read_what_one_reads(run, world_size, micro_batch_rows):
    alone = Loader(run, prefetch_bytes=0)
    ranks = [
        Loader(run, "phase1", rank, world_size, micro_batch_rows=micro_batch_rows)
        for rank in range(world_size)
    ]
    for step in range(NUM_STEPS):
        of_ranks = [rank.batch_at(step) for rank in ranks]
        together = [row for batches in of_ranks for row in rows_with_masks(batches)]
        (whole,) = alone.batch_at(step)
        assert together == rows_with_masks([whole])
        every = [batch for batches in of_ranks for batch in batches]
        assert len({len(batches) for batches in of_ranks}) == 1
        assert {batch.num_micro_batches for batch in every} == {len(of_ranks[0])}
        assert {batch.step_targets for batch in every} == {whole.step_targets}
        assert sum(batch.num_tokens for batch in every) == whole.num_tokens
        assert len({batch.input_ids.shape for batch in every}) == 1
    assert len({json.dumps(loader.state_dict()) for loader in [alone, *ranks]}) == 1


@pytest.mark.parametrize("stop", range(NUM_STEPS))
def test_a_run_goes_on_with_another_world_size_at_every_step(run, stop):
    before, after = WORLD_SIZES[stop % 5], WORLD_SIZES[(stop + 2) % 5]
    with Loader(run, "phase2", before - 1, before, micro_batch_rows=1) as loader:
        while loader.step < stop:
            next(loader)
        state = loader.state_dict()
    loaders = [
        Loader(run, "phase2", rank, after, micro_batch_rows=2, prefetch_bytes=0)
        for rank in range(after)
    ]
    for loader in loaders:
        loader.load_state_dict(state)
    for step in range(stop, min(stop + 3, NUM_STEPS)):
        count = loaders[0].num_micro_batches
        found = [row for loader in loaders for row in rows_with_masks(islice(loader, count))]
        assert found == rows_with_masks(Loader(run, "phase2", prefetch_bytes=0).batch_at(step))


def test_micro_batches_keep_their_shape_while_the_batch_grows(run):
    with Loader(run, micro_batch_rows=2) as loader:
        counts, steps, shapes = [], [], set()
        for _ in range(12):
            counts.append(loader.num_micro_batches)
            batch = next(loader)
            steps.append(loader.step)
            shapes.add(batch.input_ids.shape)
    assert counts == [1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3]  # 2, 2, 4, 4 and 5, 5 rows
    assert steps == [1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 6]
    assert shapes == {(2 * ROW_TOKENS,)}


def test_batches_at_a_step_and_after_seeking_are_those_of_the_straight_run(run):
    straight, _ = read(run, 27, micro_batch_rows=2)
    with Loader(run, micro_batch_rows=2) as loader:
        for step in (7, 0, 9, 3):
            loader.seek(step)
            expected = [batch for batch in straight if batch[0] == step]
            assert [content(batch) for batch in loader.batch_at(step)] == expected
            assert [content(batch) for batch in islice(loader, len(expected))] == expected
        for ask in (loader.batch_at, loader.rows_at, loader.seek):
            with pytest.raises(RecipeError, match=r"whole number from 0 to .*, got -1"):
                ask(-1)


def test_a_killed_process_repeats_what_it_had_not_saved_and_goes_on(run, tmp_path):
    saved = tmp_path / "state.json"
    program = (
        "import json, os, sys\n"
        "from tokenmill.loader import Loader\n"
        "loader = Loader(sys.argv[1], threads=2)\n"
        "for batch in loader:\n"
        "    if loader.step in (3, 6):\n"
        "        open(sys.argv[2], 'w').write(json.dumps(loader.state_dict()))\n"
        "    if loader.step == 8:\n"
        "        os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(run), str(saved)], check=False)
    assert done.returncode == -signal.SIGKILL
    rest, _ = read(run, NUM_STEPS - 6, state=json.loads(saved.read_text()))
    assert rest == read(run, NUM_STEPS)[0][6:]


def test_memory_stays_flat_over_many_steps(run):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with Loader(run, prefetch_bytes=0) as loader:
        for _ in islice(loader, 300):
            pass
        before = resident()
        for _ in islice(loader, 1500):
            pass
        assert resident() - before < 4 << 20


def test_no_row_comes_twice_on_a_visit_through_phases_changes_and_joins(run):
    seen = [[], [], []]
    for name in PHASES:
        plan = read_plan(run, name)
        assert plan.counts_before == tuple(map(len, seen))
        for step in range(plan.num_steps if name == "phase1" else 40):
            for bucket, *row_and_visit in zip(*plan.rows_of(step), strict=True):
                seen[bucket].append(tuple(row_and_visit))
            assert plan.counts_until(step + 1) == tuple(map(len, seen))
    assert [len(set(rows)) for rows in seen] == list(map(len, seen))


def test_every_visit_of_a_row_has_masks_of_its_own(run):
    loader = Loader(run, "phase2", prefetch_bytes=0)  # 30 rows of 31, many of them twice
    rows = [row for step in range(6) for row in rows_with_masks(loader.batch_at(step))]
    assert len({tuple(places) for _, places, _ in rows}) == len(rows)


def test_a_late_step_is_read_without_what_comes_before_it(run):
    with Loader(run, prefetch_bytes=0) as loader:
        loader.seek(1_000_000_000)
        assert next(loader).step == 1_000_000_000
        assert loader.step == 1_000_000_001


# The state.


def test_a_state_is_small_json_and_the_same_after_loading_it(run):
    _, state = read(run, 3)
    assert len(json.dumps(state)) <= 2048
    assert state["step"] == 3
    assert read(run, 0, state=state)[1] == state


def test_a_state_of_128_subsets_is_small_and_still_names_what_differs(tmp_path):
    edges = tuple(range(8, 8 + 127))
    names = ["all", *(f"{edge}+" for edge in edges)]

    def mixture(first):
        """128 shares, of which the first two hold 2 / 128 together."""
        return {**dict.fromkeys(names, "1/128"), "all": f"{first}/256", "8+": f"{4 - first}/256"}

    def make(first, changed_first):
        changes = [{"after_tokens": ROW_TOKENS, "mixture": mixture(changed_first)}]
        write_phases(tmp_path, {"phase1": {"mixture": mixture(first), "changes": changes}})

    make_pack(tmp_path, "short", {f"{edges[-1]}+": 3}, {}, edges=edges)
    make(1, 1)
    _, state = read(tmp_path, 3)
    assert len(json.dumps(state)) <= 2048
    assert read(tmp_path, 0, state=state)[1] == state
    make(2, 1)
    assert "the loader's settings: the state was saved with mixture digest" in refusal_of(
        tmp_path, state
    )
    make(1, 2)
    assert "the loader's settings: the state was saved with changes digest" in refusal_of(
        tmp_path, state
    )


def refusal_of(run, state, phase="phase1"):
    with pytest.raises(ResumeError) as refusal:
        Loader(run, phase).load_state_dict(state)
    return str(refusal.value)


ADVICE = "Bring back what the state was saved with, or start the phase anew."


@pytest.mark.parametrize(
    ("changed", "then", "now"),
    [
        ({"seed": 5}, "seed 0", "seed 5"),
        ({"batch_tokens": 64}, "batch_tokens 320", "batch_tokens 64"),
        ({"masking": {"rate": 0.3}}, "masking.rate 0.2", "masking.rate 0.3"),
        ({"cohort_shards": 2}, "cohort_shards None", "cohort_shards 2"),
        ({"mixture": {"8+": 1.0}}, "mixture {'all': 1.0}", "mixture {'8+': 1.0}"),
        (
            {"batch_warmup": {"start_tokens": 64, "tokens": 640}},
            "batch_warmup None",
            "batch_warmup {'start_tokens': 64, 'tokens': 640}",
        ),
        (
            {"changes": [{"after_tokens": 320, "mixture": {"8+": 1.0}}]},
            "changes []",
            "changes [{'after_tokens': 320, 'mixture': {'8+': 1.0}}]",
        ),
    ],
)
def test_a_state_of_other_settings_is_refused_by_their_name(tmp_path, shards, changed, then, now):
    _, state = read(other_run(tmp_path, shards, {}), 2)
    assert refusal_of(other_run(tmp_path, shards, changed), state) == (
        f"the loader's settings: the state was saved with {then}, the run has {now}. {ADVICE}"
    )


CHANGE = {"after_tokens": 3 * 320, "mixture": {"8+": 1.0}}  # from step 3 on


@pytest.mark.parametrize("stop", range(6))
@pytest.mark.parametrize(
    ("then", "now"),
    [
        ([CHANGE], []),
        ([], [CHANGE]),
        ([CHANGE], [{**CHANGE, "mixture": {"all": 1.0}}]),
        ([CHANGE], [{**CHANGE, "after_tokens": 4 * 320}]),
    ],
)
def test_what_is_to_come_may_be_planned_anew_but_not_what_was_read(
    tmp_path, shards, then, now, stop
):
    settings = {"mixture": {"16+": 1.0}}
    _, state = read(other_run(tmp_path, shards, {**settings, "changes": then}), stop)
    settings |= {"max_epochs": 2.0, "tokens": 9 * 320}
    other_run(tmp_path, shards, {**settings, "changes": now})
    if stop <= 3:
        found, _ = read(tmp_path, 2, state=state)
        assert found == read(tmp_path, 6)[0][stop : stop + 2]
    else:
        assert refusal_of(tmp_path, state).startswith("the loader's settings: ")


def test_a_state_stays_good_when_the_corpus_grows(tmp_path):
    rows = {"0-7": 7, "8-15": 11, "16+": 4}
    straight, _ = read(make_run(tmp_path), 6)
    _, state = read(tmp_path, 3)
    make_pack(tmp_path, "short", rows, {}, grown={"8-15": 6})
    assert read(tmp_path, 3, state=state)[0] == straight[3:]
    write_phases(tmp_path, {"phase1": {"generation": 1}})
    assert refusal_of(tmp_path, state).startswith("the manifest's root hash: ")


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
    _, state = read(make_run(tmp_path), 2)
    make_pack(tmp_path, "short", {"0-7": 7, "8-15": 12, "16+": 4}, {})
    message = refusal_of(tmp_path, state)
    root = state["manifest"]
    assert message.startswith(f"the manifest's root hash: the state was saved with {root}")


def test_a_state_after_another_earlier_phase_is_refused(tmp_path, shards):
    _, state = read(other_run(tmp_path, shards, {"tokens": 640}, {"phase2": {}}), 2, "phase2")
    other_run(tmp_path, shards, {"tokens": 1280}, {"phase2": {}})
    assert refusal_of(tmp_path, state, "phase2") == (
        "what earlier phases read of the pack: the state was saved with 0-7 4, 8-15 5, 16+ 1, the "
        f"run has 0-7 7, 8-15 10, 16+ 3. {ADVICE}"
    )


def test_the_witness_refuses_replaced_rows_under_the_same_manifest(tmp_path):
    _, state = read(make_run(tmp_path), 2)
    manifest = tmp_path / "shards" / "short" / "manifest.json"
    before = json.loads(manifest.read_bytes())
    make_pack(tmp_path, "short", {"0-7": 7, "8-15": 11, "16+": 4}, {}, seed=1)
    now = json.loads(manifest.read_bytes())
    identity = {name: before["shards"][name] for name in ("path", "sha256")}
    manifest.write_text(
        json.dumps({**now, "root": before["root"], "shards": {**now["shards"], **identity}})
    )
    assert refusal_of(tmp_path, state).startswith("rows: the order around step 2 is another one")


@pytest.mark.parametrize("module", ["plan", "phase"])
def test_the_witness_refuses_code_with_another_order_or_other_masks(run, monkeypatch, module):
    _, state = read(run, 2)
    monkeypatch.setattr(
        f"tokenmill.loader.{module}.derive_key", lambda *parts: derive_key(*parts, "new")
    )
    assert refusal_of(run, state).startswith("rows: the order around step 2 is another one")


@pytest.mark.parametrize("digest", ["last", "next", "documents of the next"])
def test_each_digest_of_the_witness_is_compared(run, digest):
    _, state = read(run, 2)
    witness, other = state["witness"], "0" * 16
    if digest == "last":
        witness["last"] = other
    else:
        witness["next"][digest == "documents of the next"] = other
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
        ({"masks": "gpu"}, "masks: need one of host, device, got 'gpu'"),
        ({"phase": "phase9"}, "phase phase9: not in the run, which has phase1, phase2."),
    ],
)
def test_impossible_options_are_refused(run, options, message):
    with pytest.raises(RecipeError) as refusal:
        Loader(run, **options)
    assert str(refusal.value) == message


def test_shards_of_another_tokenizer_are_refused(tmp_path):
    path = make_run(tmp_path) / "run.json"
    path.write_text(path.read_text().replace("f" * 64, "e" * 64))
    with pytest.raises(FormatError, match="made with the tokenizer ffffffffffff, the run has eeee"):
        Loader(tmp_path)
