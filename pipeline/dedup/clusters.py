"""Clusters: documents that links join, directly or through others; one of each stays.

    dedup/near/clusters.arrow    one (stays), other (leaves): dealt by the group of the other

Links are joined by union-find over the documents' numbers, the larger root under the smaller, so
that a cluster's root is its first document in whatever order links come. One task does it, with 4
bytes for each document of the run, 12 where the longest stays.

A corpus that grows (generations.py) is joined generation by generation, and no document makes two
clusters of earlier generations one: what was decided of a document stays, and a later one leaves
for the sake of either.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.dedup.config import Keep
from tokenmill.pipeline.dedup.deal import to_numpy, write_dealt
from tokenmill.pipeline.dedup.kept import batches_of
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.receipts import Receipt, begin, finish
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.listing import Output
from tokenmill.tokenizer.compiled import compiled, compiled_inline

VERSION = 1


@dataclass(frozen=True, slots=True)
class ClusterTask:
    """The links of all documents."""

    run: Path
    links: tuple[Output, ...]
    documents: tuple[Output, ...]
    bases: tuple[int, ...]
    """(groups + 1,) the number of the first document of each group, and of all documents."""
    firsts: tuple[int, ...]
    """The number of the first document of each generation."""
    keep: Keep

    stage: ClassVar[str] = "near-clusters"

    @property
    def name(self) -> str:
        return "all"

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "stage": VERSION,
            "links": [output.sha256 for output in self.links],
            "documents": [output.sha256 for output in self.documents],
            "bases": self.bases,
            "keep": self.keep,
            **({"generations": self.firsts} if len(self.firsts) > 1 else {}),
        }


def find_clusters(task: ClusterTask) -> Receipt:
    """Write who leaves for whose sake, and the receipt."""
    started = begin(task)
    parents = np.arange(task.bases[-1], dtype=np.uint32)
    for first, stop in pairwise([*task.firsts, task.bases[-1]]):
        for output in task.links:
            for batch in batches_of(task.run, output.path):
                links = to_numpy(batch)
                mine = (links["other"] >= first) & (links["other"] < stop)
                join(parents, links["one"][mine], links["other"][mine], first)
    flatten(parents)
    other = np.flatnonzero(parents != np.arange(len(parents), dtype=np.uint32)).astype(np.uint32)
    one = parents[other]
    num_clusters = len(np.unique(one))
    if task.keep == "longest":
        one, other = swap_longest(one, other, _num_tokens(task), np.array(task.firsts))
    bases = np.array(task.bases)
    group = np.searchsorted(bases, other, side="right").astype(np.int32) - np.int32(1)
    with Tables(task.run) as tables:
        path = task.run / "dedup" / "near" / "clusters.arrow"
        write_dealt(tables, path, {"one": one, "other": other}, group, len(bases) - 1)
    counts = {"clusters": num_clusters, "removed": len(other)}
    return finish(task, tables.described(), counts, started)


def swap_longest(
    one: NDArray[np.uint32],
    other: NDArray[np.uint32],
    num_tokens: NDArray[np.uint32],
    firsts: NDArray[np.int64],
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Who stays and who leaves, where the longest of a cluster's first generation stays; of equally
    long ones the first.

    Args:
        one: (leaving,) the first document of each one's cluster.
        other: (leaving,) the others of the cluster, rising.
        num_tokens: (documents,).
        firsts: (generations,) the first document of each.
    """
    longest = np.arange(len(num_tokens), dtype=np.uint32)
    may_stay = np.searchsorted(firsts, one, "right") == np.searchsorted(firsts, other, "right")
    pick_longest(one[may_stay], other[may_stay], num_tokens, longest)
    stays = longest[one]
    # The first leaves in the place of the one that stays.
    return stays, np.where(stays == other, one, other)


def _num_tokens(task: ClusterTask) -> NDArray[np.uint32]:
    num_tokens = np.empty(task.bases[-1], np.uint32)
    start = 0
    for output in task.documents:
        for batch in batches_of(task.run, output.path):
            num_tokens[start : start + batch.num_rows] = as_numpy(batch["num_tokens"])
            start += batch.num_rows
    return num_tokens


@compiled_inline
def root_of(parents: NDArray[np.uint32], number: np.uint32) -> np.uint32:
    """The root of a document; the way to it is halved."""
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number


@compiled
def join(
    parents: NDArray[np.uint32], one: NDArray[np.uint32], other: NDArray[np.uint32], settled: int
) -> None:
    """Put the clusters of linked documents together, but for two that both begin with a document
    below `settled`."""
    for link in range(len(one)):
        a, b = root_of(parents, one[link]), root_of(parents, other[link])
        if max(a, b) >= settled:
            parents[max(a, b)] = min(a, b)


@compiled
def flatten(parents: NDArray[np.uint32]) -> None:
    """Put every document directly under its root; a parent is never above its child."""
    for number in range(len(parents)):
        parents[number] = parents[parents[number]]


@compiled
def pick_longest(
    one: NDArray[np.uint32],
    other: NDArray[np.uint32],
    num_tokens: NDArray[np.uint32],
    longest: NDArray[np.uint32],
) -> None:
    for place in range(len(one)):
        root, number = one[place], other[place]
        if num_tokens[number] > num_tokens[longest[root]]:
            longest[root] = number
