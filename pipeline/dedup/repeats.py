"""Repeated text: spans of at least so many tokens that stand also earlier in the corpus.

A window of `min_tokens` tokens is repeated if the same tokens stand at an earlier place: in an
earlier document of the plan, or earlier in its own. The spans of a document are the union of its
repeated windows, so the first copy of every window stays. That is what a suffix array of the whole
corpus would find, which holds the corpus and more in memory; this holds a fixed amount a task:

    anchors   by group       the anchors of all windows, 32 bits of hash each
    common    by partition   which anchors stand more than once
    windows   by group       the windows that have common anchors, 96 bits of hash each
    earlier   by partition   which windows stood before, and in what document first
    spans     by group       the spans that are cut, and the documents that leave

    dedup/repeated_text/<stage>/00000.arrow               of all stages but the last
    spans/repeated_text/00000.arrow, removals/repeated_text/00000.arrow

A group is some consecutive units, a partition a share of all hashes. A window that comes back
within a piece of some million tokens is sent on once, so a token that repeats a million times sends
a handful. Disk, while it lasts: 0.3 bytes a token for the anchors (4 where one token repeats), and
16 to 24 for each window sent, one for four tokens of unfiltered web text. When the last spans are
written, what led to them is removed; other settings or inputs find them anew.

Not done: documents are judged all at once, so the text that one shares with another that leaves
as a whole (`max_share` below 1) may leave with both.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.dedup.repeat_candidates import (
    anchors_of,
    find_candidates,
    repeated_spans,
)
from tokenmill.pipeline.dedup.repeat_config import RepeatConfig
from tokenmill.pipeline.dedup.repeat_exchange import (
    Answers,
    Dealer,
    answer_batch,
    exchange_folder,
    exchange_path,
    read_values,
)
from tokenmill.pipeline.dedup.repeat_pieces import Piece, batches_of_all, read_pieces
from tokenmill.pipeline.dedup.repeat_spans import concatenate_spans, join_spans, judge_documents
from tokenmill.pipeline.dedup.repeat_tables import (
    COUNTERS,
    MAX_COUNTERS,
    WINDOW_BYTES,
    AnchorTable,
    WindowTable,
)
from tokenmill.pipeline.dedup.repeat_windows import mean_windows, num_anchors
from tokenmill.pipeline.dedup.steps import (
    NO_DOCUMENT,
    MilledUnit,
    Removals,
    RunStage,
    Spans,
    Step,
    open_removals,
    removals_batch,
    removals_path,
    spans_batch,
    spans_path,
)
from tokenmill.pipeline.filters import REPEATED_TEXT
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.receipts import Receipt, begin, clear, find_receipt, finish, paths, sweep
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.listing import Output

VERSION = 1
GROUP_TOKENS = 1 << 26
"""The fewest tokens in a group, but for the last."""
MAX_GROUPS = 1024
ANCHORS, COMMON, WINDOWS, EARLIER, SPANS = "anchors", "common", "windows", "earlier", "spans"
"""The stages."""

_HALF = np.uint64(32)

TokenFiles = tuple[tuple[str, ...], ...]
"""Of each group, in the order of the plan."""


@dataclass(frozen=True, slots=True)
class Search:
    """What all tasks know."""

    run: Path
    config: RepeatConfig
    inputs: str
    """A hash of all that was milled, and of what was removed since."""
    num_groups: int
    anchor_partitions: int
    window_partitions: int = 0
    """Known when the common anchors are counted."""


@dataclass(frozen=True, slots=True)
class RepeatTask:
    """A group or a partition in one of the stages."""

    search: Search
    kind: str
    number: int
    """Of the group or partition."""
    token_files: TokenFiles = ()
    removals: tuple[Output, ...] = ()
    """Of the steps before."""

    @property
    def run(self) -> Path:
        return self.search.run

    @property
    def stage(self) -> str:
        return stage_name(self.kind)

    @property
    def name(self) -> str:
        return f"{self.number:05d}"

    @property
    def parts(self) -> dict[str, Any]:
        search, config = self.search, self.search.config
        parts = {"stage": VERSION, "documents": search.inputs, "min_tokens": config.min_tokens}
        if self.kind == SPANS:
            return {**parts, "decisions": [search.num_groups, config.spans, config.max_share]}
        # How the values find their way: it decides these files, and nothing of the last stage's.
        dealt = [search.num_groups, search.anchor_partitions, search.window_partitions]
        return {**parts, "dealt": dealt}


def stage_name(kind: str) -> str:
    return f"repeats-{kind}"


def repeated_text(
    run: Path,
    stage: RunStage,
    config: RepeatConfig,
    units: Sequence[MilledUnit],
    earlier: Sequence[Step],
) -> Step:
    """Find the repeated spans of all documents that the steps before have left.

    Args:
        units: none of them: what an earlier search wrote leaves the run.

    Returns:
        The spans that are cut, and the documents of which too little would be left.
    """
    groups = group_token_files(units)
    removals = tuple(output for step in earlier for output in step.removals)
    keys = [*(unit.receipt.key for unit in units), *(output.sha256 for output in removals)]
    inputs = sha256("".join(keys).encode()).hexdigest()
    expected = num_anchors(_num_tokens(units), config.min_tokens)
    counters = min(4 * config.memory_bytes, MAX_COUNTERS)
    search = Search(run, config, inputs, len(groups), max(1, -(-expected * COUNTERS // counters)))

    def tasks(kind: str) -> list[RepeatTask]:
        numbers = range(search.num_groups)
        return [RepeatTask(search, kind, number, groups, removals) for number in numbers]

    if not _done(tasks(SPANS)):
        asked = [RepeatTask(search, COMMON, n) for n in range(search.anchor_partitions)]
        counted = _exchange(stage, deal_anchors, tasks(ANCHORS), find_common, asked)
        num_common = sum(receipt.counts["common"] for receipt in counted.values())
        windows = num_common * mean_windows(config.min_tokens)
        partitions = max(1, -(-windows * WINDOW_BYTES // config.memory_bytes))
        search = replace(search, window_partitions=partitions)
        asked = [RepeatTask(search, EARLIER, n) for n in range(partitions)]
        _exchange(stage, deal_windows, tasks(WINDOWS), find_earlier, asked)
    receipts = stage(stage_name(SPANS), write_spans, tasks(SPANS))
    for kind in (ANCHORS, COMMON, WINDOWS, EARLIER):
        sweep(run, stage_name(kind), ())
    clear(exchange_folder(run))
    outputs = [output for receipt in receipts.values() for output in receipt.outputs]
    return Step(
        REPEATED_TEXT,
        removals=tuple(o for o in outputs if o.path.startswith("removals/")),
        spans=tuple(o for o in outputs if o.path.startswith("spans/")),
    )


def group_token_files(units: Sequence[MilledUnit]) -> TokenFiles:
    """The token files of consecutive units, some units together."""
    size = max(GROUP_TOKENS, -(-_num_tokens(units) // MAX_GROUPS))
    groups: dict[int, list[str]] = {}
    before = 0
    for unit in units:
        groups.setdefault(before // size, []).extend(paths(unit.receipt, "tokens-"))
        before += unit.receipt.counts.get("tokens", 0)
    return tuple(tuple(files) for files in groups.values() if files)


def deal_anchors(task: RepeatTask) -> Receipt:
    """Write the anchors of a group, dealt to partitions."""
    started = begin(task)
    num = 0
    with Tables(task.run) as tables:
        dealer = Dealer(tables, _path(task), task.search.anchor_partitions)
        for piece in _pieces(task):
            hashes = anchors_of(piece, task.search.config.min_tokens).hashes
            dealer.add(hashes.astype(np.uint32), hashes)
            num += len(hashes)
        dealer.flush()
    return finish(task, tables.described(), {"anchors": num}, started)


def find_common(task: RepeatTask) -> Receipt:
    """Write which anchors of a partition stand more than once."""
    started = begin(task)
    memory_bytes = task.search.config.memory_bytes
    table = AnchorTable(sum(map(len, _values(task, ANCHORS))), memory_bytes)
    for anchors in _values(task, ANCHORS):
        table.add(anchors)
    num = 0
    with Tables(task.run) as tables:
        for group in range(task.search.num_groups):
            values = read_values(task.run, ANCHORS, group, task.number)
            common = [table.is_common(anchors) for anchors in values]
            tables.append(_path(task), answer_batch(common))
            num += sum(int(each.sum()) for each in common)
    return finish(task, tables.described(), {"common": num}, started)


def deal_windows(task: RepeatTask) -> Receipt:
    """Write the windows of a group that have common anchors, dealt to partitions."""
    started = begin(task)
    common = Answers(task.run, COMMON, task.search.anchor_partitions, task.number)
    num = 0
    with Tables(task.run) as tables:
        dealer = Dealer(tables, _path(task), task.search.window_partitions)
        for piece in _pieces(task):
            values = find_candidates(piece, common, task.search.config.min_tokens).to_send()
            dealer.add(values, values[:, 0])
            num += len(values)
        dealer.flush()
    return finish(task, tables.described(), {"windows": num}, started)


def find_earlier(task: RepeatTask) -> Receipt:
    """Write which windows of a partition stood before, and in which documents first."""
    started = begin(task)
    table = WindowTable(sum(map(len, _values(task, WINDOWS))) // 2)
    num = 0
    with Tables(task.run) as tables:
        for group in range(task.search.num_groups):
            values = read_values(task.run, WINDOWS, group, task.number)
            found = [table.find_or_add(windows.reshape(-1, 2), group) for windows in values]
            known, places = zip(*found, strict=True)
            tables.append(_path(task), answer_batch(known, places))
            num += sum(map(len, places))
    return finish(task, tables.described(), {"repeated": num}, started)


def write_spans(task: RepeatTask) -> Receipt:
    """Write a group's repeated spans, and the documents of which they leave too little."""
    started = begin(task)
    search, config = task.search, task.search.config
    common = Answers(task.run, COMMON, search.anchor_partitions, task.number)
    earlier = Answers(task.run, EARLIER, search.window_partitions, task.number)
    spans = [
        repeated_spans(
            find_candidates(piece, common, config.min_tokens), earlier, config.min_tokens
        )
        for piece in _pieces(task)
    ]
    joined = join_spans(concatenate_spans(spans))
    doc_ids, num_tokens = _documents(task.run, task.token_files[task.number])
    judged = judge_documents(joined, num_tokens, config)
    longest, kept = joined.take(judged.longest), joined.take(judged.cut)
    gone = doc_ids[longest.documents]
    originals = doc_ids[longest.originals]
    told = longest.handles >= 0
    originals[told] = _documents_at(task, earlier.places(longest.handles[told]))
    originals[originals == gone] = NO_DOCUMENT  # it repeats itself
    removals = Removals(gone, originals, judged.share)
    cut = Spans(doc_ids[kept.documents], kept.starts, kept.stops)
    with Tables(task.run) as tables:
        path = removals_path(task.run, REPEATED_TEXT, task.number)
        tables.append(path, removals_batch(removals))
        path = spans_path(task.run, REPEATED_TEXT, task.number)
        tables.append(path, spans_batch(cut))
    counts = {
        "documents": len(doc_ids),
        "removed": len(removals.doc_ids),
        "spans": len(cut.doc_ids),
        "tokens_cut": int((cut.stops - cut.starts).sum()),
    }
    return finish(task, tables.described(), counts, started)


