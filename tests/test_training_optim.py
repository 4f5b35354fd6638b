"""Optimizers: each against its formulae in 64 bits and torch's own; which parameter goes to which;
steps that are left out; nothing that waits for a device."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from tokenmill.training.block import split_qkv
from tokenmill.training.config import TrainingConfig
from tokenmill.training.ema import Ema
from tokenmill.training.initialise import initialise
from tokenmill.training.model import build_model
from tokenmill.training.muon import Muon, orthogonal
from tokenmill.training.optim import build_optimizers
from tokenmill.training.presets import encoder_config
from tokenmill.training.stable_adamw import StableAdamW

OPTIMIZERS = ["adamw", "stable-adamw", "muon"]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]
RATE, DECAY, BETA1, BETA2, EPS, MOMENTUM = 0.01, 0.1, 0.9, 0.95, 1e-8, 0.95
TAKEN, LEFT_OUT = torch.tensor(0.0), torch.tensor(1.0)


class Toy(nn.Module):
    """The names of a model, and every kind of parameter that one has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Module()
        self.encoder.embedding = nn.Embedding(7, 4)
        self.encoder.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 4)) for _ in range(2)
        )
        self.decoder = nn.Linear(4, 7)
        self.decoder.weight = self.encoder.embedding.weight

    def forward(self, x):
        for block in self.encoder.blocks:
            x = block(x)
        return self.decoder(x)


def settings(optimizer="adamw", **changes):
    return TrainingConfig(
        preset="tiny",
        micro_batch_tokens=64,
        optimizer=optimizer,
        betas=(BETA1, BETA2),
        eps=EPS,
        muon_momentum=MOMENTUM,
        **changes,
    )


def gradients_of(index, shape, num_steps=20):
    """A parameter's: normal numbers, a hundred times as large from the eighth step on."""
    random = np.random.default_rng(index)
    return [random.standard_normal(shape) * (100 if t > 7 else 1) for t in range(1, num_steps + 1)]


def adamw_of(p, gradients):
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients, start=1):
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g**2
        denominator = np.sqrt(v / (1 - BETA2**t)) + EPS
        p = p - RATE * DECAY * p - RATE * m / (1 - BETA1**t) / denominator
    return p


