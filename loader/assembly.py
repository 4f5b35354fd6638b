"""From the rows of a step to its batches: read, lay out, mask.

A step's rows are known to every rank, with their sequences but without their tokens; so every rank
knows how many tokens the whole step masks and how many pairs it has, and ranks need not speak to
each other. Tokens are read for a rank's own rows only.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import FormatError
from tokenmill.loader.batch import Batch
from tokenmill.loader.hidden import Hidden
from tokenmill.loader.layout import lay_out, num_sequence_slots
from tokenmill.loader.masking import NO_MASKS, Masking, find_damaged, mask_rows
from tokenmill.loader.pairs import label_pairs
from tokenmill.loader.rows import PackRows, Pieces
from tokenmill.shards.run import TokenizerInfo

Masks = Literal["host", "device"]
"""Who makes them: the loader, or the device from what the loader gives it."""


@dataclass(frozen=True, slots=True)
class StepRows:
    """The rows of a step over all ranks, in their canonical order."""

    step: int
    rows: NDArray[np.int64]
    """(rows,) numbers in PackRows."""
    mask_keys: NDArray[np.uint64]
    """(rows,) differ between two visits of a row."""
    pieces: Pieces
    """A hidden one is a sequence of its own."""
    is_skipped: NDArray[np.bool_]
    """(rows,) of which nothing is read: all of the row is padding."""
    num_maskable: NDArray[np.int64]
    """(rows,) tokens that are neither padding nor special."""
    num_targets: NDArray[np.int64]
    """(rows,) tokens that are masked."""
    num_pairs: int
    """Pairs of texts in all rows, 0 where the pack's sequences are none."""


class Assembler:
    """Makes batches of one shape from rows of one pack."""

    def __init__(
        self,
        pack: PackRows,
        max_length: int,
        tokenizer: TokenizerInfo,
        masking: Masking,
        hidden: Hidden,
        *,
        pairs: bool = False,
        masks: Masks = "host",
    ) -> None:
        """
        Args:
            pairs: whether the pack's sequences are pairs of texts, which get labels.
            masks: whether batches come masked, or with what a device needs to mask them.
        """
        self._pack = pack
        self._max_length = max_length
        self._pad_id = tokenizer.pad_id
        self._hidden = hidden
        self._masking = masking
        self._pairs = pairs
        self._masks = masks
        self._sequence_slots = num_sequence_slots(pack.row_tokens, max_length, pack.max_pieces)

    def step_rows(
        self, step: int, rows: NDArray[np.int64], mask_keys: NDArray[np.uint64]
    ) -> StepRows:
        """Look up what stands in the rows of a step."""
        is_skipped = self._hidden.skipped(step, rows)
        pieces = self._pack.pieces(rows, is_skipped)
        pieces = _apart(replace(pieces, is_hidden=self._hidden.at(step, pieces.doc_ids)))
        maskable = pieces.num_maskable()
        return StepRows(
            step=step,
            rows=rows,
            mask_keys=mask_keys,
            pieces=pieces,
            is_skipped=is_skipped,
            num_maskable=maskable,
            num_targets=self._masking.counts.num_targets(maskable, mask_keys),
            num_pairs=int(pieces.joined.sum()) if self._pairs else 0,
        )

    def batch(
        self, step: StepRows, places: range, num_rows: int, *, index: int, num_micro_batches: int
    ) -> Batch:
        """The batch of the rows at these places of the step, filled up to num_rows with padding.

        Raises:
            FormatError: a shard is missing or damaged.
        """
        row_tokens = self._pack.row_tokens
        pieces = step.pieces.of_rows(places)
        starts = pieces.starts(row_tokens)
        input_ids = self._read(step, places, num_rows)
        for start, length in zip(
            starts[pieces.is_hidden], pieces.lengths[pieces.is_hidden], strict=True
        ):
            input_ids[start : start + length] = self._pad_id
        self._check(step, places, input_ids)
        keys = np.zeros(num_rows, np.uint64)
        num_targets = np.zeros(num_rows, np.int64)
        row_weights = np.zeros(num_rows, np.float32)
        keys[: len(places)] = step.mask_keys[places.start : places.stop]
        num_targets[: len(places)] = step.num_targets[places.start : places.stop]
        row_weights[: len(places)] = 1
        on_host = self._masks == "host"
        masks = NO_MASKS
        if on_host:
            masks = mask_rows(
                self._masking, input_ids, keys, num_targets, starts, row_tokens=row_tokens
            )

        position_ids = np.empty_like(input_ids)
        doc_ids = np.empty(num_rows * self._sequence_slots, np.uint64)
        cu_seqlens = np.empty(len(doc_ids) + 1, np.int32)
        lay_out(
            pieces.lengths,
            np.where(pieces.is_hidden, np.uint64(0), pieces.doc_ids),
            pieces.joined,
            pieces.row_ends,
            row_tokens,
            self._max_length,
            cu_seqlens,
            position_ids,
            doc_ids,
        )
        segment_ids, next_sentence = None, None
        if self._pairs:
            segment_ids, next_sentence = label_pairs(pieces, starts, cu_seqlens)
        return Batch(
            step=step.step,
            micro_batch=index,
            num_micro_batches=num_micro_batches,
            input_ids=input_ids,
            position_ids=position_ids,
            cu_seqlens=cu_seqlens,
            max_length=self._max_length,
            masked_positions=masks.positions,
            targets=masks.targets,
            doc_ids=doc_ids,
            row_weights=row_weights,
            num_tokens=int(pieces.num_real_tokens().sum()),
            step_targets=int(step.num_targets.sum()),
            step_pairs=step.num_pairs,
            pad_id=self._pad_id,
            segment_ids=segment_ids,
            next_sentence=next_sentence,
            span_ends=masks.span_ends,
            mask_keys=None if on_host else keys,
            num_targets=None if on_host else num_targets,
        )

    def _read(self, step: StepRows, places: range, num_rows: int) -> NDArray[np.int32]:
        """(num_rows * row_tokens,) the rows' tokens; padding where one is skipped or missing."""
        row_tokens = self._pack.row_tokens
        own = slice(places.start, places.stop)
        input_ids = np.empty((num_rows, row_tokens), np.int32)
        input_ids[len(places) :] = self._pad_id
        input_ids[: len(places)][step.is_skipped[own]] = self._pad_id
        flat = input_ids.reshape(-1)
        self._pack.copy_tokens(step.rows[own], step.is_skipped[own], flat)
        return flat

    def _check(self, step: StepRows, places: range, input_ids: NDArray[np.int32]) -> None:
        maskable = step.num_maskable[places.start : places.stop]
        bad_row = find_damaged(self._masking, input_ids, maskable, row_tokens=self._pack.row_tokens)
        if bad_row is not None:
            row = int(step.rows[places.start + bad_row])
            raise FormatError(
                f"{self._pack.name(row)}: an id is no token, or there are more or fewer special "
                "tokens than the shard says: the file is damaged. Run `tokenmill verify`, delete "
                "what it names and build the run again."
            )


def _apart(pieces: Pieces) -> Pieces:
    """The pieces with hidden ones in sequences of their own, so that nothing attends to them."""
    alone = pieces.is_hidden.copy()
    alone[1:] |= pieces.is_hidden[:-1]
    return replace(pieces, joined=np.where(alone, np.uint8(0), pieces.joined))
