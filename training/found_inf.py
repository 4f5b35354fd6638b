"""Steps that are left out on the device, so that nobody waits to hear whether a number is finite.

`found_inf` is the hook that torch's fused AdamW has for its GradScaler: () float32 on the device, 1
where the step is to change nothing, neither parameters nor moments nor counts of steps. Optimizers
of ours have it as an attribute of the same name.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenmill.training.sharded import own_parts


def gradients_to_take(
    params: Sequence[Tensor], found_inf: Tensor | None
) -> tuple[list[Tensor], Tensor]:
    """This process's parts of gradients, and () 1 where they are to be taken, else 0.

    Where they are not, they are set to 0, in place: 0 times what is no number would be none either.
    """
    gradients = own_parts(param.grad for param in params if param.grad is not None)
    taken = torch.ones((), device=gradients[0].device)
    if found_inf is not None:
        taken -= found_inf
        left_out = found_inf > 0
        for gradient in gradients:
            gradient.masked_fill_(left_out, 0.0)
    return gradients, taken
