"""grain: ArrayRecord files, a shuffled MapDataset, and its own first-fit packing."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from numpy.typing import NDArray
from peers.corpus import BATCH_ROWS, BATCH_TOKENS, Batches, Corpus, SimulatedRows
from peers.masks import NumpyMasks

BINS = 32
"""Rows that are open at once; more leave less padding."""


def contenders(folder: Path, corpus: Corpus, rate: float) -> dict[str, Batches]:
    folder.mkdir()
    rows, documents = folder / "rows.arrayrecord", folder / "documents.arrayrecord"
    write(rows, corpus.rows())
    write(documents, corpus.sequences())
    masks = NumpyMasks(corpus.tokenizer, rate)
    return {
        "grain, numpy masks": partial(batches, rows, masks),
        "grain, packed into rows, numpy masks": partial(
            packed_batches, documents, masks, row_tokens=corpus.row_tokens
        ),
    }


def write(file: Path, records: Sequence[NDArray[np.uint16]]) -> None:
    # One record a group, as its documentation asks for random access.
    writer = ArrayRecordWriter(str(file), "group_size:1")
    for record in records:
        writer.write(record.tobytes())
    writer.close()


def batches(file: Path, masks: NumpyMasks) -> Iterator[dict[str, Any]]:
    """Batches of shuffled rows."""
    rows = _records(file).batch(BATCH_ROWS, drop_remainder=True)
    for batch in rows.to_iter_dataset(_in_this_thread()):
        yield masks(batch.astype(np.int64))


def packed_batches(file: Path, masks: NumpyMasks, *, row_tokens: int) -> Iterator[dict[str, Any]]:
    """Batches of rows, packed from shuffled documents."""
    documents = _records(file).map(lambda tokens: {"tokens": tokens})
    packed = grain.experimental.FirstFitPackIterDataset(
        documents.to_iter_dataset(_in_this_thread()),
        length_struct={"tokens": row_tokens},
        num_packing_bins=BINS,
    )
    for batch in packed.batch(BATCH_TOKENS // row_tokens, drop_remainder=True):
        segments = batch["tokens_segment_ids"]
        yield {
            **masks(batch["tokens"].astype(np.int64)),
            "segment_ids": segments,
            "position_ids": batch["tokens_positions"],
            "num_tokens": np.count_nonzero(segments),
        }


def _records(file: Path) -> grain.MapDataset:
    source = grain.sources.ArrayRecordDataSource([str(file)])
    dataset = grain.MapDataset.source(source).shuffle(seed=0)
    return dataset.map(lambda record: np.frombuffer(record, np.uint16))


def _in_this_thread() -> grain.ReadOptions:
    # Records come from the page cache; threads that read ahead would only take turns on one core.
    return grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)


def resume(folder: Path, num_rows: int, step: int, batch_rows: int) -> Iterator[Any]:
    yield None
    rows = grain.MapDataset.source(SimulatedRows(num_rows)).shuffle(seed=0).repeat()
    dataset = rows.batch(batch_rows).to_iter_dataset(_in_this_thread())
    yield {"next_index": step}
    batches = iter(dataset)
    batches.set_state({"next_index": step})
    yield next(batches)
