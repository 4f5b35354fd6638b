"""Four processes that save and load one state in every layout; any difference ends them with 1.

    python state_ranks.py FOLDER    leaves FOLDER/muon.pt, saved by shards

The processes are forked, because importing torch four times takes longer than all the rest.
"""

import functools
import os
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import torch._dynamo  # an optimizer imports it, which is better done once
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tokenmill.errors import ResumeError
from tokenmill.training.config import TrainingConfig
from tokenmill.training.ema import Ema
from tokenmill.training.optim import build_optimizers
from tokenmill.training.state import full_state, load_full_state

RANKS = 4
LAYOUTS = ("alike", (1, 4), (2, 2))
"""The same on all ranks, or a mesh of copies x shards."""
WIDTH = 6
"""Not a multiple of the ranks; and of the 3 rows of the last matrix one rank has none."""


class Toy(nn.Module):
    """Layers where build_optimizers looks for them."""

    def __init__(self, width=WIDTH):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(1))
        self.decoder = nn.Linear(width, 3)

    def forward(self, x):
        for block in self.encoder.blocks:
            x = block(x).tanh()
        return self.decoder(x)


@functools.cache
def mesh_of(layout):
    return init_device_mesh("cpu", layout, mesh_dim_names=("replicate", "shard"))


class Learner:
    """A model, its optimizers and their mean, in a layout."""

    def __init__(self, optimizer, layout="alike", seed=0, device="cpu"):
        torch.manual_seed(seed)
        self.model = Toy().to(device)
        self.found_inf = torch.zeros((), device=device)
        if layout != "alike":
            mesh = mesh_of(layout)
            for block in self.model.encoder.blocks:
                fully_shard(block, mesh=mesh)
            fully_shard(self.model, mesh=mesh)
        config = TrainingConfig(preset="tiny", micro_batch_tokens=1, optimizer=optimizer)
        self.optimizers = build_optimizers(self.model, config)
        self.ema = Ema(self.model, 0.9)

    @property
    def parts(self):
        return self.model, self.optimizers, self.ema

    def step(self, number):
        """With gradients that are a function of the number."""
        generator = torch.Generator().manual_seed(number)
        for parameter in self.model.parameters():
            grad = torch.randn(parameter.shape, generator=generator).to(parameter.device)
            if isinstance(parameter, DTensor):
                mesh, placements = parameter.device_mesh, parameter.placements
                grad = distribute_tensor(grad, mesh, placements, src_data_rank=None)
            parameter.grad = grad
        self.optimizers.set_rates(0.1, 1.0, 0.1)
        self.optimizers.step(self.found_inf)
        self.ema.update(self.found_inf)
        self.optimizers.zero_grad()


def differing(one, other):
    """Names of tensors that are not the same to the bit."""
    for part in fields(one):
        ours, theirs = getattr(one, part.name), getattr(other, part.name)
        for name in ours.keys() | theirs.keys():
            if name not in ours or name not in theirs or not torch.equal(ours[name], theirs[name]):
                yield f"{part.name} {name}"


def check_against_torch(saved, learner):
    """torch's own way to whole states gives the same."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(learner.model, options=options)
    moments = get_optimizer_state_dict(
        learner.model, tuple(learner.optimizers.parts), options=options
    )
    if dist.get_rank() == 0:
        assert weights.keys() == saved.model.keys()
        assert all(torch.equal(weights[name], saved.model[name]) for name in weights)
        states = {f"{n}.{key}": t for n, s in moments["state"].items() for key, t in s.items()}
        assert states.keys() == saved.optimizer.keys()
        assert all(torch.equal(states[name], saved.optimizer[name]) for name in states)


def check(optimizer, from_layout, to_layouts, folder):
    learner = Learner(optimizer, from_layout)
    for number in range(3):
        learner.step(number)
    with torch.no_grad():  # as in evaluation: FSDP2 leaves the root's parameters gathered
        learner.model(torch.ones(2, WIDTH))
    saved = full_state(*learner.parts)
    check_against_torch(saved, learner)
    rank = dist.get_rank()
    if rank:
        assert not any(getattr(saved, part.name) for part in fields(saved))
    learner.step(3)
    expected = full_state(*learner.parts)
    for to_layout in to_layouts:
        other = Learner(optimizer, to_layout, seed=1)
        other.step(7)  # what an optimizer has seen before is forgotten
        load_full_state(saved if rank == 0 else None, *other.parts)
        found = list(differing(full_state(*other.parts), saved))
        assert not found, f"{optimizer}, {from_layout} to {to_layout}: {found}"
        other.step(3)
        if to_layout == from_layout:
            found = list(differing(full_state(*other.parts), expected))
            assert not found, f"{optimizer}, {to_layout}, the step after: {found}"
    if rank == 0 and from_layout == (2, 2):
        state = {part.name: getattr(saved, part.name) for part in fields(saved)}
        torch.save(state, folder / f"{optimizer}.pt")


def check_refusal():
    """Of another model, on all ranks alike; else those that go on would wait for ever."""
    learner = Learner("adamw", (1, 4))
    saved = full_state(*learner.parts)
    learner.model.decoder = nn.Linear(WIDTH, 5)
    message = r"model decoder.weight, expected shape \(5, 6\), found shape \(3, 6\)"
    with pytest.raises(ResumeError, match=message):
        load_full_state(saved, learner.model, learner.optimizers, None)


def rank_main(rank, folder):
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    check("muon", "alike", LAYOUTS, folder)  # two optimizers, AdamW among them
    check("muon", (2, 2), LAYOUTS, folder)
    check("stable-adamw", (1, 4), [(1, 4)], folder)
    check_refusal()
    dist.destroy_process_group()


def main(folder):
    children = []
    for rank in range(RANKS):
        child = os.fork()
        if child == 0:
            rank_main(rank, folder)
            os._exit(0)
        children.append(child)
    sys.exit(any(os.waitpid(child, 0)[1] for child in children))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
