"""Muon: momentum whose matrix is made orthogonal, so that every direction gets an equal step.

    m += (g - m) * (1 - momentum)
    u  = orthogonal(g + (m - g) * momentum)                     five Newton-Schulz steps in bfloat16
    p -= rate * (0.2 * sqrt(max(rows, columns)) * u + weight_decay * p)

An orthogonal matrix's numbers have the root mean square 1 / sqrt(max(rows, columns)); the factor
makes that 0.2, what AdamW's steps have, so that one learning rate and one decay do for both
(arXiv:2502.16982, section 2.2; torch calls it match_rms_adamw). It is for the matrices of layers;
embeddings, decoder, norms and biases are AdamW's (see `optim.py`).

Query, key and value, which lie in the rows of one parameter, are made orthogonal apart, as
kellerjordan.github.io/posts/muon advises, and so are the two branches of a gated feed-forward
network: the step of one does not depend on the gradients of the others.

torch.optim.Muon computes the same, one parameter after the other and each as one matrix, and has no
way to leave a step out on the device. Here matrices of one shape, such as those of all layers, are
one batched product. The price: 5 * (4 rows^2 columns + 2 rows^3) operations a matrix with rows <=
columns, for NeoBERT 0.3 % of a step of a million tokens, and room for 14 to 18 bytes a number of
the matrices of one shape. Every process orthogonalises every matrix; where rows are sharded they
are gathered first.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from tokenmill.training.found_inf import gradients_to_take
from tokenmill.training.sharded import gather, own_part, own_parts

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that takes singular values to around 1 the fastest; kellerjordan.github.io."""
_STEPS = 5
_EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """For matrices alone; found_inf (float32, 0-dim) leaves a step out."""

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float = 0.0,
    ) -> None:
        """
        Args:
            params: of two dimensions. A group whose parameters hold several matrices says how many
                ("matrices"), and how often its rows go through all of them ("runs"): 3 and 1 for
                all of query, then key, then value; 3 and heads where each head has its three.
            weight_decay: is multiplied with lr.
        """
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "matrices": 1, "runs": 1})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all matrices that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for param in group["params"]:
                if param.grad is not None:
                    by_shape[param.shape].append(param)
            for params in by_shape.values():
                self._step(group, params)

    def _step(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """Move parameters of one shape."""
        weights = own_parts(params)
        means = own_parts(self._mean(param) for param in params)
        gradients, taken = gradients_to_take(params, self.found_inf)
        momentum, rate = group["momentum"], group["lr"] * taken
        torch._foreach_lerp_(means, gradients, [(1 - momentum) * taken] * len(means))
        ahead = torch._foreach_lerp(gradients, means, momentum)
        whole = [gather(m.bfloat16(), like) for m, like in zip(ahead, params, strict=True)]
        apart = torch.unflatten(torch.stack(whole), 1, (group["runs"], group["matrices"], -1))
        apart = apart.transpose(1, 2)  # (parameters, matrices, runs, rows of a run, columns)
        matrices = apart.flatten(2, 3).flatten(0, 1)  # (n, rows, columns)
        moves = orthogonal(matrices).view(apart.shape).transpose(1, 2).flatten(1, 3)
        parts = [own_part(m, like).float() for m, like in zip(moves, params, strict=True)]
        torch._foreach_mul_(weights, 1 - rate * group["weight_decay"])
        torch._foreach_mul_(parts, rate * 0.2 * math.sqrt(max(matrices.shape[1:])))
        torch._foreach_sub_(weights, parts)

    def _mean(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(param)
        mean: Tensor = state["momentum_buffer"]
        return mean


def orthogonal(matrices: Tensor) -> Tensor:
    """Each matrix with its singular values moved to around 1, between 0.7 and 1.2.

    Args:
        matrices: (n, rows, columns) in bfloat16.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_EPS)
    a, b, c = _COEFFICIENTS
    for _ in range(_STEPS):
        gram = x @ x.mT  # (n, rows, rows), of the shorter side
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x
