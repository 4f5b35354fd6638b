"""From the rows of a step to its batches: read, lay out, mask.

A step's rows are known to every rank, with their sequences but without their tokens; so every rank
knows how many tokens the whole step masks, and ranks need not speak to each other. Tokens are read
for a rank's own rows only.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import FormatError
from tokenmill.loader.batch import Batch
from tokenmill.loader.hidden import Hidden
from tokenmill.loader.layout import lay_out, num_sequence_slots
from tokenmill.loader.masking import NO_TARGET, mask_rows, prepare_masking
from tokenmill.loader.masking_config import MaskingConfig
from tokenmill.loader.rows import PackRows, Pieces
from tokenmill.shards.run import TokenizerInfo


@dataclass(frozen=True, slots=True)
class StepRows:
    """The rows of a step over all ranks, in their canonical order."""

    step: int
    rows: NDArray[np.int64]
    """(rows,) numbers in PackRows."""
    mask_keys: NDArray[np.uint64]
    """(rows,) differ between two visits of a row."""
    pieces: Pieces
    num_targets: NDArray[np.int64]
    """(rows,) tokens that are masked."""


class Assembler:
    """Makes batches of one shape from rows of one pack."""

    def __init__(
        self,
        pack: PackRows,
        max_length: int,
        tokenizer: TokenizerInfo,
        masking: MaskingConfig,
        hidden: Hidden,
    ) -> None:
        self._pack = pack
        self._max_length = max_length
        self._pad_id = tokenizer.pad_id
        self._hidden = hidden
        self._masking = prepare_masking(masking, tokenizer)
        self._mask_slots = self._masking.num_slots(pack.row_tokens)
        self._sequence_slots = num_sequence_slots(pack.row_tokens, max_length, pack.max_pieces)

    def step_rows(
        self, step: int, rows: NDArray[np.int64], mask_keys: NDArray[np.uint64]
    ) -> StepRows:
        """Look up what stands in the rows of a step."""
        pieces = self._pack.pieces(rows)
        pieces = replace(pieces, is_hidden=self._hidden.at(step, pieces.doc_ids))
        num_targets = self._masking.num_targets(pieces.num_maskable())
        return StepRows(step, rows, mask_keys, pieces, num_targets)

    def batch(
        self, step: StepRows, places: range, num_rows: int, *, index: int, num_micro_batches: int
    ) -> Batch:
        """The batch of the rows at these places of the step, filled up to num_rows with padding.

        Raises:
            FormatError: a shard is missing or damaged.
        """
        own = slice(places.start, places.stop)
        pieces = step.pieces.of_rows(places)
        row_tokens = self._pack.row_tokens
        input_ids = np.empty(num_rows * row_tokens, np.int32)
        input_ids[len(places) * row_tokens :] = self._pad_id
        self._pack.copy_tokens(step.rows[own], input_ids)
        hidden = pieces.is_hidden
        for start, length in zip(
            pieces.starts(row_tokens)[hidden], pieces.lengths[hidden], strict=True
        ):
            input_ids[start : start + length] = self._pad_id

        position_ids = np.empty_like(input_ids)
        doc_ids = np.empty(num_rows * self._sequence_slots, np.uint64)
        cu_seqlens = np.empty(len(doc_ids) + 1, np.int32)
        lay_out(
            pieces.lengths,
            np.where(hidden, np.uint64(0), pieces.doc_ids),
            pieces.joined,
            pieces.row_ends,
            row_tokens,
            self._max_length,
            cu_seqlens,
            position_ids,
            doc_ids,
        )

        masked_positions = np.zeros(num_rows * self._mask_slots, np.int64)
        targets = np.full_like(masked_positions, NO_TARGET)
        bad_row = mask_rows(
            self._masking,
            input_ids,
            step.mask_keys[own],
            pieces.lengths,
            pieces.row_ends,
            step.num_targets[own],
            row_tokens=row_tokens,
            positions=masked_positions,
            targets=targets,
            is_hidden=hidden,
        )
        if bad_row is not None:
            raise FormatError(
                f"{self._pack.name(int(step.rows[own][bad_row]))}: a special or unknown token id "
                "stands inside a sequence: the file is damaged. Run `tokenmill verify`, delete "
                "what it names and build the run again."
            )
        row_weights = np.zeros(num_rows, np.float32)
        row_weights[: len(places)] = 1
        return Batch(
            step=step.step,
            micro_batch=index,
            num_micro_batches=num_micro_batches,
            input_ids=input_ids,
            position_ids=position_ids,
            cu_seqlens=cu_seqlens,
            max_length=self._max_length,
            masked_positions=masked_positions,
            targets=targets,
            doc_ids=doc_ids,
            row_weights=row_weights,
            num_tokens=int(pieces.num_real_tokens().sum()),
            step_targets=int(step.num_targets.sum()),
            pad_id=self._pad_id,
        )
