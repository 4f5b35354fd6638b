"""StableAdamW: AdamW whose steps shrink where a tensor's second moment lags behind its gradient.

    m += (g - m) * share(beta1)        share(beta) = (1 - beta) / (1 - beta^t), so that m and v are
    v += (g^2 - v) * share(beta2)      weighted means from the first step on
    rms = sqrt(mean(g^2 / max(v, eps^2)))                          of each tensor
    p -= rate / max(1, rms) * (m / (sqrt(v) + eps) + weight_decay * p)

The clipping is Adafactor's: where gradients suddenly grow, v is too small and AdamW's step too
long; rms says how much. It takes the place of clipping the gradient's length (ModernBERT does
without). Source: arXiv:2304.13013, algorithm 2, as optimi has it (warner-benjamin/optimi,
stableadamw.py), which trained ModernBERT: the decay shrinks along with the step.

Each step reads and writes its numbers four times as often as torch's fused AdamW, which is one
kernel, and needs room for two more copies of the gradient, which itself is used up. Nothing is read
from the device.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from tokenmill.training.found_inf import gradients_to_take
from tokenmill.training.sharded import own_parts, sum_over_parts


class StableAdamW(torch.optim.Optimizer):
    """Settings and state are AdamW's of torch; found_inf (float32, 0-dim) leaves a step out."""

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float = 0.0,
    ) -> None:
        """
        Args:
            eps: above 0; a second moment below its square counts as that in rms.
            weight_decay: is multiplied with lr.
        """
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._step(group, params)

    def _step(self, group: dict[str, Any], params: list[Tensor]) -> None:
        states = [self._state(param) for param in params]
        steps = [state["step"] for state in states]
        weights = own_parts(params)
        means = own_parts(state["exp_avg"] for state in states)
        squares = own_parts(state["exp_avg_sq"] for state in states)
        gradients, taken = gradients_to_take(params, self.found_inf)

        # Each parameter has a count of its own: one without a gradient, as BERT's pooler in a phase
        # without pairs, stands still.
        now = torch.stack(steps) + 1  # (parameters,)
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(means, gradients, (newest_share(beta1, now) * taken).unbind())
        roots = torch._foreach_mul(gradients, gradients)
        torch._foreach_lerp_(squares, roots, (newest_share(beta2, now) * taken).unbind())
        torch._foreach_copy_(roots, squares)
        torch._foreach_sqrt_(roots)

        torch._foreach_div_(gradients, torch._foreach_clamp_min(roots, group["eps"]))
        norms = torch._foreach_norm(gradients)
        torch._foreach_div_(norms, [math.sqrt(param.numel()) for param in params])
        rms = sum_over_parts(torch.stack(norms).square(), params[0]).sqrt()
        rates = group["lr"] * taken / rms.clamp(min=1)  # (parameters,)

        torch._foreach_add_(roots, group["eps"])
        moves = torch._foreach_div(means, roots)
        if group["weight_decay"]:
            torch._foreach_add_(moves, weights, alpha=group["weight_decay"])
        torch._foreach_mul_(moves, rates.unbind())
        torch._foreach_sub_(weights, moves)
        torch._foreach_add_(steps, [taken] * len(steps))

    def _state(self, param: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[param]
        if not state:
            state["step"] = torch.zeros((), device=param.device)
            state["exp_avg"] = torch.zeros_like(param)
            state["exp_avg_sq"] = torch.zeros_like(param)
        return state


def newest_share(beta: float, steps: Tensor) -> Tensor:
    """How much of a mean that keeps `beta` a step the newest value is, after so many of them, if
    all shares are to add up to 1."""
    # In 64 bits: 1 - beta^t cancels.
    return ((1 - beta) / (1 - beta ** steps.double())).float()
