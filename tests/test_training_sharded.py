"""Parameters sharded over two processes move as those of one do, their rows even or odd."""

import copy

import torch
import torch.distributed as dist
import torch.multiprocessing
from test_training_optim import DECAY, LEFT_OUT, OPTIMIZERS, RATE, TAKEN, Toy, settings
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor
from torch.testing import assert_close

from tokenmill.training.ema import Ema
from tokenmill.training.optim import build_optimizers


def test_sharded_parameters_move_as_whole_ones_do(tmp_path):
    torch.multiprocessing.spawn(both_ways, (str(tmp_path / "meeting"),), nprocs=2)


def both_ways(rank, meeting):
    """Raises where the two ways differ."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("replicate", "shard"))
    for optimizer in OPTIMIZERS:
        alone = Toy()
        sharded = copy.deepcopy(alone)
        for block in sharded.encoder.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(sharded, mesh=mesh)
        means = [Ema(model, 0.5) for model in (alone, sharded)]
        optimizers = [build_optimizers(model, settings(optimizer)) for model in (alone, sharded)]
        for number in range(4):
            set_gradients(alone, sharded, number)
            found_inf = LEFT_OUT if number == 1 else TAKEN
            for its, mean in zip(optimizers, means, strict=True):
                its.set_rates(RATE, 1.0, DECAY)
                its.step(found_inf)
                mean.update(found_inf)
        assert_same(dict(sharded.named_parameters()), dict(alone.named_parameters()))
        assert_same(means[1].state_dict(), means[0].state_dict())

        # The weights themselves before and after: nothing of the means is left in the model.
        x = torch.ones(3, 4)
        expected = [alone(x)]
        with means[0].in_model():
            expected.append(alone(x))
        with torch.no_grad():
            found = [sharded(x)]
            with means[1].in_model():
                found.append(sharded(x))
            found.append(sharded(x))
        assert_close(found, [*expected, expected[0]], atol=1e-5, rtol=0)
        assert not torch.allclose(expected[0], expected[1], atol=1e-3)
    dist.destroy_process_group()


def set_gradients(alone, sharded, number):
    random = torch.Generator().manual_seed(number)
    for whole, part in zip(alone.parameters(), sharded.parameters(), strict=True):
        # Some small, some large: a tensor's root mean square is that of all its rows.
        whole.grad = torch.randn(whole.shape, generator=random) * 10.0**number
        whole.grad[len(whole) // 2 :] *= 30
        part.grad = distribute_tensor(whole.grad, part.device_mesh, part.placements)


def assert_same(sharded, alone):
    assert_close({name: each.full_tensor() for name, each in sharded.items()}, alone,
                 atol=1e-5, rtol=0)  # fmt: skip
