"""A batch: whole packed rows as flat arrays, whose shapes are the same at every step of a phase.

Nothing in it has to be computed by the model: where sequences start, which tokens are masked and
what they were all stand at fixed sizes, so a compiled model sees one shape, and nothing is read
back from the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.loader.masking import NO_TARGET
from tokenmill.loader.padded import Lines, PaddedBatch, num_real_tokens

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Batch:
    """A rank's micro-batch: T tokens, slots for S sequences and for K masked tokens."""

    step: int
    micro_batch: int
    num_micro_batches: int
    input_ids: NDArray[np.int32]
    """(T,) masked tokens already replaced."""
    position_ids: NDArray[np.int32]
    """(T,) from 0 in every sequence."""
    cu_seqlens: NDArray[np.int32]
    """(S + 1,) starts at 0 and never falls; padding forms sequences of its own; closed by repeating
    T."""
    max_length: int
    """No sequence is longer; the same for the whole phase."""
    masked_positions: NDArray[np.int64]
    """(K,) places in input_ids, rising within each row; unused slots are 0."""
    targets: NDArray[np.int64]
    """(K,) the ids that stood there; unused slots are -100."""
    doc_ids: NDArray[np.uint64]
    """(S,) the document of each sequence, 0 for padding."""
    row_weights: NDArray[np.float32]
    """(rows,) 1, or 0 for a row that only fills up a rank and is all padding."""
    num_tokens: int
    """Tokens of this batch that are not padding."""
    step_targets: int
    """Masked tokens of the whole step over all ranks: what the summed loss is divided by."""
    step_pairs: int
    """Pairs of the whole step over all ranks: what the summed loss of next_sentence is divided by.
    0 where no rows are pairs."""
    pad_id: int
    segment_ids: NDArray[np.int32] | None = None
    """(T,) 1 in the second text of a pair (BERT's token_type_ids); None where no rows are pairs."""
    next_sentence: NDArray[np.int64] | None = None
    """(S,) 1 where the second text of a pair goes on with the first, 0 where it is another's, -100
    for unused slots; None where rows hold no pairs."""
    span_ends: NDArray[np.int64] | None = None
    """(K, 2) the places before and after the masked span that a masked token is in (SpanBERT's
    boundary objective); 0 and 0 for unused slots, and where one of them is a special token or
    another document's; None where masks are no spans."""
    mask_keys: NDArray[np.uint64] | None = None
    """(rows,) what the device draws the masks of each row from: the batch is not masked yet, and K
    is 0 (see device_masks.py); None where it is."""
    num_targets: NDArray[np.int64] | None = None
    """(rows,) how many tokens the device is to mask; None where they are."""

    def to_padded(
        self, length: int | None = None, *, pad_to_multiple_of: int = 1, lines_multiple_of: int = 1
    ) -> PaddedBatch:
        """The same sequences one a line, for models that know no cu_seqlens.

        Args:
            length: tokens of a line, such as max_length; None takes the longest sequence, so the
                shape differs from batch to batch.
            pad_to_multiple_of: the tokens of a line are rounded up to a multiple of it.
            lines_multiple_of: so is the number of lines, by empty ones. There is at least one line.

        Raises:
            RecipeError: a sequence is longer than `length`, or the batch is not masked yet.
        """
        num_real = num_real_tokens(self.input_ids, self.cu_seqlens, self.pad_id)
        longest = int(np.diff(self.cu_seqlens)[num_real > 0].max(initial=1))
        if length is not None and length < longest:
            raise RecipeError(
                f"length: need at least {longest} tokens, the longest sequence of step "
                f"{self.step:,}, got {length}. max_length = {self.max_length} is enough for all."
            )
        line_tokens = _round_up(length or longest, pad_to_multiple_of)
        return self._padded(num_real, line_tokens, lines_multiple_of)

    def to_length_groups(
        self, edges: Sequence[int], *, lines_multiple_of: int = 1
    ) -> tuple[PaddedBatch, ...]:
        """The same sequences one a line, those of one length class in one padded batch.

        Args:
            edges: rising lengths in tokens, e.g. (128, 256, 512, 1024). A sequence goes to the
                first that holds it, so a group's lines have as many tokens as its edge.
            lines_multiple_of: the lines of a group are rounded up to a multiple of it by empty
                ones, which leaves few shapes.

        Returns:
            The groups that have sequences, shortest first; the first one, empty, where none has.

        Raises:
            RecipeError: the edges do not rise, the last is below max_length, or the batch is not
                masked yet.
        """
        if list(edges) != sorted(set(edges)) or not edges or not edges[-1] >= self.max_length:
            raise RecipeError(
                f"edges: need rising lengths, the last at least max_length = {self.max_length}, "
                f"got {tuple(edges)}"
            )
        num_real = num_real_tokens(self.input_ids, self.cu_seqlens, self.pad_id)
        edge = np.searchsorted(edges, np.diff(self.cu_seqlens))  # (S,)
        found = np.unique(edge[num_real > 0]).tolist() or [0]
        return tuple(
            self._padded(np.where(edge == number, num_real, 0), edges[number], lines_multiple_of)
            for number in found
        )

    def _padded(self, num_real: NDArray[np.int64], line_tokens: int, multiple: int) -> PaddedBatch:
        """The sequences with real tokens (S,) in lines of line_tokens."""
        if self.mask_keys is not None:
            raise RecipeError(
                "masks: a batch that a device is to mask has no targets yet to be put into lines. "
                "Open the loader with masks='host'."
            )
        lengths = np.diff(self.cu_seqlens)
        chosen = num_real > 0
        num_lines = _round_up(max(int(chosen.sum()), 1), multiple)
        lines = Lines(self.cu_seqlens, chosen, num_lines, line_tokens)
        used = self.targets != NO_TARGET
        masked = self.masked_positions[used]
        segments, ends = self.segment_ids, self.span_ends
        is_next = self.next_sentence
        return PaddedBatch(
            step=self.step,
            micro_batch=self.micro_batch,
            num_micro_batches=self.num_micro_batches,
            input_ids=lines.of_tokens(self.input_ids, fill=self.pad_id),
            # An empty line attends to its first token.
            attention_mask=lines.of_lengths(lines.of_sequences(lengths, fill=1)),
            labels=lines.of_places(masked, self.targets[used], fill=NO_TARGET),
            doc_ids=lines.of_sequences(self.doc_ids, fill=0),
            num_tokens=int(num_real.sum()),
            step_targets=self.step_targets,
            step_pairs=self.step_pairs,
            token_type_ids=None if segments is None else lines.of_tokens(segments, fill=0),
            next_sentence=None if is_next is None else lines.of_sequences(is_next, fill=NO_TARGET),
            span_ends=(
                None
                if ends is None
                else lines.of_places(masked, self.position_ids[ends[used]], fill=0)
            ),
        )

    def to_torch(self, device: "torch.device | str" = "cpu") -> "TorchBatch":
        """The same as tensors. On a CPU they share the arrays' memory."""
        # Whoever reads batches as numpy arrays should not wait seconds for this import.
        import torch

        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                # torch can do little with uint64; the bits are the same.
                signed = value.view(np.int64) if value.dtype == np.uint64 else value
                values[name] = torch.from_numpy(signed)
        return TorchBatch(**values).to(device)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TorchBatch:
    """A Batch of torch tensors; of the same shapes and types, but uint64 is int64."""

    step: int
    micro_batch: int
    num_micro_batches: int
    input_ids: "torch.Tensor"
    position_ids: "torch.Tensor"
    cu_seqlens: "torch.Tensor"
    max_length: int
    masked_positions: "torch.Tensor"
    targets: "torch.Tensor"
    doc_ids: "torch.Tensor"
    row_weights: "torch.Tensor"
    num_tokens: int
    step_targets: int
    step_pairs: int
    pad_id: int
    segment_ids: "torch.Tensor | None" = None
    next_sentence: "torch.Tensor | None" = None
    span_ends: "torch.Tensor | None" = None
    mask_keys: "torch.Tensor | None" = None
    num_targets: "torch.Tensor | None" = None

    def to(self, device: "torch.device | str", non_blocking: bool = False) -> "TorchBatch":
        """The same on a device. What moves batches by itself (accelerate, Lightning) calls it."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "TorchBatch":
        """The same in pinned memory; DataLoader(pin_memory=True) calls it."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: "Callable[[torch.Tensor], torch.Tensor]") -> "TorchBatch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if hasattr(value, "pin_memory"):
                values[name] = change(value)
        return TorchBatch(**values)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
