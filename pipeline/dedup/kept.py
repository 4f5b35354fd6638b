"""What the mill stored of the documents that it kept, part by part, and which of them compare.

A part is one file of each kind: the tokens, signatures and decisions of the same documents. The
decisions have a row for every document, the others for those that the mill kept, in one order.
Documents are compared where their scopes have one key: a hash of the source's name, of that and the
dump's, or nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from tokenmill.errors import FormatError
from tokenmill.pipeline.dedup.config import Scope
from tokenmill.pipeline.dedup.steps import MilledUnit
from tokenmill.pipeline.receipts import paths
from tokenmill.shards.arrays import as_numpy


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a milled unit; paths relative to the run."""

    source: str
    decisions: str
    tokens: str
    signatures: str = ""
    """Empty where the mill stored none."""


@dataclass(frozen=True, slots=True)
class Group:
    """Parts that one task takes, in the order of the plan."""

    number: int
    parts: tuple[Part, ...]
    upstream: tuple[str, ...]
    """The keys of their units' mill receipts."""
    generation: int = 0
    """Of all of them."""


def groups_of(
    units: Sequence[MilledUnit], max_documents: int, *, signed: bool = False
) -> list[Group]:
    """All parts of units, in runs of one generation and at most about so many documents.

    Args:
        units: generation by generation.
        signed: only parts with signatures; documents that came as tokens have none.
    """
    runs: list[list[tuple[Part, str]]] = []
    generations: list[int] = []
    documents = 0
    for unit in units:
        parts = _parts_of(unit)
        each = -(-unit.receipt.counts.get("documents", 0) // max(1, len(parts)))
        for part in parts:
            if signed and not part.signatures:
                continue
            generation = unit.unit.generation
            if generations[-1:] != [generation] or documents + each > max_documents:
                runs.append([])
                generations.append(generation)
                documents = 0
            runs[-1].append((part, unit.receipt.key))
            documents += each
    return [
        Group(
            number,
            tuple(part for part, _ in run),
            tuple(dict.fromkeys(key for _, key in run)),
            generation,
        )
        for number, (run, generation) in enumerate(zip(runs, generations, strict=True))
    ]


def num_documents(units: Sequence[MilledUnit]) -> int:
    """How many the mill has read: no step has more to look at."""
    return sum(unit.receipt.counts.get("documents", 0) for unit in units)


def _parts_of(unit: MilledUnit) -> list[Part]:
    tokens, decisions = paths(unit.receipt, "tokens-"), paths(unit.receipt, "decisions-")
    signatures = paths(unit.receipt, "signatures-") or [""] * len(tokens)
    return [
        Part(unit.unit.source, *files) for files in zip(decisions, tokens, signatures, strict=True)
    ]


def batches_of(run: Path, path: str) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file, mapped."""
    reader = pa.ipc.open_file(pa.memory_map(str(run / path)))
    for index in range(reader.num_record_batches):
        yield reader.get_batch(index)


def doc_ids_of(run: Path, part: Part) -> NDArray[np.uint64]:
    """(kept documents,) of a part."""
    columns = [as_numpy(batch["doc_id"]) for batch in batches_of(run, part.tokens)]
    return np.concatenate([np.zeros(0, np.uint64), *columns])


def decided(run: Path, part: Part, name: str, num_kept: int) -> pa.Array:
    """(kept documents,) a column of the decisions on those that the mill kept.

    Raises:
        FormatError: it kept another number of documents.
    """
    with pq.ParquetFile(run / part.decisions) as file:
        columns = file.read(columns=["reason", name])
    kept = columns.filter(pc.equal(columns["reason"].cast(pa.string()), ""))[name]
    if len(kept) != num_kept:
        raise FormatError(
            f"{run / part.decisions}: expected {num_kept} documents that the mill kept, found "
            f"{len(kept)}. Delete the file and run the same command again; what is whole is kept."
        )
    return pa.concat_arrays(kept.chunks) if kept.num_chunks else pa.array([], kept.type)


def scope_keys(run: Path, part: Part, scope: Scope, num_kept: int) -> NDArray[np.uint64]:
    """(kept documents,) equal for documents that are compared."""
    if scope == "all":
        return np.zeros(num_kept, np.uint64)
    if scope == "source":
        return np.full(num_kept, _hash(part.source, ""))
    return dump_keys(part.source, decided(run, part, "dump", num_kept))


def dump_keys(source: str, dumps: pa.Array) -> NDArray[np.uint64]:
    """(documents,) equal for documents of one dump of a source; those that name none are one."""
    names = dumps.fill_null("").dictionary_encode()
    known = np.array([_hash(source, name) for name in names.dictionary.to_pylist()], np.uint64)
    keys: NDArray[np.uint64] = known[as_numpy(names.indices)]
    return keys


def _hash(source: str, dump: str) -> Any:
    return np.uint64(xxhash.xxh3_64_intdigest(f"{source}\0{dump}".encode()))
