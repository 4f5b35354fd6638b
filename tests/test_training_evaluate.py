import math

import numpy as np
import pytest
import torch
from loader_runs import TOKENIZER
from training_runs import make_training_run

from tokenmill.loader import held_out_batches
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import pack_folder
from tokenmill.shards.shard import open_shard
from tokenmill.training.evaluate import held_out_loss, unigram_entropy
from tokenmill.training.presets import build

HELD_OUT = {"0-7": 3, "8-15": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_training_run(tmp_path_factory.mktemp("run"), held_out=HELD_OUT)


@pytest.fixture
def model():
    model = build("tiny", "cpu", TOKENIZER.vocab_size)
    model.initialise(seed=0)
    return model


def evaluate(model, run, subset="all", micro_batch_rows=2, max_batches=99):
    return held_out_loss(
        model,
        run,
        "phase1",
        subset,
        micro_batch_rows=micro_batch_rows,
        max_batches=max_batches,
        device="cpu",
    )


def test_the_loss_is_the_mean_over_all_masked_tokens_however_they_are_batched(model, run):
    results = [evaluate(model, run, micro_batch_rows=rows) for rows in (1, 2, 5)]
    (batch,) = held_out_batches(run, "phase1", micro_batch_rows=5)
    assert {result.masked_tokens for result in results} == {batch.step_targets}
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-6)
    assert results[0].loss == pytest.approx(results[2].loss, rel=1e-6)


@pytest.mark.parametrize(("max_batches", "read"), [(1, [0]), (2, [0, 3]), (3, [0, 2, 4])])
def test_a_limit_reads_batches_spread_over_all_of_them(model, run, max_batches, read):
    batches = list(held_out_batches(run, "phase1", micro_batch_rows=1))
    assert len(batches) == sum(HELD_OUT.values())
    masked = sum((batches[number].targets != -100).sum() for number in read)
    result = evaluate(model, run, micro_batch_rows=1, max_batches=max_batches)
    assert result.masked_tokens == masked


def test_a_subset_without_held_out_rows_counts_no_masked_tokens(model, run):
    assert evaluate(model, run, "16+").masked_tokens == 0
    assert 0 < evaluate(model, run, "8+").masked_tokens < evaluate(model, run).masked_tokens


def test_a_model_that_knows_the_frequencies_alone_stands_at_the_unigram_entropy(run):
    """On all tokens that may be masked; a sample of them, as in a held-out loss, comes near."""
    folder = pack_folder(run, "short")
    shards = [shard for shard in read_manifest(folder).shards if shard.held_out]
    tokens = np.concatenate([open_shard(folder / shard.path).tokens.ravel() for shard in shards])
    tokens = tokens[tokens >= TOKENIZER.unk_id]  # ids 0 to 3 are never masked
    frequencies = np.bincount(tokens, minlength=TOKENIZER.vocab_size) / len(tokens)

    model = build("tiny", "cpu", TOKENIZER.vocab_size)
    model.initialise(seed=0)
    with torch.no_grad():
        model.decoder.weight.zero_()
        model.decoder.bias.copy_(torch.from_numpy(np.log(np.maximum(frequencies, 1e-9))))
    nats = torch.nn.functional.cross_entropy(
        model.decoder.bias.expand(len(tokens), -1), torch.from_numpy(tokens.astype(np.int64))
    )
    assert unigram_entropy(run, "phase1") == pytest.approx(nats.item(), rel=1e-5)
    assert evaluate(model, run).loss == pytest.approx(nats.item(), abs=0.5)


def test_the_unigram_entropy_is_that_of_the_held_out_rows_alone(run, tmp_path):
    entropy = unigram_entropy(run, "phase1")
    assert 4.0 < entropy < math.log(TOKENIZER.vocab_size - 4)
    other = make_training_run(tmp_path, held_out={"0-7": 1})
    assert unigram_entropy(other, "phase1") < entropy
    assert unigram_entropy(make_training_run(tmp_path, held_out={}), "phase1") == 0
