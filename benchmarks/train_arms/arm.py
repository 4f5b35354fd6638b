"""What an arm is: a model that takes steps. And ours: the loop's own Learner, fed by DeviceFeed.

A step is the same rows behind the same masks in every arm, and one update by AdamW; arms differ in
how they cut it into micro-batches and what they compute of them. Baselines read micro-batches that
lie on the device already: their own loaders are no part of the comparison.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tokenmill.loader import Loader, TorchBatch
from tokenmill.loader.batch import Batch
from tokenmill.training.initialise import initialise
from tokenmill.training.model import MaskedLanguageModel, build_model
from tokenmill.training.optim import Optimizers, build_optimizers
from tokenmill.training.parallel import Processes, clip_gradients
from tokenmill.training.step import Learner
from train_arms.setup import ArmSpec, Setup


class Arm(Protocol):
    """A model that takes steps over micro-batches of its own kind."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def optimizers(self) -> Optimizers: ...

    def steps(self, phase: str, num_steps: int) -> list[Sequence[Any]]:
        """The micro-batches of the phase's first steps, on the device."""

    def step(self, micro_batches: Iterator[Any], count: int, number: int) -> Tensor:
        """One update; () its loss in nats a masked token, before the update, on the device."""


class Ours(Arm):
    """The bundled loop's step."""

    def __init__(self, setup: Setup, spec: ArmSpec) -> None:
        self._setup, self._spec = setup, spec
        config = setup.training(
            compiled=setup.compile and spec.letter != "D", masked_queries_only=spec.letter == "F"
        )
        processes = Processes(0, 1, torch.device(setup.device), None)
        self._learner = Learner(config, setup.encoder, processes)

    @property
    def model(self) -> nn.Module:
        return self._learner.model

    @property
    def optimizers(self) -> Optimizers:
        return self._learner.optimizers

    def loader(self, phase: str) -> Loader:
        """What feeds the arm."""
        return packed_loader(self._setup, self._spec, phase)

    def steps(self, phase: str, num_steps: int) -> list[Sequence[TorchBatch]]:
        return packed_steps(self._setup, self._spec, phase, num_steps)

    def step(self, micro_batches: Iterator[TorchBatch], count: int, number: int) -> Tensor:
        return self._learner.step(micro_batches, count, number).loss


class Baseline(Arm, ABC):
    """A plain loop over micro-batches of a model's own kind."""

    def __init__(self, setup: Setup, spec: ArmSpec, model: nn.Module) -> None:
        self.setup, self.spec = setup, spec
        self._model = model.train()
        config = setup.training(compiled=False, masked_queries_only=False)
        self._clip_norm = config.clip_norm
        self._optimizers = build_optimizers(model, config)
        self._sound = torch.zeros((), device=setup.device)

    @property
    def model(self) -> nn.Module:
        return self._model

    @property
    def optimizers(self) -> Optimizers:
        return self._optimizers

    @abstractmethod
    def loss(self, micro_batch: Any) -> Tensor:
        """() summed over masked tokens, divided by those of the whole step."""

    def step(self, micro_batches: Iterator[Any], count: int, number: int) -> Tensor:
        loss = torch.zeros((), device=self.setup.device)
        for micro_batch in islice(micro_batches, count):
            part = self.loss(micro_batch)
            torch.autograd.backward(part)
            loss += part.detach()
        clip_gradients(self.model.parameters(), self._clip_norm)
        self.optimizers.step(self._sound)
        self.optimizers.zero_grad()
        return loss


def our_model(setup: Setup) -> MaskedLanguageModel:
    """Our model with the weights that every arm begins with, not compiled."""
    dtype = getattr(torch, setup.dtype)
    model = build_model(setup.encoder, setup.device, dtype, masked_queries_only=False)
    initialise(model, setup.training(compiled=False, masked_queries_only=False).seed)
    return model


def packed_loader(setup: Setup, spec: ArmSpec, phase: str) -> Loader:
    """A loader whose micro-batches have the arm's tokens, as far as a step has so many."""
    with Loader(setup.run, phase) as whole:
        rows = min(max(spec.micro_batch_tokens // whole.row_tokens, 1), whole.rows_per_step)
    return Loader(setup.run, phase, micro_batch_rows=rows)


def packed_steps(
    setup: Setup, spec: ArmSpec, phase: str, num_steps: int
) -> list[Sequence[TorchBatch]]:
    """The phase's first steps, in packed micro-batches on the device."""
    with packed_loader(setup, spec, phase) as loader:
        each = loader.num_micro_batches
        batches = [batch.to_torch(setup.device) for batch in islice(loader, num_steps * each)]
    return [batches[first : first + each] for first in range(0, len(batches), each)]


def whole_steps(setup: Setup, phase: str, num_steps: int) -> list[Batch]:
    """The phase's first steps, each as one batch of numpy arrays."""
    with Loader(setup.run, phase) as loader:
        return list(islice(loader, num_steps))
