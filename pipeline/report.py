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
from tokenmill.shards.manifest import Manifest, ShardInfo
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
    if not any(shard.rows for manifest in built.manifests for shard in manifest.shards):
        parts.append("no rows: no document was kept, so there is nothing to train on")
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
    """Rows, tokens and padding of each bucket of a pack."""
    groups = {name: manifest.of_bucket(name) for name in Buckets(manifest.bucket_edges).names}
    groups["all"] = tuple(shard for shard in manifest.shards if not shard.held_out)
    groups["held out"] = tuple(shard for shard in manifest.shards if shard.held_out)
    rows = [_shard_row(name, shards, manifest.row_tokens) for name, shards in groups.items()]
    title = f"pack {manifest.pack}"
    if manifest.tokens_cut:
        title += f" ({manifest.tokens_cut:,} tokens left out by overlong: {manifest.overlong})"
    header = ("bucket", "shards", "rows", "sequences", "tokens", "padding")
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


def _shard_row(name: str, shards: Sequence[ShardInfo], row_tokens: int) -> tuple[str, ...]:
    rows = sum(shard.rows for shard in shards)
    tokens = sum(shard.real_tokens for shard in shards)
    sequences = sum(shard.sequences for shard in shards)
    padding = f"{1 - tokens / (rows * row_tokens):.3%}" if rows else "-"
    return name, f"{len(shards):,}", f"{rows:,}", f"{sequences:,}", f"{tokens:,}", padding
