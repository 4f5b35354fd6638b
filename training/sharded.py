"""Tensors whose rows are dealt to several processes (FSDP2's DTensors), as an optimizer needs them.

What is done to each number alone is done to the part that a process has: on plain tensors torch has
one kernel for many of them, on DTensors it pays tens of microseconds a tensor to find out how. What
needs a whole tensor (a sum, a product of matrices) asks for it here. A tensor that is not sharded
is its own part, and nothing is sent.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Partial, Replicate


def own_parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this process has of each; the same memory, so writing to it writes to the tensor."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]


def gather(part: Tensor, like: Tensor) -> Tensor:
    """The whole tensor of which each process has a part, as it has one of `like`."""
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(
        part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    ).full_tensor()


def own_part(whole: Tensor, like: Tensor) -> Tensor:
    """This process's part of a tensor that every process has; nothing is sent."""
    if not isinstance(like, DTensor):
        return whole
    everywhere = [Replicate()] * like.device_mesh.ndim
    spread = DTensor.from_local(whole, like.device_mesh, everywhere)
    return spread.redistribute(placements=like.placements).to_local()


def sum_over_parts(sums: Tensor, like: Tensor) -> Tensor:
    """What each process has summed up over its parts of tensors sharded as `like`, for the whole
    ones; one exchange for all of `sums`, whatever its shape."""
    if not isinstance(like, DTensor):
        return sums
    placements = [Partial() if p.is_shard() else Replicate() for p in like.placements]
    return DTensor.from_local(sums, like.device_mesh, placements).full_tensor()


def reshard(model: nn.Module) -> None:
    """Let go of whole parameters that FSDP2 still has from a forward pass.

    It keeps those of the root for the backward pass, which evaluation has not; the next forward
    pass would use them, whatever was written to the parts in the meantime.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
