"""Judge: how much of which items a document holds, whether that is too much, and what then goes.

    item of 20 words       . . . . . . . . . . . . . . . . . . . .
    runs found in a text   |-----------------------|                  13 words
                                 |-----------------------|            16 words covered: share 0.8

A run that stands in many documents is a common phrase and says nothing alone; half of an item is
no phrase, whoever wrote it.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.decontaminate.config import DecontaminationConfig
from tokenmill.pipeline.decontaminate.index import RunIndex
from tokenmill.pipeline.dedup.steps import NO_DOCUMENT, Removals, Spans, merge_spans

COMMON_SHARE = 0.5
"""Of an item's words: so many are evidence even where each run of them is a common phrase."""


@dataclass(frozen=True, slots=True)
class Hits:
    """Runs of items found in documents. One entry a run and place."""

    doc_ids: NDArray[np.uint64]
    num_tokens: NDArray[np.int64]
    """Of the document."""
    runs: NDArray[np.int64]
    """The run's number in the index."""
    words: NDArray[np.int64]
    """The first word of it in the document."""
    num_words: NDArray[np.int64]
    starts: NDArray[np.int64]
    """The token in which the first word begins."""
    stops: NDArray[np.int64]
    """The token in which the word after the last one begins, or the document's number of tokens."""

    def take(self, chosen: NDArray[Any]) -> "Hits":
        return Hits(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Found:
    """What documents hold of items. One entry a document and item, by document."""

    doc_ids: NDArray[np.uint64]
    items: NDArray[np.int64]
    num_words: NDArray[np.int64]
    """Words covered by runs of the item, each counted once."""
    share: NDArray[np.float64]
    """Of the item's words, at most 1."""
    starts: NDArray[np.int64]
    """The first token of the first run."""
    stops: NDArray[np.int64]
    """One past the last token of the last run."""
    decided: NDArray[np.bool_]
    """Whether that is too much."""


def judge_hits(
    hits: Hits, index: RunIndex, is_common: NDArray[np.bool_], min_share: float
) -> tuple[Found, NDArray[np.bool_]]:
    """What was found of each item in each document, and (hits,) which hits decided.

    Args:
        is_common: (hits,) whether the run is a common phrase.
        min_share: of an item's words, that must be found.
    """
    # One entry for each item of each hit's run: (pairs of hit and item,)
    counts = np.diff(index.run_starts)[hits.runs]
    hit = np.repeat(np.arange(len(hits.runs)), counts)
    inside = np.arange(len(hit)) - np.repeat(np.cumsum(counts) - counts, counts)
    item = index.run_items[index.run_starts[hits.runs][hit] + inside].astype(np.int64)
    order = np.lexsort((hits.words[hit], item, hits.doc_ids[hit]))
    hit, item = hit[order], item[order]
    doc_ids = hits.doc_ids[hit]
    begins = np.ones(len(hit), np.bool_)
    begins[1:] = (doc_ids[1:] != doc_ids[:-1]) | (item[1:] != item[:-1])
    entry = np.cumsum(begins) - 1  # in Found
    firsts = np.flatnonzero(begins)
    covered = merge_spans(
        entry.astype(np.uint64), hits.words[hit], hits.words[hit] + hits.num_words[hit]
    )
    num_words = np.zeros(len(firsts), np.int64)
    np.add.at(num_words, covered.doc_ids.astype(np.int64), covered.stops - covered.starts)
    share = np.minimum(1.0, num_words / index.item_words[item[firsts]])
    has_rare = np.zeros(len(firsts), np.bool_)
    np.logical_or.at(has_rare, entry, ~is_common[hit])
    stops = np.zeros(len(firsts), np.int64)
    np.maximum.at(stops, entry, hits.stops[hit])
    decided = (share >= min_share) & (has_rare | (share >= COMMON_SHARE))
    found = Found(
        doc_ids[firsts], item[firsts], num_words, share, hits.starts[hit[firsts]], stops, decided
    )
    has_decided = np.zeros(len(hits.runs), np.bool_)
    np.logical_or.at(has_decided, hit, decided[entry])
    return found, has_decided


def documents_that_leave(found: Found) -> Removals:
    """Every document of which an item decided; similarity: the largest share of one."""
    doc_ids = np.unique(found.doc_ids[found.decided])
    share = np.zeros(len(doc_ids), np.float32)
    place = np.searchsorted(doc_ids, found.doc_ids[found.decided])
    np.maximum.at(share, place, found.share[found.decided].astype(np.float32))
    return Removals(doc_ids, np.full(len(doc_ids), NO_DOCUMENT), share)


def what_is_cut(hits: Hits, config: DecontaminationConfig) -> tuple[Spans, NDArray[np.uint64]]:
    """The spans that documents lose, and the documents of which too little would be left.

    Runs with less than one run between them are one span: a changed word hides the runs over it.

    Args:
        hits: those that decided.
    """
    gap = config.words  # in tokens: a word has one at least
    spans = merge_spans(hits.doc_ids, hits.starts, hits.stops + gap)
    spans = Spans(spans.doc_ids, spans.starts, spans.stops - gap)
    doc_ids, first = np.unique(hits.doc_ids, return_index=True)
    left = hits.num_tokens[first]
    place = np.searchsorted(doc_ids, spans.doc_ids)
    np.subtract.at(left, place, spans.stops - spans.starts)
    too_little = left < config.min_tokens
    stays = ~too_little[place]
    spans = Spans(spans.doc_ids[stays], spans.starts[stays], spans.stops[stays])
    return spans, doc_ids[too_little]
