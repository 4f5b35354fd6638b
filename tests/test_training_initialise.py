"""First weights: each recipe's own distribution, the same for the same seed."""

import math

import pytest
import torch

from tokenmill.training.initialise import initialise
from tokenmill.training.model import build_model
from tokenmill.training.presets import encoder_config

SIZES = {"vocab_size": 399, "pad_id": 7, "width": 128, "heads": 2, "hidden": 128, "layers": 4}
R = 0.02
# Of a normal distribution, 4.55 % lie beyond two deviations; without them 0.88 of it are left.
UNIFORM = {"deviation": R / math.sqrt(3), "beyond": 0.0, "largest": R}
NORMAL = {"deviation": R, "beyond": 0.0455, "largest": math.inf}
TRUNCATED = {"deviation": 0.88 * R, "beyond": 0.0, "largest": 2 * R}


def first_weights(preset, seed=0):
    model = build_model(encoder_config(preset, SIZES), "cpu")
    initialise(model, seed)
    return dict(model.named_parameters())


def test_they_depend_on_the_seed_alone():
    weights = [torch.cat([w.flatten() for w in first_weights("neobert", seed).values()])
               for seed in (3, 3, 4)]  # fmt: skip
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("preset", "expected", "into_residual"),
    [
        ("neobert", UNIFORM, 1.0),
        ("bert-base", TRUNCATED, 1.0),
        ("roberta-base", NORMAL, 1.0),
        ("modernbert-base", TRUNCATED, 1 / math.sqrt(2 * 4)),
    ],
)
def test_every_matrix_has_its_recipes_distribution(preset, expected, into_residual):
    for name, weight in first_weights(preset).items():
        if weight.dim() == 2 and weight.numel() > 10_000:  # not the two rows of a head
            scale = into_residual if name.endswith(("wo.weight", "ffn_out.weight")) else 1.0
            assert weight.std().item() == pytest.approx(expected["deviation"] * scale, rel=0.03)
            assert weight.abs().max() <= expected["largest"] * scale
            beyond = (weight.abs() > 2 * R * scale).float().mean().item()
            assert beyond == pytest.approx(expected["beyond"], rel=0.15)


@pytest.mark.parametrize(
    ("preset", "is_zero"),
    [("neobert", False), ("bert-base", False), ("roberta-base", True), ("modernbert-base", False)],
)
def test_paddings_row_is_0_where_the_recipes_code_sets_it(preset, is_zero):
    row = first_weights(preset)["encoder.embeddings.tokens.weight"][SIZES["pad_id"]]
    assert (row == 0).all() == is_zero


@pytest.mark.parametrize("preset", ["neobert", "bert-base", "roberta-base", "modernbert-base"])
def test_norms_begin_as_1_and_biases_as_0(preset):
    for name, vector in first_weights(preset).items():
        if vector.dim() == 1:
            assert (vector == float(name.endswith("norm.weight"))).all(), name
