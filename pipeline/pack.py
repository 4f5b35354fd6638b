"""Pack: the kept documents of a group of units become whole shards of rows, bucket by bucket.

    shards/<pack>/<bucket>/<group>-000.arrow
    shards/<pack>/held-out/<bucket>/<group>-000.arrow
    shards/<pack>/<bucket>/g1-<group>-000.arrow          of a later generation

Documents become sequences (sequences.py), sequences are dealt by hash and packed into rows
(packing.py), rows are filled with tokens and written a shard at a time (fill_rows.py). A sequence
has documents of one bucket only.

A group is about 0.3 billion tokens, its units drawn by the hash of their names, so that each
group is a sample of the corpus, and any shard, even the first, is one too. The price is one row
that is not full at the end of each bucket of each group. Tokens stay mapped on disk; a task holds
some 100 bytes a document and the shard it writes.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.pipeline.fill_rows import fill_rows
from tokenmill.pipeline.kept_documents import Kept, read_kept
from tokenmill.pipeline.packing import pack_rows
from tokenmill.pipeline.receipts import Receipt, begin, finish, refuse_damaged
from tokenmill.pipeline.sentence_pairs import pair_sentences
from tokenmill.pipeline.sentences import join_sentences
from tokenmill.pipeline.sequences import (
    Overlong,
    SequenceKind,
    Sequences,
    Template,
    concatenate_documents,
    cut_documents,
)
from tokenmill.shards.buckets import Buckets
from tokenmill.shards.listing import Output, describe_output
from tokenmill.shards.run import TokenizerInfo, pack_folder
from tokenmill.shards.settings import to_mapping
from tokenmill.shards.shard import Rows, crc_path, write_shard

VERSION = 2
GROUP_TOKENS = 1 << 28
SHARD_TOKENS = 1 << 26
"""Tokens in a shard: 128 MiB of uint16."""
MAX_SEQUENCES = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class PackingConfig:
    """How documents become sequences and sequences rows, for all phases."""

    sequences: SequenceKind = "documents"
    """What a sequence is made of: documents, each its own; concatenated, one stream of them cut
    every max_length tokens (NomicBERT); full_sentences over the ends of documents, doc_sentences
    not over them (RoBERTa); pairs of texts, half of them from two documents (BERT)."""
    overlong: Overlong = "split"
    """Documents longer than a phase's max_length: split keeps all pieces, truncate the first
    (NeoBERT), drop none. For sequences: documents."""
    bucket_edges: tuple[int, ...] = (1024, 2048, 4096)
    """Where length classes begin, in tokens with special tokens. []: one class, so that a sequence
    may join any two documents."""
    max_sequences: int = MAX_SEQUENCES
    """The most sequences in a row; it bounds cu_seqlens. 1: one a row, padded."""

    def __post_init__(self) -> None:
        Buckets(self.bucket_edges)
        if self.max_sequences < 1:
            raise RecipeError(f"max_sequences must be at least 1, got {self.max_sequences}")
        if self.sequences != "documents" and self.overlong != "split":
            raise RecipeError(
                f"overlong: {self.overlong} is for sequences: documents, found {self.sequences}, "
                "which are cut where they are full. Leave overlong out."
            )

    @property
    def needs_sentences(self) -> bool:
        """Whether the mill has to say where sentences begin."""
        return self.sequences in ("full_sentences", "doc_sentences", "pairs")


@dataclass(frozen=True, slots=True)
class RowShape:
    """What a phase's rows look like; phases of one shape share their shards."""

    max_length: int
    """The longest sequence in tokens, special tokens counted."""
    row_tokens: int
    token_budget: int | None = None
    """About how many tokens of documents are packed of each generation of the corpus, those of
    special tokens and of held-out documents not counted; None: all."""


