"""Masks of single tokens made on the device that trains: the same, to the bit, as on a CPU.

    loader = Loader(run, "phase1", masks="device")
    masks = DeviceMasks(loader.masking, loader.row_tokens, "cuda")
    for batch in loader:
        batch = masks(batch.to_torch("cuda"))

A batch comes unmasked, with the key of each row and how many of its tokens are taken; hashing and
choosing, most of what a batch costs its core, is the device's. Arithmetic is that of 64-bit
integers, which wrap around everywhere; torch has no unsigned ones, so shifts to the right are
masked, and the sign bit is turned over where order matters. Shapes are static and nothing is read
back: it compiles, and the host never waits.

The price is a sort of each row on the device. Words and spans are taken one after the other, which
a device is slow at: they are made on the host only. So is the check that a row's special tokens are
those that its shard counts: a device could not report it without being waited for.
"""

from dataclasses import replace

import torch
from torch import Tensor

from tokenmill.loader.batch import TorchBatch
from tokenmill.loader.keys import GOLDEN, MIX_1, MIX_2
from tokenmill.loader.masking import NO_TARGET, Masking

# The int64 that have the bits of these uint64, which are all above 2**63.
_GOLDEN, _MIX_1, _MIX_2 = (number - (1 << 64) for number in (GOLDEN, MIX_1, MIX_2))
_LOW = (1 << 32) - 1
_SIGN = -(1 << 63)
_NOT_TAKEN = (1 << 63) - 1


class DeviceMasks:
    """Masks batches of one phase on one device."""

    def __init__(self, masking: Masking, row_tokens: int, device: torch.device | str) -> None:
        """
        Raises:
            RecipeError: the unit is a word or a span.
        """
        masking.refuse_other_than_tokens()
        self.num_slots = masking.counts.num_slots(row_tokens)
        self.row_tokens = row_tokens
        self.mask_id = masking.mask_id
        self.mask_below = masking.mask_below
        self.random_below = masking.random_below
        self.is_fixed = torch.from_numpy(masking.is_fixed).to(device)
        self.ordinary_ids = torch.from_numpy(masking.ordinary_ids).to(device)
        self.place = torch.arange(row_tokens, device=device)
        # A table, and not a product in mask: a compiler that knows a number for an index may take
        # it that its products do not wrap around.
        self.steps = (self.place + 1) * _GOLDEN

    def __call__(self, batch: TorchBatch) -> TorchBatch:
        """The batch with its masks; one that has no mask_keys has them already."""
        if batch.mask_keys is None or batch.num_targets is None:
            return batch
        input_ids, positions, targets = self.mask(
            batch.input_ids, batch.mask_keys, batch.num_targets
        )
        return replace(
            batch,
            input_ids=input_ids,
            masked_positions=positions,
            targets=targets,
            mask_keys=None,
            num_targets=None,
        )

    def mask(
        self, input_ids: Tensor, row_keys: Tensor, num_targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What mask_rows makes of the same rows.

        Args:
            input_ids: (tokens,) int32, whole rows, unmasked.
            row_keys: (rows,) int64, the bits of the uint64 keys.
            num_targets: (rows,) int64, 0 for a row that is all padding.

        Returns:
            input_ids (tokens,) int32, and positions and targets, (slots,) int64.
        """
        rows = input_ids.view(-1, self.row_tokens)
        hashes = _mix(row_keys[:, None] + self.steps)
        # The high half of a hash ranks, ties go to the earlier place. Unsigned order is signed
        # order with the sign bit turned over.
        ranks = ((hashes & ~_LOW) | self.place) ^ _SIGN
        ranks = torch.where(self.is_fixed[rows], _NOT_TAKEN, ranks)
        smallest = ranks.sort(1).values[:, : self.num_slots]  # (rows, num_slots)
        is_used = torch.arange(self.num_slots, device=rows.device) < num_targets[:, None]
        # Unused slots stand last, at the place after the row's last.
        taken = torch.where(is_used, smallest & _LOW, self.row_tokens).sort(1).values
        inside = torch.where(is_used, taken, 0)
        bits = hashes.gather(1, inside)
        targets = rows.gather(1, inside)
        action = bits & _LOW
        draw = _shift(_mix(bits + self.steps[inside]), 32)
        random_ids = self.ordinary_ids[(draw * len(self.ordinary_ids)) >> 32]
        hidden = torch.where(action < self.random_below, random_ids, targets)
        hidden = torch.where(action < self.mask_below, self.mask_id, hidden)
        # One column more takes what unused slots write.
        spare = torch.zeros_like(rows[:, :1])
        masked = torch.cat([rows, spare], 1).scatter(1, taken, hidden.to(rows.dtype))
        first = torch.arange(len(rows), device=rows.device)[:, None] * self.row_tokens
        return (
            masked[:, :-1].reshape(-1),
            torch.where(is_used, first + taken, 0).view(-1),
            torch.where(is_used, targets, NO_TARGET).to(torch.int64).view(-1),
        )


def _mix(mixed: Tensor) -> Tensor:
    """What splitmix64 does to its counter, on the bits of int64."""
    mixed = (mixed ^ _shift(mixed, 30)) * _MIX_1
    mixed = (mixed ^ _shift(mixed, 27)) * _MIX_2
    return mixed ^ _shift(mixed, 31)


def _shift(value: Tensor, bits: int) -> Tensor:
    """To the right, zeros from the left."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
