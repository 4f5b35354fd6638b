"""What if: other thresholds on a finished run, from its stored signals alone.

The decisions hold every signal of every document, also of those that an early rule let go, so a
verdict is a comparison; no text is read. Exact duplicates are found anew among the documents that
would be kept, and the held-out ones chosen anew. About 50 bytes of memory a document.

What other steps after the mill took (addresses, near duplicates, evaluation texts) is taken again;
documents that the run never showed them are counted as kept, and said.

Not answered: settings that change the text or what is measured (which lines are cut, another
language model), and rules that the run did not have. Documents that a filter of datatrove's would
see for the first time are counted as kept, and said.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.pipeline.corpus import Corpus
from tokenmill.pipeline.decisions import verdict_of
from tokenmill.pipeline.dedup.config import Scope
from tokenmill.pipeline.dedup.exact import later_equals
from tokenmill.pipeline.dedup.kept import dump_keys
from tokenmill.pipeline.filters import (
    EDITING,
    EXACT_DUPLICATE,
    NO_TOKENS,
    STEP_REASONS,
    FilterConfig,
    rules_of,
    waterfall_order,
)
from tokenmill.pipeline.rules.checks import Verdict, active_checks, judge
from tokenmill.pipeline.settle import is_held_out
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.buckets import Buckets
from tokenmill.shards.listing import read_listing
from tokenmill.shards.table import table

SPECIAL_TOKENS = 2
"""Of a sequence; they count for its bucket."""
NOT_SHOWN = np.int8(-2)
"""Of a document that no step after the mill has seen."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Documents and tokens by reason, and those kept by bucket."""

    counts: Counter[str]
    buckets: NDArray[np.int64]
    """(buckets, 2) documents and tokens that are kept."""
    found: list[str]
    """Reasons of steps that took documents of the run and are not asked anew."""
    not_compared: int
    """Documents that are kept now and that those steps have not seen."""


def what_if(run: Path, corpus: Corpus, filters: FilterConfig) -> str:
    """The waterfall that other filters would give, beside the run's own.

    Args:
        corpus: as the run was built.

    Raises:
        RecipeError: the stored signals do not tell, for a setting that changed.
        RunError: the run is not finished.
    """
    read_listing(run)
    changes = list(_changes(corpus.filters, filters))
    was, _ = _decide(run, corpus, corpus.filters)
    now, unseen = _decide(run, corpus, filters)
    edges = Buckets(corpus.packing.bucket_edges)
    parts = [*changes, _waterfall(was, now, filters), _buckets(was, now, edges.names)]
    if now.not_compared:
        parts.append(
            f"{', '.join(now.found)}: as in the run. {now.not_compared:,} documents that it did "
            "not compare are counted as kept; build to know"
        )
    if unseen:
        parts.append(
            f"{unseen:,} documents would reach a datatrove filter for the first time; "
            "they are counted as kept"
        )
    return "\n".join(parts)


def _changes(old: FilterConfig, new: FilterConfig) -> Iterator[str]:
    """A line for each setting that differs; refuses those that the signals cannot answer."""
    if old.datatrove != new.datatrove:
        raise RecipeError(
            "filters.datatrove: such a filter reads the text, so the stored signals do not tell "
            "what it would do. Build another run with it."
        )
    before, after = rules_of(old), rules_of(new)
    for name in sorted({*before, *after}):
        if name not in before:
            raise RecipeError(
                f"filters.{name}: this run did not measure it. Build a run that has the rule; "
                "its thresholds can be tried afterwards."
            )
        if name not in after:
            if name in EDITING:
                raise RecipeError(_not_stored(f"filters.{name}"))
            yield f"without filters.{name}"
            continue
        for field in fields(before[name]):  # type: ignore[arg-type]  # every rule is a dataclass
            values = [getattr(rule, field.name) for rule in (before[name], after[name])]
            if values[0] != values[1]:
                if field.name not in {check.setting for check in before[name].checks}:
                    raise RecipeError(_not_stored(f"filters.{name}.{field.name}"))
                yield f"filters.{name}.{field.name} = {values[1]} (was {values[0]})"


