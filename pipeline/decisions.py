"""The decisions: one row for every document, kept or not, in parquet.

RUN/decisions/<source>/<unit>-<part>.parquet
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.documents import Documents
from tokenmill.pipeline.filters import REASONS, Signals

NAME = pa.dictionary(pa.int32(), pa.string())

SCHEMA = pa.schema(
    {
        "doc_id": pa.uint64(),  # 40 bits of the file, 24 bits of the position
        "source": NAME,
        "unit": NAME,
        "position": pa.int64(),  # which record of its file or byte range, from 0
        "id": pa.string(),  # the source's own
        "url": pa.string(),
        "licence": pa.string(),
        "content_hash": pa.binary(16),  # XXH3-128 of the cleaned text
        "reason": NAME,  # why it left; empty: kept
        "num_tokens": pa.int32(),  # without special tokens
        "edits": pa.int32(),  # changes that repair made to the text
        "num_words": pa.int64(),
        "num_characters": pa.int64(),
        "symbol_share": pa.float32(),
        "duplicate_of": pa.uint64(),  # the document that was kept in its place; 0: no duplicate
        "held_out": pa.bool_(),  # kept for evaluation, in no training row
    }
)


def decision_batch(
    source: str,
    unit: str,
    documents: Documents,
    signals: Signals,
    num_tokens: NDArray[np.int64],
    hashes: pa.Array,
    verdict: NDArray[np.uint8],
) -> pa.RecordBatch:
    """The decisions of the mill on a batch; duplicates and held-out documents are not known yet."""
    n = len(verdict)
    columns = {
        "doc_id": documents.doc_ids,
        "source": constant(source, n),
        "unit": constant(unit, n),
        "position": documents.positions,
        "id": documents.ids,
        "url": documents.urls,
        "licence": documents.licences,
        "content_hash": hashes,
        "reason": reason_names(verdict),
        "num_tokens": num_tokens.astype(np.int32),
        "edits": np.zeros(n, np.int32),
        "num_words": signals.num_words,
        "num_characters": signals.num_characters,
        "symbol_share": signals.symbol_share,
        "duplicate_of": np.zeros(n, np.uint64),
        "held_out": np.zeros(n, np.bool_),
    }
    return pa.RecordBatch.from_pydict(columns, SCHEMA)


def reason_names(verdict: NDArray[np.uint8]) -> pa.DictionaryArray:
    """Codes as the names that stand in the file."""
    names = pa.array([str(reason) for reason in REASONS], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(verdict.astype(np.int32)), names)


def constant(name: str, n: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([name]))
