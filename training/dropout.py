"""Dropout that a resumed run repeats: its seed is a function of where training stands.

No random state belongs to a checkpoint. Before each micro-batch the process-wide generator is
seeded, so a step drops the same numbers whether or not training was interrupted before it. Another
world size or micro-batch cuts the step otherwise and drops others; so does another kind of device,
and compiled code. Only BERT, RoBERTa and ModernBERT have dropout.
"""

import torch

from tokenmill.loader.keys import derive_key
from tokenmill.training.encoder_config import EncoderConfig


def has_dropout(config: EncoderConfig) -> bool:
    """Whether anything is dropped in training."""
    return config.dropout > 0 or (config.attention_dropout or 0) > 0


def seed_dropout(seed: int, step: int, micro_batch: int, rank: int) -> None:
    """Set torch's generators on all devices; waits for none."""
    torch.manual_seed(derive_key(seed, "dropout", step, micro_batch, rank))
