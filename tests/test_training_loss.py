import math
from dataclasses import replace

import pytest
import torch
from loader_runs import ROW_TOKENS
from training_runs import ROWS_PER_STEP, make_training_run

from tokenmill.loader import Loader
from tokenmill.training.config import TrainingConfig
from tokenmill.training.loss import backward, masked_token_loss
from tokenmill.training.optim import adamw, set_learning_rate
from tokenmill.training.presets import build


def step_gradient(run, micro_batch_rows):
    """The loss of step 0 and the gradient that it leaves."""
    model = build("tiny", "cpu", vocab_size=100)
    model.initialise(seed=0)
    loader = Loader(run, "phase1", micro_batch_rows=micro_batch_rows)
    batches = [batch.to_torch("cpu") for batch in loader.batch_at(0)]
    loss = backward(model, batches)
    return loss, [parameter.grad for parameter in model.parameters()]


def test_the_loss_is_the_sum_over_slots_in_use():
    logits = torch.tensor([[0.0, 0.0], [9.0, -9.0], [3.0, 3.0]], dtype=torch.bfloat16)
    loss = masked_token_loss(logits, torch.tensor([1, -100, 0]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(2 * 0.693147, abs=1e-5)


@pytest.mark.parametrize("micro_batch_rows", [1, 2, 3])
def test_micro_batches_add_up_to_one_large_batch(tmp_path, micro_batch_rows):
    run = make_training_run(tmp_path)
    loss, gradient = step_gradient(run, micro_batch_rows)
    whole_loss, whole_gradient = step_gradient(run, ROWS_PER_STEP)
    torch.testing.assert_close(loss, whole_loss, rtol=1e-6, atol=0)
    for part, whole in zip(gradient, whole_gradient, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-6)


def test_the_first_loss_is_near_that_of_guessing(tmp_path):
    loss, _ = step_gradient(make_training_run(tmp_path), ROWS_PER_STEP)
    assert loss.item() == pytest.approx(math.log(100), abs=1.0)


def test_padding_and_unused_slots_do_not_reach_the_gradient(tmp_path):
    loader = Loader(make_training_run(tmp_path), "phase1")
    (batch,) = loader.batch_at(0)
    batch = batch.to_torch("cpu")
    assert len(batch.input_ids) == ROWS_PER_STEP * ROW_TOKENS
    assert (batch.targets == -100).any()
    losses = []
    for pad_id in (0, 50):
        model = build("tiny", "cpu", vocab_size=100)
        model.initialise(seed=0)
        ids = torch.where(batch.input_ids == 0, pad_id, batch.input_ids)
        losses.append(backward(model, [replace(batch, input_ids=ids)]))
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("where", "decays"), [("matrices", False), ("all", True)])
def test_weight_decay_reaches_norms_only_where_it_is_told_to(where, decays):
    config = TrainingConfig(
        preset="tiny", micro_batch_tokens=64, weight_decay=0.5, weight_decay_on=where
    )
    model = build("tiny", "cpu", vocab_size=10)
    model.initialise(seed=0)
    optimizer = adamw(model, config)
    set_learning_rate(optimizer, 0.1)
    before = model.decoder.weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(model.decoder.weight, before * 0.95)
    assert torch.all(model.encoder.norm.weight == (0.95 if decays else 1.0))
