"""Records dealt to partitions: how much data is brought together with little memory.

A task writes its records into one file with a record batch for each partition; the task of a
partition then reads its batch of every file. An Arrow file finds a batch by its number, so nothing
else is read, and there are as many files as writers.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.outputs import Tables
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.listing import Output
from tokenmill.tokenizer.compiled import compiled

Columns = Mapping[str, NDArray[Any]]
"""(records,) or (records, width) by name."""


def write_dealt(
    tables: Tables, path: Path, columns: Columns, partition: NDArray[np.int32], num_partitions: int
) -> None:
    """Write records, those of each partition together and in the order given.

    Args:
        partition: (records,) where each goes.
    """
    order, bounds = deal(partition, num_partitions)
    for start, stop in pairwise(bounds.tolist()):
        chosen = order[start:stop]
        tables.append(path, to_batch({name: values[chosen] for name, values in columns.items()}))


def read_dealt(
    run: Path, files: Iterable[Output], partition: int
) -> Iterator[dict[str, NDArray[Any]]]:
    """The records of a partition, file by file."""
    for output in files:
        with pa.OSFile(str(run / output.path)) as file:
            yield to_numpy(pa.ipc.open_file(file).get_batch(partition))


def gather(
    run: Path, files: Iterable[Output], partition: int, dtypes: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """All records of a partition as one array a column, of these types."""
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in dtypes}
    for columns in read_dealt(run, files, partition):
        for name in found:
            found[name].append(columns[name])
    return {name: np.concatenate([np.zeros(0, dtypes[name]), *found.pop(name)]) for name in dtypes}


@compiled
def deal(
    partition: NDArray[np.int32], num_partitions: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The places of records partition by partition, and (partitions + 1,) where each begins."""
    bounds = np.zeros(num_partitions + 1, np.int64)
    for number in partition:
        bounds[number + 1] += 1
    for number in range(num_partitions):
        bounds[number + 1] += bounds[number]
    next_place = bounds[:-1].copy()
    order = np.empty(len(partition), np.int32)
    for record in range(len(partition)):
        number = partition[record]
        order[next_place[number]] = record
        next_place[number] += 1
    return order, bounds


def to_batch(columns: Columns) -> pa.RecordBatch:
    """Numbers, and rows of numbers, as they stand in a file."""
    return pa.RecordBatch.from_pydict(
        {
            name: pa.array(values)
            if values.ndim == 1
            else pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
            for name, values in columns.items()
        }
    )


def to_numpy(batch: pa.RecordBatch) -> dict[str, NDArray[Any]]:
    """The columns of a batch, without a copy: (n,) numbers, or (n, width) rows of numbers."""
    return {
        name: _rows(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }


def _rows(column: pa.Array) -> NDArray[Any]:
    if not pa.types.is_fixed_size_list(column.type):
        return as_numpy(column)
    rows = slice(column.offset, column.offset + len(column))
    return as_numpy(column.values).reshape(-1, column.type.list_size)[rows]
