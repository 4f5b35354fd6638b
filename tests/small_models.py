"""Small encoders of every kind of layer."""

import torch

from tokenmill.training.encoder_config import EncoderConfig
from tokenmill.training.initialise import initialise
from tokenmill.training.model import build_model
from tokenmill.training.presets import encoder_config

VOCAB = 50

SMALL = {"vocab_size": VOCAB, "width": 16, "heads": 2, "hidden": 24, "pad_id": 0, "init_range": 0.3}

KINDS = {
    "neobert": encoder_config("neobert", {**SMALL, "layers": 2}),
    "modernbert": encoder_config(
        "modernbert-base", {**SMALL, "layers": 4, "window": 2, "attention_dropout": 0.0}
    ),
    "bert": encoder_config(
        "bert-base", {**SMALL, "layers": 2, "max_positions": 16, "dropout": 0.0}
    ),
    "roberta": encoder_config(
        "roberta-base", {**SMALL, "layers": 2, "max_positions": 18, "dropout": 0.0}
    ),
}
"""Every kind of layer, small, and without dropout."""


def make_model(config: EncoderConfig, dtype: torch.dtype = torch.float64, **options):
    model = build_model(config, "cpu", dtype, **options)
    initialise(model, seed=0)
    return model
