"""When each shard is needed next, as far as it was looked: the order is known before it is read.

    step      7        8        9        10 ...
    shards    a b      b c      a        ...        next use from step 8 on: b 8, c 8, a 9

Steps are looked at one after the other, each once. What was not met in them is needed later than
all of them, or never; a cache that must let something go takes that first, and else what is needed
last, which no other rule can beat (Belady, "A study of replacement algorithms for a virtual-storage
computer", 1966).
"""

from collections import deque
from collections.abc import Callable, Sequence

from tokenmill.shards.shard_list import ShardInfo

STEPS_BEHIND = 64
"""Steps that are remembered when they are past: another rank may still be at them."""


class Horizon:
    """The shards of some steps behind and ahead of a position."""

    def __init__(self, shards_of: Callable[[int], Sequence[ShardInfo]]) -> None:
        """
        Args:
            shards_of: the shards that a step reads, in the order in which it does.
        """
        self._shards_of = shards_of
        self.begin(0)

    def begin(self, step: int) -> None:
        """Forget everything and look from this step on."""
        self.step = self._first = self.end = step
        self._steps: deque[Sequence[ShardInfo]] = deque()
        self._uses: dict[str, deque[int]] = {}
        self._infos: dict[str, ShardInfo] = {}

    @property
    def num_ahead(self) -> int:
        """Steps that were looked at, from the position on."""
        return self.end - self.step

    def go_to(self, step: int) -> None:
        """Move the position. Far jumps begin anew."""
        if not self._first <= step <= self.end:
            return self.begin(step)
        self.step = step
        while self._first < step - STEPS_BEHIND:
            for info in self._steps.popleft():
                uses = self._uses[info.sha256]
                uses.popleft()
                if not uses:
                    del self._uses[info.sha256], self._infos[info.sha256]
            self._first += 1
        return None

    def look_further(self) -> Sequence[ShardInfo]:
        """Look at one more step, and give its shards."""
        infos = self._shards_of(self.end)
        for info in infos:
            self._uses.setdefault(info.sha256, deque()).append(self.end)
            self._infos[info.sha256] = info
        self._steps.append(infos)
        self.end += 1
        return infos

    def next_use(self, sha256: str, from_step: int) -> int | None:
        """The first step from this one on that needs a shard; None where none is known."""
        return next((step for step in self._uses.get(sha256, ()) if step >= from_step), None)

    def needed(self) -> list[tuple[int, ShardInfo]]:
        """Each shard with its next use from the position on, by that use."""
        found = ((self.next_use(sha256, self.step), info) for sha256, info in self._infos.items())
        return sorted(
            ((step, info) for step, info in found if step is not None), key=lambda use: use[0]
        )
