"""When a document is read, and what a step reads, against a walk over all steps."""

from collections import defaultdict

import numpy as np
import pytest
from loader_runs import ROW_TOKENS, make_run

from tokenmill.errors import FormatError
from tokenmill.loader import Loader
from tokenmill.loader.describe import step_documents
from tokenmill.loader.masking import NO_TARGET
from tokenmill.loader.plan import read_plan
from tokenmill.loader.when import Place, Use, find_places, uses_of, when
from tokenmill.shards.overlay import (
    ReplayedSteps,
    Retraction,
    SkippedRows,
    SkippedSteps,
    append_entry,
)
from tokenmill.shards.shard import open_shard

PHASES = {
    "phase1": {
        "mixture": {"all": 0.5, "8+": "0.5"},
        "batch_warmup": {"start_tokens": 2 * ROW_TOKENS, "tokens": 12 * ROW_TOKENS},
        "changes": [{"after_tokens": 40 * ROW_TOKENS, "mixture": {"16+": 1}}],
        "tokens": 90 * ROW_TOKENS,
    },
    "phase2": {"mixture": {"all": 0.2, "16+": 0.8}, "tokens": 40 * ROW_TOKENS, "generation": 1},
    "phase3": {"mixture": {"16+": 1}, "tokens": 20 * ROW_TOKENS, "generation": 1},
}


@pytest.fixture(scope="module", params=[None, 2])
def run(tmp_path_factory, request):
    phases = {name: {**own, "cohort_shards": request.param} for name, own in PHASES.items()}
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, phases, held_out={"8-15": 2}, grown={"8-15": 6, "16+": 3})
    with Loader(folder, prefetch_bytes=0) as loader:
        pieces = loader.rows_at(3).pieces
    append_entry(folder, SkippedSteps("phase1", 4, 4, 6))
    append_entry(folder, ReplayedSteps("phase1", 9, 2, 7))
    append_entry(folder, Retraction("phase1", 12, tuple(sorted(pieces.doc_ids[::3].tolist()))))
    append_entry(folder, SkippedRows("phase1", 11, "short", "16+", 1, 2))
    append_entry(folder, SkippedRows("phase1", 0, "short", "8-15", 11, 12))  # of generation 1
    append_entry(folder, SkippedSteps("phase2", 0, 1, 1))
    return folder


def rows_of_pack(run):
    """Bucket and row to the (doc_id, first token, tokens without special ones) in it."""
    plan = read_plan(run, "phase3")
    found = {}
    for bucket in plan.buckets:
        number = 0
        for info in plan.manifest.of_bucket(bucket.name):
            rows = open_shard(plan.folder / info.path)
            columns = (rows.doc_ids, rows.starts, rows.lengths - rows.num_special)
            for start, end in zip([0, *rows.row_ends], rows.row_ends, strict=False):
                found[bucket.name, number] = [
                    tuple(map(int, piece))
                    for piece in zip(*(column[start:end] for column in columns), strict=True)
                ]
                number += 1
    return found


def walked(run, phase, until=None):
    """For each document its uses, as when gives them, from a look at every step."""
    rows, found = rows_of_pack(run), defaultdict(list)
    with Loader(run, phase, prefetch_bytes=0) as loader:
        for step in range(until or loader.num_steps):
            shown = loader.rows_at(step)
            hidden = np.split(shown.pieces.is_hidden, shown.pieces.row_ends)
            for place, (bucket, row, visit) in enumerate(
                zip(*loader.plan.rows_of(step), strict=True)
            ):
                name = loader.plan.buckets[bucket].name
                pieces = rows[name, int(row)]
                taken = [True] * len(pieces) if shown.is_skipped[place] else hidden[place]
                for (doc_id, first, number), is_hidden in zip(pieces, taken, strict=True):
                    where = Place(name, False, int(row), first, number)
                    found[doc_id].append(Use(step, int(visit), place, where, bool(is_hidden)))
    return found