def _not_stored(place: str) -> str:
    return (
        f"{place}: it changes the text, or what is measured, so the stored signals do not tell. "
        "Build another run with it."
    )


def _decide(run: Path, corpus: Corpus, filters: FilterConfig) -> tuple[Tally, int]:
    """The tally of a run under some filters, and how many documents a datatrove filter would see
    for the first time."""
    verdicts: list[Verdict] = []
    taken: list[NDArray[np.int8]] = []
    scopes: list[NDArray[np.uint64]] = []
    hashes: list[NDArray[np.uint64]] = []
    num_tokens: list[NDArray[np.int32]] = []
    unseen = 0
    for source, config in corpus.sources.items():
        rules = {} if config.format == "tokens" else rules_of(filters, config.kind)
        signals = sorted({check.signal for _, check, _ in active_checks(rules)})
        for path in sorted((run / "decisions" / source).rglob("*.parquet")):
            columns = ["reason", "num_tokens", "content_hash", "dump", *signals]
            batch = pq.read_table(path, columns=columns).combine_chunks()
            tokens = as_numpy(batch["num_tokens"])
            stored = verdict_of(batch["reason"].combine_chunks())
            verdict = Verdict(len(tokens))
            judge(rules, {name: as_numpy(batch[name]) for name in signals}, verdict)
            foreign = [reason.startswith("datatrove.") for reason in stored.reasons]
            for code in np.flatnonzero(foreign):
                verdict.drop(stored.codes == code, stored.reasons[code])
            # Nothing but this and the steps after the mill comes after.
            verdict.drop(tokens == 0, NO_TOKENS)
            late = {"", NO_TOKENS, *STEP_REASONS}
            reached = np.array([reason in late for reason in stored.reasons]) | foreign
            if any(foreign):
                unseen += int((verdict.kept & ~reached[stored.codes]).sum())
            taken.append(_taken_by(stored))
            scopes.append(_scopes(corpus.dedup.scope, source, batch["dump"].combine_chunks()))
            verdicts.append(verdict)
            hashes.append(_hashes(batch["content_hash"]))
            num_tokens.append(tokens)
    tally = _tally(corpus, verdicts, taken, scopes, hashes, num_tokens)
    return tally, unseen


def _scopes(scope: Scope, source: str, dumps: pa.Array) -> NDArray[np.uint64]:
    """(documents,) equal for documents of which one may be the other's duplicate."""
    if scope == "all":
        return np.zeros(len(dumps), np.uint64)
    return dump_keys(source, dumps if scope == "dump" else pa.nulls(len(dumps), pa.string()))


def _taken_by(stored: Verdict) -> NDArray[np.int8]:
    """(documents,) the place in STEP_REASONS of the step that took each, -1 where the run kept it,
    NOT_SHOWN where it never came so far."""
    places = [STEP_REASONS.index(r) if r in STEP_REASONS else NOT_SHOWN for r in stored.reasons]
    places[0] = -1
    taken: NDArray[np.int8] = np.array(places, np.int8)[stored.codes]
    return taken


