import math
from dataclasses import replace

import pytest
import torch
from loader_runs import ROW_TOKENS
from model_batches import make_batch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from training_runs import ROWS_PER_STEP, make_training_run

from tokenmill.loader import Loader
from tokenmill.training import attention
from tokenmill.training.initialise import initialise
from tokenmill.training.loss import batch_loss, masked_token_loss
from tokenmill.training.model import build_model
from tokenmill.training.presets import encoder_config


def make_model(preset: str = "tiny", **changes):
    model = build_model(encoder_config(preset, {"vocab_size": 100, "pad_id": 0, **changes}), "cpu")
    initialise(model, seed=0)
    return model.eval()


def step_gradient(run, micro_batch_rows):
    """The loss of step 0 and the gradient that it leaves."""
    model = make_model()
    loss = torch.zeros(())
    for batch in Loader(run, "phase1", micro_batch_rows=micro_batch_rows).batch_at(0):
        part = batch_loss(model, batch.to_torch("cpu"), z_loss=0.01)
        part.backward()
        loss += part.detach()
    return loss, [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("compiled", [False, True])
def test_the_loss_is_the_sum_over_slots_in_use(compiled):
    function = masked_token_loss
    if compiled:
        function = torch.compile(masked_token_loss, fullgraph=True, backend="eager")
    logits = torch.tensor([[0.0, 0.0], [9.0, -9.0], [3.0, 3.0]], dtype=torch.bfloat16)
    targets = torch.tensor([1, -100, 0])
    loss = function(logits, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(2 * math.log(2))
    # The denominators are 2 and 2 e^3.
    z = math.log(2) ** 2 + (3 + math.log(2)) ** 2
    assert function(logits, targets, 0.1).item() == pytest.approx(2 * math.log(2) + 0.1 * z)


@pytest.mark.parametrize("micro_batch_rows", [1, 2, 3])
def test_micro_batches_add_up_to_one_large_batch(tmp_path, micro_batch_rows):
    run = make_training_run(tmp_path)
    loss, gradient = step_gradient(run, micro_batch_rows)
    whole_loss, whole_gradient = step_gradient(run, ROWS_PER_STEP)
    assert_close(loss, whole_loss, rtol=1e-6, atol=0)
    for part, whole in zip(gradient, whole_gradient, strict=True):
        assert_close(part, whole, rtol=1e-4, atol=1e-6)


def test_the_first_loss_is_near_that_of_guessing(tmp_path):
    loss, _ = step_gradient(make_training_run(tmp_path), ROWS_PER_STEP)
    assert loss.item() == pytest.approx(math.log(100), abs=1.0)


def test_next_sentences_are_divided_by_the_pairs_of_the_step_and_tokens_by_its_targets():
    model = make_model("bert-base", width=16, heads=2, hidden=16, layers=1, max_positions=16)
    batch = make_batch([5, 6, 4], 100, masked=[1, 7], pairs=True)  # the third slot is no pair
    predictions = model(batch)
    log_shares = predictions.next_sentence.log_softmax(-1)
    pairs = -(log_shares[0, 1] + log_shares[1, 0])
    tokens = masked_token_loss(predictions.logits, predictions.targets)
    loss = batch_loss(model, replace(batch, step_targets=10, step_pairs=4))
    assert_close(loss, tokens / 10 + pairs / 4)


def test_padding_and_unused_slots_do_not_reach_the_gradient(tmp_path):
    (batch,) = Loader(make_training_run(tmp_path), "phase1").batch_at(0)
    batch = batch.to_torch("cpu")
    assert len(batch.input_ids) == ROWS_PER_STEP * ROW_TOKENS
    assert (batch.targets == -100).any()
    results = []
    for pad_id in (0, 50):
        model = make_model()
        ids = torch.where(batch.input_ids == 0, pad_id, batch.input_ids)
        loss = batch_loss(model, replace(batch, input_ids=ids))
        results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for value, other in zip(*results, strict=True):
        assert torch.equal(value, other)


class VarlenCalls(TorchDispatchMode):
    """Sees each call of the GPU's kernel, forward and backward."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "torch_attn":
            self.calls.append((function.__name__, args))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("preset", ["neobert", "modernbert-base", "bert-base"])
def test_a_gpus_step_reads_nothing_back_and_gives_its_kernel_what_it_takes(preset, monkeypatch):
    """The meta device has shapes and no numbers: whoever reads one there gets an error."""
    monkeypatch.setattr(attention, "backend", lambda *_: "varlen")
    shape = {"vocab_size": 100, "pad_id": 0, "width": 32, "heads": 2, "hidden": 48, "layers": 4}
    model = build_model(encoder_config(preset, shape), "meta", torch.bfloat16)
    batch = make_batch([5, 6, 0], 100, masked=[1, 7], unused=1, pairs=True).to("meta")
    with VarlenCalls() as seen:
        batch_loss(model, batch, z_loss=1e-4).backward()
    assert [name for name, _ in seen.calls] == (
        4 * ["_varlen_attn.default"] + 4 * ["_varlen_attn_backward.default"]
    )
    for name, args in seen.calls:
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        query, key, value = tensors[:3] if name == "_varlen_attn.default" else tensors[1:4]
        # flash_api.cpp: 16 bits, heads of a multiple of 8 without gaps, bounds of 32 bits.
        for tensor in (query, key, value):
            assert tensor.dtype == torch.bfloat16
            assert tensor.shape[1:] == (2, 16)
            assert tensor.stride(2) == 1
        bounds = [
            tensor for tensor in tensors if tensor.dim() == 1 and tensor.dtype != torch.uint64
        ]
        assert [(each.dtype, each.shape, each.is_contiguous()) for each in bounds] == (
            2 * [(torch.int32, (4,), True)]
        )
