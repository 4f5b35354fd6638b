"""What a build says at its end: the waterfall of documents and tokens, the shards, what was set
aside."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenmill.pipeline.decontaminate.report import decontamination_table
from tokenmill.pipeline.finish import Built
from tokenmill.pipeline.licences import LicenceCount
from tokenmill.pipeline.sources import printable
from tokenmill.shards.buckets import Buckets
from tokenmill.shards.manifest import Manifest
from tokenmill.shards.shard_list import ShardList
from tokenmill.shards.table import table

MOST_LICENCES = 10
"""In the report; all are in the run."""


def report(built: Built) -> str:
    """The tables of a finished build, as plain text."""
    parts = [waterfall(built.counts, built.reasons)]
    parts += _beside_the_waterfall(built)
    if built.decontaminated:
        parts.append(decontamination_table(built.run))
    parts.append(licence_table(built.licences))
    parts += [shard_table(manifest) for manifest in built.manifests]
    parts += _growth(built)
    parts.append(f"run        {built.run}")
    for manifest in built.manifests:
        parts.append(f"manifest   {built.run / 'shards' / manifest.pack / 'manifest.json'}")
    parts.append(f"root hash  {built.root}")
    if built.num_set_aside:
        parts.append(set_aside_summary(built.run, built.num_set_aside))
    return "\n".join(parts)


def waterfall(counts: Mapping[str, int], reasons: Sequence[str]) -> str:
    """Documents and tokens that are left after each check that let any go.

    Args:
        counts: documents and tokens, in all and by reason.
        reasons: in the order in which they decide.
    """
    documents, tokens = counts.get("documents", 0), counts.get("tokens", 0)
    rows = [("read", "", f"{documents:,}", f"{tokens:,}")]
    for reason in reasons:
        removed = counts.get(f"documents.{reason}", 0)
        if not removed:
            continue
        documents -= removed
        tokens -= counts[f"tokens.{reason}"]
        rows.append((reason, f"-{removed:,}", f"{documents:,}", f"{tokens:,}"))
    held_out = counts.get("documents.held_out", 0)
    rows.append(("of these held out", f"{held_out:,}", "", f"{counts.get('tokens.held_out', 0):,}"))
    return table(("rule", "removed", "documents left", "tokens left"), rows)


def licence_table(licences: Sequence[LicenceCount]) -> str:
    """Kept documents and tokens of the licences with the most, and of all others together."""
    total = sum(row.tokens for row in licences) or 1

    def line(source: str, licence: str, counted: Sequence[LicenceCount]) -> tuple[str, ...]:
        documents = sum(row.documents for row in counted)
        tokens = sum(row.tokens for row in counted)
        return source, licence, f"{documents:,}", f"{tokens:,}", f"{tokens / total:.1%}"

    rows = [line(row.source, printable(row.licence), [row]) for row in licences[:MOST_LICENCES]]
    rest = licences[MOST_LICENCES:]
    if rest:
        rows.append(line(f"{len(rest):,} more", "in licences.csv", rest))
    return table(("source", "licence", "documents kept", "tokens kept", "share"), rows)


def shard_table(manifest: Manifest) -> str:
    """Rows, sequences, tokens and padding of each bucket of a pack, and what was cut off there."""
    groups = {name: manifest.of_bucket(name) for name in Buckets(manifest.bucket_edges).names}
    held_out = manifest.shards.column("held_out")
    groups["all"] = manifest.shards.where(~held_out)
    groups["held out"] = manifest.shards.where(held_out)
    cut = {**manifest.tokens_cut_of, "all": sum(manifest.tokens_cut_of.values())}
    cut["held out"] = manifest.tokens_cut - cut["all"]
    rows = [
        (*_shard_row(name, shards, manifest.row_tokens), f"{cut[name]:,}" if name in cut else "")
        for name, shards in groups.items()
    ]
    title = f"pack {manifest.pack}"
    if not groups["all"]:
        title += ": no rows to train on"
    if manifest.tokens_over_budget:
        title += f" ({manifest.tokens_over_budget:,} more tokens are beyond its budget)"
    header = ("bucket", "shards", "rows", "sequences", "a row", "tokens", "padding", "cut off")
    return f"{title}\n{table(header, rows)}"


def set_aside_summary(run: Path, total: int) -> str:
    """How many records each file lost, and where to look."""
    path = run / "set-aside.jsonl"
    lost: Counter[str] = Counter()
    example: dict[str, str] = {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        file = printable(f"{entry['source']}/{entry['file']}")
        lost[file] += 1
        example.setdefault(file, f"{entry['place']}: {entry['error']}"[:160])
    lines = [f"set aside: {total:,} records or files could not be read; all in {path}"]
    lines += [f"  {count:6,}  {file}  ({example[file]})" for file, count in lost.most_common(10)]
    if len(lost) > 10:
        lines.append(f"  and {len(lost) - 10:,} more files")
    return "\n".join(lines)


def _beside_the_waterfall(built: Built) -> list[str]:
    """A line for each thing that the waterfall does not show and that happened."""
    lines = []
    cut = built.counts.get("tokens_cut", 0)
    if cut:
        lines.append(f"{cut:,} more tokens of kept documents were left out, in spans")
    if built.not_judged:
        lines.append(
            f"{built.not_judged:,} of the documents came as tokens: no rule has judged them, "
            "no edit has changed them"
        )
    if built.skipped:
        what = ", ".join(f"{number:,} {name}" for name, number in built.skipped.items())
        lines.append(f"no documents, and not counted above: {what}")
    return lines


def _growth(built: Built) -> list[str]:
    """What came when, where the corpus has grown, and what of it has changed since."""
    generations = built.generations.generations
    if not built.generations.has_grown:
        return []
    rows = []
    for number, generation in enumerate(generations):
        shards = [
            shard
            for manifest in built.manifests
            for shard in manifest.shards
            if shard.generation == number and not shard.held_out
        ]
        files = sum(map(len, generation.files.values()))
        num_rows = sum(shard.rows for shard in shards)
        rows.append((str(number), generation.phase, f"{files:,}", f"{num_rows:,}"))
    lines = [table(("generation", "from phase", "files", "rows in all packs"), rows)]
    if built.changed:
        lines += [f"changed: {line}" for line in built.changed]
        lines.append(
            "  rows follow the decisions on their documents: a document that left (retracted, a "
            "rule, a changed file) is in none.\n  A training that has read these shards is refused "
            "when it goes on; start its phase anew, or bring back what changed and build again."
        )
    return lines


def _shard_row(name: str, shards: ShardList, row_tokens: int) -> tuple[str, ...]:
    rows, tokens, sequences = (
        int(shards.column(field).sum()) for field in ("rows", "real_tokens", "sequences")
    )
    padding = f"{1 - tokens / (rows * row_tokens):.3%}" if rows else "-"
    a_row = f"{sequences / rows:.1f}" if rows else "-"
    return name, f"{len(shards):,}", f"{rows:,}", f"{sequences:,}", a_row, f"{tokens:,}", padding
