"""The loader: a position in a phase's order, and batches from there on for ever.

    with Loader(run, "phase1", rank, world_size, micro_batch_rows=4) as loader:
        loader.load_state_dict(state)  # if there is one
        for batch in loader:
            ...

What a step holds depends on the run, the phase and the step alone. Rank, world size, micro-batches
and the thread that works ahead only say who gets which part and when, so they may change at every
resume. Going to a step is arithmetic, whatever its number. A step counts as read when its last
micro-batch was given out; while a batch warms up, earlier steps have fewer micro-batches, of the
same shape.
"""

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from tokenmill.errors import RecipeError
from tokenmill.loader.assembly import Masks, StepRows
from tokenmill.loader.batch import Batch, TorchBatch
from tokenmill.loader.cache import ShardCache
from tokenmill.loader.cache_folder import CacheFolder
from tokenmill.loader.masking import Masking
from tokenmill.loader.micro_batches import num_micro_batches, rows_per_rank
from tokenmill.loader.phase import Phase
from tokenmill.loader.plan import read_plan
from tokenmill.loader.prefetch import Prefetch
from tokenmill.loader.remote import RemoteRun, mirror
from tokenmill.loader.state import state_of, step_of
from tokenmill.shards.overlay import NUM_STEPS


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
        prefetch_bytes: int = 256 << 20,
        threads: int = 1,
        masks: Masks = "host",
        cache: Path | str | None = None,
        cache_bytes: int = 64 << 30,
    ) -> None:
        """Open a phase of a finished build; no shard is read before the first batch.

        Args:
            run: a folder, or with a cache any address that fsspec knows: s3://bucket/run.
            micro_batch_rows: rows of a batch; None gives a rank's whole share of a full step as
                one batch.
            prefetch_bytes: batches made ahead by threads have at most so many bytes, or are one; 0
                makes each one when it is asked for.
            threads: how many make batches. No batch depends on it.
            masks: "device" gives batches that are not masked yet, for DeviceMasks of
                device_masks.py; it masks single tokens only.
            cache: a folder on a local disk to which shards are brought before they are read. The
                ranks of a machine may share one.
            cache_bytes: the shards in that folder never have more.

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
        if threads < 1 or prefetch_bytes < 0:
            raise RecipeError(
                "threads and prefetch_bytes: need at least 1 and 0, got "
                f"{threads} and {prefetch_bytes}"
            )
        if masks not in get_args(Masks):
            raise RecipeError(f"masks: need one of {', '.join(get_args(Masks))}, got {masks!r}")
        if cache is None and "://" in str(run):
            raise RecipeError(f"run: {run} is far away, so the loader needs cache=FOLDER")
        self._cache: ShardCache | None = None
        if cache is None:
            plan = read_plan(Path(run), phase)
        else:
            remote = RemoteRun(str(run))
            plan = read_plan(mirror(remote, Path(cache)), phase)
            self._cache = ShardCache(remote, plan.manifest, CacheFolder(Path(cache), cache_bytes))
            weakref.finalize(self, self._cache.end).atexit = False
        self.plan = plan
        self.micro_batch_rows = micro_batch_rows or rows_per_rank(plan.rows_per_step, world_size)
        self._phase = Phase(plan, str(run), self._cache, masks)
        self._share = _Share(self._phase, rank, world_size, self.micro_batch_rows)
        self._ahead = prefetch_bytes, threads
        self._step = 0
        self._feed: Prefetch[tuple[int, int], Batch] | None = None

    @property
    def step(self) -> int:
        """The next step; all before it were given out whole."""
        return self._step

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches that each rank has in the next step."""
        return self._share.num_micro_batches(self._step)

    @property
    def num_steps(self) -> int:
        """Steps of the phase by its schedule's tokens. Iterating does not end there."""
        return self.plan.num_steps

    @property
    def rows_per_step(self) -> int:
        """Rows of a full step over all ranks; while the batch warms up there are fewer."""
        return self.plan.rows_per_step

    @property
    def masking(self) -> Masking:
        """What the phase hides, made ready; DeviceMasks asks for it."""
        return self._phase.masking

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
        _check_step(step)
        indices = range(self._share.num_micro_batches(step))
        return tuple(self._share.batch((step, index)) for index in indices)

    def micro_batch_at(self, place: tuple[int, int]) -> Batch:
        """The rank's micro-batch at one of `places`; moves nothing."""
        return self._share.batch(place)

    def places(self, step: int) -> Iterator[tuple[int, int]]:
        """Step and index of each of the rank's micro-batches from a step on, without end."""
        return self._share.places(step)

    def rows_at(self, step: int) -> StepRows:
        """The rows of a step over all ranks, without their tokens."""
        _check_step(step)
        return self._phase.step_rows(step)

    def seek(self, step: int) -> None:
        """Go to a step, whatever was read before."""
        _check_step(step)
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
            self._feed = Prefetch(self._share.batch, self._share.places(self._step), *self._ahead)
        try:
            batch = self._feed.take()
        except BaseException:
            self.close()
            raise
        self.mark_read(batch)
        return batch

    def mark_read(self, batch: Batch | TorchBatch) -> None:
        """Count a micro-batch as given out. For those who iterate over `places` themselves."""
        if batch.micro_batch + 1 == batch.num_micro_batches:
            self._step = batch.step + 1

    def close(self) -> None:
        """End the threads that work ahead. Iterating again starts anew from the next step."""
        with self.fetching_ended():
            if self._feed is not None:
                self._feed.close()
                self._feed = None

    def fetching_ended(self) -> AbstractContextManager[None]:
        """Inside the block nobody waits for a shard to come, so a thread that works ahead can be
        ended at once."""
        return self._cache.closing() if self._cache else nullcontext()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check_step(step: int) -> None:
    if type(step) is not int or not 0 <= step < NUM_STEPS:
        raise RecipeError(f"step: need a whole number from 0 to {NUM_STEPS - 1:,}, got {step!r}")


@dataclass(frozen=True, slots=True)
class _Share:
    """What a rank reads of a phase. The threads that work ahead know this and not the Loader, so
    that they end when it is forgotten."""

    phase: Phase
    rank: int
    world_size: int
    micro_batch_rows: int

    def num_micro_batches(self, step: int) -> int:
        num_rows = self.phase.plan.num_rows(step)
        return num_micro_batches(num_rows, self.world_size, self.micro_batch_rows)

    def places(self, step: int) -> Iterator[tuple[int, int]]:
        for each in count(step):
            for index in range(self.num_micro_batches(each)):
                yield each, index

    def batch(self, place: tuple[int, int]) -> Batch:
        return self.phase.batch(
            *place,
            rank=self.rank,
            world_size=self.world_size,
            micro_batch_rows=self.micro_batch_rows,
        )
