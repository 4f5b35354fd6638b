"""Weights, moments and means as whole tensors: out of any layout, and into any other.

A run may be saved by eight processes that shard and go on with one, or the other way round. So a
checkpoint holds whole tensors by name, and this file knows how they lie on the devices: alike on
all, or their rows dealt to some of them (FSDP2's DTensors).

    out    each tensor is gathered on the devices, one at a time; rank 0 copies it to its host
    in     rank 0 sends each tensor to all, one at a time; each keeps what is its own

The price: rank 0's host holds everything once, 12 bytes a parameter with AdamW, and a device needs
room for the largest tensor. An optimizer's state is its tensors by parameter, as
`encoder.blocks.0.qkv.weight.exp_avg`; its groups and rates are the settings'. On a GPU the copies
go through pinned memory and are waited for once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tokenmill.errors import ResumeError
from tokenmill.training.ema import Ema
from tokenmill.training.optim import Optimizers
from tokenmill.training.sharded import own_part, own_parts, reshard


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensors:
    """Whole tensors on the host, by name; they share no memory with training."""

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    """`<parameter>.<what>`, as `decoder.bias.exp_avg`, of all optimizers."""
    ema: dict[str, Tensor] = field(default_factory=dict)
    """The exponential mean of the weights, by their names; empty where none is kept."""


@torch.no_grad()
def full_state(model: nn.Module, optimizers: Optimizers, ema: Ema | None) -> Tensors:
    """Copies of all that training changes, on rank 0; empty on others. All ranks call it together.

    Args:
        model: its parameters are alike on all ranks, or sharded by fully_shard.
    """
    weights = _weights(model)
    names = {parameter: name for name, parameter in weights.items()}
    moments = {
        f"{names[parameter]}.{key}": value
        for parameter, optimizer in _owners(optimizers).items()
        for key, value in optimizer.state[parameter].items()
    }
    whole = Tensors(
        model=_gathered(weights),
        optimizer=_gathered(moments),
        ema=_gathered(ema.state_dict() if ema else {}),
    )
    device = next(iter(weights.values())).device
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    return whole


@torch.no_grad()
def load_full_state(
    whole: Tensors | None, model: nn.Module, optimizers: Optimizers, ema: Ema | None
) -> None:
    """Set all that training changes to what `full_state` gave. All ranks call it together.

    Args:
        whole: looked at on rank 0 alone.
        model, optimizers, ema: in whatever layout they are now.

    Raises:
        ResumeError: the tensors are those of another model; on all ranks alike.
    """
    weights, means = _weights(model), ema.state_dict() if ema else {}
    contents: list[_Entry] = _of_rank_0(whole and _contents(whole))
    _refuse_other_tensors(contents, weights, means)
    owners = _owners(optimizers)
    for optimizer in optimizers.parts:
        optimizer.state.clear()
    for entry in contents:
        parameter = weights[entry.parameter]
        tensor = _received(entry, whole, parameter.device)
        if entry.part == "model":
            target = parameter
        elif entry.part == "ema":
            target = means[entry.name]
        else:  # of the parameter's shape, and sharded like it; or a count of steps, and whole
            like = parameter if tensor.shape == parameter.shape else tensor
            target = torch.empty_like(like, dtype=tensor.dtype)
            owners[parameter].state[parameter][entry.key] = target
        own_parts([target])[0].copy_(own_part(tensor, target))


class _Entry(NamedTuple):
    """A tensor that is to be loaded."""

    part: str
    """A field of Tensors."""
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def parameter(self) -> str:
        return self.name.rpartition(".")[0] if self.part == "optimizer" else self.name

    @property
    def key(self) -> str:
        return self.name.rpartition(".")[2]


def _contents(whole: Tensors) -> list[_Entry]:
    return [
        _Entry(part, name, tuple(tensor.shape), tensor.dtype)
        for part in ("model", "optimizer", "ema")
        for name, tensor in getattr(whole, part).items()
    ]


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """The parameters as they lie on devices. There is nothing else: no buffer, no second name."""
    reshard(model)
    weights: dict[str, Tensor] = dict(model.named_parameters())
    assert weights.keys() == model.state_dict().keys()
    return weights


def _owners(optimizers: Optimizers) -> dict[Tensor, torch.optim.Optimizer]:
    """The optimizer of each parameter."""
    return {
        parameter: optimizer
        for optimizer in optimizers.parts
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def _gathered(live: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of whole tensors on the host of rank 0, which the caller waits for."""
    whole = {}
    for name, tensor in live.items():
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
        if _is_first():
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            whole[name] = copy.copy_(tensor, non_blocking=True)
    return whole


def _is_first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _of_rank_0(value: Any) -> Any:
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _received(entry: _Entry, whole: Tensors | None, device: torch.device) -> Tensor:
    """The tensor of an entry, whole, on the device of each rank."""
    if whole is not None and _is_first():
        tensor: Tensor = getattr(whole, entry.part)[entry.name].to(device)
    else:
        tensor = torch.empty(entry.shape, dtype=entry.dtype, device=device)
    if dist.is_initialized():
        dist.broadcast(tensor, src=0)
    return tensor


def _refuse_other_tensors(
    contents: list[_Entry], weights: Mapping[str, Tensor], means: Mapping[str, Tensor]
) -> None:
    """Raises ResumeError where weights or means differ in name or shape, or moments are of none."""
    for part, live in (("model", weights), ("ema", means)):
        expected = {name: tuple(tensor.shape) for name, tensor in live.items()}
        found = {entry.name: entry.shape for entry in contents if entry.part == part}
        for name in {**expected, **found}:
            if expected.get(name) != found.get(name):
                raise _other_model(part, name, expected.get(name), found.get(name))
    for entry in contents:
        if entry.parameter not in weights:
            raise _other_model(entry.part, entry.name, None, entry.shape)


def _other_model(
    part: str, name: str, expected: tuple[int, ...] | None, found: tuple[int, ...] | None
) -> ResumeError:
    wanted, had = ("none" if shape is None else f"shape {shape}" for shape in (expected, found))
    return ResumeError(
        f"the checkpoint is of another model: {part} {name}, expected {wanted}, found {had}. Bring "
        "back the version of tokenmill that wrote it, or train into another folder."
    )
