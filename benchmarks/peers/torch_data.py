"""torchdata's StatefulDataLoader with its RandomSampler, over a dataset with random access."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peers.corpus import SimulatedRows
from torchdata.stateful_dataloader import StatefulDataLoader


def resume(folder: Path, num_rows: int, step: int, batch_rows: int) -> Iterator[Any]:
    yield None
    dataset = SimulatedRows(num_rows)
    loader = StatefulDataLoader(dataset, batch_rows, shuffle=True)
    # The state of step 1 of a small loader, with the counters that the step would have.
    other = StatefulDataLoader(SimulatedRows(2 * batch_rows), batch_rows, shuffle=True)
    next(iter(other))
    state = other.state_dict()
    of_epoch = step % (num_rows // batch_rows)
    state["_num_yielded"] = state["_sampler_iter_yielded"] = of_epoch
    sampler = state["_sampler_iter_state"]
    sampler["samples_yielded"] = sampler["sampler_iter_state"]["yielded"] = of_epoch * batch_rows
    yield state
    loader.load_state_dict(state)
    yield next(iter(loader))
