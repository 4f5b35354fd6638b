"""What decontamination says: a table of the sets, and the evidence against one document.

set        items  too short  found  documents  cut    tokens
boolq        500          0    500        812    0   190,221
all        1,799        231    507        824    0   196,430
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenmill.pipeline.decontaminate.judge import Found, Hits
from tokenmill.pipeline.dedup.steps import Spans
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.files import read_json
from tokenmill.shards.table import table

MOST_SHOWN = 5
"""Items of a document that are shown."""
ALL = "all"


@dataclass(slots=True)
class SetLine:
    """The figures of a set, or of all; a document that holds items of two sets counts for both."""

    items: int = 0
    too_short: int = 0
    """Items with fewer words than min_words: they were not looked for."""
    found: int = 0
    """Items of which a document held too much."""
    documents: int = 0
    """That left."""
    cut: int = 0
    """Documents that stay without the spans that held items."""
    tokens: int = 0
    """Of the documents that left, and of the spans, as the mill counted them."""


class Report:
    """Adds up what units say."""

    def __init__(self, items: pa.Table, min_words: int) -> None:
        """items: the table of items.parquet; min_words: of an item that is looked for."""
        column = pc.dictionary_encode(items["set"].combine_chunks())
        self._names: list[str] = column.dictionary.to_pylist()
        self._set_of = as_numpy(column.indices).astype(np.int64)
        too_short = as_numpy(items["words"]) < min_words
        self._is_found = np.zeros(len(too_short), np.bool_)
        self._lines = {name: SetLine() for name in (*self._names, ALL)}
        for number, name in enumerate(self._names):
            mine = self._set_of == number
            self._lines[name].items = int(mine.sum())
            self._lines[name].too_short = int(too_short[mine].sum())
        self._lines[ALL].items = len(too_short)
        self._lines[ALL].too_short = int(too_short.sum())

    def add(self, hits: Hits, found: Found, leaving: NDArray[np.uint64], cut: Spans) -> None:
        """Count a unit.

        Args:
            leaving: the documents that leave.
            cut: what the others lose.
        """
        doc_ids, first = np.unique(hits.doc_ids, return_index=True)
        tokens = np.zeros(len(doc_ids), np.int64)
        leaves = np.isin(doc_ids, leaving)
        tokens[leaves] = hits.num_tokens[first[leaves]]
        np.add.at(tokens, np.searchsorted(doc_ids, cut.doc_ids), cut.stops - cut.starts)
        self._is_found[found.items[found.decided]] = True
        place = np.searchsorted(doc_ids, found.doc_ids[found.decided])
        set_of = self._set_of[found.items[found.decided]]
        for number, name in enumerate((*self._names, ALL)):
            mine = np.unique(place if name == ALL else place[set_of == number])
            line = self._lines[name]
            line.documents += int(leaves[mine].sum())
            line.cut += int((~leaves[mine] & (tokens[mine] > 0)).sum())
            line.tokens += int(tokens[mine].sum())

    def as_json(self) -> dict[str, Any]:
        """SetLine by the set's name, ALL last."""
        for number, name in enumerate(self._names):
            self._lines[name].found = int(self._is_found[self._set_of == number].sum())
        self._lines[ALL].found = int(self._is_found.sum())
        return {name: asdict(line) for name, line in self._lines.items()}

    @property
    def totals(self) -> dict[str, int]:
        return {name: int(value) for name, value in self.as_json()[ALL].items()}


def evidence_batch(found: Found, items: pa.Table) -> pa.RecordBatch:
    """What was found as it stands in evidence.parquet."""
    chosen = pa.array(found.items)
    columns = {
        "doc_id": found.doc_ids,
        "set": items["set"].combine_chunks().take(chosen),
        "item": items["item"].combine_chunks().take(chosen),
        "words": found.num_words.astype(np.int32),
        "share": found.share.astype(np.float32),
        "first_token": found.starts.astype(np.int32),
        "last_token": (found.stops - 1).astype(np.int32),
        "decided": found.decided,
    }
    return pa.RecordBatch.from_pydict(
        {
            name: values if isinstance(values, pa.Array) else pa.array(values)
            for name, values in columns.items()
        }
    )


def decontamination_table(run: Path) -> str:
    """The table of a finished step; what was too short to be looked for is in items.parquet."""
    report = read_json(run / "decontamination" / "report.json")
    names = [*sorted(report.keys() - {ALL}), ALL]
    header = ("set", "items", "too short", "found", "documents", "cut", "tokens")
    order = ("items", "too_short", "found", "documents", "cut", "tokens")
    return table(header, [(name, *(f"{report[name][key]:,}" for key in order)) for name in names])


def describe_evidence(run: Path, doc_id: int) -> str:
    """A line for each item found in a document, the largest share first; "" where none was."""
    path = run / "decontamination" / "evidence.parquet"
    if not path.exists():
        return ""
    wanted = pc.field("doc_id") == pa.scalar(doc_id, pa.uint64())
    rows = pq.read_table(path, filters=wanted).to_pylist()
    rows.sort(key=lambda row: (not row["decided"], -row["share"], row["set"], row["item"]))
    lines = [
        f"{row['set']} {row['item']}: {row['words']:,} words, {row['share']:.0%} of it, in tokens "
        f"{row['first_token']:,} to {row['last_token']:,}"
        + ("" if row["decided"] else " (not enough)")
        for row in rows[:MOST_SHOWN]
    ]
    if len(rows) > MOST_SHOWN:
        lines.append(f"and {len(rows) - MOST_SHOWN:,} more items")
    return "\n".join(lines)
