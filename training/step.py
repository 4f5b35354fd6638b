"""One optimizer step, over micro-batches and processes, without a word from the device.

    micro-batches:  seed dropout, forward, loss, backward     gradients add up
    then:           sum over ranks, length, clip              one gradient for all
                    finite?  optimizer and mean of weights    or nothing changes

The loss and the gradient's length stay on the device, and so does the answer to whether both are
finite: where one is not, the optimizers change nothing, and the step is counted as skipped. Whoever
wants a number waits for the device (`item`), and chooses when.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tokenmill.loader import TorchBatch
from tokenmill.training.config import TrainingConfig
from tokenmill.training.dropout import has_dropout, seed_dropout
from tokenmill.training.ema import Ema
from tokenmill.training.encoder_config import EncoderConfig
from tokenmill.training.hf.read import read_hugging_face, start_from
from tokenmill.training.initialise import initialise
from tokenmill.training.loss import batch_loss
from tokenmill.training.model import MaskedLanguageModel, build_model
from tokenmill.training.optim import build_optimizers
from tokenmill.training.parallel import Processes, clip_gradients, distribute
from tokenmill.training.skipped import SkipCounter
from tokenmill.training.tiling import tile


class StepResult(NamedTuple):
    """What a step came to."""

    loss: Tensor
    """() over all ranks, on the device: nats a masked token, and what else the recipe adds."""
    grad_norm: Tensor
    """() over all ranks, on the device: the gradient's length before it was clipped."""
    real_tokens: int
    """Of this rank, padding left out."""


class Learner:
    """The model and all that a step changes."""

    def __init__(
        self,
        config: TrainingConfig,
        encoder: EncoderConfig,
        processes: Processes,
        *,
        first_weights: bool = True,
    ) -> None:
        """
        Args:
            first_weights: draw or read them; False where a checkpoint's follow.
        """
        self._config, self._processes = config, processes
        self.model = build_model(
            encoder,
            processes.device,
            getattr(torch, config.dtype_on(processes.device.type)),
            masked_queries_only=config.masked_queries_only,
            checkpoint_activations=config.checkpoint_activations,
        )
        if first_weights:
            _set_first_weights(self.model, config)
        is_cuda = processes.device.type == "cuda"
        self.is_compiled = is_cuda if config.compile is None else config.compile
        if self.is_compiled:
            self.model.compile()
        self._gradients = distribute(self.model, config.shard, processes)
        self.optimizers = build_optimizers(self.model, config)
        self.ema = None if config.ema_decay is None else Ema(self.model, config.ema_decay)
        self._has_dropout = has_dropout(encoder)
        self.skipped = SkipCounter(config.max_skipped_steps, processes.device)

    def step(
        self, batches: Iterator[TorchBatch], num_micro_batches: int, number: int
    ) -> StepResult:
        """One optimizer step, at the rates that the optimizers have.

        Args:
            batches: this rank's micro-batches, of which so many are taken.
            number: of the step, from 1 over all phases; what dropout draws is a function of it.
        """
        config, rank = self._config, self._processes.rank
        loss = torch.zeros((), device=self._processes.device)
        real_tokens = 0
        self.model.train()
        for index in range(num_micro_batches):
            batch = next(batches)
            real_tokens += batch.num_tokens
            if self._has_dropout:
                seed_dropout(config.seed, number, index, rank)
            self._gradients.expect(last=index + 1 == num_micro_batches)
            part = batch_loss(self.model, batch, config.z_loss, compiled=self.is_compiled)
            torch.autograd.backward(part)
            loss += part.detach()
        self._gradients.wait()
        self._processes.sum(loss)
        grad_norm = clip_gradients(self.model.parameters(), config.clip_norm)
        found_inf = (~(loss.isfinite() & grad_norm.isfinite())).float()
        self.optimizers.step(found_inf)
        self.optimizers.zero_grad()
        if self.ema:
            self.ema.update(found_inf)
        self.skipped.count(found_inf, number)
        return StepResult(loss, grad_norm, real_tokens)

    def judged(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the model has the weights that count: their mean, where one is kept."""
        return self.ema.in_model() if self.ema else contextlib.nullcontext()


def _set_first_weights(model: MaskedLanguageModel, config: TrainingConfig) -> None:
    """The same on every rank."""
    initialise(model, config.seed)
    if config.tile_from is not None:
        tile(model, _read(config.tile_from, model.decoder.bias.device))
    if config.initial_weights is not None:
        start_from(model, config.initial_weights)


def _read(folder: Path, device: torch.device) -> MaskedLanguageModel:
    shape, weights = read_hugging_face(folder)
    model = build_model(shape, device)
    model.load_state_dict(weights)
    return model
