"""A run that no build made, for training: documents of a real-looking distribution, really packed.

    lengths      lognormal, mu 6, sigma 1.1, cut at max_length (mean 498 of 1,024): English web
                 text. From 4,096 tokens on, four of five documents have 1,024 tokens or more, as a
                 long phase picks them.
    tokens       ids by Zipf's law; every other one follows from the one before. A model can learn
                 both, so losses fall, and a model that computes something else has other losses.

Rows are packed by the pipeline's own packer. Everything follows from the arguments.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.loader.masking_config import MaskingConfig
from tokenmill.pipeline.packing import pack_rows
from tokenmill.shards.manifest import FORMAT_VERSION, Manifest, root_of, write_manifest
from tokenmill.shards.run import PhaseInfo, TokenizerInfo, new_run, pack_folder, read_run, write_run
from tokenmill.shards.shard import Rows, write_shard
from tokenmill.shards.shard_list import ShardList

MEASURED = "measured"
GUARD = "guard"
"""Phases: large steps, as one trains, and small ones whose losses are compared."""
PACK = "documents"
PAD, UNK, CLS, SEP, MASK = range(5)
LONG_DOCUMENTS = 1024
ROWS_PER_SHARD = 256


@dataclass(frozen=True, kw_only=True)
class StepTokens:
    """Tokens of an optimizer step in each phase, padding included."""

    measured: int
    guard: int


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What a run holds, and how a step reads it."""

    vocab_size: int
    max_length: int
    row_tokens: int
    num_tokens: int
    """Tokens of all documents, about."""
    steps: StepTokens
    masking: MaskingConfig


def training_run(folder: Path, corpus: Corpus) -> Path:
    """Write the shards and a run.json with the two phases."""
    generator = np.random.default_rng(0)
    lengths = _lengths(generator, corpus)
    order, row_ends = pack_rows(lengths, corpus.row_tokens, corpus.row_tokens)
    rows = _rows(generator, lengths[order], row_ends, corpus)
    pack = pack_folder(folder, PACK)
    info = write_shard(pack / "0+/000.arrow", rows, bucket="0+", held_out=False, folder=pack)
    shards = ShardList.of([info])
    tokenizer = TokenizerInfo(
        sha256="0" * 64,
        vocab_size=corpus.vocab_size,
        pad_id=PAD,
        mask_id=MASK,
        prefix=(CLS,),
        separator=(SEP,),
        suffix=(SEP,),
        unk_id=UNK,
        special_ids=(PAD, UNK, CLS, SEP, MASK),
    )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        pack=PACK,
        row_tokens=corpus.row_tokens,
        max_length=corpus.max_length,
        overlong="truncate",
        dtype="uint16",
        bucket_edges=(),
        tokenizer_sha256=tokenizer.sha256,
        keys=(),
        tokens_cut=0,
        shards=shards,
        root=root_of(shards),
    )
    write_manifest(pack, manifest)
    loader = {"mixture": {"all": 1.0}, "masking": asdict(corpus.masking)}
    phases = _phases(PACK, loader, corpus.steps)
    write_run(folder, new_run("synthetic", tokenizer, phases, {}))
    return folder


def borrowed_run(folder: Path, run: Path, phase: str, steps: StepTokens) -> Path:
    """The two phases over the shards of a finished build, which are linked, not copied.

    Args:
        phase: of the build, whose pack, mixture and masks they have.
    """
    info = read_run(run)
    given = info.phase(phase)
    loader = {key: value for key, value in given.loader.items() if key != "batch_warmup"}
    phases = _phases(given.pack, loader, steps)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shards").symlink_to((run / "shards").resolve())
    write_run(folder, new_run(info.recipe, info.tokenizer, phases, {}))
    return folder


def _phases(pack: str, loader: Mapping[str, Any], steps: StepTokens) -> dict[str, PhaseInfo]:
    return {
        name: PhaseInfo(
            pack=pack,
            loader={**loader, "batch_tokens": tokens},
            schedule={"tokens": 1_000_000_000},
        )
        for name, tokens in ((GUARD, steps.guard), (MEASURED, steps.measured))
    }


def _lengths(generator: np.random.Generator, corpus: Corpus) -> NDArray[np.int32]:
    """(documents,) tokens of each, special ones counted."""
    drawn = generator.lognormal(6, 1.1, corpus.num_tokens // 50).astype(np.int32)
    if corpus.max_length >= 4 * LONG_DOCUMENTS:
        keep = (drawn >= LONG_DOCUMENTS) | (generator.random(len(drawn)) < 0.06)
        drawn = drawn[keep]
    lengths = drawn.clip(8, corpus.max_length)
    return lengths[: np.searchsorted(np.cumsum(lengths, dtype=np.int64), corpus.num_tokens) + 1]


def _rows(
    generator: np.random.Generator,
    lengths: NDArray[np.int32],
    row_ends: NDArray[np.int64],
    corpus: Corpus,
) -> Rows:
    ends = np.cumsum(lengths, dtype=np.int64)
    text = _text(generator, int(ends[-1]), corpus.vocab_size)
    text[ends - lengths], text[ends - 1] = CLS, SEP
    tokens = np.full((len(row_ends), corpus.row_tokens), PAD, np.uint16)
    begin = 0
    for row, end in zip(tokens, ends[row_ends - 1].tolist(), strict=True):
        row[: end - begin] = text[begin:end]
        begin = end
    return Rows(
        tokens=tokens,
        row_ends=row_ends,
        lengths=lengths,
        doc_ids=np.arange(1, len(lengths) + 1, dtype=np.uint64),
        starts=np.zeros(len(lengths), np.int32),
        num_special=np.full(len(lengths), 2, np.uint8),
        joined=np.zeros(len(lengths), np.uint8),
    )


def _text(generator: np.random.Generator, num_tokens: int, vocab_size: int) -> NDArray[np.uint16]:
    """(tokens,) ordinary ids."""
    ordinary = vocab_size - MASK - 1
    # Ranks by Zipf's law: their logarithm is uniform.
    ranks = np.exp(generator.random(num_tokens) * np.log(ordinary)).astype(np.int64) - 1
    ranks[1::2] = (ranks[: num_tokens // 2 * 2 : 2] * 7 + 3) % ordinary
    return (ranks + MASK + 1).astype(np.uint16)
