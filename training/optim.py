"""AdamW over two groups of parameters: those that decay and those that do not."""

import torch
from torch import nn

from tokenmill.training.config import TrainingConfig


def adamw(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """The optimizer, in its fused form: one kernel for all parameters, on CPU and GPU alike.

    Its learning rate is 0 until `set_learning_rate`.
    """
    everything = config.weight_decay_on == "all"
    decaying = [p for p in model.parameters() if everything or p.dim() >= 2]
    others = [p for p in model.parameters() if not everything and p.dim() < 2]
    groups = [{"params": decaying, "weight_decay": config.weight_decay}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    beta1, beta2 = config.betas
    return torch.optim.AdamW(groups, lr=0.0, betas=(beta1, beta2), eps=config.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step, for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate
