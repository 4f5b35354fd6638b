"""Whose text it is: kept documents and tokens by source and licence.

    RUN/licences.csv    source,licence,documents,tokens; most tokens first

Settle counts a unit's licences into its receipt, so that a rebuild reads no decisions for them. A
source may state as many licences as it has documents; a unit names the 256 with the most tokens
and adds the others up, so a build holds some 20 KB a unit at most. A list of licences is one entry,
as the source writes it ("MIT, Apache-2.0"); what it means is for a reader to say.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tokenmill.pipeline.receipts import Receipt
from tokenmill.shards.files import write_whole

NONE_STATED = "none stated"
OTHERS = "others, each rare in its unit"
MOST_IN_UNIT = 256
MOST_CHARACTERS = 80
"""Of a licence; some sources put its whole text there."""


@dataclass(frozen=True, slots=True)
class LicenceCount:
    """What a source gives under one licence."""

    source: str
    licence: str
    documents: int
    tokens: int


class UnitLicences:
    """Counts the kept documents of one unit."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def add(self, settled: pa.RecordBatch) -> None:
        """Count a batch of final decisions."""
        kept = settled.filter(pc.equal(settled["reason"].cast(pa.string()), ""))
        stated = pc.utf8_trim_whitespace(pc.fill_null(kept["licence"], ""))
        columns = {"licence": stated, "tokens": kept["num_tokens"].cast(pa.int64())}
        sums = (
            pa.table(columns).group_by("licence").aggregate([("tokens", "sum"), ([], "count_all")])
        )
        for row in sums.to_pylist():
            name = row["licence"][:MOST_CHARACTERS] or NONE_STATED
            self._add(name, row["count_all"], row["tokens_sum"])

    def details(self) -> list[list[Any]]:
        """[licence, documents, tokens] for the receipt, most tokens first."""
        rows: list[list[Any]] = [[name, *counts] for name, counts in self._counts.items()]
        rows.sort(key=lambda row: (-row[2], row[0]))
        rest = rows[MOST_IN_UNIT:]
        if rest:
            others = [OTHERS, sum(row[1] for row in rest), sum(row[2] for row in rest)]
            rows = [*rows[:MOST_IN_UNIT], others]
        return rows

    def _add(self, name: str, documents: int, tokens: int) -> None:
        before = self._counts.get(name, (0, 0))
        self._counts[name] = before[0] + documents, before[1] + tokens


def count_licences(settled: Mapping[str, Receipt]) -> list[LicenceCount]:
    """What all units give, most tokens first; by the units' receipts, which begin with the source's
    name."""
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for unit, receipt in settled.items():
        source = unit.partition("/")[0]
        for licence, documents, tokens in receipt.details["licences"]:
            before = counts.get((source, licence), (0, 0))
            counts[source, licence] = before[0] + documents, before[1] + tokens
    rows = [LicenceCount(*names, *numbers) for names, numbers in counts.items()]
    return sorted(rows, key=lambda row: (-row.tokens, row.source, row.licence))


def write_licences(run: Path, rows: Iterable[LicenceCount]) -> None:
    """RUN/licences.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", "licence", "documents", "tokens"])
    for row in rows:
        writer.writerow([row.source, row.licence, row.documents, row.tokens])
    write_whole(run / "licences.csv", text.getvalue().encode())
