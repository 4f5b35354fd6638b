"""Milled units of documents, and the search for repeated text in them."""

import itertools
import random
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tokenmill.pipeline.dedup import repeat_exchange, repeat_pieces, repeats
from tokenmill.pipeline.dedup.repeats import repeated_text
from tokenmill.pipeline.dedup.steps import (
    MilledUnit,
    Removals,
    Step,
    open_removals,
    open_spans,
    removals_batch,
)
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.plan import Unit
from tokenmill.pipeline.receipts import Receipt, find_receipt, sweep
from tokenmill.shards.listing import describe_output


def write_units(run, units, dtype=np.uint16, batch_documents=3):
    """Milled token files of units of documents; doc_ids count from 1 on, in the order of all."""
    milled, number = [], itertools.count(1)
    for index, documents in enumerate(units):
        name = f"web/file-{index}"
        with Tables(run) as tables:
            for first in range(0, max(len(documents), 1), batch_documents):
                chosen = documents[first : first + batch_documents]
                tokens = np.array([token for document in chosen for token in document], dtype)
                ends = np.cumsum([0, *map(len, chosen)])
                batch = {
                    "doc_id": pa.array([next(number) for _ in chosen], pa.uint64()),
                    "content_hash": pa.array([b"0" * 16 for _ in chosen], pa.binary(16)),
                    "tokens": pa.LargeListArray.from_arrays(pa.array(ends), pa.array(tokens)),
                }
                tables.append(
                    run / "milled" / name / "tokens-000.arrow", pa.RecordBatch.from_pydict(batch)
                )
        outputs = tables.described()
        receipt = Receipt(
            stage="mill", name=name, key=outputs[0].sha256, parts={}, outputs=outputs,
            counts={"tokens": sum(map(len, documents))}, details={}, seconds=0, versions={},
        )  # fmt: skip
        milled.append(MilledUnit(Unit(name, "web", ()), receipt))
    return milled


def run_stage(run, die_at=None):
    """What a build does for a stage; `die_at` counts tasks down to one that fails at its end."""
    left = [die_at]

    def stage(name, function, tasks, below=""):
        sweep(run, name, [task.name for task in tasks], below)
        receipts = {}
        for task in tasks:
            receipts[task.name] = find_receipt(task)
            if receipts[task.name] is None:
                if left[0] == 0:
                    raise KeyboardInterrupt(name)
                left[0] = None if left[0] is None else left[0] - 1
                receipts[task.name] = function(task)
        return receipts

    return stage


@dataclass
class Found:
    spans: dict
    removals: dict


def search(run, units, config, earlier=(), **options):
    milled = write_units(run, units, **options)
    return read(run, repeated_text(run, run_stage(run), config, milled, earlier))


def read(run, step):
    found = {}
    for spans in open_spans(run, step.spans):
        for doc_id, start, stop in zip(spans.doc_ids, spans.starts, spans.stops, strict=True):
            found.setdefault(int(doc_id), []).append((int(start), int(stop)))
    removals = {}
    for file in open_removals(run, step.removals):
        for doc_id, original, share in zip(
            file.doc_ids, file.duplicate_of, file.similarity, strict=True
        ):
            removals[int(doc_id)] = (int(original), float(share))
    return Found(found, removals)


def files_of(run, *folders):
    return {
        path.relative_to(run): path.read_bytes()
        for folder in folders
        for path in sorted((run / folder).rglob("*"))
        if path.is_file()
    }


def patched(patch, piece=16, group=40, batch=20):
    """Pieces, groups and batches of so few tokens that small corpora have many."""
    patch.setattr(repeat_pieces, "PIECE_TOKENS", piece)
    patch.setattr(repeats, "GROUP_TOKENS", group)
    patch.setattr(repeat_exchange, "BATCH_VALUES", batch)


def planted(seed=0, num_documents=120):
    """Units of documents of random tokens, in which passages of other documents come back."""
    rng = random.Random(seed)
    documents = []
    for _ in range(num_documents):
        document = rng.choices(range(3000), k=rng.randint(0, 1500))
        for _ in range(rng.randint(0, 3)):
            if documents and document:
                source = rng.choice(documents)
                start, length = rng.randint(0, len(source)), rng.randint(40, 400)
                place = rng.randint(0, len(document))
                document[place:place] = source[start : start + length]
        documents.append(document)
    return [documents[first : first + 30] for first in range(0, num_documents, 30)]


def removals_of(run, doc_ids):
    """A step that removed these documents."""
    path = run / "removals" / "exact_duplicate" / "00000.arrow"
    ids = np.array(sorted(doc_ids), np.uint64)
    with Tables(run) as tables:
        tables.append(path, removals_batch(Removals(ids, ids, np.ones(len(ids)))))
    return Step("exact_duplicate", removals=(describe_output(run, path),))
