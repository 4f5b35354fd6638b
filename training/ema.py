"""An exponential mean of the weights: what is evaluated and exported, never trained on.

    mean += (weight - mean) * (1 - decay)      after each step that was taken

It begins as the weights at its making, which after t steps still are decay**t of it: with 0.999 a
hundredth after 4,600 steps. It costs 4 bytes a parameter, sharded as the parameters are, and one
pass over them a step. A step that was left out leaves it alone too, and nothing is read from the
device.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tokenmill.training.sharded import own_parts, reshard


class Ema:
    """The means of all parameters of a model, by their names."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """
        Args:
            model: with its first weights, sharded already, where it will be.
            decay: what the mean keeps of itself a step, between 0 and 1.
        """
        self._model = model
        self._decay = decay
        self._params = dict(model.named_parameters())
        self._means = {name: param.detach().clone() for name, param in self._params.items()}

    @torch.no_grad()
    def update(self, found_inf: Tensor) -> None:
        """Take in the weights after a step.

        Args:
            found_inf: () float32; 1 where the step was left out.
        """
        means, weights = own_parts(self._means.values()), own_parts(self._params.values())
        share = (1 - self._decay) * (1 - found_inf)
        torch._foreach_lerp_(means, weights, [share] * len(means))

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """The means are the model's weights inside; behind it its own are back, to the bit."""
        weights = [param.detach().clone() for param in self._params.values()]
        self._write(self._means.values())
        try:
            yield
        finally:
            self._write(weights)

    @torch.no_grad()
    def _write(self, values: Iterable[Tensor]) -> None:
        reshard(self._model)
        torch._foreach_copy_(own_parts(self._params.values()), own_parts(values))

    def state_dict(self) -> dict[str, Tensor]:
        """The means themselves by the parameters' names, sharded as these are; `state.py` loads a
        checkpoint by writing to them."""
        return dict(self._means)
