"""Arm B: the way of ModernBERT's code (AnswerDotAI/ModernBERT, src/bert_layers, "FlexBERT").

    rows         packed, never padded, as ours
    attention    its norm, matrices and positions eager; the kernel is ours
    compiled     embeddings, norm and feed-forward of each layer, and the head, for any shape
    logits       of masked tokens, found by a boolean mask: the host waits for their number

Written anew from our own layers, so that weights, rounding and attention's kernel are ours. The
reference turns positions in a kernel of flash-attn's, this one in torch; this one compiles the loss
too, for which the reference has another kernel of flash-attn's.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tokenmill.loader import TorchBatch
from tokenmill.loader.masking import NO_TARGET
from tokenmill.training.block import Block, Sequences
from tokenmill.training.loss import masked_token_loss
from train_arms.arm import Baseline, our_model, packed_steps
from train_arms.setup import ArmSpec, Setup


class Unpadded(NamedTuple):
    """A packed micro-batch with a label for every token."""

    batch: TorchBatch
    labels: Tensor
    """(T,) int64, NO_TARGET where a token is not masked."""

    @property
    def input_ids(self) -> Tensor:
        return self.batch.input_ids

    @property
    def num_tokens(self) -> int:
        """Padding left out."""
        return self.batch.num_tokens


class UnpaddedLoop(Baseline):
    """A plain loop over packed rows."""

    def __init__(self, setup: Setup, spec: ArmSpec) -> None:
        self._ours = our_model(setup)
        super().__init__(setup, spec, self._ours)
        encoder = self._ours.encoder
        self._embed = self._for_any_shape(encoder.embeddings.forward)
        self._feed_forward = [self._for_any_shape(_feed_forward_of(b)) for b in encoder.blocks]
        self._head_loss = self._for_any_shape(self._decode)

    def steps(self, phase: str, num_steps: int) -> list[Sequence[Unpadded]]:
        steps = packed_steps(self.setup, self.spec, phase, num_steps)
        return [[_with_labels(batch) for batch in step] for step in steps]

    def loss(self, micro_batch: Unpadded) -> Tensor:
        batch, labels = micro_batch
        encoder = self._ours.encoder
        sequences = Sequences(batch.cu_seqlens, batch.max_length)
        angles = encoder.angles(batch.position_ids)
        x = self._embed(batch.input_ids, batch.position_ids, None, encoder.compute_dtype)
        for layer, (block, feed_forward) in enumerate(
            zip(encoder.blocks, self._feed_forward, strict=True)
        ):
            assert isinstance(block, Block)
            of_layer = angles[encoder.config.is_global(layer)]
            x = x + block.attend(block.attention_norm(x), of_layer, sequences, None)
            x = x + feed_forward(x)
        x = encoder.norm(x)
        masked = labels != NO_TARGET
        return self._head_loss(x[masked], labels[masked]) / batch.step_targets

    def _decode(self, x: Tensor, labels: Tensor) -> Tensor:
        logits = self._ours.decoder(x, self._ours.encoder.embeddings.tokens.weight)
        return masked_token_loss(logits, labels)

    def _for_any_shape(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.compile(function, dynamic=True) if self.setup.compile else function


def _feed_forward_of(block: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    assert isinstance(block, Block)
    return lambda x: block.feed_forward(block.ffn_norm(x))


def _with_labels(batch: TorchBatch) -> Unpadded:
    labels = torch.full_like(batch.input_ids, NO_TARGET, dtype=torch.int64)
    used = batch.targets != NO_TARGET
    labels[batch.masked_positions[used]] = batch.targets[used]
    return Unpadded(batch, labels)
