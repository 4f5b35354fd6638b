"""How many rows each step of a phase has: the whole batch, or a staircase that leads up to it.

    sizes = BatchSizes(start=2, full=6, warmup_rows=12)
    step            0 1 2 3 4 5 6 ...
    rows            2 2 4 4 6 6 6 ...        the batch grows by its first size, equally many
    rows before     0 2 4 8 12 18 24 ...     steps on each stair

Steps and rows are tied by arithmetic, with no list of steps: on a staircase of S stairs over T
steps, step i stands on stair i * S // T, so the rows before a step are a sum of floors, which
Euclid's algorithm gives in O(log S). The warm-up takes the number of rows that it is given to
within one full step. ModernBERT's goes from 768 to 4,608 sequences in five stairs, of 4,239 steps
each (arXiv:2412.13663).
"""

from bisect import bisect_left
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """Rows of each step."""

    start: int
    """Rows of the first step; from it on the batch grows by as many at a time."""
    full: int
    """Rows of a step after the warm-up, at least start."""
    warmup_rows: int = 0
    """Rows that are read while the batch grows."""

    @property
    def stairs(self) -> int:
        """Sizes below the full one."""
        return -(-self.full // self.start) - 1

    @property
    def warmup_steps(self) -> int:
        """Steps before the first full one."""
        # A staircase of equally wide stairs has (stairs + 1) / 2 x start rows a step.
        return -(-2 * self.warmup_rows // (self.start * (self.stairs + 1))) if self.stairs else 0

    def rows_of(self, step: int) -> int:
        """Rows of a step."""
        if step >= self.warmup_steps:
            return self.full
        return self.start * (1 + step * self.stairs // self.warmup_steps)

    def rows_before(self, step: int) -> int:
        """Rows of all steps before this one."""
        rising = min(step, self.warmup_steps)
        risen = _sum_of_floors(rising, self.stairs, self.warmup_steps) if rising else 0
        return self.start * (rising + risen) + self.full * (step - rising)

    def steps_until(self, rows: int) -> int:
        """The least number of steps that have at least so many rows together."""
        in_warmup = self.rows_before(self.warmup_steps)
        if rows > in_warmup:
            return self.warmup_steps - (in_warmup - rows) // self.full
        return bisect_left(range(self.warmup_steps), rows, key=self.rows_before)


def _sum_of_floors(count: int, numerator: int, denominator: int) -> int:
    """The sum of i * numerator // denominator over all i below count."""
    total, offset = 0, 0
    while True:
        whole, numerator = divmod(numerator, denominator)
        total += whole * count * (count - 1) // 2
        whole, offset = divmod(offset, denominator)
        total += whole * count
        highest = numerator * count + offset
        if highest < denominator:
            return total
        # Points under a line are counted along its other axis.
        count, offset = divmod(highest, denominator)
        numerator, denominator = denominator, numerator
