"""Decontamination as a step after the mill: sets made ready, units scanned, documents judged.

    decontamination/hits/<unit>-000.arrow    what scans found; see scan.py
    removals/evaluation_text/00000.arrow     documents that leave; similarity: the item's share
    spans/evaluation_text/00000.arrow        what is cut from documents that stay
    decontamination/evidence.parquet         a row for each document and item: how much, and where
    decontamination/report.json              for each set: items, found, documents, tokens

Runs of words are counted over all documents before any is judged. Documents that left by an earlier
step are left out. Judging holds four bytes a run of the index, the hits of one unit, and what
leaves. Another threshold judges anew; another set scans anew; neither mills.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenmill.pipeline.decontaminate.config import DecontaminationConfig
from tokenmill.pipeline.decontaminate.index import open_index
from tokenmill.pipeline.decontaminate.items import find_files
from tokenmill.pipeline.decontaminate.judge import (
    Hits,
    documents_that_leave,
    judge_hits,
    what_is_cut,
)
from tokenmill.pipeline.decontaminate.report import Report, evidence_batch
from tokenmill.pipeline.decontaminate.scan import ScanTask, scan
from tokenmill.pipeline.decontaminate.sets import SetsTask, prepare_sets
from tokenmill.pipeline.dedup.steps import (
    MilledUnit,
    Removals,
    RunStage,
    Spans,
    Step,
    find_removed,
    open_removals,
    removals_batch,
    removals_path,
    spans_batch,
    spans_path,
)
from tokenmill.pipeline.filters import EVALUATION_TEXT
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.receipts import Receipt, begin, finish, paths
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.files import write_json
from tokenmill.shards.listing import Output, describe_output
from tokenmill.tokenizer import load_tokenizer

VERSION = 1


@dataclass(frozen=True, slots=True)
class JudgeTask:
    """The hits of all units, and what is too much."""

    run: Path
    config: DecontaminationConfig
    index: Output
    items: Output
    hits: tuple[Output, ...]
    """In the order of the plan."""
    earlier: tuple[Output, ...]
    """The removals of the steps before."""

    stage: ClassVar[str] = "evaluation_text"
    name: ClassVar[str] = "all"

    @property
    def parts(self) -> dict[str, Any]:
        config = self.config
        return {
            "stage": VERSION,
            "thresholds": [config.min_share, config.common_documents],
            "action": [config.action, config.words, config.min_tokens],
            "sets": [self.index.sha256, self.items.sha256],
            "documents": [output.sha256 for output in self.hits],
            "earlier": [output.sha256 for output in self.earlier],
        }


def evaluation_text(
    run: Path,
    stage: RunStage,
    config: DecontaminationConfig,
    units: Sequence[MilledUnit],
    earlier: Sequence[Step],
) -> Step:
    """Find the documents that hold items of evaluation sets, or the spans that do.

    Raises:
        RecipeError, SourceError: a set is not there, or cannot be read.
    """
    encoder = load_tokenizer(run / "tokenizer")
    files = find_files(config.sets)
    ready = prepare_sets(
        SetsTask(run, config.sets, files, config.words, config.min_words, encoder.sha256), encoder
    )
    index, items = ready.outputs
    scanned = stage(
        ScanTask.stage,
        scan,
        [
            ScanTask(
                run,
                milled.unit.name,
                tuple(paths(milled.receipt, "tokens-")),
                index,
                milled.receipt.key,
            )
            for milled in units
        ],
    )
    task = JudgeTask(
        run=run,
        config=config,
        index=index,
        items=items,
        hits=tuple(o for milled in units for o in scanned[milled.unit.name].outputs),
        earlier=tuple(output for step in earlier for output in step.removals),
    )
    judged = stage(JudgeTask.stage, judge, [task])[JudgeTask.name]
    return Step(
        EVALUATION_TEXT,
        removals=tuple(o for o in judged.outputs if o.path.startswith("removals/")),
        spans=tuple(o for o in judged.outputs if o.path.startswith("spans/")),
    )


def judge(task: JudgeTask) -> Receipt:
    """Write removals, spans, evidence and report, and the receipt."""
    started = begin(task)
    folder = task.run / "decontamination"
    for path in (
        removals_path(task.run, EVALUATION_TEXT, 0),
        spans_path(task.run, EVALUATION_TEXT, 0),
        folder / "evidence.parquet",
    ):
        path.unlink(missing_ok=True)
    _, index = open_index(task.run / task.index.path, task.index.sha256)
    items = pq.read_table(task.run / task.items.path)
    num_documents = np.zeros(index.num_runs, np.int32)
    for hits in _read_hits(task):
        pairs = np.unique(np.stack([hits.doc_ids, hits.runs.astype(np.uint64)]), axis=1)
        np.add.at(num_documents, pairs[1].astype(np.int64), 1)
    nothing = np.zeros(0, np.int64)
    removals = [
        Removals(nothing.astype(np.uint64), nothing.astype(np.uint64), nothing.astype(np.float32))
    ]
    spans = [Spans(nothing.astype(np.uint64), nothing, nothing)]
    report = Report(items, task.config.min_words)
    with Tables(task.run) as tables:
        for hits in _read_hits(task):
            is_common = num_documents[hits.runs] > task.config.common_documents
            found, decided = judge_hits(hits, index, is_common, task.config.min_share)
            leaving = documents_that_leave(found)
            if task.config.action == "cut":
                cut, too_little = what_is_cut(hits.take(decided), task.config)
                chosen = np.isin(leaving.doc_ids, too_little)
                leaving = Removals(*(column[chosen] for column in _columns(leaving)))
                spans.append(cut)
            removals.append(leaving)
            report.add(hits, found, leaving.doc_ids, spans[-1])
            tables.append(folder / "evidence.parquet", evidence_batch(found, items))
        tables.append(
            removals_path(task.run, EVALUATION_TEXT, 0),
            removals_batch(Removals(*_joined(removals))),
        )
        if task.config.action == "cut":
            tables.append(
                spans_path(task.run, EVALUATION_TEXT, 0), spans_batch(Spans(*_joined(spans)))
            )
    write_json(folder / "report.json", report.as_json())
    outputs = (*tables.described(), describe_output(task.run, folder / "report.json"))
    return finish(task, outputs, report.totals, started)


def _read_hits(task: JudgeTask) -> Iterator[Hits]:
    """The hits of each unit, without those in documents that an earlier step removed."""
    earlier = open_removals(task.run, task.earlier)
    for output in task.hits:
        reader = pa.ipc.open_file(pa.memory_map(str(task.run / output.path)))
        table = reader.read_all()
        doc_ids = as_numpy(table["doc_id"])
        names = ("num_tokens", "run", "word", "num_words", "start", "stop")
        hits = Hits(doc_ids, *(as_numpy(table[name]).astype(np.int64) for name in names))
        removed, _, _ = find_removed(earlier, doc_ids)
        if not removed.all():
            yield hits.take(~removed)


def _columns(entries: Removals | Spans) -> list[NDArray[Any]]:
    return [getattr(entries, field.name) for field in fields(entries)]


def _joined(parts: Sequence[Removals] | Sequence[Spans]) -> list[NDArray[Any]]:
    """Each column of all parts, one after the other."""
    return [np.concatenate(column) for column in zip(*map(_columns, parts), strict=True)]
