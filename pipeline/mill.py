"""Mill: one pass over the text of a unit. Reads, counts, judges, tokenizes, hashes; writes what
was found.

    milled/<unit>/tokens-000.arrow        doc_id, content_hash, tokens of the documents kept so far;
                                          sentence_starts, if asked for
    milled/<unit>/signatures-000.arrow    doc_id, signature of those documents, if asked for
    milled/<unit>/decisions-000.parquet   a row for every document
    milled/<unit>/set-aside.jsonl         records that could not be read, if any
    milled/<unit>/seen-000.arrow          doc_id and bytes of every document, if some are drawn
    text/<unit>-000.parquet               doc_id and cleaned text of kept documents

A unit that cannot be entered in the middle may be long: about every 64 MB of text a new part is
begun. A task that is killed leaves nothing but temporary files, and does the whole unit again.
"""

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from tokenmill.errors import SourceError
from tokenmill.pipeline.clock import Clock
from tokenmill.pipeline.decisions import decision_batch
from tokenmill.pipeline.documents import Documents, SetAside, Skipped
from tokenmill.pipeline.edits.config import EditConfig
from tokenmill.pipeline.examine import Examined, Examiner
from tokenmill.pipeline.filters import NO_TOKENS, FilterConfig
from tokenmill.pipeline.learnt import keep_english, keep_words, known_english, known_words
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.plan import UNIT_BYTES, Unit
from tokenmill.pipeline.read import read_unit
from tokenmill.pipeline.receipts import Receipt, begin, clear, finish
from tokenmill.pipeline.sample import DocumentSample, is_drawn, seen_batch, take, text_bytes
from tokenmill.pipeline.sentence_starts import VERSION as SENTENCES_VERSION
from tokenmill.pipeline.sentence_starts import encode_sentences
from tokenmill.pipeline.signatures import SignatureConfig, minhash
from tokenmill.pipeline.sources import SourceConfig
from tokenmill.shards.files import write_whole
from tokenmill.shards.listing import Output, describe_output
from tokenmill.shards.settings import to_mapping
from tokenmill.tokenizer import Encoder, load_tokenizer

VERSION = 2
GUARD_DOCUMENTS = 8
"""Documents of each unit that the reference library encodes too."""


@dataclass(frozen=True, slots=True)
class MillTask:
    """All that decides what the mill writes for a unit, and where."""

    run: Path
    unit: Unit
    source: SourceConfig
    filters: FilterConfig
    edits: EditConfig
    assets: Mapping[str, str]
    """What the filters and edits read besides their settings, hashed: models, lists, libraries."""
    signatures: SignatureConfig | None
    text: Literal["keep", "drop"]
    tokenizer_sha256: str
    sample: DocumentSample | None = None
    """Which documents; None: all."""
    sentences: bool = False
    """Whether to write where sentences begin."""

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
            "filters": self.filters,
            "edits": self.edits,
            "assets": self.assets,
            "signatures": self.signatures,
            "text": self.text,
            "tokenizer": self.tokenizer_sha256,
            "sample": self.sample,
            **({"sentences": SENTENCES_VERSION} if self.sentences else {}),
        }


@dataclass(frozen=True, slots=True)
class Milled:
    """What the mill made of a batch."""

    examined: Examined
    tokens: NDArray[np.uint16 | np.uint32]
    """(tokens,) of all documents, one after the other, without special tokens."""
    ends: NDArray[np.int64]
    """(documents,) where each document's tokens end."""
    hashes: pa.Array
    """(documents,) XXH3-128 of each text after all edits."""
    sentence_starts: pa.LargeListArray | None
    """(documents,) rising lists of int32: where a sentence begins in the document's tokens."""

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        return np.diff(self.ends, prepend=0)


def mill_documents(
    documents: Documents, encoder: Encoder, examiner: Examiner, *, sentences: bool = False
) -> Milled:
    """A batch examined, tokenized and hashed: all the mill does, without files."""
    examined = examiner.examine(documents)
    starts = None
    if sentences:
        (tokens, ends), in_documents = encode_sentences(encoder, examined.words)
        starts = _lists(*in_documents)
    else:
        tokens, ends = encoder.encode_words(examined.words)
    examined.verdict.drop(np.diff(ends, prepend=0) == 0, NO_TOKENS)
    return Milled(examined, tokens, ends, content_hashes(examined.texts), starts)


def mill(task: MillTask) -> Receipt:
    """Mill a unit and write its files and receipt."""
    started, clock = begin(task), Clock()
    encoder = _encoder(task.run / "tokenizer", task.tokenizer_sha256)
    examiner = _examiner(task, encoder)
    folder = task.run / "milled" / task.name
    clear(folder)
    for stale in (task.run / "text" / task.name).parent.glob(f"{task.unit.name.split('/')[-1]}-*"):
        stale.unlink()
    counts: Counter[str] = Counter()
    set_aside: list[SetAside] = []
    part = 0
    with Tables(task.run) as tables:
        for item in clock.reading(read_unit(task.unit, task.source)):
            if isinstance(item, SetAside):
                set_aside.append(item)
                continue
            if isinstance(item, Skipped):
                counts[f"skipped.{item.reason}"] += item.count
                continue
            if task.sample:
                seen = seen_batch(item.doc_ids, text_bytes(item.texts))
                tables.append(folder / f"seen-{part:03d}.arrow", seen)
                item = take(item, is_drawn(item.doc_ids, task.sample))
                if not len(item.doc_ids):
                    continue
            if not counts["documents"]:
                encoder.check(item.texts, num_documents=GUARD_DOCUMENTS)
            milled = mill_documents(item, encoder, examiner, sentences=task.sentences)
            _append(tables, task, item, milled, part)
            _count(counts, item, milled)
            clock.batch_done(counts["bytes"])
            if counts["bytes"] >= (part + 1) * UNIT_BYTES:
                tables.close_part()
                part += 1
    keep_words(task.run, encoder.words)
    keep_english(task.run, examiner.english)
    refuse_changed_inputs(task.unit)
    outputs = [*tables.described(), *write_set_aside(task.run, folder, set_aside)]
    if set_aside:
        counts["set_aside"] = len(set_aside)
    return finish(task, outputs, counts, started, clock.details())