@dataclass(frozen=True, slots=True)
class PackTask:
    """One group of units for the rows of one shape."""

    run: Path
    packing: PackingConfig
    shape: RowShape
    group: int
    token_files: tuple[str, ...]
    decision_files: tuple[str, ...]
    """One for each token file, in the same order."""
    spans: tuple[Output, ...]
    """What is left out of these documents."""
    tokenizer: TokenizerInfo
    inputs: tuple[Output, ...]
    """All these files, as they were written."""
    generation: int = 0
    """Of its units; the groups of each are numbered from 0."""
    corpus_tokens: int = 0
    """Of the kept documents of all groups of the generation; asked for where the shape has a
    budget."""

    stage: ClassVar[str] = "pack"

    @property
    def pack(self) -> str:
        return pack_name(self.packing, self.shape)

    @property
    def name(self) -> str:
        return f"{self.pack}/{self.stem}"

    @property
    def stem(self) -> str:
        """What the names of its shards begin with."""
        return f"g{self.generation}-{self.group:05d}" if self.generation else f"{self.group:05d}"

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "stage": VERSION,
            "packing": [self.packing, self.shape, self.group],
            **({"generation": self.generation} if self.generation else {}),
            "tokenizer": self.tokenizer,
            "documents": [output.sha256 for output in self.inputs],
            **({"corpus_tokens": self.corpus_tokens} if self.shape.token_budget else {}),
        }


def pack_name(packing: PackingConfig, shape: RowShape) -> str:
    """What decides the rows of a phase, as a folder's name; phases that agree share it."""
    kind = packing.overlong if packing.sequences == "documents" else packing.sequences
    parts = [str(shape.max_length), kind, str(shape.row_tokens)]
    if packing.max_sequences != MAX_SEQUENCES:
        parts.append(f"max{packing.max_sequences}")
    if shape.token_budget:
        parts.append(f"{shape.token_budget}tokens")
    return "-".join(parts)


def plan_groups(tokens_of_unit: Mapping[str, int]) -> list[list[str]]:
    """Units in groups of about GROUP_TOKENS, drawn by the hash of their names."""
    total = sum(tokens_of_unit.values())
    # A power of two: when a corpus grows, units stay in their groups until it has doubled.
    num_groups = 1 << max(0, round(math.log2(max(total, 1) / GROUP_TOKENS)))
    groups: list[list[str]] = [[] for _ in range(num_groups)]
    for unit in sorted(tokens_of_unit):
        digest = hashlib.sha256(unit.encode()).digest()
        groups[int.from_bytes(digest[:8], "big") % num_groups].append(unit)
    return [group for group in groups if group] or [[]]


def pack(task: PackTask) -> Receipt:
    """Write a group's shards and its receipt.

    Raises:
        RecipeError: max_length leaves no room for a text between the tokenizer's special tokens.
        FormatError: the sequences need sentences, and the tokens do not say where they begin.
    """
    started = begin(task)
    refuse_damaged(task.run, task.inputs)
    refuse_short(task.packing, task.shape, task.tokenizer)
    template = Template.of(task.tokenizer)
    folder = pack_folder(task.run, task.pack)
    for stale in folder.rglob(f"{task.stem}-*"):
        stale.unlink()
    kept, sources = read_kept(
        task.run,
        task.token_files,
        task.decision_files,
        task.spans,
        with_sentences=task.packing.needs_sentences,
    )
    counts = Counter(documents=len(kept.doc_ids), tokens=int(kept.num_tokens.sum()))
    counts["tokens_cut"] = 0
    chosen = _within_budget(task, kept)
    counts["documents_over_budget"] = int((~chosen).sum())
    counts["tokens_over_budget"] = int(kept.num_tokens[~chosen].sum())
    buckets = Buckets(task.packing.bucket_edges)
    bucket_of = buckets.of_lengths(kept.num_tokens + template.num_around_one)
    shards = []
    for held_out in (False, True):
        for index, bucket in enumerate(buckets.names):
            mine = chosen & (bucket_of == index) & (kept.held_out == held_out)
            documents = kept.take(np.flatnonzero(mine))
            sequences, cut = make_sequences(documents, task.packing, template, task.shape)
            counts["tokens_cut"] += cut
            counts[f"tokens_cut.{bucket}"] += 0 if held_out else cut
            place = folder / "held-out" / bucket if held_out else folder / bucket
            for number, rows in enumerate(_shards(task, documents, sources, sequences)):
                path = place / f"{task.stem}-{number:03d}.arrow"
                shards.append(
                    write_shard(
                        path,
                        rows,
                        bucket=bucket,
                        held_out=held_out,
                        folder=folder,
                        generation=task.generation,
                    )
                )
    paths = [folder / shard.path for shard in shards]
    outputs = [describe_output(task.run, path) for path in [*paths, *map(crc_path, paths)]]
    counts["rows"] = sum(shard.rows for shard in shards)
    return finish(task, outputs, counts, started, {"shards": to_mapping(shards)})


