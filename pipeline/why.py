"""Why: all that decided on a document, from the decisions of a finished run."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from tokenmill.errors import RecipeError
from tokenmill.pipeline.corpus import Corpus
from tokenmill.pipeline.decisions import FIRST, LAST
from tokenmill.pipeline.decontaminate.report import describe_evidence
from tokenmill.pipeline.filters import EVALUATION_TEXT, NEAR_DUPLICATE, RETRACTED, rules_of
from tokenmill.pipeline.rules.checks import Breaks, active_checks, reason_name
from tokenmill.pipeline.rules.datatrove_names import DATATROVE_NAMES
from tokenmill.shards.listing import read_listing
from tokenmill.shards.table import table

MOST_SHOWN = 5
"""Documents of one id or address that are shown."""


def why(run: Path, corpus: Corpus, document: str) -> str:
    """Each signal, threshold and the check that decided, for each document of that name.

    Args:
        corpus: as the run was built.
        document: a doc_id, or the id or address that the source gives it.

    Raises:
        RecipeError: the run has no such document.
    """
    read_listing(run)
    found = list(find_documents(run, document))
    if not found:
        raise RecipeError(
            f"{document}: no document of {run / 'decisions'} has this doc_id, id or url. "
            f"{_number_set_aside(run)} records that could not be read are in "
            f"{run / 'set-aside.jsonl'}."
        )
    parts = [explain(row, corpus, run) for row in found[:MOST_SHOWN]]
    if len(found) > MOST_SHOWN:
        parts.append(f"and {len(found) - MOST_SHOWN:,} more of this name")
    return "\n\n".join(parts)


def find_documents(run: Path, document: str) -> Iterator[dict[str, Any]]:
    """The decisions on a document, all columns of its unit."""
    wanted = (pc.field("id") == document) | (pc.field("url") == document)
    if document.isdecimal() and int(document) < 1 << 64:
        wanted |= pc.field("doc_id") == pa.scalar(int(document), pa.uint64())
    dataset = ds.dataset(run / "decisions", format="parquet")
    for file in dataset.get_fragments():  # each has the columns of its kind of text
        yield from file.to_table(schema=file.physical_schema, filter=wanted).to_pylist()


def explain(row: dict[str, Any], corpus: Corpus, run: Path) -> str:
    """One document's decision in words and as a table."""
    lines = [f"document   {row['doc_id']}: record {row['position']:,} of unit {row['unit']}"]
    lines += [f"{name:10s} {row[name]}" for name in ("id", "url", "licence") if row[name]]
    lines.append(f"text       {row['num_tokens']:,} tokens after {row['edits']:,} edits")
    lines.append(f"verdict    {verdict(row, run)}")
    if row["tokens_cut"]:
        lines.append(f"cut        {row['tokens_cut']:,} tokens in spans that are left out")
        lines += filter(None, [describe_evidence(run, row["doc_id"])])
    checks = []
    shown = {*FIRST.names, *LAST.names}
    source = corpus.sources[row["source"]]
    rules = {} if source.format == "tokens" else rules_of(corpus.filters, source.kind)
    for name, check, setting in active_checks(rules):
        value = row[check.signal]
        shown.add(check.signal)
        mark = ""
        if value is not None and _breaks(check.breaks, value, setting):
            mark = "decided" if row["reason"] == reason_name(name, check) else "broken too"
        checks.append(
            (reason_name(name, check), check.signal, _number(value),
             _bound(check.breaks, setting), mark)
        )  # fmt: skip
    if checks:
        lines.append(table(("check", "signal", "value", "keeps", ""), checks))
    others = [(name, _number(value)) for name, value in row.items() if name not in shown]
    if others:
        lines.append(table(("other signals", ""), others))
    return "\n".join(lines)


def verdict(row: dict[str, Any], run: Path) -> str:
    """What became of a document, in words, and for whose sake."""
    if not row["reason"]:
        return "kept, held out for evaluation" if row["held_out"] else "kept"
    number = row["duplicate_of"]
    if row["reason"] == EVALUATION_TEXT:
        return f"leaves: {EVALUATION_TEXT}\n{describe_evidence(run, row['doc_id'])}"
    if row["reason"] == RETRACTED:
        return f"leaves: {RETRACTED}" + (
            f", as document {number} was, its duplicate" if number else ""
        )
    if number:
        other = next(o for o in find_documents(run, str(number)) if o["doc_id"] == number)
        name = other["url"] or other["id"] or f"record {other['position']:,} of {other['unit']}"
        said = f"leaves: {row['reason']} of document {number} ({name})"
        if row["reason"] == NEAR_DUPLICATE:
            said += f", estimated similarity {row['similarity']:.2f}"
        # It stood when this one left; a later step may have taken it.
        return said + (f"; that one {verdict(other, run)}" if other["reason"] else "")
    theirs = DATATROVE_NAMES.get(row["reason"])
    return f"leaves: {row['reason']}" + (f" (datatrove: {theirs})" if theirs else "")


def _breaks(side: Breaks, value: float, setting: Any) -> bool:
    if side is Breaks.SET:
        return value == 1
    return bool(value > setting if side is Breaks.ABOVE else value < setting)


def _bound(side: Breaks, setting: Any) -> str:
    if side is Breaks.SET:
        return "0"
    return f"{'at most' if side is Breaks.ABOVE else 'at least'} {_number(setting)}"


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _number_set_aside(run: Path) -> str:
    with (run / "set-aside.jsonl").open() as lines:
        return f"{sum(1 for line in lines if json.loads(line)):,}"
