"""Held-out batches: each held-out row once, the same masks every time, on any world size."""

import numpy as np
import pytest
from loader_runs import ROW_TOKENS, make_run

from tokenmill.errors import RecipeError
from tokenmill.loader import Loader, MaskingConfig, held_out_batches
from tokenmill.loader.masking import NO_TARGET
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import pack_folder
from tokenmill.shards.shard import open_shard

HELD_OUT = {"0-7": 3, "16+": 7}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    phases = {"phase1": {}, "phase2": {"masking": {"rate": 0.5}, "mixture": {"8+": 1.0}}}
    return make_run(tmp_path_factory.mktemp("run"), phases, held_out=HELD_OUT)


def rows_of(batches):
    """The rows of weight 1 as they are read, and as they stand in the shard."""
    masked, plain = [], []
    for batch in batches:
        ids = batch.input_ids.copy()
        used = batch.targets != NO_TARGET
        ids[batch.masked_positions[used]] = batch.targets[used]
        for row in np.flatnonzero(batch.row_weights):
            own = slice(row * ROW_TOKENS, (row + 1) * ROW_TOKENS)
            masked.append(batch.input_ids[own].tolist())
            plain.append(ids[own].tolist())
    return masked, plain


def shard_rows(run, buckets):
    folder = pack_folder(run, "short")
    manifest = read_manifest(folder)
    return [
        row
        for bucket in buckets
        for info in manifest.of_bucket(bucket, held_out=True)
        for row in open_shard(folder / info.path).tokens.tolist()
    ]


@pytest.mark.parametrize(
    ("subset", "buckets"), [("all", ["0-7", "16+"]), ("8+", ["16+"]), ("16+", ["16+"])]
)
def test_every_held_out_row_of_a_subset_comes_once(run, subset, buckets):
    batches = list(held_out_batches(run, "phase1", subset=subset, micro_batch_rows=4))
    assert rows_of(batches)[1] == shard_rows(run, buckets)
    masked = sum(np.count_nonzero(batch.targets != NO_TARGET) for batch in batches)
    assert {batch.step_targets for batch in batches} == {masked}
    assert {batch.num_micro_batches for batch in batches} == {len(batches)}


def test_masks_are_the_same_in_every_phase_subset_and_call(run):
    first, _ = rows_of(held_out_batches(run, "phase1", micro_batch_rows=4))
    again, _ = rows_of(held_out_batches(run, "phase2", micro_batch_rows=3))
    long, _ = rows_of(held_out_batches(run, "phase2", subset="16+", micro_batch_rows=1))
    assert first == again
    assert long == first[3:]
    other, _ = rows_of(held_out_batches(run, "phase1", micro_batch_rows=4, seed=1))
    assert other != first


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 12])
def test_ranks_share_the_rows_and_have_as_many_batches(run, world_size):
    ranks = [
        list(held_out_batches(run, "phase1", micro_batch_rows=2, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    together = [row for batches in ranks for row in rows_of(batches)[0]]
    assert together == rows_of(held_out_batches(run, "phase1", micro_batch_rows=10))[0]
    assert len({len(batches) for batches in ranks}) == 1
    shapes = {batch.cu_seqlens.shape for batches in ranks for batch in batches}
    assert len(shapes) == 1


def test_no_training_step_reads_a_held_out_row(run):
    held_out = {tuple(row) for row in shard_rows(run, HELD_OUT)}
    with Loader(run, prefetch_bytes=0) as loader:
        trained = [tuple(row) for step in range(9) for row in rows_of(loader.batch_at(step))[1]]
    assert len(trained) == 45
    assert held_out.isdisjoint(trained)


def test_a_subset_without_held_out_rows_gives_nothing(tmp_path):
    run = make_run(tmp_path)
    assert list(held_out_batches(run, "phase1", micro_batch_rows=2)) == []


def test_a_rate_of_its_own_is_taken(run):
    (batch,) = held_out_batches(run, "phase1", micro_batch_rows=10, masking=MaskingConfig(rate=0.5))
    assert len(batch.targets) == 10 * 32


def test_an_unknown_subset_or_rank_is_refused_at_once(run):
    with pytest.raises(RecipeError, match=r"9\+"):
        held_out_batches(run, "phase1", subset="9+", micro_batch_rows=2)
    with pytest.raises(RecipeError, match="rank: need 0 to world_size - 1 = 1, got 2"):
        held_out_batches(run, "phase1", micro_batch_rows=2, rank=2, world_size=2)
    with pytest.raises(RecipeError, match="micro_batch_rows: need at least 1, got 0"):
        held_out_batches(run, "phase1", micro_batch_rows=0)
