"""What a forecast is about: numbers of each document, from the decisions of a run.

A sample and the whole run are measured by the same function, before any step that compares
documents: duplicates are more in more documents, so the one says nothing of them for the other.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenmill.pipeline.corpus import Corpus
from tokenmill.pipeline.decisions import FIRST, LAST, verdict_of
from tokenmill.pipeline.estimate import By
from tokenmill.pipeline.filters import STEP_REASONS
from tokenmill.pipeline.pack import pack_name
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.buckets import Buckets

COLUMNS = ["doc_id", "reason", "num_tokens", "tokens_cut"]
FIELDS = [field for field in (*FIRST, *LAST) if field.name in COLUMNS]
SPECIAL_TOKENS = 2
"""Of a sequence; they count for its bucket."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of each document of a batch."""

    values: NDArray[np.float64]
    by: By
    of_one: float = 1.0
    """What a document may add that is of a kind not seen yet."""


def decision_batches(run: Path, paths: Iterable[str]) -> Iterator[pa.RecordBatch]:
    """The columns that measures need, of some files of decisions."""
    for path in paths:
        with pq.ParquetFile(run / path) as file:
            yield from file.iter_batches(columns=COLUMNS)


def one_batch(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of decisions as one, with one dictionary of reasons."""
    if not batches:
        batches = [pa.RecordBatch.from_pylist([], pa.schema(FIELDS))]
    joined = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    columns = {name: joined[name].combine_chunks() for name in COLUMNS}
    return pa.RecordBatch.from_pydict(columns)


def measure(batch: pa.RecordBatch, corpus: Corpus) -> dict[str, Measure]:
    """The numbers of each document of a batch, by their names."""
    verdict = verdict_of(batch["reason"])
    tokens = (as_numpy(batch["num_tokens"]) + as_numpy(batch["tokens_cut"])).astype(np.int64)
    everything = np.ones(len(tokens), np.bool_)
    later = [code for code, reason in enumerate(verdict.reasons) if reason in ("", *STEP_REASONS)]
    kept = np.isin(verdict.codes, later)
    measures: dict[str, Measure] = {}

    def count(name: str, of: NDArray[np.bool_], longest: float) -> None:
        measures[f"documents {name}"] = Measure(of.astype(np.float64), "documents")
        measures[f"tokens {name}"] = Measure(np.where(of, tokens, 0.0), "bytes", longest)

    count("read", everything, 0.0)
    count("kept", kept, 0.0)
    buckets = Buckets(corpus.packing.bucket_edges)
    of_bucket = buckets.of_lengths(tokens + SPECIAL_TOKENS)
    ends = [*buckets.edges, 2 * (buckets.edges or (1024,))[-1]]
    for number, name in enumerate(buckets.names):
        count(f"kept, {name}", kept & (of_bucket == number), ends[number])
    for shape in corpus.shapes:
        body = shape.max_length - SPECIAL_TOKENS
        pieces = np.where(kept, -(-tokens // body), 0)
        if corpus.packing.overlong != "split":
            fits = pieces <= 1 if corpus.packing.overlong == "drop" else kept
            pieces = np.where(fits, np.minimum(pieces, 1), 0)
        packed = np.minimum(tokens, pieces * body) + SPECIAL_TOKENS * pieces
        name = f"tokens packed, {pack_name(corpus.packing, shape)}"
        measures[name] = Measure(packed.astype(np.float64), "bytes")
    for code, reason in enumerate(verdict.reasons):
        if code not in later:
            here = (verdict.codes == code).astype(np.float64)
            measures[f"documents out by {reason}"] = Measure(here, "documents")
    return measures


def measured(run: Path, paths: Iterable[str], corpus: Corpus) -> Counter[str]:
    """The sum of each measure over some files of decisions."""
    sums: Counter[str] = Counter()
    for batch in decision_batches(run, paths):
        for name, one in measure(batch, corpus).items():
            sums[name] += round(float(one.values.sum()))
    return sums
