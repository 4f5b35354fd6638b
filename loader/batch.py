"""A batch: whole packed rows as flat arrays, whose shapes are the same at every step of a phase.

Nothing in it has to be computed by the model: where sequences start, which tokens are masked and
what they were all stand at fixed sizes, so a compiled model sees one shape, and nothing is read
back from the device.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tokenmill.loader.masking import NO_TARGET

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
    pad_id: int
    segment_ids: NDArray[np.int32] | None = None
    """(T,) 1 in the second text of a pair (BERT's token_type_ids); None where no rows are pairs."""
    next_sentence: NDArray[np.int64] | None = None
    """(S,) 1 where the second text of a pair goes on with the first, 0 where it is another's, -100
    for unused slots; None where rows hold no pairs."""
    span_ends: NDArray[np.int64] | None = None
    """(K, 2) the places before and after the masked span that a masked token is in (SpanBERT's
    boundary objective), 0 for unused slots; None where masks are no spans."""

    def to_padded(self) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """The same sequences one a line, for models that know no cu_seqlens.

        Returns:
            input_ids, attention_mask and labels, each (B, L): B sequences that are not padding, L
            the longest of them, so the shape differs from batch to batch. Labels are -100 where
            nothing was masked.
        """
        labels = np.full(len(self.input_ids), NO_TARGET, np.int64)
        used = self.targets != NO_TARGET
        labels[self.masked_positions[used]] = self.targets[used]
        starts, ends = self.cu_seqlens[:-1], self.cu_seqlens[1:]
        real = ends > starts
        real[real] = self.input_ids[starts[real]] != self.pad_id
        starts, lengths = starts[real], (ends - starts)[real]
        place = np.arange(lengths.max(initial=0))
        inside = place < lengths[:, None]  # (B, L)
        index = np.where(inside, starts[:, None] + place, 0)
        return (
            np.where(inside, self.input_ids[index], np.int32(self.pad_id)),
            inside.astype(np.int64),
            np.where(inside, labels[index], NO_TARGET),
        )

    def to_torch(self, device: "torch.device | str") -> "TorchBatch":
        """The same as tensors on a device; to CUDA through pinned memory, without waiting."""
        # Whoever reads batches as numpy arrays should not wait seconds for this import.
        import torch

        on_cuda = torch.device(device).type == "cuda"
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                # torch can do little with uint64; the bits are the same.
                signed = value.view(np.int64) if value.dtype == np.uint64 else value
                tensor = torch.from_numpy(signed)
                tensor = tensor.pin_memory() if on_cuda else tensor
                values[name] = tensor.to(device, non_blocking=on_cuda)
        return TorchBatch(**values)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TorchBatch:
    """A Batch of torch tensors; of the same shapes and types, but doc_ids are int64."""

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
    pad_id: int
    segment_ids: "torch.Tensor | None" = None
    next_sentence: "torch.Tensor | None" = None
    span_ends: "torch.Tensor | None" = None
