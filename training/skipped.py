"""Steps that change nothing because their loss or gradient is not finite, and when to give up.

They are counted on the device, which nobody waits for; the counts are read in logged steps and
before checkpoints. One bad step is the data's or the hardware's and does no harm. Many in a row are
a training that has diverged, which lower rates mend, or rows that it cannot read.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tokenmill.errors import NonFiniteLossError
from tokenmill.loader import Loader
from tokenmill.training.checkpoint import Position

NUM_SHOWN = 20
"""Documents that the error names."""


class Skips(NamedTuple):
    """Counts of skipped steps."""

    total: int
    in_a_row: int
    """The last ones; 0 where the last step was sound."""
    too_many: int
    """The first step with which there were more in a row than allowed; 0 while there is none."""


class SkipCounter:
    """The counts, on the device."""

    def __init__(self, max_in_a_row: int, device: torch.device) -> None:
        self._max_in_a_row, self._device = max_in_a_row, device
        self.set(total=0, in_a_row=0)

    def set(self, *, total: int, in_a_row: int) -> None:
        """Take those of a checkpoint."""
        self._counts = torch.tensor([total, in_a_row, 0], device=self._device)

    def count(self, found_inf: Tensor, step: int) -> None:
        """Count one step.

        Args:
            found_inf: () 1 where it is skipped, else 0.
            step: its number, from 1.
        """
        total, in_a_row, too_many = self._counts.unbind()
        skipped = found_inf.long()
        in_a_row = (in_a_row + 1) * skipped
        is_first = (too_many == 0) & (in_a_row > self._max_in_a_row)
        too_many = torch.where(is_first, step, too_many)
        self._counts = torch.stack([total + skipped, in_a_row, too_many])

    def read(self) -> Skips:
        """The counts so far; waits for the device."""
        return Skips(*self._counts.tolist())


def refuse_too_many(skips: Skips, max_in_a_row: int, run: Path, position: Position) -> None:
    """Give up where too many steps were skipped one after the other.

    Args:
        position: in the phase of the last of them.

    Raises:
        NonFiniteLossError: names the steps, the first one's documents, and what to do.
    """
    if not skips.too_many:
        return
    before_phase = position.step - position.phase_step
    first = max(skips.too_many - max_in_a_row, before_phase + 1)
    step = first - before_phase - 1  # as the loader counts, from 0 in each phase
    with Loader(run, position.phase) as loader:
        batches = loader.batch_at(step)
    documents = sorted({int(doc) for batch in batches for doc in batch.doc_ids if doc})
    shown = ", ".join(map(str, documents[:NUM_SHOWN]))
    rest = len(documents) - NUM_SHOWN
    place = f"{run} --phase {position.phase}"
    raise NonFiniteLossError(
        f"steps {first:,} to {skips.too_many:,}, {position.phase}: expected a finite loss and "
        f"gradient, found none in {skips.too_many - first + 1} steps in a row, more than training."
        f"max_skipped_steps: {max_in_a_row}. They changed no weight. Lower the learning rate or "
        f"clip_norm; if the same steps fail again, `tokenmill inspect {place} --step {step}` shows "
        f"the text of the first, `tokenmill skip {place} --steps "
        f"{step}-{skips.too_many - before_phase - 1}` leaves them out. Documents of the first: "
        f"{shown}{f' and {rest:,} more' if rest > 0 else ''}."
    )
