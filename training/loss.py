"""The masked-language-modelling loss: a sum over masked tokens, divided by the step's number.

Every micro-batch divides by `step_targets`, the masked tokens of the whole step over all ranks. So
the gradients of micro-batches and ranks add up to that of one large batch, however it was cut; a
mean for each micro-batch would weigh a masked token by its neighbours.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmill.loader import TorchBatch
from tokenmill.loader.masking import NO_TARGET


def batch_loss(
    model: nn.Module, batch: TorchBatch, z_loss: float = 0.0, *, compiled: bool = False
) -> Tensor:
    """A micro-batch's part of the step's loss, in nats: what backward is called on.

    Args:
        model: a MaskedLanguageModel, or what wraps one.
        z_loss: the weight of `masked_token_loss`'s second term.
        compiled: compile the loss too, which reads 16-bit logits without a copy of them in 32.
    """
    predictions = model(batch)
    token_loss = _compiled(masked_token_loss) if compiled else masked_token_loss
    loss = token_loss(predictions.logits, predictions.targets, z_loss) / max(batch.step_targets, 1)
    if predictions.next_sentence is not None and batch.next_sentence is not None:
        pairs = pair_loss(predictions.next_sentence, batch.next_sentence)
        loss = loss + pairs / max(batch.step_pairs, 1)
    return loss


def masked_token_loss(logits: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
    """The cross entropy in nats, summed over the slots in use; in 32 bits whatever the logits are.

    Args:
        logits: (slots, vocab_size).
        targets: (slots,) the true ids, NO_TARGET where a slot holds none.
        z_loss: adds this times the square of the logarithm of the softmax's denominator, which
            keeps logits from drifting (arXiv:2204.02311, section 5, has 1e-4).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(logits, targets, ignore_index=NO_TARGET, reduction="sum")
    if z_loss:
        denominators = logits.logsumexp(dim=-1)  # (slots,)
        loss = loss + z_loss * (denominators.square() * (targets != NO_TARGET)).sum()
    return loss


def pair_loss(logits: Tensor, next_sentence: Tensor) -> Tensor:
    """The cross entropy in nats of BERT's second objective, summed over pairs.

    Args:
        logits: (sequences, 2).
        next_sentence: (sequences,) the batch's: 0 or 1, NO_TARGET where a slot holds no pair.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, next_sentence, ignore_index=NO_TARGET, reduction="sum")


@cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(function, fullgraph=True, dynamic=False)
