"""Mill a unit of tokens that others have made: nothing is judged, only checked, hashed and kept.

    milled/<unit>/tokens-000.arrow        doc_id, content_hash, tokens
    milled/<unit>/decisions-000.parquet   a row for every document
    milled/<unit>/set-aside.jsonl         what could not be read, if anything

There is no text, so no rule, edit or signature: such documents are exact duplicates of each other
only, by their tokens, and near duplicates of none. Evaluation texts are found in them, for that
works on tokens.

No file proves that its ids are of the recipe's tokenizer. Three things are checked: the name in
.ds.metadata; that every id is in the vocabulary; and that documents of the unit, decoded and
encoded again, give the same runs of ids (see check_vocabulary).
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from tokenmill.errors import SourceError
from tokenmill.pipeline.clock import Clock
from tokenmill.pipeline.decisions import decision_batch
from tokenmill.pipeline.documents import SetAside
from tokenmill.pipeline.filters import NO_TOKENS
from tokenmill.pipeline.mill import MillTask, mill, refuse_changed_inputs, write_set_aside
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.plan import Unit
from tokenmill.pipeline.read_tokens import TokenDocuments, read_tokens
from tokenmill.pipeline.receipts import Receipt, begin, clear, finish
from tokenmill.pipeline.rules.checks import Verdict
from tokenmill.pipeline.sample import DocumentSample, is_drawn, seen_batch, take
from tokenmill.pipeline.sources import SourceConfig
from tokenmill.pipeline.token_files import BadTokenFile, stated_tokenizer
from tokenmill.shards.run import TokenizerInfo
from tokenmill.tokenizer import Encoder, load_tokenizer

VERSION = 1
HASH_SEED = 1
"""Of the content hash: tokens whose bytes are those of a text are not that text."""
PROBE_DOCUMENTS = 16
PROBE_TOKENS = 512
MIN_RUNS = 200
"""Runs of three ids; fewer prove nothing."""
MIN_AGREEMENT = 0.95
"""Runs of three ids that decoding and encoding must give back. A tokenizer's own: at least 0.995 in
each of 387 languages; another's: 0.94 at most, and 0.85 over a few documents."""


@dataclass(frozen=True, slots=True)
class TokensTask:
    """A unit whose documents come as tokens."""

    run: Path
    unit: Unit
    source: SourceConfig
    tokenizer: TokenizerInfo
    tokenizer_name: str
    """As the recipe has it; compared with what the files say."""
    sample: DocumentSample | None = None
    """Which documents; None: all."""

    stage: ClassVar[str] = "mill"

    @property
    def name(self) -> str:
        return self.unit.name

    @property
    def parts(self) -> dict[str, Any]:
        files = [(f.name, f.file.sha256, f.first_id, f.start, f.stop) for f in self.unit.files]
        return {
            "stage": VERSION,
            "input": files,
            "source": self.source.reading(),
            "tokenizer": self.tokenizer,
            "sample": self.sample,
        }


def mill_unit(task: MillTask | TokensTask) -> Receipt:
    """Mill a unit, of text or of tokens."""
    return mill_tokens(task) if isinstance(task, TokensTask) else mill(task)


def mill_tokens(task: TokensTask) -> Receipt:
    """Write a unit's tokens and decisions, and its receipt.

    Raises:
        SourceError: the tokens are another tokenizer's.
    """
    started, clock = begin(task), Clock()
    refuse_other_tokenizer(task)
    folder = task.run / "milled" / task.name
    clear(folder)
    counts: Counter[str] = Counter()
    set_aside: list[SetAside] = []
    with Tables(task.run) as tables:
        for item in clock.reading(read_tokens(task.unit, task.source, task.tokenizer)):
            if isinstance(item, SetAside):
                set_aside.append(item)
                continue
            if not counts["documents"]:
                encoder = _encoder(task.run / "tokenizer", task.tokenizer.sha256)
                check_vocabulary(encoder, item, task.unit.name)
            if task.sample:
                num_bytes = np.diff(item.ends, prepend=0) * item.tokens.itemsize
                seen = seen_batch(item.documents.doc_ids, num_bytes)
                tables.append(folder / "seen-000.arrow", seen)
                item = _drawn(item, task.sample)
            _append(tables, task, folder, item)
            counts["documents"] += len(item.ends)
            counts["tokens"] += len(item.tokens)
            counts["bytes"] += item.tokens.nbytes
            clock.batch_done(counts["bytes"])
    refuse_changed_inputs(task.unit)
    outputs = [*tables.described(), *write_set_aside(task.run, folder, set_aside)]
    if set_aside:
        counts["set_aside"] = len(set_aside)
    return finish(task, outputs, counts, started, clock.details())


