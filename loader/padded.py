"""A padded batch: one sequence a line, for models that know no cu_seqlens.

    packed           [CLS] a [M] c [SEP] [CLS] d [SEP]       cu_seqlens 0 5 8, target b
    input_ids        [CLS] a [M] c [SEP]   attention_mask  1 1 1 1 1   labels  . . b . .
                     [CLS] d [SEP] 0 0                     1 1 1 0 0           . . . . .

`Batch.to_padded` makes one batch of a micro-batch, `Batch.to_length_groups` one for each class of
lengths. Every sequence with text is there, in the order of the batch, behind the same masks; so the
summed loss is that of the packed batch up to rounding, and is divided by the same `step_targets`.
Position ids are the columns, which such models count by themselves.

The price is padding: a sequence of 30 tokens takes as much as one of 512 beside it. Groups pay
less, with more calls of the model.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.loader.compiled import compiled

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class PaddedBatch:
    """B lines of L tokens, each one sequence or empty. Integers are int64, as Hugging Face's own
    collators give them.

    An empty line attends to its first token, because attention to nothing is not a number in some
    kernels; it has no labels.
    """

    step: int
    micro_batch: int
    num_micro_batches: int
    input_ids: NDArray[np.int64]
    """(B, L) masked tokens already replaced, pad_id behind the end of the sequence."""
    attention_mask: NDArray[np.int64]
    """(B, L) 1 for the tokens of the sequence."""
    labels: NDArray[np.int64]
    """(B, L) the ids that stood at the masked places, -100 elsewhere."""
    doc_ids: NDArray[np.uint64]
    """(B,) as in Batch, 0 for empty lines."""
    num_tokens: int
    """Tokens that are not padding."""
    step_targets: int
    """Masked tokens of the whole step, over all groups, micro-batches and ranks: what the summed
    loss is divided by."""
    step_pairs: int
    """Pairs of the whole step, counted likewise; 0 where no rows are pairs."""
    token_type_ids: NDArray[np.int64] | None = None
    """(B, L) 1 in the second text of a pair; None where no rows are pairs."""
    next_sentence: NDArray[np.int64] | None = None
    """(B,) as in Batch, -100 for empty lines; None where rows hold no pairs."""
    span_ends: NDArray[np.int64] | None = None
    """(B, L, 2) the columns before and after the masked span that a masked token is in, 0
    elsewhere; None where masks are no spans."""

    def for_transformers(self) -> "dict[str, torch.Tensor]":
        """What a Hugging Face model takes: input_ids, attention_mask and labels, and where there
        are pairs token_type_ids and next_sentence_label."""
        # Whoever reads batches as numpy arrays should not wait seconds for this import.
        import torch

        arrays = {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "labels": self.labels,
            "token_type_ids": self.token_type_ids,
            "next_sentence_label": self.next_sentence,
        }
        return {name: torch.from_numpy(a) for name, a in arrays.items() if a is not None}


class Lines:
    """Where the tokens of some sequences of a flat batch stand in B lines of L tokens."""

    def __init__(
        self,
        cu_seqlens: NDArray[np.int32],
        chosen: NDArray[np.bool_],
        num_lines: int,
        line_tokens: int,
    ) -> None:
        """Give each chosen sequence a line, in their order; lines that are left stay empty.

        Args:
            cu_seqlens: (S + 1,).
            chosen: (S,) which sequences have a line; none of them is longer than line_tokens.
        """
        self._cu_seqlens = cu_seqlens
        self._chosen = chosen
        self._line = np.where(chosen, np.cumsum(chosen) - 1, -1)
        """(S,) the line of each sequence, -1 for those without."""
        self._shape = (num_lines, line_tokens)

    def of_tokens(self, values: NDArray[np.int32], *, fill: int) -> NDArray[np.int64]:
        """(B, L) the values (T,) of all tokens."""
        lines = np.full(self._shape, fill, np.int64)
        _copy_lines(values, self._cu_seqlens, self._line, lines)
        return lines

    def of_places(
        self, places: NDArray[np.int64], values: NDArray[Any], *, fill: int
    ) -> NDArray[np.int64]:
        """(B, L, ...) the values (n, ...) of the tokens at these n places of the batch."""
        sequence = np.searchsorted(self._cu_seqlens, places, side="right") - 1
        inside = self._chosen[sequence]
        sequence = sequence[inside]
        lines = np.full((*self._shape, *values.shape[1:]), fill, np.int64)
        column = places[inside] - self._cu_seqlens[sequence]
        lines[self._line[sequence], column] = values[inside]
        return lines

    def of_sequences(self, values: NDArray[Any], *, fill: int) -> NDArray[Any]:
        """(B,) the values (S,) of sequences."""
        own = values[self._chosen]
        return np.concatenate([own, np.full(self._shape[0] - len(own), fill, values.dtype)])

    def of_lengths(self, lengths: NDArray[Any]) -> NDArray[np.int64]:
        """(B, L) 1 in the first tokens of each line, as many as its length (B,) says."""
        return (np.arange(self._shape[1]) < lengths[:, None]).astype(np.int64)


@compiled("void(int32[::1], int32[::1], int64[::1], int64[:, ::1])")
def _copy_lines(
    values: NDArray[np.int32],
    cu_seqlens: NDArray[np.int32],
    line_of_sequence: NDArray[np.int64],
    lines: NDArray[np.int64],
) -> None:
    for sequence in range(len(line_of_sequence)):
        line = line_of_sequence[sequence]
        if line >= 0:
            start = cu_seqlens[sequence]
            for column in range(cu_seqlens[sequence + 1] - start):
                lines[line, column] = values[start + column]


@compiled("int64[::1](int32[::1], int32[::1], int64)")
def num_real_tokens(
    input_ids: NDArray[np.int32], cu_seqlens: NDArray[np.int32], pad_id: int
) -> NDArray[np.int64]:
    """(S,) tokens of each sequence that are not padding. Documents that were taken back stand in
    sequences of their own, so it is all of them or none."""
    counts = np.zeros(len(cu_seqlens) - 1, np.int64)
    for sequence in range(len(counts)):
        for place in range(cu_seqlens[sequence], cu_seqlens[sequence + 1]):
            counts[sequence] += input_ids[place] != pad_id
    return counts
