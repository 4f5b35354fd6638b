"""The loader: a position in a phase's order, and batches from there on for ever.

    with Loader(run, "phase1", rank, world_size, micro_batch_rows=4) as loader:
        loader.load_state_dict(state)  # if there is one
        for batch in loader:
            ...

What a step holds depends on the run, the phase and the step alone. Rank, world size, micro-batches
and the thread that works ahead only say who gets which part and when, so they may change at every
resume. Going to a step is arithmetic, whatever its number. A step counts as read when its last
micro-batch was given out.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from tokenmill.errors import RecipeError
from tokenmill.loader.assembly import StepRows
from tokenmill.loader.batch import Batch
from tokenmill.loader.micro_batches import num_micro_batches, rows_per_rank
from tokenmill.loader.phase import Phase
from tokenmill.loader.plan import read_plan
from tokenmill.loader.prefetch import Prefetch
from tokenmill.loader.state import state_of, step_of


class Loader:
    """Batches of one phase for one rank."""

    def __init__(
        self,
        run: Path | str,
        phase: str = "phase1",
        rank: int = 0,
        world_size: int = 1,
        *,
        micro_batch_rows: int | None = None,
        prefetch: int = 2,
    ) -> None:
        """Open a phase of a finished build; no shard is read before the first batch.

        Args:
            micro_batch_rows: rows of a batch; None gives a rank's whole share of a step as one
                batch.
            prefetch: batches made ahead by a thread; 0 makes each one when it is asked for.

        Raises:
            FormatError: the run is missing or damaged.
            RecipeError: there is no such phase or rank, or the mixture takes from a subset without
                rows.
        """
        if world_size < 1:
            raise RecipeError(f"world_size: need at least 1, got {world_size}")
        if not 0 <= rank < world_size:
            raise RecipeError(f"rank: need 0 to world_size - 1 = {world_size - 1}, got {rank}")
        if micro_batch_rows is not None and micro_batch_rows < 1:
            raise RecipeError(f"micro_batch_rows: need at least 1, got {micro_batch_rows}")
        plan = read_plan(Path(run), phase)
        share = rows_per_rank(plan.rows_per_step, world_size)
        self.plan = plan
        self.micro_batch_rows = micro_batch_rows or share
        self.num_micro_batches = num_micro_batches(
            plan.rows_per_step, world_size, self.micro_batch_rows
        )
        self._phase = Phase(plan)
        self._batch = partial(
            self._phase.batch,
            rank=rank,
            world_size=world_size,
            micro_batch_rows=self.micro_batch_rows,
        )
        self._prefetch = prefetch
        self._step = 0
        self._feed: Prefetch[Batch] | None = None

    @property
    def step(self) -> int:
        """The next step; all before it were given out whole."""
        return self._step

    @property
    def num_steps(self) -> int:
        """Steps of the phase by its schedule's tokens. Iterating does not end there."""
        return self.plan.num_steps

    @property
    def rows_per_step(self) -> int:
        """Rows of a step over all ranks."""
        return self.plan.rows_per_step

    @property
    def row_tokens(self) -> int:
        return self.plan.manifest.row_tokens

    @property
    def max_length(self) -> int:
        """No sequence is longer, in tokens."""
        return self.plan.manifest.max_length

    @property
    def vocab_size(self) -> int:
        return self.plan.tokenizer.vocab_size

    def batch_at(self, step: int) -> tuple[Batch, ...]:
        """All of the rank's micro-batches of a step; moves nothing."""
        return tuple(self._batch(step, index) for index in range(self.num_micro_batches))

    def rows_at(self, step: int) -> StepRows:
        """The rows of a step over all ranks, without their tokens."""
        return self._phase.step_rows(step)

    def seek(self, step: int) -> None:
        """Go to a step, whatever was read before."""
        if type(step) is not int or not 0 <= step < 1 << 53:
            raise RecipeError(f"step: need a whole number of at least 0, got {step}")
        self.close()
        self._step = step

    def state_dict(self) -> dict[str, Any]:
        """Where to go on: JSON-able, at most 2 KB, the same on all ranks."""
        return state_of(self._phase, self._step)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was saved, with any rank, world size and micro-batches.

        Raises:
            ResumeError: the state belongs to other data, settings or code; the loader stays where
                it was.
        """
        self.seek(step_of(state, self._phase))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch. After an error the loader stands at the first micro-batch of its step."""
        if self._feed is None:
            self._feed = Prefetch(
                partial(_numbered, self._batch, self.num_micro_batches),
                self._step * self.num_micro_batches,
                self._prefetch,
            )
        try:
            batch = self._feed.take()
        except BaseException:
            self.close()
            raise
        if batch.micro_batch + 1 == batch.num_micro_batches:
            self._step = batch.step + 1
        return batch

    def close(self) -> None:
        """End the thread that works ahead. Iterating again starts anew from the next step."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _numbered(batch: "partial[Batch]", num_micro_batches: int, number: int) -> Batch:
    """The micro-batch with this number, counted through all steps."""
    return batch(*divmod(number, num_micro_batches))
