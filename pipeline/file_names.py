"""Which file and record a document is from, in words: the table of `shards/sources.py`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenmill.pipeline.plan import Unit
from tokenmill.pipeline.sources import printable
from tokenmill.shards.files import writing
from tokenmill.shards.sources import POSITION_BITS, files_path, unknown_document

_POSITION = np.uint64((1 << POSITION_BITS) - 1)


def write_file_names(run: Path, units: Sequence[Unit]) -> None:
    """Write the table of all files that documents of these units come from."""
    starts: dict[int, tuple[str, str, int]] = {}
    for unit in units:
        for piece in (piece for piece in unit.files if not piece.is_beside):
            # Row groups of one parquet file share its id; their positions differ.
            start = 0 if piece.name.endswith(".parquet") else piece.start
            starts[piece.first_id] = (unit.source, printable(piece.name), start)
    rows = sorted((first_id, *place) for first_id, place in starts.items())
    columns = zip(*rows, strict=True) if rows else ([], [], [], [])
    types = (pa.uint64(), pa.string(), pa.string(), pa.int64())
    arrays = [pa.array(list(column), type_) for column, type_ in zip(columns, types, strict=True)]
    table = pa.Table.from_arrays(arrays, names=["first_id", "source", "file", "start"])
    with writing(files_path(run)) as part:
        pq.write_table(table, part, compression="zstd")


def file_names(run: Path, doc_ids: NDArray[np.uint64]) -> list[str] | None:
    """Source, file and record of each document, in words; None where the run has no such table: a
    copy for training may do without.

    Raises:
        FormatError: the table does not know these documents.
    """
    if not files_path(run).exists():
        return None
    first_ids = doc_ids & ~_POSITION
    wanted = pa.array(np.unique(np.concatenate([doc_ids, first_ids])))
    rows = pq.read_table(files_path(run), filters=pc.field("first_id").isin(wanted)).to_pylist()
    known = {row["first_id"]: row for row in rows}
    names = []
    for doc_id, first_id in zip(doc_ids.tolist(), first_ids.tolist(), strict=True):
        row = known.get(doc_id) or known.get(first_id)
        if row is None:
            raise unknown_document(run, doc_id)
        name = f"{row['source']}/{row['file']}"
        if row["start"]:
            name += f" from byte {row['start']}"
        names.append(f"{name} record {doc_id - row['first_id']}")
    return names
