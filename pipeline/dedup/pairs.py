"""Pairs: which documents agree in a band, and so may be near duplicates.

    dedup/near/pairs-<partition>-000.arrow    one, other (later): dealt by the group of the later

The hashes of a partition are sorted; documents under one hash are a set. Each is paired with the
first FIRST of its set and with the one before it: all pairs of a small set, and of a large one (a
template, a disclaimer) so many that what belongs together is linked, at a price that rises with its
size and not with its square. `pairs_left_out` counts the others; two such documents are still found
by a band of their own.

A task holds about 40 bytes a hash; the number of partitions follows from that.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.dedup.deal import read_dealt, write_dealt
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.receipts import Receipt, begin, clear, finish
from tokenmill.shards.listing import Output
from tokenmill.tokenizer.compiled import compiled

VERSION = 1
FIRST = 16
"""Documents of a set that all others are paired with."""
RECORD_BYTES = 40
"""Memory for a hash: itself, its number, place and order."""
PAIR_BYTES = 24


@dataclass(frozen=True, slots=True)
class PairTask:
    """The bands of one partition, of all documents."""

    run: Path
    partition: int
    bands: tuple[Output, ...]
    """One file a group."""
    bases: tuple[int, ...]
    """(groups + 1,) the number of the first document of each group."""
    memory_bytes: int

    stage: ClassVar[str] = "near-pairs"

    @property
    def name(self) -> str:
        return f"{self.partition:05d}"

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "stage": VERSION,
            "partition": self.partition,
            "bands": [output.sha256 for output in self.bands],
            "bases": self.bases,
            "memory": self.memory_bytes,  # decides where files end
        }


def find_pairs(task: PairTask) -> Receipt:
    """Write the pairs of a partition, and the receipt."""
    started = begin(task)
    folder = task.run / "dedup" / "near" / f"pairs-{task.name}"
    clear(folder)
    numbers, starts = _sets(*_records(task))
    bases = np.array(task.bases)
    num_pairs = 0
    step = max(1, task.memory_bytes // (PAIR_BYTES * (FIRST + 1)))
    cuts = [*range(0, len(numbers), step), len(numbers)] if len(numbers) else [0, 0]
    with Tables(task.run) as tables:
        for file, (start, stop) in enumerate(pairwise(cuts)):
            one, other = pair_up(numbers, starts, start, stop)
            group = np.searchsorted(bases, other, side="right").astype(np.int32) - np.int32(1)
            path = folder / f"{file:03d}.arrow"
            write_dealt(tables, path, {"one": one, "other": other}, group, len(bases) - 1)
            tables.close_part()
            num_pairs += len(one)
    sizes = np.unique(starts, return_counts=True)[1]
    counts = {
        "sets": len(sizes),
        "pairs": num_pairs,
        "pairs_left_out": int((sizes * (sizes - 1) // 2).sum()) - num_pairs,
    }
    return finish(task, tables.described(), counts, started)


@compiled
def pair_up(
    numbers: NDArray[np.uint32], starts: NDArray[np.int64], start: int, stop: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The pairs (earlier, later) of the documents from `start` to `stop` with earlier ones.

    Args:
        numbers: (documents,) set after set, rising in each.
        starts: (documents,) where the set of each begins.
    """
    num_pairs = 0
    for place in range(start, stop):
        before = place - starts[place]
        num_pairs += min(before, FIRST) + (before > FIRST)
    one = np.empty(num_pairs, np.uint32)
    other = np.empty(num_pairs, np.uint32)
    pair = 0
    for place in range(start, stop):
        before = place - starts[place]
        for first in range(min(before, FIRST)):
            one[pair], other[pair] = numbers[starts[place] + first], numbers[place]
            pair += 1
        if before > FIRST:
            one[pair], other[pair] = numbers[place - 1], numbers[place]
            pair += 1
    return one, other


def _records(task: PairTask) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """The hashes of the partition and the numbers of their documents."""
    hashes, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint32)]
    for base, records in zip(
        task.bases[:-1], read_dealt(task.run, task.bands, task.partition), strict=True
    ):
        hashes.append(records["hash"])
        numbers.append(records["number"] + np.uint32(base))
    return np.concatenate(hashes), np.concatenate(numbers)


def _sets(
    hashes: NDArray[np.uint64], numbers: NDArray[np.uint32]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The documents that are not alone under their hash, set after set, rising in each; and where
    the set of each begins."""
    order = np.argsort(hashes)
    hashes = hashes[order]
    same = hashes[1:] == hashes[:-1]
    shared = np.concatenate([same, [False]])[: len(order)]
    shared[1:] |= same
    begins = np.concatenate([[True], ~same])[: len(order)][shared]
    number_of_set = np.cumsum(begins, dtype=np.uint64)
    # One sort by set and number: numbers have 32 bits.
    keys = np.sort(number_of_set << np.uint64(32) | numbers[order[shared]])
    firsts = np.flatnonzero(begins)
    return keys.astype(np.uint32), firsts[number_of_set.astype(np.int64) - 1]
