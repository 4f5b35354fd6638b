"""Arm A: the way of NeoBERT's code (chandar-lab/NeoBERT, pretraining/trainer.py, model/model.py).

    lines        a document each, padded to the longest of the micro-batch, to a multiple of 8
    attention    torch's, with the padding mask repeated to (lines, heads, length, length)
    logits       of every token, padding included; the loss leaves out what is not masked
    counting     loss, masked tokens and right answers of each micro-batch are read back

Written anew from our own layers, so that weights and rounding are ours. Where the reference has
xFormers' feed-forward kernel, this has torch's.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmill.loader.masking import NO_TARGET
from tokenmill.loader.padded import PaddedBatch
from tokenmill.training.block import Block
from tokenmill.training.model import MaskedLanguageModel
from tokenmill.training.rope import rotate
from train_arms.arm import Baseline, our_model, whole_steps
from train_arms.setup import ArmSpec, Setup


class Lines(NamedTuple):
    """A padded micro-batch on the device; tensors are (lines, length) int64."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    num_tokens: int
    """Padding left out."""
    step_targets: Tensor
    """() masked tokens of the whole step. What one has none of, adds nothing to the loss."""


class PaddedLoop(Baseline):
    """A plain loop over lines."""

    def __init__(self, setup: Setup, spec: ArmSpec) -> None:
        self._ours = our_model(setup)
        super().__init__(setup, spec, self._ours)
        self.masked = self.right = 0
        self.loss_sum = 0.0

    def steps(self, phase: str, num_steps: int) -> list[Sequence[Lines]]:
        steps = whole_steps(self.setup, phase, num_steps)
        lines = max(self.spec.micro_batch_tokens // steps[0].max_length, 1)
        return [
            list(cut_lines(step.to_padded(pad_to_multiple_of=8), lines, self.setup.device))
            for step in steps
        ]

    def loss(self, micro_batch: Lines) -> Tensor:
        input_ids, attention_mask, labels, _, step_targets = micro_batch
        logits = padded_logits(self._ours, input_ids, attention_mask).float()
        loss = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=NO_TARGET, reduction="sum"
        )
        self.masked += int((labels != NO_TARGET).sum().item())
        self.loss_sum += loss.item()
        self.right += int((logits.argmax(dim=-1) == labels).sum().item())
        return loss / step_targets


def cut_lines(
    padded: PaddedBatch, lines: int, device: str, *, multiple: int = 8
) -> Iterator[Lines]:
    """So many lines at a time, each time as wide as their longest."""
    arrays = padded.input_ids, padded.attention_mask, padded.labels
    step_targets = torch.tensor(padded.step_targets, device=device)
    for first in range(0, len(padded.input_ids), lines):
        some = slice(first, first + lines)
        lengths = padded.attention_mask[some].sum(axis=1)
        width = -(-int(lengths.max()) // multiple) * multiple
        ids, mask, labels = (torch.tensor(array[some, :width], device=device) for array in arrays)
        yield Lines(ids, mask, labels, int(lengths.sum()), step_targets)


def padded_logits(model: MaskedLanguageModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """(lines, length, vocab_size) of every token."""
    encoder, config = model.encoder, model.encoder.config
    lines, length = input_ids.shape
    column = torch.arange(length, device=input_ids.device)
    far = (column[:, None] - column).abs()  # (length, length)
    # Not infinity: a local layer shows a place far behind a document's end nothing but padding.
    least = torch.finfo(encoder.compute_dtype).min
    hidden = torch.where(attention_mask == 1, 0.0, least).to(encoder.compute_dtype)
    whole = hidden[:, None, None].repeat(1, config.heads, length, 1)
    positions = column.repeat(lines)
    x = encoder.embeddings(input_ids.flatten(), positions, None, encoder.compute_dtype)
    angles = encoder.angles(positions)
    for layer, block in enumerate(encoder.blocks):
        assert isinstance(block, Block)
        is_global = config.is_global(layer)
        mask = whole if is_global else whole.masked_fill(far > block.window, least)
        x = x + _attend(block, block.attention_norm(x), angles[is_global], mask)
        x = x + block.feed_forward(block.ffn_norm(x))
    logits: Tensor = model.decoder(encoder.norm(x), encoder.embeddings.tokens.weight)
    return logits.unflatten(0, (lines, length))


def _attend(block: Block, x: Tensor, angles: Tensor | None, mask: Tensor) -> Tensor:
    """(lines x length, width) what attention adds; mask is (lines, heads, length, length)."""
    assert angles is not None
    lines, length = len(mask), mask.shape[-1]
    query, key, value = block.project(x, 0, 3)  # each (lines x length, heads, head_dim)
    query, key = rotate(query, angles), rotate(key, angles)
    heads = (part.unflatten(0, (lines, length)).transpose(1, 2) for part in (query, key, value))
    attended = F.scaled_dot_product_attention(*heads, attn_mask=mask)
    added: Tensor = block.wo(attended.transpose(1, 2).flatten(0, 1).flatten(1))
    return added
