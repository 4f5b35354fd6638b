"""Values of groups dealt to partitions, and what each partition answers about them.

    dedup/repeated_text/<values>/<group>.arrow         batches of some millions, a row a partition
    dedup/repeated_text/<answers>/<partition>.arrow    a batch a group

Both sides know the order of the values: a partition reads those of every group in the order of the
plan and answers in that order; a group asks for the answers in the order in which it dealt. So
values carry no address. Files are mapped, and of values nothing but the rows is read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.dedup.deal import deal
from tokenmill.pipeline.filters import REPEATED_TEXT
from tokenmill.pipeline.outputs import Tables
from tokenmill.shards.arrays import as_numpy
from tokenmill.tokenizer.compiled import compiled

_HALF = np.uint64(32)
_NUMBER_BITS = 40
"""Of a handle: the number of a yes in its partition; the partition stands above."""
BATCH_VALUES = 1 << 22
"""Dealt together: a row is then long enough to be worth a read."""


def exchange_folder(run: Path) -> Path:
    return run / "dedup" / REPEATED_TEXT


def exchange_path(run: Path, folder: str, number: int) -> Path:
    return exchange_folder(run) / folder / f"{number:05d}.arrow"


class Dealer:
    """Writes a group's values, dealt to partitions; those of each stay in order."""

    def __init__(self, tables: Tables, path: Path, num_partitions: int) -> None:
        self._tables, self._path, self._num_partitions = tables, path, num_partitions
        self._held: list[tuple[NDArray[Any], NDArray[np.int32]]] = []

    def add(self, values: NDArray[Any], hashes: NDArray[np.uint64]) -> None:
        """Deal some more.

        Args:
            values: (values,) or (values, width).
            hashes: (values,) of which the upper half says where each goes.
        """
        partition = _partition(hashes, self._num_partitions)
        self._held.append((values, partition))
        if sum(len(partition) for _, partition in self._held) >= BATCH_VALUES:
            self.flush()

    def flush(self) -> None:
        """Write what is held; also after the last values."""
        if not self._held:
            return
        values = np.concatenate([values for values, _ in self._held])
        order, bounds = deal(
            np.concatenate([partition for _, partition in self._held]), self._num_partitions
        )
        self._held.clear()
        width = 1 if values.ndim == 1 else values.shape[1]
        rows = pa.LargeListArray.from_arrays(
            pa.array(bounds * width), pa.array(values[order].ravel())
        )
        self._tables.append(self._path, pa.RecordBatch.from_pydict({"values": rows}))


def read_values(run: Path, folder: str, group: int, partition: int) -> Iterator[NDArray[Any]]:
    """(values x width,) some at a time, a partition's values of a group."""
    with pa.memory_map(str(exchange_path(run, folder, group))) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            rows = reader.get_batch(number)["values"]
            start, stop = as_numpy(rows.offsets)[partition : partition + 2]
            yield as_numpy(rows.values)[start:stop]


def answer_batch(
    yes: Sequence[NDArray[np.bool_]], places: Sequence[NDArray[np.uint64]] = ()
) -> pa.RecordBatch:
    """A partition's answers to a group as they stand in a file.

    Args:
        yes: arrays of (values,), true or false of each.
        places: of those that are true, a number for each.
    """
    bits = np.packbits(np.concatenate(yes))
    numbers = np.concatenate([np.zeros(0, np.uint64), *places])
    return pa.RecordBatch.from_pydict(
        {
            "yes": pa.array([bits.tobytes()], pa.large_binary()),
            "places": pa.LargeListArray.from_arrays(
                pa.array([0, len(numbers)], pa.int64()), pa.array(numbers)
            ),
        }
    )


class Answers:
    """What the partitions answer to a group, asked for in the order in which it dealt."""

    def __init__(self, run: Path, folder: str, num_partitions: int, group: int) -> None:
        self._run, self._folder, self._group = run, folder, group
        bits = [self._column("yes", number) for number in range(num_partitions)]
        bits = [np.frombuffer(column[0].as_buffer(), np.uint8) for column in bits]
        self._bits = np.concatenate(bits)
        lengths = np.array([len(each) for each in bits])
        self._next_bit = 8 * (np.cumsum(lengths) - lengths)
        self._next_place = np.zeros(num_partitions, np.int64)

    def take(self, hashes: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """(values,) yes or no to the next values; handles to ask for the places of those with yes.

        Args:
            hashes: (values,) by which they were dealt.
        """
        partition = _partition(hashes, len(self._next_bit))
        yes = np.empty(len(partition), np.bool_)
        handles = np.empty(len(partition), np.int64)
        _take(partition, self._bits, self._next_bit, self._next_place, yes, handles)
        return yes, handles

    def places(self, handles: NDArray[np.int64]) -> NDArray[np.uint64]:
        """(handles,) what the partitions said besides yes, a partition at a time."""
        partition, numbers = handles >> _NUMBER_BITS, handles & ((1 << _NUMBER_BITS) - 1)
        places = np.empty(len(handles), np.uint64)
        for number in np.unique(partition).tolist():
            mine = partition == number
            places[mine] = as_numpy(self._column("places", number).values)[numbers[mine]]
        return places

    def _column(self, name: str, partition: int) -> pa.Array:
        # The column holds the mapping, not the file, of which a process may open few.
        with pa.memory_map(str(exchange_path(self._run, self._folder, partition))) as file:
            return pa.ipc.open_file(file).get_batch(self._group)[name]


def _partition(hashes: NDArray[np.uint64], num_partitions: int) -> NDArray[np.int32]:
    return (((hashes >> _HALF) * np.uint64(num_partitions)) >> _HALF).astype(np.int32)


@compiled
def _take(
    partition: NDArray[np.int32],
    bits: NDArray[np.uint8],
    next_bit: NDArray[np.int64],
    next_place: NDArray[np.int64],
    yes: NDArray[np.bool_],
    handles: NDArray[np.int64],
) -> None:
    for i in range(len(partition)):
        number = np.int64(partition[i])
        at = next_bit[number]
        yes[i] = (bits[at >> 3] >> (7 - (at & 7))) & 1 == 1
        next_bit[number] = at + 1
        handles[i] = number << _NUMBER_BITS | next_place[number]
        next_place[number] += yes[i]
