"""Several processes as one: who takes part, and how their gradients add up.

    with joined("cuda") as processes:
        gradients = distribute(model, config.shard, processes)
        for number, batch in enumerate(batches):
            gradients.expect(last=number + 1 == len(batches))
            batch_loss(model, batch).backward()
        gradients.wait()
        norm = clip_gradients(model.parameters(), 1.0)

Processes find each other by the variables that torchrun and Ray Train set; one without them is
alone and needs no group. A rank's loss is already divided by what the whole step has over all
ranks, so gradients are added up, never averaged, at the last micro-batch of a step only. Processes
form a mesh of world_size / shard copies, each of which lies on `shard` of them:

    shard = 1    every process has all; gradients are summed in buckets while the backward pass goes
                 on. The buckets never change, so that the order of a sum is the same after a
                 resume (torch's DistributedDataParallel makes others after its first step).
    shard > 1    FSDP2: weights, gradients and moments are DTensors. Each layer is gathered before
                 it computes, in 32 bits, and again in the backward pass.

Numbers that the host needs, such as whether somebody is to stop, go over gloo, never through the
device. The price is one round trip a step, a fraction of a millisecond, in which the device still
has work. A process that dies ends the others: their next exchange fails. One that hangs ends them
after torch's own time, half an hour (ten minutes between GPUs).
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from tokenmill.errors import RecipeError, RunError, TokenmillError

T = TypeVar("T")

BUCKET_BYTES = 25 << 20
"""Gradients that are summed at once: large enough for the network's full speed, small enough that
the first sum begins early. The number is DistributedDataParallel's."""


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes that train together, and this one's place among them."""

    rank: int
    world_size: int
    device: torch.device
    host_group: dist.ProcessGroup | None
    """Exchanges what lies in the host's memory; None where there is one process."""

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place; a tensor on the device, which is not waited for."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def total(self, *counts: int) -> list[int]:
        """The sum of each count over all ranks."""
        if self.world_size == 1:
            return list(counts)
        totals = torch.tensor(counts, dtype=torch.int64)
        dist.all_reduce(totals, group=self.host_group)
        return totals.tolist()

    def first(self, function: Callable[[], T]) -> T:
        """What a function gives that rank 0 alone runs; its error is raised on all ranks."""
        if self.world_size == 1:
            return function()
        outcome: list[Any] = [None, None]  # what it gave, what it raised
        if self.rank == 0:
            try:
                outcome[0] = function()
            except Exception as error:  # raised below, on all ranks
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0, group=self.host_group)
        if outcome[1] is not None:
            raise outcome[1]
        value: T = outcome[0]
        return value


@contextlib.contextmanager
def joined(device: str) -> Iterator[Processes]:
    """This process's place among those of its launcher, or alone.

    Args:
        device: cpu, or cuda: then the GPU of its local rank, where it is one of several.

    Raises:
        RunError: another process has ended, hangs, or has never come.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world_size == 1:
        alone = torch.device(device)
        if alone.type == "cuda" and alone.index is not None:
            torch.cuda.set_device(alone)
        yield Processes(0, 1, alone, None)
        return
    own_device = torch.device(device)
    if own_device.type == "cuda":
        own_device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(own_device)
    ours = not dist.is_initialized()  # Ray Train has its own
    name = f"rank {rank}: " if rank else ""
    try:
        if ours:
            dist.init_process_group("cpu:gloo,cuda:nccl" if own_device.type == "cuda" else "gloo")
        yield Processes(rank, world_size, own_device, dist.new_group(backend="gloo"))
    except TokenmillError as error:
        raise type(error)(f"{name}{error}") from None
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "/gloo/" not in str(error):
            raise
        raise RunError(f"{name}{_lost(error)}") from None
    if ours:  # after an error the end of the process does it; waiting for the others would hang
        dist.destroy_process_group()


def distribute(model: nn.Module, shard: int, processes: Processes) -> "Gradients":
    """Spread a model, whose weights are the same on all ranks, over the processes, in place.

    Args:
        model: with its layers in `encoder.blocks`, each of which is gathered as one.
        shard: processes that share one copy.

    Raises:
        RecipeError: the processes cannot be cut into such groups.
    """
    if processes.world_size % shard:
        raise RecipeError(
            f"training.shard: {shard} processes share a copy of the weights, and there are "
            f"{processes.world_size}. Start a multiple of {shard}, or change the setting."
        )
    if processes.world_size == 1:
        return Gradients()
    if shard == 1:
        return _Replicated([p for p in model.parameters() if p.requires_grad])
    mesh = init_device_mesh(
        processes.device.type,
        (processes.world_size // shard, shard),
        mesh_dim_names=("replicate", "shard"),
    )
    for block in model.encoder.blocks:  # type: ignore[union-attr]
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return _Sharded(model)


class Gradients:
    """How the gradients of a step come together; of one process, by themselves."""

    def expect(self, *, last: bool) -> None:
        """Called before each micro-batch's forward pass.

        Args:
            last: it is the step's last, after which gradients are summed over the ranks.
        """

    def wait(self) -> None:
        """Called after the last backward pass; then every `grad` is the whole step's.

        The device is made to wait, the host is not.
        """


class _Sharded(Gradients):
    """FSDP2 sums by itself, once told so."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for module in self._modules:
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)

    def expect(self, *, last: bool) -> None:
        for module in self._modules:
            module.set_requires_gradient_sync(last, recurse=False)