def _tally(
    corpus: Corpus,
    verdicts: list[Verdict],
    taken: list[NDArray[np.int8]],
    scopes: list[NDArray[np.uint64]],
    hashes: list[NDArray[np.uint64]],
    num_tokens: list[NDArray[np.int32]],
) -> Tally:
    counts: Counter[str] = Counter()
    hashed = np.concatenate([np.zeros((0, 2), np.uint64), *hashes])
    tokens = np.concatenate([np.zeros(0, np.int32), *num_tokens]).astype(np.int64)
    kept = np.concatenate([np.zeros(0, np.bool_), *(verdict.kept for verdict in verdicts)])

    def count(name: str, documents: NDArray[np.bool_], of: NDArray[np.int64]) -> None:
        counts[f"documents.{name}"] += int(documents.sum())
        counts[f"tokens.{name}"] += int(of[documents].sum())

    for verdict, mine in zip(verdicts, num_tokens, strict=True):
        for code, reason in enumerate(verdict.reasons[1:], 1):
            count(reason, verdict.codes == code, mine.astype(np.int64))
    if corpus.dedup.exact:
        places = np.flatnonzero(kept)
        high, low = hashed[places].T
        scope = np.concatenate([np.zeros(0, np.uint64), *scopes])
        later, _ = later_equals(high ^ scope[places], low)
        duplicate = np.zeros(len(kept), np.bool_)
        duplicate[places[later]] = True
        count(EXACT_DUPLICATE, duplicate, tokens)
        kept &= ~duplicate
    by = np.concatenate([np.zeros(0, np.int8), *taken])
    found = []
    for place, reason in enumerate(STEP_REASONS):
        if reason != EXACT_DUPLICATE and (by == place).any():
            found.append(reason)
            count(reason, kept & (by == place), tokens)
            kept &= by != place
    # An exact duplicate of the run that stays now was not shown to the steps after that one.
    new = kept & ((by == NOT_SHOWN) | (by == STEP_REASONS.index(EXACT_DUPLICATE)))
    not_compared = int(new.sum()) if found else 0
    count("kept", kept, tokens)
    count("held_out", kept & is_held_out(hashed[:, 0], corpus.held_out), tokens)
    counts["documents"], counts["tokens"] = len(kept), int(tokens.sum())
    edges = Buckets(corpus.packing.bucket_edges)
    bucket = edges.of_lengths(tokens[kept] + SPECIAL_TOKENS)
    num = len(edges.names)
    weights = np.bincount(bucket, tokens[kept].astype(np.float64), num).astype(np.int64)
    kept_by_bucket = np.stack([np.bincount(bucket, minlength=num), weights], axis=1)
    return Tally(counts, kept_by_bucket, found, not_compared)


def _waterfall(was: Tally, now: Tally, filters: FilterConfig) -> str:
    documents, tokens = now.counts["documents"], now.counts["tokens"]
    rows = [("read", "", "", f"{documents:,}", f"{tokens:,}")]
    found = [
        name.partition(".")[2] for name in {**was.counts, **now.counts} if "documents." in name
    ]
    known = [name for name in found if name not in ("kept", "held_out")]
    for reason in waterfall_order(filters, known):
        removed = now.counts[f"documents.{reason}"]
        before = was.counts[f"documents.{reason}"]
        if removed or before:
            documents -= removed
            tokens -= now.counts[f"tokens.{reason}"]
            rows.append((reason, f"-{removed:,}", f"-{before:,}", f"{documents:,}", f"{tokens:,}"))
    rows.append(_line("of these held out", was.counts, now.counts, "held_out"))
    header = ("rule", "removed", "was", "documents left", "tokens left")
    return table(header, rows)


def _line(
    name: str, was: Mapping[str, int], now: Mapping[str, int], key: str
) -> tuple[str, str, str, str, str]:
    before, after = was[f"documents.{key}"], now[f"documents.{key}"]
    return name, f"{after:,}", f"{before:,}", "", f"{now[f'tokens.{key}']:,}"


def _buckets(was: Tally, now: Tally, names: tuple[str, ...]) -> str:
    """What is kept, by bucket, beside what the run kept."""
    rows = []
    old = np.concatenate([was.buckets, was.buckets.sum(axis=0, keepdims=True)])
    new = np.concatenate([now.buckets, now.buckets.sum(axis=0, keepdims=True)])
    for name, before, after in zip((*names, "all"), old.tolist(), new.tolist(), strict=True):
        change = f"{after[1] / before[1] - 1:+.1%}" if before[1] else ""
        numbers = (after[0], before[0], after[1], before[1])
        rows.append((name, *(f"{number:,}" for number in numbers), change))
    return table(("bucket", "documents", "was", "tokens", "was", "change"), rows)


def _hashes(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """(documents, 2) the halves of each content hash."""
    data = b"".join(
        chunk.buffers()[1].to_pybytes()[16 * chunk.offset : 16 * (chunk.offset + len(chunk))]
        for chunk in column.chunks
    )
    return np.frombuffer(data, ">u8").reshape(-1, 2).astype(np.uint64)
