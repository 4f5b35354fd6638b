"""The decisions: one row for every document, kept or not, in parquet.

RUN/decisions/<source>/<unit>-<part>.parquet

The signals of the rules that are on stand between the columns that every run has; a unit of another
kind of text has other signals.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.documents import Documents
from tokenmill.pipeline.rules.checks import Signals, Verdict
from tokenmill.shards.arrays import as_numpy

NAME = pa.dictionary(pa.int32(), pa.string())

FIRST = pa.schema(
    {
        "doc_id": pa.uint64(),  # 40 bits of the file, 24 bits of the position
        "source": NAME,
        "unit": NAME,
        "position": pa.int64(),  # which record of its file or byte range, from 0
        "id": pa.string(),  # the source's own
        "url": pa.string(),
        "licence": pa.string(),
        "dump": pa.string(),  # the crawl or release, as the source says
        "source_language": pa.string(),  # human or programming, as the source says
        "content_hash": pa.binary(16),  # XXH3-128 of the cleaned text
        "reason": NAME,  # the setting that let it go; empty: kept
        "num_tokens": pa.int32(),  # without special tokens, after all edits
        "edits": pa.int32(),  # lines removed, encodings repaired, addresses replaced
    }
)
LAST = pa.schema(
    {
        "duplicate_of": pa.uint64(),  # the document that was kept in its place; 0: no duplicate
        "similarity": pa.float32(),  # estimated share of runs of words in common with that one
        "tokens_cut": pa.int32(),  # in spans that are left out; num_tokens is what remains
        "held_out": pa.bool_(),  # kept for evaluation, in no training row
    }
)
"""What is known only when the mill is through with all units."""


def decision_batch(
    source: str,
    unit: str,
    documents: Documents,
    signals: Signals,
    num_tokens: NDArray[np.int64],
    edits: NDArray[np.int32],
    hashes: pa.Array,
    verdict: Verdict,
) -> pa.RecordBatch:
    """The decisions of the mill on a batch; duplicates and held-out documents are not known yet."""
    n = len(num_tokens)
    first = {
        "doc_id": documents.doc_ids,
        "source": constant(source, n),
        "unit": constant(unit, n),
        "position": documents.positions,
        "id": documents.ids,
        "url": documents.urls,
        "licence": documents.licences,
        "dump": documents.dumps,
        "source_language": documents.languages,
        "content_hash": hashes,
        "reason": reason_column(verdict),
        "num_tokens": num_tokens.astype(np.int32),
        "edits": edits,
    }
    last = {
        "duplicate_of": np.zeros(n, np.uint64),
        "similarity": np.zeros(n, np.float32),
        "tokens_cut": np.zeros(n, np.int32),
        "held_out": np.zeros(n, np.bool_),
    }
    columns = {name: pa.array(values) for name, values in signals.items()}
    known = pa.RecordBatch.from_pydict(first, FIRST)
    schema = pa.schema([*FIRST, *(pa.field(n, c.type) for n, c in columns.items()), *LAST])
    arrays = [*known.columns, *columns.values(), *(pa.array(values) for values in last.values())]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def reason_column(verdict: Verdict) -> pa.DictionaryArray:
    """The reasons as they stand in the file."""
    names = pa.array(verdict.reasons, pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(verdict.codes), names)


def verdict_of(reasons: pa.DictionaryArray) -> Verdict:
    """The verdict that a column of a file holds."""
    verdict = Verdict(len(reasons))
    names = reasons.dictionary.to_pylist()
    verdict.reasons += [name for name in names if name]
    codes = np.array([verdict.reasons.index(name) for name in names], np.int32)
    verdict.codes = codes[as_numpy(reasons.indices)]
    return verdict


def constant(name: str, n: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([name]))
