"""Whole tensors out of any layout and into any other; `state_ranks.py` has the checks of ranks."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from state_ranks import Learner, differing

from tokenmill.errors import ResumeError
from tokenmill.training.state import Tensors, full_state, load_full_state

PARTS = ("model", "optimizer", "ema")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def trained(request):
    learner = Learner("muon", device=request.param)
    learner.step(0)
    return learner


def test_what_several_processes_share_is_saved_and_loaded_in_every_layout_and_alone(tmp_path):
    script = Path(__file__).with_name("state_ranks.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    saved = Tensors(**torch.load(tmp_path / "muon.pt"))
    alone = Learner("muon", seed=1)
    load_full_state(saved, *alone.parts)
    assert not list(differing(full_state(*alone.parts), saved))


def test_a_state_shares_no_memory_with_training(trained):
    saved = full_state(*trained.parts)
    kept = Tensors(
        **{part: {n: t.clone() for n, t in getattr(saved, part).items()} for part in PARTS}
    )
    load_full_state(saved, *trained.parts)
    trained.step(1)
    assert not list(differing(saved, kept))


def test_moments_are_named_by_parameter_and_hold_one_tensor_each(trained):
    saved = full_state(*trained.parts)
    assert saved.model.keys() == saved.ema.keys() == dict(trained.model.named_parameters()).keys()
    assert sorted(name for name in saved.optimizer if "weight" in name) == [
        "decoder.weight.exp_avg",
        "decoder.weight.exp_avg_sq",
        "decoder.weight.step",
        "encoder.blocks.0.weight.momentum_buffer",
    ]


def test_a_parameter_that_no_loss_has_reached_yet_has_no_moments():
    learner = Learner("adamw")
    for parameter in learner.model.encoder.parameters():
        parameter.grad = torch.ones_like(parameter)
    learner.optimizers.step(torch.zeros(()))
    saved = full_state(*learner.parts)
    assert not any(name.startswith("decoder") for name in saved.optimizer)
    other = Learner("adamw")
    other.step(0)
    load_full_state(saved, *other.parts)
    assert not list(differing(full_state(*other.parts), saved))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.model.pop("decoder.bias"),
            r"model decoder.bias, expected shape \(3,\), found none",
        ),
        (lambda s: s.ema.clear(), "ema encoder.blocks.0.weight, expected .*, found none"),
        (
            lambda s: s.optimizer.update({"pooler.weight.step": torch.ones(())}),
            r"optimizer pooler.weight.step, expected none, found shape \(\)",
        ),
    ],
)
def test_the_tensors_of_another_model_are_refused_by_name(trained, change, message):
    saved = full_state(*trained.parts)
    change(saved)
    with pytest.raises(ResumeError, match=message):
        load_full_state(saved, *trained.parts)
