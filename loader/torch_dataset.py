"""The loader as a dataset of torch: the same batches for DataLoader, and for what is built on it.

    dataset = PackedDataset(run, "phase1", rank, world_size, micro_batch_rows=4)
    for batch in DataLoader(dataset, batch_size=None, collate_fn=Batch.to_torch):
        ...

A batch comes whole from the loader, so DataLoader makes none of its own (batch_size=None), and what
should become of it stands in collate_fn. Rank and world size are arguments, as everywhere: what
comes out is one rank's share, and whoever shares it out among ranks once more loses most of it.

    2 workers, steps of 3 micro-batches    worker 0: 0.0 0.2 1.1 2.0 ...  worker 1: 0.1 1.0 1.2 ...

Worker w of W makes every W-th micro-batch from w on, and DataLoader asks its workers in turn, so
batches and their order are the same with any number of them. The price of a worker is a copy of
each batch through shared memory; no worker and the loader's own thread do as much with less.

Position: a dataset is where its iterators begin, an iterator where it has come to; so iterating
twice gives the same batches twice. The dataset is set to whole steps, by the state of any loader,
whatever its world size and workers. The state of an iterator, for which torchdata's
StatefulDataLoader asks, counts micro-batches too, and goes on where steps are cut in the same way.
"""

from collections.abc import Iterator
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from tokenmill.errors import RecipeError, ResumeError
from tokenmill.loader.batch import Batch
from tokenmill.loader.loader import Loader
from tokenmill.loader.prefetch import Prefetch


class PackedDataset(IterableDataset[Batch]):
    """Batches of one phase for one rank. It can be pickled."""

    def __init__(
        self,
        run: Path | str,
        phase: str = "phase1",
        rank: int = 0,
        world_size: int = 1,
        *,
        micro_batch_rows: int | None = None,
        prefetch_bytes: int = 256 << 20,
        cache: Path | str | None = None,
        cache_bytes: int = 64 << 30,
        endless: bool = False,
    ) -> None:
        """A phase of a finished build, from its first step on.

        Args:
            endless: go on after the phase's num_steps, for loops that count steps themselves.

        All other arguments are Loader's. Worker processes are asked ahead of time by DataLoader,
        and take no prefetch_bytes.

        Raises:
            FormatError: the run is missing or damaged.
            RecipeError: there is no such phase or rank, or the mixture takes from a subset without
                rows.
        """
        self._open = partial(
            Loader,
            run,
            phase,
            rank,
            world_size,
            micro_batch_rows=micro_batch_rows,
            cache=cache,
            cache_bytes=cache_bytes,
        )
        self._cut = {"world_size": world_size, "micro_batch_rows": micro_batch_rows}
        self._prefetch_bytes = prefetch_bytes
        self._endless = endless
        self._start: dict[str, Any] | None = None
        self.num_steps = self._loader.num_steps
        """Steps of the phase by its schedule's tokens."""

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches of a step, for loops that accumulate gradients of a fixed number of them.

        Raises:
            RecipeError: steps differ in theirs, because the batch warms up.
        """
        counts = []
        for step in (0, self.num_steps - 1):
            self._loader.seek(step)
            counts.append(self._loader.num_micro_batches)
        first, last = counts
        if first != last:
            raise RecipeError(
                f"micro_batch_rows: need as many micro-batches in every step, got {first} in the "
                f"first and {last} in the last, because the batch warms up. Leave it None, for one "
                "a step, or follow each batch's own num_micro_batches."
            )
        return first

    def state_at(self, step: int) -> dict[str, Any]:
        """The state of a loader whose next step this is; JSON-able, the same on all ranks."""
        self._loader.seek(step)
        return self._loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let iterators begin where a loader's state stands; one that iterates stays where it is.

        Raises:
            ResumeError: the state belongs to other data, settings or code.
        """
        self._loader.load_state_dict(state)
        self._start = state

    def __iter__(self) -> "PackedIterator":
        worker = get_worker_info()
        loader = self._open()
        if self._start is not None:
            loader.load_state_dict(self._start)
        return PackedIterator(
            loader,
            {**self._cut, "num_workers": worker.num_workers if worker else 0},
            num_steps=None if self._endless else self.num_steps,
            first=worker.id if worker else 0,
            stride=worker.num_workers if worker else 1,
            prefetch_bytes=0 if worker else self._prefetch_bytes,
        )

    @cached_property
    def _loader(self) -> Loader:
        """Answers questions; each iterator has a loader of its own."""
        return self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_loader"}


class PackedIterator(Iterator[Batch]):
    """Every stride-th micro-batch of a loader, from its step on."""

    def __init__(
        self,
        loader: Loader,
        cut: dict[str, Any],
        *,
        num_steps: int | None,
        first: int,
        stride: int,
        prefetch_bytes: int,
    ) -> None:
        self._loader = loader
        self._cut = cut
        self._num_steps = num_steps
        self._stride = stride
        self._prefetch_bytes = prefetch_bytes
        self._feed: Prefetch[tuple[int, int], Batch] | None = None
        self._loader_state: dict[str, Any] = {}
        self._place: tuple[int, int]
        self._go_to(loader.step, first)

    def __next__(self) -> Batch:
        """The next batch. After an error it is tried again."""
        step, micro_batch = self._place
        if self._num_steps is not None and step >= self._num_steps:
            self._close()
            raise StopIteration
        if self._feed is None:
            places = self._places_from(step, micro_batch)
            self._feed = Prefetch(self._loader.micro_batch_at, places, self._prefetch_bytes)
        try:
            batch = self._feed.take()
        except BaseException:
            self._close()
            raise
        self._place = next(self._places)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where to go on: the next micro-batch. JSON-able, at most 2 KB."""
        step, micro_batch = self._place
        if self._loader_state.get("step") != step:  # a witness costs as much as two steps' rows
            self._loader.seek(step)
            self._loader_state = self._loader.state_dict()
        return {"loader": self._loader_state, "micro_batch": micro_batch, "cut": self._cut}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the iterator stood whose state this is.

        Raises:
            ResumeError: the state belongs to other data, settings or code, or to steps that were
                cut in another way.
        """
        if not isinstance(state, dict) or state.keys() != {"loader", "micro_batch", "cut"}:
            raise ResumeError(
                f"this is no state of a PackedDataset's iterator: {state!r}. The state of a Loader "
                "goes to PackedDataset.load_state_dict."
            )
        micro_batch = state["micro_batch"]
        if type(micro_batch) is not int or micro_batch < 0:
            raise ResumeError(f"this is no state of an iterator: micro_batch {micro_batch!r}.")
        if state["cut"] != self._cut:
            raise ResumeError(
                f"the state stands inside a step that was cut by {state['cut']}, here it is "
                f"{self._cut}. Go on with the same, or at a whole step with "
                "dataset.load_state_dict(dataset.state_at(step))."
            )
        self._loader.load_state_dict(state["loader"])
        self._go_to(self._loader.step, micro_batch)

    def _go_to(self, step: int, micro_batch: int) -> None:
        self._close()
        self._places = self._places_from(step, micro_batch)
        self._place = next(self._places)

    def _places_from(self, step: int, micro_batch: int) -> Iterator[tuple[int, int]]:
        return islice(self._loader.places(step), micro_batch, None, self._stride)

    def _close(self) -> None:
        if self._feed is not None:
            with self._loader.fetching_ended():
                self._feed.close()
            self._feed = None