def refuse_short(packing: PackingConfig, shape: RowShape, tokenizer: TokenizerInfo) -> None:
    """Refuse a max_length that leaves no room for a text between the tokenizer's special tokens.

    Raises:
        RecipeError: it leaves none, or for a pair not two tokens.
    """
    special, texts, what = tokenizer.num_special, 1, "a text"
    if packing.sequences == "pairs":
        special, texts, what = special + len(tokenizer.separator), 2, "a pair"
    if shape.max_length < special + texts:
        raise RecipeError(
            f"max_length must be at least {special + texts}, got {shape.max_length}: the tokenizer "
            f"puts {special} special tokens around {what}"
        )


def make_sequences(
    documents: Kept, packing: PackingConfig, template: Template, shape: RowShape
) -> tuple[Sequences, int]:
    """What is packed of a bucket's documents, in their order, and how many tokens are left out."""
    num_tokens, max_length = documents.num_tokens, shape.max_length
    if packing.sequences == "documents":
        return cut_documents(num_tokens, template, max_length, packing.overlong)
    if packing.sequences == "concatenated":
        return concatenate_documents(num_tokens, template, max_length), 0
    sentences = documents.sentences
    assert sentences is not None
    if packing.sequences == "pairs":
        return pair_sentences(num_tokens, documents.hashes, sentences, template, max_length)
    across = packing.sequences == "full_sentences"
    joined = join_sentences(num_tokens, sentences, template, max_length, across_documents=across)
    return joined, 0


def _within_budget(task: PackTask, kept: Kept) -> NDArray[np.bool_]:
    """(documents,) whether they are packed: those with the lowest hashes."""
    budget = task.shape.token_budget
    if budget is None:
        return np.ones(len(kept.doc_ids), np.bool_)
    # The held-out have the lowest hashes of all: they weigh nothing, and stay.
    training = np.where(kept.held_out, 0, kept.num_tokens)
    # Each group gives the same share of its tokens.
    most = int(training.sum()) * budget // max(1, task.corpus_tokens)
    return np.cumsum(training) <= most


def _shards(
    task: PackTask, documents: Kept, sources: Sequence[NDArray[Any]], sequences: Sequences
) -> Iterator[Rows]:
    """The rows of one bucket, a shard at a time."""
    row_tokens = task.shape.row_tokens
    deal = sequences.deal(documents.hashes)
    order, row_ends = pack_rows(sequences.lengths[deal], row_tokens, task.packing.max_sequences)
    order = deal[order]
    shard_rows = max(1, SHARD_TOKENS // row_tokens)
    for first in range(0, len(row_ends), shard_rows):
        ends = row_ends[first : first + shard_rows]
        begin = int(row_ends[first - 1]) if first else 0
        chosen = sequences.take(order[begin : int(ends[-1])])
        yield fill_rows(chosen, ends - begin, row_tokens, documents, sources, task.tokenizer)
