"""The optimizers of a model: which parameter goes to which, at which rate, with which decay.

    adamw           torch's own, fused: one kernel for all parameters
    stable-adamw    stable_adamw.py
    muon            muon.py for the matrices of the layers, adamw for all else

Parameters stand in two groups, those that decay and those that do not. All three multiply decay
with the rate. "schedule" is the other convention, Composer's: p -= share_of_peak * weight_decay *
p; as the share is the rate over its peak, that is the first one with weight_decay / peak.

A step that found_inf marks changes nothing and waits for nothing (see `found_inf.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tokenmill.training.config import TrainingConfig
from tokenmill.training.model import MaskedLanguageModel
from tokenmill.training.muon import Muon
from tokenmill.training.stable_adamw import StableAdamW


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizers:
    """One or two of torch's optimizers, stepped as one."""

    parts: list[torch.optim.Optimizer]
    weight_decay_times: Literal["rate", "schedule"]

    def set_rates(self, learning_rate: float, share_of_peak: float, weight_decay: float) -> None:
        """What holds for the next step.

        Args:
            share_of_peak: learning_rate as a share of the phase's highest, 0 to 1.
            weight_decay: the phase's, of the parameters that decay.
        """
        if self.weight_decay_times == "schedule":
            weight_decay *= share_of_peak / learning_rate if learning_rate else 0.0
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
                group["weight_decay"] = weight_decay if group["decays"] else 0.0

    def step(self, found_inf: Tensor) -> None:
        """Move the parameters against their gradients.

        Args:
            found_inf: () float32 on the parameters' device; 1 changes nothing, be it parameters,
                moments or counts of steps.
        """
        for part in self.parts:
            part.found_inf = found_inf  # type: ignore[attr-defined]
            part.step()

    def zero_grad(self) -> None:
        """Let go of all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)


def build_optimizers(model: MaskedLanguageModel, config: TrainingConfig) -> Optimizers:
    """The optimizers that the settings ask for; their rate is 0 until `set_rates`.

    Args:
        model: sharded already, where it will be.
    """
    params = list(model.parameters())  # a tied decoder's matrix is there once, as the embedding
    beta1, beta2 = config.betas
    adam: dict[str, Any] = {"lr": 0.0, "betas": (beta1, beta2), "eps": config.eps}
    parts: list[torch.optim.Optimizer]
    if config.optimizer == "stable-adamw":
        parts = [StableAdamW(_groups(params, config), **adam)]
    elif config.optimizer == "muon":
        layers = _matrices_of_layers(model)
        ids = {id(param) for group in layers for param in group["params"]}
        others = [param for param in params if id(param) not in ids]
        parts = [
            Muon(layers, lr=0.0, momentum=config.muon_momentum),
            torch.optim.AdamW(_groups(others, config), **adam, fused=True),
        ]
    else:
        parts = [torch.optim.AdamW(_groups(params, config), **adam, fused=True)]
    return Optimizers(parts=parts, weight_decay_times=config.weight_decay_times)


def _matrices_of_layers(model: MaskedLanguageModel) -> list[dict[str, Any]]:
    """Muon's groups; how many matrices a parameter holds is block.py's."""
    groups: dict[tuple[int, int], list[Tensor]] = {}
    for name, param in model.encoder.blocks.named_parameters():
        matrices, runs = 1, 1
        if name.endswith("qkv.weight"):
            is_by_head = model.config.positions == "rotary-interleaved"
            matrices, runs = 3, model.config.heads if is_by_head else 1
        elif name.endswith("ffn_in.weight") and model.config.feed_forward != "gelu":
            matrices = 2
        if param.dim() == 2:
            groups.setdefault((matrices, runs), []).append(param)
    return [
        {"params": params, "matrices": matrices, "runs": runs, "decays": True}
        for (matrices, runs), params in groups.items()
    ]


def _groups(params: Sequence[Tensor], config: TrainingConfig) -> list[dict[str, Any]]:
    """The parameters that decay and those that do not, as far as there are any."""
    everything = config.weight_decay_on == "all"
    decaying = [param for param in params if everything or param.dim() >= 2]
    others = [param for param in params if not everything and param.dim() < 2]
    groups = [{"params": decaying, "decays": True}, {"params": others, "decays": False}]
    return [group for group in groups if group["params"]]
