"""The mean of several checkpoints' weights.

ModernBERT-base is the mean of its last checkpoint and the three best while its rate fell
(arXiv:2412.13663, appendix A.4). Sums are in 64 bits, one tensor at a time; checkpoints are mapped
from their files, so memory holds the mean and little else.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tokenmill.errors import RecipeError


def mean_weights(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The uniform mean of each tensor, as float32; of a single state its own numbers.

    Raises:
        RecipeError: the states hold tensors of other names or shapes.
    """
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    for number, other in enumerate(shapes):
        if other != shapes[0]:
            raise RecipeError(
                f"checkpoint {number + 1} of {len(states)}: other tensors than in the first. Only "
                "checkpoints of one model have a mean."
            )
    mean = {}
    for name, shape in shapes[0].items():
        total = torch.zeros(shape, dtype=torch.float64)
        for state in states:
            total += state[name]
        mean[name] = (total / len(states)).float()
    return mean
