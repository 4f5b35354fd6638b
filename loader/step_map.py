"""Which step of the order each step of training reads: the same one, until steps are skipped or
replayed.

    skip 2-3              training  0 1 2 3 4 5 6 ...    segments start  0 2
                          order     0 1 4 5 6 7 8        and read         0 4

    then replay 1-2 at 4  training  0 1 2 3 4 5 6 ...    segments start  0 2 4 5 6
                          order     0 1 4 5 1 4 6        and read         0 4 1 4 6

A map is a short list of segments, in each of which both numbers rise together; an entry of the
overlay cuts the list and puts the pieces together anew. So a lookup takes a search in as many
segments as entries have made, whatever the number of steps.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from tokenmill.shards.overlay import Overlay, ReplayedSteps, SkippedSteps


@dataclass(frozen=True, slots=True)
class StepMap:
    """From the steps of a phase to the steps of its order. One entry a segment; the last segment
    has no end."""

    starts: tuple[int, ...] = (0,)
    """The first step of training, rising from 0."""
    order_starts: tuple[int, ...] = (0,)
    """The step of the order that it reads."""
    used_before: tuple[int, ...] = (0,)
    """Steps of the order that are used up when the segment begins."""

    def order_step(self, step: int) -> int:
        """The step of the order that a step of training reads."""
        segment = bisect_right(self.starts, step) - 1
        return self.order_starts[segment] + step - self.starts[segment]

    def steps_of(self, order_step: int) -> tuple[int, ...]:
        """The steps of training that read a step of the order, rising: none where it is skipped,
        several where it is replayed."""
        ends = (*self.starts[1:], None)
        found = []
        for start, end, order_start in zip(self.starts, ends, self.order_starts, strict=True):
            step = start + order_step - order_start
            if start <= step and (end is None or step < end):
                found.append(step)
        return tuple(found)

    def order_steps_until(self, step: int) -> int:
        """How many steps of the order are used up by the training steps before this one, those
        skipped among them counted: what the next phase over the same pack goes on from."""
        segment = bisect_left(self.starts, step) - 1
        if segment < 0:
            return 0
        read = self.order_starts[segment] + step - self.starts[segment]
        return max(self.used_before[segment], read)

    def after(self, entry: SkippedSteps | ReplayedSteps) -> "StepMap":
        """The map with one more entry, whose steps are numbered by this one."""
        if isinstance(entry, SkippedSteps):
            pieces = [*self._between(0, entry.first), *self._from(entry.last + 1)]
        else:
            again = self._between(entry.first, entry.last + 1)
            pieces = [*self._between(0, entry.step), *again, *self._from(entry.step)]
        return _joined(pieces)

    def _between(self, start: int, end: int) -> list[tuple[int, int]]:
        """The steps of the order that these steps of training read, as (first, number) pairs."""
        bounds = [start, *(s for s in self.starts if start < s < end), end]
        return [(self.order_step(low), high - low) for low, high in pairwise(bounds) if low < high]

    def _from(self, start: int) -> list[tuple[int, int]]:
        """The same for all steps from one on; the last pair has no end and says 0."""
        last = max(start, self.starts[-1])
        return [*self._between(start, last), (self.order_step(last), 0)]


def step_map(overlay: Overlay, phase: str) -> StepMap:
    """The map that a run's overlay makes for a phase."""
    mapped = StepMap()
    for entry in overlay.moved_steps(phase):
        mapped = mapped.after(entry)
    return mapped


def _joined(pieces: Iterable[tuple[int, int]]) -> StepMap:
    """The map that reads these runs of the order one after the other."""
    starts: list[int] = []
    order_starts: list[int] = []
    used_before: list[int] = []
    start = used = 0
    order_end = -1  # one past what the segment so far reads
    for order_start, number in pieces:
        if order_start != order_end:
            starts.append(start)
            order_starts.append(order_start)
            used_before.append(used)
        start += number
        order_end = order_start + number
        used = max(used, order_end if number else used)
    return StepMap(tuple(starts), tuple(order_starts), tuple(used_before))
