"""Links: pairs whose sketches agree enough. No sketch is looked up: those of one side travel.

    dedup/near/<sent>-<group>-000.arrow    one, other, doc_id and sketch of the other:
                                           dealt by the group of `one`
    dedup/near/links-<group>.arrow         one, other: near duplicates
    removals/near_duplicate/<group>.arrow  what leaves, with its similarity to what stays

A group knows its own sketches alone. So the group of each pair's `other` sends that one's sketch to
the group of `one`, which compares; each side reads its own sketches once, in order. This is done
twice: for the pairs that agree in a band, to find the links; and for what leaves and what stays for
it, which in a cluster of many need not have been a pair, to know their similarity.

A pair costs 8 bytes of disk and then, each once, those of a sketch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.dedup.deal import (
    Columns,
    gather,
    read_dealt,
    to_batch,
    to_numpy,
    write_dealt,
)
from tokenmill.pipeline.dedup.kept import batches_of
from tokenmill.pipeline.dedup.steps import Removals, removals_batch, removals_path
from tokenmill.pipeline.filters import NEAR_DUPLICATE
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.receipts import Receipt, begin, clear, finish
from tokenmill.shards.listing import Output
from tokenmill.tokenizer.compiled import compiled

VERSION = 1
PAIR_COPIES = 8
"""Sketches that are held at once for a pair: both, the file before, and the copies."""
CHANCE = 1 / 256
"""That the lowest bytes of two entries which differ are equal."""


@dataclass(frozen=True, slots=True)
class SendTask:
    """The pairs whose `other` is in a group."""

    run: Path
    stage: Literal["near-sketches", "near-evidence"]
    group: int
    pairs: tuple[Output, ...]
    documents: Output
    """Of the group."""
    bases: tuple[int, ...]
    """(groups + 1,) the number of the first document of each group."""
    memory_bytes: int

    @property
    def name(self) -> str:
        return f"{self.group:05d}"

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "stage": VERSION,
            "group": self.group,
            "pairs": [output.sha256 for output in self.pairs],
            "documents": self.documents.sha256,
            "bases": self.bases,
            "memory": self.memory_bytes,  # decides where files end
        }


@dataclass(frozen=True, slots=True)
class LinkTask:
    """The pairs whose `one` is in a group, with the sketches of the others."""

    run: Path
    group: int
    sent: tuple[Output, ...]
    documents: Output
    base: int
    """The number of the group's first document."""
    min_similarity: float

    stage: ClassVar[str] = "near-links"

    @property
    def name(self) -> str:
        return f"{self.group:05d}"

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "stage": VERSION,
            "group": self.group,
            "sent": [output.sha256 for output in self.sent],
            "documents": self.documents.sha256,
            "base": self.base,
            "min_similarity": self.min_similarity,
        }


@dataclass(frozen=True, slots=True)
class RemoveTask:
    """What leaves for the sake of a group's documents, with the sketches of what leaves."""

    run: Path
    group: int
    sent: tuple[Output, ...]
    documents: Output
    base: int

    stage: ClassVar[str] = "near-removals"

    @property
    def name(self) -> str:
        return f"{self.group:05d}"

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "stage": VERSION,
            "group": self.group,
            "sent": [output.sha256 for output in self.sent],
            "documents": self.documents.sha256,
            "base": self.base,
        }