@pytest.mark.parametrize("phase", PHASES)
def test_a_document_is_read_when_a_walk_over_all_steps_meets_it(run, phase):
    plan, expected = read_plan(run, phase), walked(run, phase)
    documents = {piece[0] for pieces in rows_of_pack(run).values() for piece in pieces}
    assert len(expected) >= 10
    assert max(len(uses) for uses in expected.values()) > 1
    for doc_id in sorted(documents):
        assert uses_of(plan, doc_id, find_places(plan, doc_id)) == expected[doc_id]


def test_a_document_in_several_rows_a_held_out_one_and_none(run):
    plan = read_plan(run, "phase2")
    (info,) = plan.manifest.of_bucket("8-15", held_out=True)
    doc_id = int(open_shard(plan.folder / info.path).doc_ids[-1])
    (place,) = find_places(plan, doc_id)
    assert (place.bucket, place.is_held_out, place.row) == ("8-15", True, 1)
    assert when(run, "phase2", doc_id) == when(run, "phase2", 12345) == []
    some = next(doc_id for doc_id, uses in walked(run, "phase2").items() if len(uses) > 1)
    uses = when(run, "phase2", some, until=30)
    assert uses == walked(run, "phase2", 30)[some]
    before = [use for use in uses if use.step < uses[-1].step]
    assert when(run, "phase2", some, until=uses[-1].step) == before


def test_a_shard_that_is_gone_is_not_looked_at_once_all_its_rows_are_skipped(tmp_path):
    run = make_run(tmp_path, PHASES)
    (run / "shards/short/8-15/00005.arrow").unlink()
    with pytest.raises(FormatError, match=r"8-15/00005.arrow: no such shard"):
        when(run, "phase1", 7)
    append_entry(run, SkippedRows("phase1", 0, "short", "8-15", 5, 7))
    with pytest.raises(FormatError, match=r"8-15/00005.arrow: no such shard"):
        when(run, "phase1", 7)
    append_entry(run, SkippedRows("phase2", 0, "short", "8-15", 8, 9))
    assert when(run, "phase1", 7) == []


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_step_is_shown_as_its_ranks_get_it(run, world_size):
    for step in (1, 11, 13):
        shown = step_documents(run, "phase1", step, world_size=world_size)
        rows = rows_of_pack(run)
        for row, name in enumerate(shown.rows):
            bucket, _, number = name.rpartition(":")
            own = np.flatnonzero(shown.row_of == row)
            columns = (shown.doc_ids, shown.firsts, shown.lengths - shown.num_special)
            pieces = list(zip(*(column[own].tolist() for column in columns), strict=True))
            assert pieces == ([] if shown.is_skipped[row] else rows[bucket, int(number)])
        for rank in range(world_size):
            with Loader(run, "phase1", rank, world_size, prefetch_bytes=0) as loader:
                (batch,) = loader.batch_at(step)
            own = shown.ranks[shown.row_of] == rank
            visible = own & ~shown.is_hidden
            assert batch.doc_ids[batch.doc_ids > 0].tolist() == shown.doc_ids[visible].tolist()
            used = batch.targets != NO_TARGET
            assert shown.num_masked[own].sum() == used.sum()
            tokens = batch.input_ids.copy()
            tokens[batch.masked_positions[used]] = batch.targets[used]
            mine = shown.tokens.reshape(-1, ROW_TOKENS)[shown.ranks == rank].ravel()
            assert tokens[: len(mine)].tolist() == mine.tolist()
            slots = dict(zip(batch.doc_ids.tolist(), range(len(batch.doc_ids)), strict=True))
            for piece in np.flatnonzero(visible):
                start, end = batch.cu_seqlens[slots[int(shown.doc_ids[piece])] :][:2]
                assert shown.tokens_of(piece).tolist() == tokens[start:end].tolist()
                inside = (batch.masked_positions[used] >= start) & (
                    batch.masked_positions[used] < end
                )
                assert shown.num_masked[piece] == inside.sum()