def stable_adamw_of(p, gradients):
    """optimi's: betas that are debiased, one rate for step and decay."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients, start=1):
        beta1 = BETA1 * (1 - BETA1 ** (t - 1)) / (1 - BETA1**t)
        beta2 = BETA2 * (1 - BETA2 ** (t - 1)) / (1 - BETA2**t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        rms = np.sqrt(np.mean(g**2 / np.maximum(v, EPS**2)))
        rate = RATE / max(1, rms)
        p = p * (1 - rate * DECAY) - rate * m / (np.sqrt(v) + EPS)
    return p


def muon_of(p, gradients):
    m = np.zeros_like(p)
    for g in gradients:
        m = MOMENTUM * m + (1 - MOMENTUM) * g
        x = MOMENTUM * m + (1 - MOMENTUM) * g
        x = x.T if len(x) > len(x.T) else x
        x = x / np.linalg.norm(x)
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        x = x if x.shape == p.shape else x.T
        p = p * (1 - RATE * DECAY) - RATE * 0.2 * math.sqrt(max(p.shape)) * x
    return p


def stepped(make, shapes, device="cpu", num_steps=20):
    """Parameters after steps of an optimizer that `make` gives for them, and what they were."""
    random = np.random.default_rng(7)
    begin = [random.standard_normal(shape) for shape in shapes]
    params = [nn.Parameter(torch.tensor(p, device=device, dtype=torch.float32)) for p in begin]
    optimizer = make(params)
    gradients = [gradients_of(i, shape, num_steps) for i, shape in enumerate(shapes)]
    for step in range(num_steps):
        for param, own in zip(params, gradients, strict=True):
            param.grad = torch.tensor(own[step], device=device, dtype=torch.float32)
        optimizer.step()
    return [param.detach().cpu() for param in params], begin


def stable_adamw(params):
    return StableAdamW(params, lr=RATE, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY)


def muon(params):
    return Muon(params, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_steps", [1, 20])
@pytest.mark.parametrize(
    ("make", "formulae", "tolerance"),
    [
        (
            lambda params: torch.optim.AdamW(
                params, RATE, (BETA1, BETA2), EPS, DECAY, fused=True
            ),
            adamw_of,
            1e-6,
        ),
        (stable_adamw, stable_adamw_of, 1e-6),
        # Newton-Schulz is in bfloat16, of 8 bits.
        (muon, muon_of, 2e-3),
    ],
)  # fmt: skip
def test_optimizers_do_what_their_formulae_say(make, formulae, tolerance, num_steps, device):
    shapes = [(3, 8), (8, 3), (3, 8)] + ([(5,), (1,)] if formulae is not muon_of else [])
    found, begin = stepped(make, shapes, device, num_steps)
    for i, (p, first, shape) in enumerate(zip(found, begin, shapes, strict=True)):
        expected = formulae(first, gradients_of(i, shape, num_steps))
        assert_close(p.double(), torch.tensor(expected), rtol=0, atol=tolerance)


def test_muon_is_torchs_own():
    shapes = [(3, 8), (8, 3), (3, 8)]
    ours, _ = stepped(muon, shapes)
    torchs, _ = stepped(
        lambda params: torch.optim.Muon(
            params, RATE, DECAY, MOMENTUM, adjust_lr_fn="match_rms_adamw"
        ),
        shapes,
    )
    assert_close(ours, torchs, rtol=0, atol=5e-4)


def test_stable_adamw_is_adamw_with_shorter_steps_where_gradients_grow():
    calm, _ = stepped(stable_adamw, [(4, 5)], num_steps=1)
    adamw, _ = stepped(
        lambda params: torch.optim.AdamW(params, RATE, (BETA1, BETA2), EPS, DECAY),
        [(4, 5)],
        num_steps=1,
    )
    assert_close(calm, adamw)  # rms is 1 at the first step
    assert not torch.allclose(
        stepped(stable_adamw, [(4, 5)], num_steps=8)[0][0], adamw[0], atol=1e-4
    )


def test_orthogonal_moves_singular_values_to_around_1():
    random = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 16, 40, generator=random)
    for x in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonal(x.bfloat16()).float())
        assert 0.6 < values.min() < values.max() < 1.3


def names_of(model, params):
    names = {id(param): name for name, param in model.named_parameters()}
    return [names[id(param)] for param in params]


LAYERS = ["0.0.weight", "0.2.weight", "1.0.weight", "1.2.weight"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("decays", ["matrices", "all"])
def test_every_parameter_has_one_optimizer_and_decays_as_it_is_told_to(optimizer, decays):
    model = Toy()
    optimizers = build_optimizers(model, settings(optimizer, weight_decay_on=decays))
    optimizers.set_rates(RATE, 1.0, DECAY)
    groups = [group for part in optimizers.parts for group in part.param_groups]
    found = [name for group in groups for name in names_of(model, group["params"])]
    assert sorted(found) == sorted(name for name, _ in model.named_parameters())
    decaying = {
        name
        for group in groups
        if group["weight_decay"] == DECAY
        for name in names_of(model, group["params"])
    }
    matrices = {"encoder.embedding.weight", *(f"encoder.blocks.{name}" for name in LAYERS)}
    assert decaying == (set(found) if decays == "all" else matrices)
    assert {group["lr"] for group in groups} == {RATE}


def test_muon_takes_the_matrices_of_layers_and_nothing_else():
    model = Toy()
    layers, rest = build_optimizers(model, settings("muon")).parts
    found = [n for group in layers.param_groups for n in names_of(model, group["params"])]
    assert found == [f"encoder.blocks.{name}" for name in LAYERS]
    assert isinstance(rest, torch.optim.AdamW)


@pytest.mark.parametrize("preset", ["neobert", "modernbert-base", "bert-base"])
def test_muon_makes_every_matrix_of_a_layer_orthogonal_by_itself(preset):
    shape = {"vocab_size": 9, "pad_id": 0, "width": 16, "heads": 2, "layers": 1, "hidden": 24}
    model = build_model(encoder_config(preset, shape), "cpu")
    initialise(model, seed=0)
    block, config = model.encoder.blocks[0], model.config
    weights = [block.qkv.weight, block.wo.weight, block.ffn_in.weight, block.ffn_out.weight]
    for index, weight in enumerate(weights):
        (gradient,) = gradients_of(index, weight.shape, num_steps=1)
        gradient[: len(gradient) // 3] *= 100  # the query's, or some of it
        weight.grad = torch.tensor(gradient, dtype=torch.float32)

    def matrices(values):
        qkv, wo, ffn_in, ffn_out = values
        branches = [ffn_in] if config.feed_forward == "gelu" else ffn_in.chunk(2)
        return [*split_qkv(qkv, config).flatten(1, 2), wo, *branches, ffn_out]

    pairs = zip(matrices(weights), matrices([weight.grad for weight in weights]), strict=True)
    expected = [muon_of(p.detach().double().numpy(), [g.double().numpy()]) for p, g in pairs]
    optimizers = build_optimizers(model, settings("muon"))
    optimizers.set_rates(RATE, 1.0, DECAY)
    optimizers.step(TAKEN)
    for found, theirs in zip(matrices(weights), expected, strict=True):
        assert_close(found.detach().double(), torch.tensor(theirs), rtol=0, atol=2e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("times", "share"), [("rate", RATE * DECAY), ("schedule", 0.25 * DECAY)])
def test_decay_is_multiplied_with_the_rate_or_with_its_share_of_the_peak(optimizer, times, share):
    model = Toy()
    before = model.encoder.embedding.weight.detach().clone()
    layer = model.encoder.blocks[0][0].weight.detach().clone()
    optimizers = build_optimizers(model, settings(optimizer, weight_decay_times=times))
    optimizers.set_rates(0.0, 0.0, DECAY)  # the first step of a warm-up may have none
    optimizers.set_rates(RATE, 0.25, DECAY)
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    optimizers.step(TAKEN)
    assert_close(model.encoder.embedding.weight.detach(), before * (1 - share))
    assert_close(model.encoder.blocks[0][0].weight.detach(), layer * (1 - share))


def train(model, optimizers, ema, gradients, found_inf=TAKEN):
    """A step whose gradient is `gradients` everywhere."""
    random = torch.Generator().manual_seed(gradients)
    for param in model.parameters():
        param.grad = torch.randn(param.shape, generator=random)
        if found_inf:
            param.grad.fill_(math.nan)
    optimizers.set_rates(RATE, 1.0, DECAY)
    optimizers.step(found_inf)
    optimizers.zero_grad()
    ema.update(found_inf)


def everything(model, optimizers, ema):
    """All that a step changes."""
    state = [part.state_dict()["state"] for part in optimizers.parts]
    return [dict(model.named_parameters()), state, ema.state_dict()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("left_out", [[0], [2], [1, 2, 4], [4]])
def test_a_step_that_is_left_out_changes_nothing_to_the_bit(optimizer, left_out):
    runs = []
    for steps in (range(5), [step for step in range(5) if step not in left_out]):
        model = Toy()
        optimizers = build_optimizers(model, settings(optimizer))
        ema = Ema(model, 0.5)
        for step in steps:
            is_bad = len(steps) == 5 and step in left_out
            train(model, optimizers, ema, step, LEFT_OUT if is_bad else TAKEN)
        runs.append(everything(model, optimizers, ema))
    assert_close(runs[0], runs[1], rtol=0, atol=0)
    assert all(param.grad is None for param in model.parameters())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_torchs_state_dict_takes_an_optimizer_to_another_process(optimizer):
    model = Toy()
    optimizers, ema = build_optimizers(model, settings(optimizer)), Ema(model, 0.5)
    train(model, optimizers, ema, 0)
    other = copy.deepcopy(model)
    others = build_optimizers(other, settings(optimizer))
    for part, old in zip(others.parts, optimizers.parts, strict=True):
        part.load_state_dict(copy.deepcopy(old.state_dict()))
    for step in (1, 2):
        train(model, optimizers, ema, step)
        train(other, others, ema, step)
    assert_close(everything(model, optimizers, ema)[:2], everything(other, others, ema)[:2],
                 rtol=0, atol=0)  # fmt: skip


@pytest.mark.parametrize("make", [stable_adamw, muon])
def test_a_parameter_that_no_loss_reaches_stands_still_and_has_its_own_count(make):
    late, always = (nn.Parameter(torch.full((3, 4), value)) for value in (1.0, 2.0))
    apart = [nn.Parameter(late.detach().clone()), nn.Parameter(always.detach().clone())]
    optimizer, *others = make([late, always]), *(make([param]) for param in apart)
    random = torch.Generator().manual_seed(0)
    for step, gradients in enumerate(torch.randn(6, 2, 3, 4, generator=random)):
        reached = [step >= 4, True]
        for param, gradient, is_reached in zip([late, always], gradients, reached, strict=True):
            param.grad = gradient.clone() if is_reached else None
        optimizer.step()
        for param, gradient, is_reached, its in zip(apart, gradients, reached, others, strict=True):
            if is_reached:
                param.grad = gradient.clone()
                its.step()
    assert_close([late, always], apart)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_step_reads_from_the_device(optimizer):
    """A fake tensor holds no numbers: whoever asks it for one gets an error."""
    with FakeTensorMode():
        model = Toy()
        optimizers, ema = build_optimizers(model, settings(optimizer)), Ema(model, 0.5)
        optimizers.set_rates(RATE, 1.0, DECAY)
        for _ in range(2):
            for param in model.parameters():
                param.grad = torch.ones_like(param)
            found_inf = torch.zeros(())
            optimizers.step(found_inf)
            ema.update(found_inf)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_step_waits_for_a_gpu(optimizer):
    model = Toy().cuda()
    optimizers, ema = build_optimizers(model, settings(optimizer)), Ema(model, 0.5)
    found_inf = torch.zeros((), device="cuda")
    for step in range(3):
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        optimizers.set_rates(RATE, 1.0, DECAY)
        torch.cuda.set_sync_debug_mode("error" if step else "default")  # the first makes kernels
        try:
            optimizers.step(found_inf)
            optimizers.zero_grad()
            ema.update(found_inf)
        finally:
            torch.cuda.set_sync_debug_mode("default")