def refuse_other_tokenizer(task: TokensTask) -> None:
    """Compare the names of the tokenizers, where the files say one.

    Raises:
        SourceError: the files name another.
    """
    for piece in task.unit.files:
        if not piece.name.endswith(".metadata"):
            continue
        try:
            stated = stated_tokenizer(Path(piece.path))
        except BadTokenFile:
            return  # found, and set aside, when the tokens are read
        known = {_short(task.tokenizer_name), _short(task.source.tokens.tokenizer)}
        if stated and _short(stated) not in known:
            raise SourceError(
                f"{piece.path}: made with the tokenizer {stated}, the recipe has "
                f"{task.tokenizer_name}. If both have one vocabulary, say so: "
                f"--set 'sources.{task.unit.source}.tokens.tokenizer={stated}'."
            )


def check_vocabulary(encoder: Encoder, batch: TokenDocuments, place: str) -> None:
    """Decode some documents, encode them again, and compare runs of three ids.

    Text splits the same way almost everywhere, whereas ids of another vocabulary decode to pieces
    that nobody would write in that order.

    Raises:
        SourceError: too few runs come back.
    """
    starts = batch.ends - np.diff(batch.ends, prepend=0)
    taken = np.unique(np.linspace(0, len(starts) - 1, PROBE_DOCUMENTS, dtype=np.int64))
    found = total = 0
    for start, end in zip(starts[taken].tolist(), batch.ends[taken].tolist(), strict=True):
        ids = batch.tokens[start : min(end, start + PROBE_TOKENS)]
        ids = ids[~np.isin(ids, encoder.special.special_ids)]  # [UNK] is no text
        again, _ = encoder.encode([encoder.decode(ids)])
        runs = _runs_of_three(ids)
        found, total = found + len(runs & _runs_of_three(again)), total + len(runs)
    if total >= MIN_RUNS and found / total < MIN_AGREEMENT:
        raise SourceError(
            f"{place}: {1 - found / total:.0%} of the runs of ids in {len(taken)} documents do not "
            f"come back when {encoder.name} decodes and encodes them, expected at most "
            f"{1 - MIN_AGREEMENT:.0%}: they are another tokenizer's. Correct tokenizer, or leave "
            "the source out."
        )


def _runs_of_three(ids: NDArray[Any]) -> set[tuple[int, ...]]:
    values = ids.tolist()
    return set(zip(values, values[1:], values[2:], strict=False))


def _short(name: str) -> str:
    """The last part of a tokenizer's name: bert-base-uncased of google-bert/bert-base-uncased, and
    of a/folder/bert-base-uncased/tokenizer.json."""
    path = Path(name)
    return path.parent.name if path.suffix in (".json", ".txt") and path.parent.name else path.name


def _drawn(batch: TokenDocuments, sample: DocumentSample) -> TokenDocuments:
    chosen = is_drawn(batch.documents.doc_ids, sample)
    lengths = np.diff(batch.ends, prepend=0)
    return TokenDocuments(
        documents=take(batch.documents, chosen),
        tokens=batch.tokens[np.repeat(chosen, lengths)],
        ends=np.cumsum(lengths[chosen]),
    )


def _append(tables: Tables, task: TokensTask, folder: Path, batch: TokenDocuments) -> None:
    bounds = np.concatenate([[0], batch.ends])
    view = memoryview(batch.tokens.view(np.uint8))  # type: ignore[arg-type]  # a buffer it is
    size = batch.tokens.itemsize
    digests = [
        xxhash.xxh3_128_digest(view[size * start : size * stop], seed=HASH_SEED)
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]
    hashes = pa.array(digests, pa.binary(16))
    verdict = Verdict(len(batch.ends))
    verdict.drop(np.diff(bounds) == 0, NO_TOKENS)
    decisions = decision_batch(
        task.unit.source,
        task.name,
        batch.documents,
        {},
        np.diff(bounds),
        np.zeros(len(batch.ends), np.int32),
        hashes,
        verdict,
    )
    tables.append(folder / "decisions-000.parquet", decisions)
    lists = pa.LargeListArray.from_arrays(pa.array(bounds), pa.array(batch.tokens))
    tokens = pa.RecordBatch.from_pydict(
        {"doc_id": decisions["doc_id"], "content_hash": hashes, "tokens": lists}
    )
    kept = pa.array(np.flatnonzero(verdict.kept))
    tables.append(folder / "tokens-000.arrow", tokens.take(kept))


@lru_cache(maxsize=1)
def _encoder(folder: Path, sha256: str) -> Encoder:
    encoder = load_tokenizer(folder)
    assert encoder.sha256 == sha256
    return encoder
