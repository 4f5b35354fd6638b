"""Equal documents: of those with one content hash, or one address, the first in the plan stays.

    dedup/<reason>/keys-00000.arrow    the keys of a group of parts, dealt to partitions
    removals/<reason>/00000.arrow      what leaves, by partition

A key is a 128-bit hash, of the text or of the address as `address.py` spells it (a chance of about
1e-21 for a false pair among a billion). A task holds at most about 4 million documents, 50 bytes
each. Documents without an address, and those that an earlier step removed, equal none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from tokenmill.pipeline.dedup.address import normal_address
from tokenmill.pipeline.dedup.config import Scope
from tokenmill.pipeline.dedup.deal import gather, write_dealt
from tokenmill.pipeline.dedup.kept import (
    Group,
    Part,
    batches_of,
    decided,
    doc_ids_of,
    groups_of,
    num_documents,
    scope_keys,
)
from tokenmill.pipeline.dedup.steps import (
    MilledUnit,
    Removals,
    RunStage,
    Step,
    find_removed,
    open_removals,
    removals_batch,
    removals_path,
)
from tokenmill.pipeline.filters import EXACT_DUPLICATE, URL_DUPLICATE
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.receipts import Receipt, begin, finish
from tokenmill.shards.listing import Output

VERSION = 1
TASK_DOCUMENTS = 4_000_000
Key = Literal["content", "url"]
REASONS: dict[Key, str] = {"content": EXACT_DUPLICATE, "url": URL_DUPLICATE}


@dataclass(frozen=True, slots=True)
class KeyTask:
    """The keys of a group of parts, to be dealt."""

    run: Path
    key: Key
    group: Group
    scope: Scope
    num_partitions: int
    removals: tuple[Output, ...]
    """Of the steps before."""

    @property
    def stage(self) -> str:
        return f"{self.key}-keys"

    @property
    def name(self) -> str:
        return f"{self.group.number:05d}"

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "stage": VERSION,
            "scope": self.scope,
            "partitions": self.num_partitions,
            "documents": self.group.upstream,
            "parts": self.group.parts,
            "removals": [output.sha256 for output in self.removals],
        }


@dataclass(frozen=True, slots=True)
class EqualTask:
    """The keys of one partition, of all documents."""

    run: Path
    key: Key
    partition: int
    keys: tuple[Output, ...]
    """In the order of the plan."""

    @property
    def stage(self) -> str:
        return f"{self.key}-equal"

    @property
    def name(self) -> str:
        return f"{self.partition:05d}"

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "stage": VERSION,
            "partition": self.partition,
            "keys": [output.sha256 for output in self.keys],
        }


def equal_documents(
    run: Path,
    stage: RunStage,
    units: Sequence[MilledUnit],
    key: Key,
    scope: Scope,
    earlier: Sequence[Step] = (),
) -> Step:
    """Find the documents whose text, or address, is an earlier one's."""
    num = max(1, -(-num_documents(units) // TASK_DOCUMENTS))
    removals = tuple(output for step in earlier for output in step.removals)
    groups = groups_of(units, TASK_DOCUMENTS)
    tasks = [KeyTask(run, key, group, scope, num, removals) for group in groups]
    keys = stage(f"{key}-keys", deal_keys, tasks)
    dealt = tuple(output for task in tasks for output in keys[task.name].outputs)
    partitions = range(num if groups else 0)
    found = stage(
        f"{key}-equal", find_equal, [EqualTask(run, key, number, dealt) for number in partitions]
    )
    outputs = [output for receipt in found.values() for output in receipt.outputs]
    return Step(REASONS[key], removals=tuple(outputs))


def deal_keys(task: KeyTask) -> Receipt:
    """Write the keys of a group of parts, and the receipt."""
    started = begin(task)
    earlier = open_removals(task.run, task.removals)
    path = task.run / "dedup" / REASONS[task.key] / f"keys-{task.name}.arrow"
    read = _content_keys if task.key == "content" else _url_keys
    columns: list[tuple[NDArray[np.uint64], NDArray[np.uint64]]] = [
        (np.zeros(0, np.uint64), np.zeros((0, 2), np.uint64))
    ]
    for part in task.group.parts:
        doc_ids = doc_ids_of(task.run, part)
        keys, has_key = read(task.run, part, len(doc_ids))
        keys[:, 0] ^= scope_keys(task.run, part, task.scope, len(doc_ids))
        removed, _, _ = find_removed(earlier, doc_ids)
        chosen = has_key & ~removed
        columns.append((doc_ids[chosen], keys[chosen]))
    doc_ids, keys = (np.concatenate(column) for column in zip(*columns, strict=True))
    partition = (keys[:, 1] % np.uint64(task.num_partitions)).astype(np.int32)
    with Tables(task.run) as tables:
        dealt = {"doc_id": doc_ids, "high": keys[:, 0], "low": keys[:, 1]}
        write_dealt(tables, path, dealt, partition, task.num_partitions)
    return finish(task, tables.described(), {"documents": len(doc_ids)}, started)


def find_equal(task: EqualTask) -> Receipt:
    """Write the removals of one partition, and the receipt."""
    started = begin(task)
    dtypes = dict.fromkeys(("doc_id", "high", "low"), np.uint64)
    found = gather(task.run, task.keys, task.partition, dtypes)
    removed, kept = later_equals(found["high"], found["low"])
    doc_ids = found["doc_id"]
    # One address says nothing of the texts.
    alike = np.full(len(removed), 1.0 if task.key == "content" else 0.0, np.float32)
    batch = removals_batch(Removals(doc_ids[removed], doc_ids[kept], alike))
    with Tables(task.run) as tables:
        tables.append(removals_path(task.run, REASONS[task.key], task.partition), batch)
    counts = {"documents": len(doc_ids), "removed": len(removed)}
    return finish(task, tables.described(), counts, started)


def later_equals(
    high: NDArray[np.uint64], low: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (later, first) of places that hold the same 128-bit hash."""
    order = np.lexsort((low, high))  # stable: equal hashes stay in the order of the plan
    same = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    starts = np.concatenate([[True], ~same])[: len(order)]
    first = order[np.flatnonzero(starts)][np.cumsum(starts) - 1]
    return order[~starts], first[~starts]


def _content_keys(
    run: Path, part: Part, num_kept: int
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """(kept documents, 2) the halves of each content hash; all have one."""
    hashes = [_halves(batch["content_hash"]) for batch in batches_of(run, part.tokens)]
    return np.concatenate([np.zeros((0, 2), np.uint64), *hashes]), np.ones(num_kept, np.bool_)


def _url_keys(run: Path, part: Part, num_kept: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """(kept documents, 2) the halves of the hash of each address, and which have one."""
    urls = decided(run, part, "url", num_kept).fill_null("").to_pylist()
    addresses = [normal_address(url) for url in urls]
    digests = b"".join(xxhash.xxh3_128_digest(address.encode()) for address in addresses)
    keys = np.frombuffer(digests, ">u8").reshape(-1, 2).astype(np.uint64)
    return keys, np.array([address != "" for address in addresses], np.bool_)


def _halves(hashes: pa.Array) -> NDArray[np.uint64]:
    data = np.frombuffer(hashes.buffers()[1], ">u8").reshape(-1, 2)
    return data[hashes.offset : hashes.offset + len(hashes)].astype(np.uint64)
