"""Records gathered into batches of documents, for readers that find them one by one."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tokenmill.pipeline.documents import BATCH_BYTES, Documents, doc_ids


@dataclass(frozen=True, slots=True)
class Record:
    """One document with what its source says of it; None where it says nothing."""

    text: str
    id: str | None = None
    url: str | None = None
    licence: str | None = None
    dump: str | None = None
    language: str | None = None


class Batch:
    """Documents until there are enough for a batch."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._records: list[Record] = []
        self._first_ids: list[int] = []
        self._positions: list[int] = []
        self._bytes = 0

    def add(self, first_id: int, position: int, record: Record) -> None:
        """Put a document behind the others.

        Args:
            first_id: of the first document of its file.
        """
        self._records.append(record)
        self._first_ids.append(first_id)
        self._positions.append(position)
        self._bytes += len(record.text) + 64  # what an empty document takes

    @property
    def full(self) -> bool:
        """Whether it is time to take it."""
        return self._bytes >= BATCH_BYTES

    def __len__(self) -> int:
        return len(self._records)

    def take(self) -> Documents:
        """The documents so far; the batch is empty after.

        Raises:
            SourceError: a position is larger than a doc_id can hold.
        """
        records = self._records
        positions = np.array(self._positions, np.int64)
        documents = Documents(
            texts=pa.array([record.text for record in records], pa.large_string()),
            doc_ids=doc_ids(np.array(self._first_ids, np.uint64), positions),
            positions=positions,
            ids=pa.array([record.id for record in records], pa.string()),
            urls=pa.array([record.url for record in records], pa.string()),
            licences=pa.array([record.licence for record in records], pa.string()),
            dumps=pa.array([record.dump for record in records], pa.string()),
            languages=pa.array([record.language for record in records], pa.string()),
        )
        self._clear()
        return documents
