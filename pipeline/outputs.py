"""The files of a task: each appears whole, or not at all.

A long unit is written in parts; closing a part keeps the number of open files and their memory
small.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from tokenmill.shards.files import writing
from tokenmill.shards.listing import Output, describe_output


class Tables:
    """Append record batches to files by name; parquet or Arrow IPC by their suffix."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.paths: list[Path] = []
        self._writers: dict[Path, Callable[[pa.RecordBatch], None]] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Handing the error on lets `writing` throw the temporary files away.
        self._stack.__exit__(kind, error, trace)

    def append(self, path: Path, batch: pa.RecordBatch) -> None:
        """Add a batch to a file; the first one opens it."""
        if path not in self._writers:
            part = self._stack.enter_context(writing(path))
            self._writers[path] = self._open(path, part, batch.schema)
            self.paths.append(path)
        self._writers[path](batch)

    def close_part(self) -> None:
        """Finish the files that are open; the next ones have other names."""
        self._stack.close()
        self._writers.clear()

    def described(self) -> tuple[Output, ...]:
        """The files for the receipt; after the block."""
        return tuple(describe_output(self.run, path) for path in self.paths)

    def _open(self, path: Path, part: Path, schema: pa.Schema) -> Callable[[pa.RecordBatch], None]:
        if path.suffix == ".parquet":
            parquet = self._stack.enter_context(pq.ParquetWriter(part, schema, compression="zstd"))
            return lambda batch: parquet.write_batch(batch)
        ipc = self._stack.enter_context(pa.ipc.new_file(str(part), schema))
        return lambda batch: ipc.write_batch(batch)
