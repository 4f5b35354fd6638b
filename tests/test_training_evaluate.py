"""Held-out scores against a slow version that asks for one document after the other."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from loader_runs import ROW_TOKENS, TOKENIZER
from training_runs import make_training_run

from tokenmill.errors import FormatError, RecipeError
from tokenmill.loader import held_out_batches
from tokenmill.loader.held_out import HeldOutRows
from tokenmill.loader.masking import NO_TARGET
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import pack_folder
from tokenmill.shards.shard import open_shard
from tokenmill.shards.sources import POSITION_BITS, files_path
from tokenmill.training.evaluate import evaluate, unigram_entropy
from tokenmill.training.initialise import initialise
from tokenmill.training.model import build_model
from tokenmill.training.presets import encoder_config

HELD_OUT = {"0-7": 3, "8-15": 2}
SOURCES = ("arxiv", "wiki", "news")


def write_sources(run):
    """A source for each held-out document: its own row of the table, which counts before that of a
    file, or that of its file."""
    (batch,) = held_out_batches(run, "phase1", micro_batch_rows=sum(HELD_OUT.values()))
    source_of = {}
    for number, doc_id in enumerate(batch.doc_ids[batch.doc_ids != 0].tolist()):
        source_of[doc_id] = SOURCES[number % 3]
    rows = {}
    for number, (doc_id, source) in enumerate(source_of.items()):
        first_id = doc_id >> POSITION_BITS << POSITION_BITS
        rows |= {doc_id: source, first_id: "other"} if number % 2 else {first_id: source}
    ids, names = pa.array(list(rows), pa.uint64()), pa.array(list(rows.values()))
    pq.write_table(pa.table({"first_id": ids, "source": names}), files_path(run))
    return source_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = make_training_run(tmp_path_factory.mktemp("run"), held_out=HELD_OUT)
    write_sources(run)
    return run


@pytest.fixture(scope="module", params=[True, False], ids=["masked queries", "all queries"])
def model(request):
    return make_model(masked_queries_only=request.param)


def make_model(**settings):
    config = encoder_config("tiny", {"dropout": 0.5}, vocab_size=TOKENIZER.vocab_size, pad_id=0)
    model = build_model(config, "cpu", **settings)
    initialise(model, 0)
    return model


def scores_of(model, run, subsets=("all", "8+"), micro_batch_rows=2, max_tokens=10**9, **settings):
    return evaluate(
        model,
        run,
        "phase1",
        subsets=subsets,
        micro_batch_rows=micro_batch_rows,
        max_tokens=max_tokens,
        device="cpu",
        **settings,
    )


def slow_scores(model, run, source_of):
    """name: (loss, accuracy, masked tokens), by one token after the other."""
    found = {}
    model.eval()
    for subset in ("all", "8+"):
        for batch in held_out_batches(run, "phase1", subset=subset, micro_batch_rows=1):
            for slot in np.flatnonzero(batch.targets != NO_TARGET):
                alone = np.full_like(batch.targets, NO_TARGET)
                alone[slot] = batch.targets[slot]
                with torch.no_grad():
                    logits, targets, _ = model(replace(batch, targets=alone).to_torch())
                (row,) = logits[targets != NO_TARGET].double()
                target = int(batch.targets[slot])
                outcome = (-row.log_softmax(0)[target].item(), int(row.argmax()) == target)
                found.setdefault(subset, []).append(outcome)
                if subset == "all":
                    place = batch.masked_positions[slot]
                    sequence = max(np.flatnonzero(batch.cu_seqlens[:-1] <= place))
                    source = source_of[int(batch.doc_ids[sequence])]
                    found.setdefault(source, []).append(outcome)
    model.train()
    return {name: (*np.mean(values, 0), len(values)) for name, values in found.items()}


def test_losses_and_accuracies_are_means_over_the_masked_tokens_of_each_subset_and_source(
    model, run
):
    model.train()
    found = {(s.subset or s.source): s for s in scores_of(model, run)}
    slow = slow_scores(model, run, write_sources(run))
    assert list(found) == ["all", "8+", *sorted(SOURCES)]
    for name, (loss, accuracy, count) in slow.items():
        assert found[name].loss == pytest.approx(loss, rel=1e-5)
        assert (found[name].accuracy, found[name].masked_tokens) == (accuracy, count)
    assert model.training


def test_scores_are_the_same_however_rows_are_batched_and_on_each_call(run):
    model = make_model()
    one, *others = (scores_of(model, run, micro_batch_rows=rows) for rows in (1, 1, 2, 5))
    assert others[0] == one
    for scores in others[1:]:
        for score, expected in zip(scores, one, strict=True):
            assert score.loss == pytest.approx(expected.loss, rel=1e-6)
            assert score.masked_tokens == expected.masked_tokens


@pytest.mark.parametrize("max_tokens", [10**9, 3 * ROW_TOKENS])
def test_ranks_share_the_rows_and_have_all_the_scores(run, max_tokens):
    model = make_model()
    alone = scores_of(model, run, max_tokens=max_tokens)
    own = []

    def keep(tensor):
        own.append(tensor.clone())
        return tensor

    for rank in range(3):
        scores_of(model, run, max_tokens=max_tokens, rank=rank, world_size=3, sum_over_ranks=keep)
    together = scores_of(model, run, max_tokens=max_tokens, sum_over_ranks=lambda _: sum(own))
    for score, expected in zip(together, alone, strict=True):
        assert score.loss == pytest.approx(expected.loss, rel=1e-6)
        assert (score.source, score.masked_tokens) == (expected.source, expected.masked_tokens)


@pytest.mark.parametrize(
    ("max_tokens", "read"), [(1, [0]), (2 * ROW_TOKENS, [0, 2]), (4 * ROW_TOKENS, [0, 1, 2, 3])]
)
def test_a_limit_reads_rows_spread_over_all_of_them(run, max_tokens, read):
    batches = list(held_out_batches(run, "phase1", micro_batch_rows=1))
    assert len(batches) == sum(HELD_OUT.values())
    masked = sum((batches[number].targets != NO_TARGET).sum() for number in read)
    score, *_ = scores_of(make_model(), run, max_tokens=max_tokens)
    assert score.masked_tokens == masked
    rows = HeldOutRows(run, "phase1", max_tokens=max_tokens).batches(micro_batch_rows=1)
    for number, (_, batch) in zip(read, rows, strict=True):
        assert batch.input_ids.tolist() == batches[number].input_ids.tolist()


@pytest.mark.parametrize("asked", range(4))
def test_told_to_stop_between_any_two_batches_it_gives_nothing_and_the_model_back(run, asked):
    model, answers = make_model(), iter([False] * asked + [True])
    model.train()
    batches = 3
    scores = scores_of(model, run, stop=lambda: next(answers))
    assert (scores is None) == (asked < batches)
    assert model.training


def test_without_a_table_of_files_there_are_no_sources_and_without_rows_no_scores(run, tmp_path):
    model = make_model()
    bare = make_training_run(tmp_path / "bare", held_out=HELD_OUT)
    assert scores_of(model, bare) == scores_of(model, run)[:2]
    assert [score.subset for score in scores_of(model, run, ("16+",))] == [None] * 3
    assert scores_of(model, make_training_run(tmp_path / "none", held_out={})) == []


def test_a_table_of_another_build_and_an_unknown_subset_are_refused(run, tmp_path):
    other = make_training_run(tmp_path, held_out=HELD_OUT)
    pq.write_table(
        pa.table({"first_id": pa.array([7], pa.uint64()), "source": ["a"]}), files_path(other)
    )
    with pytest.raises(FormatError, match=r"files.parquet: no file of document \d+: .* Build"):
        scores_of(make_model(), other)
    with pytest.raises(RecipeError, match=r"subset 9\+: no bucket begins there"):
        scores_of(make_model(), run, ("9+",))


def test_a_model_that_knows_the_frequencies_alone_stands_at_the_unigram_entropy(run):
    """On all tokens that may be masked; a sample of them, as in a held-out loss, comes near."""
    folder = pack_folder(run, "short")
    shards = [shard for shard in read_manifest(folder).shards if shard.held_out]
    tokens = np.concatenate([open_shard(folder / shard.path).tokens.ravel() for shard in shards])
    tokens = tokens[tokens >= TOKENIZER.unk_id]  # ids 0 to 3 are never masked
    frequencies = np.bincount(tokens, minlength=TOKENIZER.vocab_size) / len(tokens)

    model = make_model()
    with torch.no_grad():
        model.decoder.weight.zero_()
        model.decoder.bias.copy_(torch.from_numpy(np.log(np.maximum(frequencies, 1e-9))))
    nats = torch.nn.functional.cross_entropy(
        model.decoder.bias.expand(len(tokens), -1), torch.from_numpy(tokens.astype(np.int64))
    )
    assert unigram_entropy(run, "phase1") == pytest.approx(nats.item(), rel=1e-5)
    assert scores_of(model, run)[0].loss == pytest.approx(nats.item(), abs=0.5)


def test_the_unigram_entropy_is_that_of_the_held_out_rows_alone(run, tmp_path):
    entropy = unigram_entropy(run, "phase1")
    assert 4.0 < entropy < math.log(TOKENIZER.vocab_size - 4)
    other = make_training_run(tmp_path, held_out={"0-7": 1})
    assert unigram_entropy(other, "phase1") < entropy
    assert unigram_entropy(make_training_run(tmp_path, held_out={}), "phase1") == 0
