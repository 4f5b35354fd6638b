"""The sets of a recipe made ready: what is looked for, kept in the run, made once.

    decontamination/index.bin        runs of words and the tokenizer's table, mapped by every scan
    decontamination/items.parquet    set, item, words: the items by their numbers

Made in the process that builds, not by a worker: files of the hub lie in this machine's cache.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from tokenmill.pipeline.decontaminate.config import SetConfig
from tokenmill.pipeline.decontaminate.index import build_index, save_index
from tokenmill.pipeline.decontaminate.items import SetFile, read_items
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.receipts import Receipt, begin, find_receipt, finish
from tokenmill.shards.listing import describe_output
from tokenmill.tokenizer.encoder import Encoder

VERSION = 1


@dataclass(frozen=True, slots=True)
class SetsTask:
    """The files of the sets, and how they are read."""

    run: Path
    sets: Mapping[str, SetConfig]
    files: tuple[SetFile, ...]
    words: int
    min_words: int
    tokenizer_sha256: str

    stage: ClassVar[str] = "evaluation_sets"
    name: ClassVar[str] = "sets"

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "stage": VERSION,
            "sets": {name: [config.fields, config.id] for name, config in self.sets.items()},
            "files": [(file.set, file.name, file.sha256) for file in self.files],
            "runs": [self.words, self.min_words],
            "tokenizer": self.tokenizer_sha256,
            "unicode": unicodedata.unidata_version,
        }


def prepare_sets(task: SetsTask, encoder: Encoder) -> Receipt:
    """The receipt of the index, from before or made now; its outputs are index and items.

    Raises:
        SourceError: a set cannot be read.
    """
    known = find_receipt(task)
    if known is not None:
        return known
    started = begin(task)
    items = list(read_items(task.files, task.sets))
    table, index = build_index([item.text for item in items], encoder, task.words, task.min_words)
    folder = task.run / "decontamination"
    save_index(folder / "index.bin", table, index)
    columns = {
        "set": pa.array([item.set for item in items]),
        "item": pa.array([item.id for item in items]),
        "words": pa.array(index.item_words),
    }
    with Tables(task.run) as tables:
        tables.append(folder / "items.parquet", pa.RecordBatch.from_pydict(columns))
    outputs = (describe_output(task.run, folder / "index.bin"), *tables.described())
    return finish(task, outputs, {"items": len(items), "runs": index.num_runs}, started)