def send_sketches(task: SendTask) -> Receipt:
    """Write the pairs of a group, each once, with the sketch of the other; and the receipt."""
    started = begin(task)
    folder = task.run / "dedup" / "near" / f"{task.stage.removeprefix('near-')}-{task.name}"
    clear(folder)
    found = gather(task.run, task.pairs, task.group, {"one": np.uint32, "other": np.uint32})
    # One sort: by the other, so that sketches are read in order, then by the one.
    keys = np.unique(found.pop("other").astype(np.uint64) << np.uint64(32) | found.pop("one"))
    mine = _Documents(task.run, task.documents)
    bases = np.array(task.bases)
    step = max(1, task.memory_bytes // (PAIR_COPIES * (mine.width + 16)))
    cuts = [*range(0, len(keys), step), len(keys)] if len(keys) else [0, 0]
    with Tables(task.run) as tables:
        for file, (start, stop) in enumerate(pairwise(cuts)):
            other = (keys[start:stop] >> np.uint64(32)).astype(np.uint32)
            one = keys[start:stop].astype(np.uint32)
            doc_ids, sketches = mine.rows(other - np.uint32(bases[task.group]))
            group = np.searchsorted(bases, one, side="right").astype(np.int32) - np.int32(1)
            columns: Columns = {"one": one, "other": other, "doc_id": doc_ids, "sketch": sketches}
            write_dealt(tables, folder / f"{file:03d}.arrow", columns, group, len(bases) - 1)
            tables.close_part()
    return finish(task, tables.described(), {"pairs": len(keys)}, started)


def find_links(task: LinkTask) -> Receipt:
    """Write the pairs that are near duplicates, and the receipt."""
    started = begin(task)
    path = task.run / "dedup" / "near" / f"links-{task.name}.arrow"
    num_pairs = num_links = 0
    nothing = np.zeros(0, np.uint32)
    with Tables(task.run) as tables:
        tables.append(path, to_batch({"one": nothing, "other": nothing}))
        for pairs in _compared(task):
            linked = pairs.similarity >= np.float32(task.min_similarity)
            tables.append(path, to_batch({"one": pairs.one[linked], "other": pairs.other[linked]}))
            num_pairs += len(linked)
            num_links += int(linked.sum())
    return finish(task, tables.described(), {"pairs": num_pairs, "links": num_links}, started)


def write_removals(task: RemoveTask) -> Receipt:
    """Write what leaves and how similar it is to what stays; and the receipt."""
    started = begin(task)
    mine = _Documents(task.run, task.documents)
    found = [
        (pairs.doc_ids, mine.rows(pairs.one - np.uint32(task.base))[0], pairs.similarity)
        for pairs in _compared(task)
    ]
    found.append((np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.float32)))
    removals = Removals(*(np.concatenate(column) for column in zip(*found, strict=True)))
    with Tables(task.run) as tables:
        path = removals_path(task.run, NEAR_DUPLICATE, task.group)
        tables.append(path, removals_batch(removals))
    return finish(task, tables.described(), {"removed": len(removals.doc_ids)}, started)


class _Compared(NamedTuple):
    one: NDArray[np.uint32]
    other: NDArray[np.uint32]
    doc_ids: NDArray[np.uint64]
    """Of the others."""
    similarity: NDArray[np.float32]


def _compared(task: LinkTask | RemoveTask) -> Iterator[_Compared]:
    mine = _Documents(task.run, task.documents)
    for pairs in read_dealt(task.run, task.sent, task.group):
        _, sketches = mine.rows(pairs["one"] - np.uint32(task.base))
        alike = similarity(sketches, pairs["sketch"])
        yield _Compared(pairs["one"], pairs["other"], pairs["doc_id"], alike)


def similarity(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(pairs,) the estimated Jaccard similarity of documents with these sketches.

    Args:
        one: (pairs, entries); so is the other.
    """
    share = count_equal(one, other) / max(1, one.shape[1])
    estimate: NDArray[np.float64] = np.maximum(0.0, (share - CHANCE) / (1 - CHANCE))
    return estimate.astype(np.float32)


@compiled
def count_equal(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(pairs,) how many entries of two sketches are equal."""
    equal = np.zeros(len(one), np.int64)
    for pair in range(len(one)):
        for entry in range(one.shape[1]):
            equal[pair] += one[pair, entry] == other[pair, entry]
    return equal


class _Documents:
    """The ids and sketches of a group, mapped."""

    def __init__(self, run: Path, documents: Output) -> None:
        batches: list[pa.RecordBatch] = list(batches_of(run, documents.path))
        self._columns = [to_numpy(batch) for batch in batches]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self.width = self._columns[0]["sketch"].shape[1] if batches else 0

    def rows(self, places: NDArray[np.uint32]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        """(n,) the ids and (n, entries) the sketches of documents by their place in the group."""
        doc_ids = np.empty(len(places), np.uint64)
        sketches = np.empty((len(places), self.width), np.uint8)
        batch = np.searchsorted(self._starts, places, side="right") - 1
        for number in np.unique(batch):
            mine = np.flatnonzero(batch == number)
            row = places[mine] - self._starts[number]
            doc_ids[mine] = self._columns[number]["doc_id"][row]
            sketches[mine] = self._columns[number]["sketch"][row]
        return doc_ids, sketches