def write_set_aside(run: Path, folder: Path, set_aside: Sequence[SetAside]) -> list[Output]:
    """The file of what could not be read, if there is anything."""
    if not set_aside:
        return []
    path = folder / "set-aside.jsonl"
    lines = [json.dumps(asdict(entry), sort_keys=True) + "\n" for entry in set_aside]
    write_whole(path, "".join(lines).encode())
    return [describe_output(run, path)]


def refuse_changed_inputs(unit: Unit) -> None:
    """The receipt will vouch for the bytes that were hashed; these must be the ones just read."""
    for piece in unit.files:
        status = Path(piece.path).stat()
        if (status.st_size, status.st_mtime_ns) != (piece.file.bytes, piece.file.modified):
            raise SourceError(
                f"{piece.path}: changed while the build was reading it. "
                "Let it rest, then run the same command again; what is done is kept."
            )


def content_hashes(texts: pa.Array) -> pa.Array:
    """(documents,) fixed-size binary: the XXH3-128 of each text's UTF-8 bytes."""
    texts = texts.cast(pa.large_string())
    _, offsets_buffer, data = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    view = memoryview(data) if data else memoryview(b"")
    digests = [
        xxhash.xxh3_128_digest(view[start:stop])
        for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    ]
    return pa.array(digests, pa.binary(16))


def _append(
    tables: Tables, task: MillTask, documents: Documents, milled: Milled, part: int
) -> None:
    folder = task.run / "milled" / task.name
    examined = milled.examined
    decisions = decision_batch(
        task.unit.source,
        task.name,
        documents,
        examined.signals,
        milled.num_tokens,
        examined.num_edits,
        milled.hashes,
        examined.verdict,
    )
    tables.append(folder / f"decisions-{part:03d}.parquet", decisions)
    kept = pa.array(np.flatnonzero(examined.verdict.kept))
    columns = {
        "doc_id": decisions["doc_id"],
        "content_hash": milled.hashes,
        "tokens": _lists(milled.tokens, milled.ends),
    }
    if milled.sentence_starts is not None:
        columns["sentence_starts"] = milled.sentence_starts
    tokens = pa.RecordBatch.from_pydict(columns)
    tables.append(folder / f"tokens-{part:03d}.arrow", tokens.take(kept))
    if task.signatures:
        entries = minhash(examined.words, task.signatures)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(entries.ravel()), entries.shape[1])
        signed = pa.RecordBatch.from_pydict({"doc_id": decisions["doc_id"], "signature": lists})
        tables.append(folder / f"signatures-{part:03d}.arrow", signed.take(kept))
    if task.text == "keep":
        text = pa.RecordBatch.from_pydict({"doc_id": decisions["doc_id"], "text": examined.texts})
        tables.append(task.run / "text" / f"{task.name}-{part:03d}.parquet", text.take(kept))


def _lists(values: NDArray[Any], ends: NDArray[np.int64]) -> pa.LargeListArray:
    """(lists,) the values up to each end."""
    offsets = pa.array(np.concatenate([[0], ends]).astype(np.int64))
    return pa.LargeListArray.from_arrays(offsets, pa.array(values))


def _count(counts: Counter[str], documents: Documents, milled: Milled) -> None:
    counts["documents"] += len(milled.ends)
    counts["bytes"] += pc.sum(pc.binary_length(documents.texts)).as_py()
    counts["tokens"] += int(milled.num_tokens.sum())


@functools.lru_cache(maxsize=1)
def _encoder(folder: Path, sha256: str) -> Encoder:
    """One encoder a process: what it has learnt of words serves every unit after."""
    encoder = load_tokenizer(folder)
    assert encoder.sha256 == sha256
    words = known_words(folder.parent)
    if words is not None:
        encoder.adopt(words)
    return encoder


_examiners: dict[str, tuple[Encoder, Examiner]] = {}


def _examiner(task: MillTask, encoder: Encoder) -> Examiner:
    """One examiner a process and kind of text, for the same reason."""
    key = json.dumps([task.source.kind, to_mapping(task.filters), to_mapping(task.edits)])
    known = _examiners.get(key)
    if known is None or known[0] is not encoder:
        for other in [k for k, (used, _) in _examiners.items() if used is not encoder]:
            del _examiners[other]
        examiner = Examiner(
            task.filters, task.edits, task.source.kind, encoder.split, known_english(task.run)
        )
        _examiners[key] = encoder, examiner
    return _examiners[key][1]
