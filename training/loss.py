"""The masked-language-modelling loss: a sum over masked tokens, divided by the step's number.

Every micro-batch divides by `step_targets`, the masked tokens of the whole step over all ranks. So
the gradients of micro-batches and ranks add up to that of one large batch, however it was cut; a
mean for each micro-batch would weigh a masked token by its neighbours.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmill.loader import TorchBatch
from tokenmill.loader.masking import NO_TARGET


def masked_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The cross entropy in nats, summed over the slots in use; in 32 bits whatever the logits are.

    Args:
        logits: (slots, vocab_size).
        targets: (slots,) the true ids, NO_TARGET where a slot holds none.
    """
    return F.cross_entropy(logits.float(), targets, ignore_index=NO_TARGET, reduction="sum")


def batch_loss(model: nn.Module, batch: TorchBatch) -> Tensor:
    """The summed loss of a micro-batch's masked tokens, in nats."""
    logits = model(
        batch.input_ids,
        batch.position_ids,
        batch.cu_seqlens,
        batch.max_length,
        batch.masked_positions,
    )
    return masked_token_loss(logits, batch.targets)


def backward(model: nn.Module, batches: Iterable[TorchBatch]) -> Tensor:
    """Add the gradient of a step to the parameters, one micro-batch after the other.

    Returns:
        The step's loss in nats a masked token, on the device.
    """
    parts = []
    for batch in batches:
        part = batch_loss(model, batch) / max(batch.step_targets, 1)
        torch.autograd.backward(part)
        parts.append(part.detach())
    return torch.stack(parts).sum()
