"""Near duplicates: MinHash-LSH over the signatures of the mill, on disk, with bounded memory.

    signatures ─> bands ──by hash──> pairs ──by document──> sketches ──by document──> links
               ─> clusters ─> removals, each with its similarity to what stays

Every arrow is a set of files dealt to partitions (deal.py), every step one task for each group of
documents or partition of hashes. Nothing is read in random order and nothing is held whole but the
clusters' 4 bytes a document. Two documents are near duplicates if they agree in all entries of a
band and their estimated similarity is at least `min_similarity`; a cluster is whatever such links
join.

The price of `default` on disk: 192 bytes a document for bands, 124 for what is compared, and 136
for each pair that agrees in a band. docs/duplicates.md has it measured and extrapolated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from tokenmill.errors import RunError
from tokenmill.pipeline.dedup.bands import BAND_BYTES, BandTask, deal_bands
from tokenmill.pipeline.dedup.clusters import ClusterTask, find_clusters
from tokenmill.pipeline.dedup.config import NearConfig, Scope
from tokenmill.pipeline.dedup.kept import groups_of, num_documents
from tokenmill.pipeline.dedup.links import (
    LinkTask,
    RemoveTask,
    SendTask,
    find_links,
    send_sketches,
    write_removals,
)
from tokenmill.pipeline.dedup.pairs import RECORD_BYTES, PairTask, find_pairs
from tokenmill.pipeline.dedup.steps import MilledUnit, RunStage, Step
from tokenmill.pipeline.filters import NEAR_DUPLICATE
from tokenmill.pipeline.receipts import Receipt
from tokenmill.shards.listing import Output

MAX_DOCUMENTS = (1 << 32) - 1
"""Documents are numbered by 32 bits."""


def near_duplicates(
    run: Path,
    stage: RunStage,
    units: Sequence[MilledUnit],
    config: NearConfig,
    scope: Scope,
    earlier: Sequence[Step] = (),
) -> Step:
    """Find the documents that are nearly another's text.

    Args:
        units: milled with signatures of at least `config.banding.num_hashes` entries.
        earlier: steps whose removals are not looked at.

    Raises:
        RunError: there are more documents than can be numbered.
    """
    documents, bands, memory = num_documents(units), config.banding, config.memory_bytes
    if documents > MAX_DOCUMENTS:
        raise RunError(
            f"dedup.near: {documents:,} documents were milled, at most {MAX_DOCUMENTS:,} can be "
            "compared. Build them as several runs."
        )
    most = max(1, memory // (BAND_BYTES * bands.num + 2 * bands.num_hashes))
    groups = groups_of(units, most, signed=True)
    partitions = range(-(-documents * bands.num * RECORD_BYTES // memory) if groups else 0)
    removals = tuple(output for step in earlier for output in step.removals)
    signed = stage(
        "near-bands",
        deal_bands,
        [
            BandTask(run, group, bands, scope, config.keep, len(partitions), removals)
            for group in groups
        ],
    )
    of_group = [signed[f"{group.number:05d}"] for group in groups]
    sketched = tuple(receipt.outputs[0] for receipt in of_group)
    banded = tuple(receipt.outputs[1] for receipt in of_group)
    bases = tuple(accumulate((receipt.counts["documents"] for receipt in of_group), initial=0))
    firsts: dict[int, int] = {}
    for group, base in zip(groups, bases, strict=False):
        firsts.setdefault(group.generation, base)
    follow = _Stages(run, stage, sketched, bases, tuple(firsts.values()), memory)
    paired = follow.outputs_of(
        "near-pairs",
        find_pairs,
        [PairTask(run, number, banded, bases, memory) for number in partitions],
    )
    links = follow.links(follow.sketches("near-sketches", paired), bands.min_similarity)
    clusters = follow.clusters(links, config)
    return Step(NEAR_DUPLICATE, follow.removals(follow.sketches("near-evidence", clusters)))


@dataclass(frozen=True, slots=True)
class _Stages:
    """What is done with pairs."""

    run: Path
    stage: RunStage
    sketched: tuple[Output, ...]
    """The documents of each group."""
    bases: tuple[int, ...]
    """(groups + 1,) the number of the first document of each group."""
    firsts: tuple[int, ...]
    """The number of the first document of each generation."""
    memory: int

    def sketches(self, name: Any, pairs: tuple[Output, ...]) -> tuple[Output, ...]:
        return self.outputs_of(
            name,
            send_sketches,
            [
                SendTask(self.run, name, number, pairs, documents, self.bases, self.memory)
                for number, documents in enumerate(self.sketched)
            ],
        )

    def links(self, sent: tuple[Output, ...], min_similarity: float) -> tuple[Output, ...]:
        tasks = [
            LinkTask(self.run, number, sent, documents, self.bases[number], min_similarity)
            for number, documents in enumerate(self.sketched)
        ]
        return self.outputs_of("near-links", find_links, tasks)

    def clusters(self, links: tuple[Output, ...], config: NearConfig) -> tuple[Output, ...]:
        task = ClusterTask(self.run, links, self.sketched, self.bases, self.firsts, config.keep)
        return self.outputs_of("near-clusters", find_clusters, [task] if self.sketched else [])

    def removals(self, sent: tuple[Output, ...]) -> tuple[Output, ...]:
        tasks = [
            RemoveTask(self.run, number, sent, documents, self.bases[number])
            for number, documents in enumerate(self.sketched)
        ]
        return self.outputs_of("near-removals", write_removals, tasks)

    def outputs_of(
        self, name: str, function: Callable[[Any], Receipt], tasks: Sequence[Any]
    ) -> tuple[Output, ...]:
        """The files of a stage in the order of its tasks."""
        receipts = self.stage(name, function, tasks)
        return tuple(output for task in tasks for output in receipts[task.name].outputs)