class _Replicated(Gradients):
    """Sums gradients in buckets, each as soon as the backward pass has filled it."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        # The last layers' gradients are ready first.
        self._buckets = [_Bucket(bucket) for bucket in _cut(list(reversed(parameters)))]
        self._last = False
        self._next = 0
        """The first bucket whose sum has not begun."""
        for bucket in self._buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    lambda _, bucket=bucket: self._ready(bucket)
                )

    def expect(self, *, last: bool) -> None:
        self._last = last

    def _ready(self, bucket: "_Bucket") -> None:
        """A gradient is whole. Sums must begin in the same order on all ranks."""
        if self._last:
            bucket.missing -= 1
            while self._next < len(self._buckets) and not self._buckets[self._next].missing:
                self._buckets[self._next].start()
                self._next += 1

    def wait(self) -> None:
        for bucket in self._buckets[self._next :]:  # a parameter that no loss reaches kept it back
            bucket.start()
        for bucket in self._buckets:
            bucket.finish()
        self._next = 0


class _Bucket:
    """Parameters whose gradients are summed at once."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.missing = len(parameters)
        """Gradients that the last backward pass has not reached yet."""
        self._sum: Tensor | None = None
        self._work: dist.Work | None = None

    def start(self) -> None:
        """Begin the sum."""
        gradients = self._gradients()
        if gradients:
            self._sum = torch.cat([gradient.flatten() for gradient in gradients])
            self._work = dist.all_reduce(self._sum, async_op=True)

    def finish(self) -> None:
        """Put the sums where the gradients are."""
        self.missing = len(self.parameters)
        if self._work is None or self._sum is None:
            return
        self._work.wait()
        gradients = self._gradients()
        parts = torch.split(self._sum, [gradient.numel() for gradient in gradients])
        sums = [part.view_as(each) for part, each in zip(parts, gradients, strict=True)]
        torch._foreach_copy_(gradients, sums)
        self._sum = self._work = None

    def _gradients(self) -> list[Tensor]:
        """The same ones on all ranks: those that the loss reaches."""
        return [each.grad for each in self.parameters if each.grad is not None]


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], longest: float | None) -> Tensor:
    """Scale gradients down to a length; without waiting for the device.

    Args:
        longest: the length that is taken as it is; None scales nothing.

    Returns:
        () the length before, over all parameters and processes.
    """
    clipped = [parameter for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in clipped if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if longest is not None:
        torch.nn.utils.clip_grads_with_norm_(clipped, longest, norm)
    return norm


def _cut(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Runs of at least BUCKET_BYTES, of which the last one is what is left."""
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        bucket.append(parameter)
        size += parameter.numel() * parameter.element_size()
        if size >= BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket


def _lost(error: RuntimeError) -> str:
    """What became of the others, with torch's own words but its place in a file and its advice."""
    line = str(error).splitlines()[0]
    words = re.sub(r"^\[[^]]*\] ", "", line).partition(". ")[0].rstrip(".")
    if re.search("timed out|timeout", words, re.IGNORECASE):
        return (
            f"another process does not answer ({words}). It hangs, was stopped, or never began: "
            "look at each one's last lines, end those that are left, and start again; training "
            "goes on from its newest checkpoint."
        )
    return (
        f"another process has ended, and its own message says why ({words}). Start again: training "
        "goes on from its newest checkpoint."
    )
