"""Which source a document is from, by its doc_id: the table RUN/files.parquet.

    first_id    uint64    the doc_id of the first document that is counted from this place
    source      string
    file        string    relative to the source's top
    start       int64     the byte at which its documents are counted from 0 anew

A doc_id is 40 bits of a hash of source and file and 24 bits of position, so all documents of a file
are found by its first; a small file is one document and has 64 bits of its own. The build writes
the table from its plan, one row a file or range; it is no output, and a copy for training may do
without it.

The price is 12 bytes in memory for each of its rows, and 0.2 s for a million of them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenmill.errors import FormatError

POSITION_BITS = 24
"""The lower bits of a doc_id; the upper 40 name the file."""


def files_path(run: Path) -> Path:
    """Where the table stands."""
    return run / "files.parquet"


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of a run."""

    names: tuple[str, ...]
    """Sorted."""
    _run: Path
    _first_ids: NDArray[np.uint64]
    """(files,) rising."""
    _codes: NDArray[np.int32]
    """(files,) the source of each, as a place in names."""

    def of(self, doc_ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(documents,) the source of each, as a place in names.

        Raises:
            FormatError: the table does not know one of them.
        """
        first_ids = doc_ids >> np.uint64(POSITION_BITS) << np.uint64(POSITION_BITS)
        own, first = self._places(doc_ids), self._places(first_ids)
        is_own, is_first = self._first_ids[own] == doc_ids, self._first_ids[first] == first_ids
        unknown = ~(is_own | is_first)
        if unknown.any():
            raise unknown_document(self._run, int(doc_ids[unknown.argmax()]))
        return self._codes[np.where(is_own, own, first)].astype(np.int64)

    def _places(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        places = np.searchsorted(self._first_ids, ids)
        return np.minimum(places, max(len(self._first_ids) - 1, 0))


def read_sources(run: Path) -> Sources | None:
    """The sources of a run; None where it has no table of files."""
    path = files_path(run)
    if not path.exists():
        return None
    table = pq.read_table(path, columns=["first_id", "source"]).sort_by("first_id")
    encoded = pc.dictionary_encode(table["source"]).combine_chunks()
    names = np.array(encoded.dictionary.to_pylist(), object)
    places = np.argsort(np.argsort(names))
    return Sources(
        names=tuple(sorted(names)),
        _run=run,
        _first_ids=table["first_id"].to_numpy(),
        _codes=places[encoded.indices.to_numpy()].astype(np.int32),
    )


def unknown_document(run: Path, doc_id: int) -> FormatError:
    """The error for a document that the table does not know."""
    return FormatError(
        f"{files_path(run)}: no file of document {doc_id}: it is of another build. "
        "Build the run again; whole outputs are kept."
    )