def _documents(run: Path, files: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The doc_ids and lengths of the documents of a group."""
    doc_ids, num_tokens = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for batch in batches_of_all(run, files):
        doc_ids.append(as_numpy(batch["doc_id"]))
        num_tokens.append(np.diff(as_numpy(batch["tokens"].offsets)))
    return np.concatenate(doc_ids), np.concatenate(num_tokens)


def _documents_at(task: RepeatTask, places: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """(places,) the doc_id at each group and document, a group at a time."""
    groups, documents = places >> _HALF, places & np.uint64(0xFFFFFFFF)
    doc_ids = np.zeros(len(places), np.uint64)
    for group in np.unique(groups):
        mine = groups == group
        doc_ids[mine] = _documents(task.run, task.token_files[group])[0][documents[mine]]
    return doc_ids


def _pieces(task: RepeatTask) -> Iterator[Piece]:
    files, removals = task.token_files[task.number], open_removals(task.run, task.removals)
    return read_pieces(task.run, files, removals, task.search.config.min_tokens)


def _values(task: RepeatTask, kind: str) -> Iterator[NDArray[Any]]:
    """A partition's values of all groups, some at a time, in the order of the plan."""
    for group in range(task.search.num_groups):
        yield from read_values(task.run, kind, group, task.number)


def _path(task: RepeatTask) -> Path:
    return exchange_path(task.run, task.kind, task.number)


def _num_tokens(units: Sequence[MilledUnit]) -> int:
    return sum(unit.receipt.counts.get("tokens", 0) for unit in units)


def _done(tasks: Sequence[RepeatTask]) -> bool:
    return all(find_receipt(task) is not None for task in tasks)


def _exchange(
    stage: RunStage,
    deal_values: Callable[[RepeatTask], Receipt],
    dealt: Sequence[RepeatTask],
    answer: Callable[[RepeatTask], Receipt],
    asked: Sequence[RepeatTask],
) -> Mapping[str, Receipt]:
    """Deal the values of all groups, have the partitions answer, and throw the values away."""
    if not _done(asked):
        stage(dealt[0].stage, deal_values, dealt)
    receipts = stage(asked[0].stage, answer, asked)
    sweep(asked[0].run, dealt[0].stage, ())
    return receipts
