"""A batch of documents on its way through the mill, and what could not become one."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.errors import SourceError
from tokenmill.shards.sources import POSITION_BITS

BATCH_BYTES = 8 << 20
"""About how much text a reader puts into one batch."""


@dataclass(frozen=True, slots=True)
class Documents:
    """Documents as they were read. All arrays have one entry a document."""

    texts: pa.Array
    """string or large_string, without nulls, valid UTF-8."""
    doc_ids: NDArray[np.uint64]
    positions: NDArray[np.int64]
    """Which record of its file each one is, counted from 0; bad records count."""
    ids: pa.Array
    """string; the source's own, or null."""
    urls: pa.Array
    licences: pa.Array
    dumps: pa.Array
    """The crawl or release that it is from, or null."""
    languages: pa.Array
    """The human or programming language, as the source says, or null."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """A record, or a whole file, that could not be read."""

    source: str
    file: str
    place: str
    """Where in the file: "record 17", "row group 2", or "file"."""
    error: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Sound records that are no documents: requests, images, redirects. They are only counted."""

    reason: str
    count: int


def doc_ids(
    first_ids: int | NDArray[np.uint64], positions: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """(documents,) the id of the first document of each one's file, 40 bits of a hash, and 24 bits
    of position.

    Raises:
        SourceError: a position that 24 bits cannot hold.
    """
    ids = np.broadcast_to(np.asarray(first_ids, np.uint64), positions.shape)
    if len(positions) and positions.max() >= 1 << POSITION_BITS:
        raise SourceError(
            f"more than {1 << POSITION_BITS:,} documents in one file, whose first has the id "
            f"{ids[positions.argmax()]}. Cut the file: a doc_id holds no larger position."
        )
    return ids | positions.astype(np.uint64)
