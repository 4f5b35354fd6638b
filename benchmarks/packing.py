"""Padding and speed of packing, beside best fit and next fit, on the lengths of real documents.

    python benchmarks/packing.py RUN
    python benchmarks/packing.py --lengths lengths.npy --documents 1000000 --json packing.json

Lengths are those of a run's kept documents, or of a file of numbers, special tokens not counted;
--documents draws so many of them, with repeats. Padding is in per cent of the rows, in each bucket
and in all. Ours is timed from the documents' lengths on: cut, dealt, packed. Best fit puts a
sequence into the open row with the least room that holds it, in the order of the deal or the
longest first, and is timed from the sequences' lengths on. Seconds are of processor time, the best
of three. The second table makes sequences of sentences of 25 tokens on average.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
import pyarrow.dataset as ds
from numpy.typing import NDArray

from tokenmill.pipeline.packing import pack_rows
from tokenmill.pipeline.sentence_pairs import pair_sentences
from tokenmill.pipeline.sentences import Sentences, join_sentences
from tokenmill.pipeline.sequences import Template, concatenate_documents, cut_documents
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.buckets import Buckets
from tokenmill.shards.table import table

TEMPLATE = Template((101, 102, 102), range(1), range(1, 2), range(2, 3))
"""BERT's: [CLS] a [SEP], [CLS] a [SEP] b [SEP]."""
SENTENCE_TOKENS = 25
BLOCK = 128
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path, help="a finished run")
    parser.add_argument("--lengths", type=Path, help="a .npy of lengths in tokens, in its place")
    parser.add_argument("--documents", type=int, help="so many are drawn; default: all, once")
    parser.add_argument("--row-tokens", type=int, default=16_384)
    parser.add_argument("--max-length", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    if bool(arguments.run) == bool(arguments.lengths):
        parser.error("give a run or --lengths")
    num_tokens = lengths_of(arguments.run) if arguments.run else np.load(arguments.lengths)
    generator = np.random.default_rng(0)
    num_tokens = num_tokens[num_tokens > 0].astype(np.int64)
    if arguments.documents:
        num_tokens = generator.choice(num_tokens, arguments.documents)
    hashes = generator.integers(0, 1 << 64, len(num_tokens), np.uint64)
    figures: dict[str, Any] = {"documents": len(num_tokens), "tokens": int(num_tokens.sum())}
    print(f"{len(num_tokens):,} documents of {num_tokens.sum():,} tokens\n")
    for max_length in arguments.max_length:
        found = measure_packers(num_tokens, hashes, max_length, arguments.row_tokens)
        figures[f"max_length {max_length}"] = found
        print(f"max_length {max_length}, rows of {arguments.row_tokens}")
        rows = [[name, *shown(columns)] for name, columns in found.items()]
        print(table(("padding %", *next(iter(found.values()))), rows), "\n")
    kinds = measure_kinds(num_tokens[:100_000], hashes[:100_000])
    figures["kinds, max_length 512"] = kinds
    rows = [[name, *shown(columns)] for name, columns in kinds.items()]
    print(table(("sequences of 512", *next(iter(kinds.values()))), rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def lengths_of(run: Path) -> NDArray[np.int64]:
    """The tokens of each kept document of a run."""
    decisions = ds.dataset(run / "decisions", format="parquet")
    kept = decisions.to_table(columns=["num_tokens"], filter=ds.field("reason") == "")
    return as_numpy(kept["num_tokens"]).astype(np.int64)


def measure_packers(
    num_tokens: NDArray[np.int64], hashes: NDArray[np.uint64], max_length: int, row_tokens: int
) -> dict[str, dict[str, float]]:
    """Padding of each packer in per cent by bucket, and its documents a second."""
    buckets = Buckets((1024, 2048, 4096))
    bucket_of = buckets.of_lengths(num_tokens + TEMPLATE.num_around_one)
    found: dict[str, dict[str, float]] = {}
    real: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for number, bucket in enumerate(buckets.names):
        mine = bucket_of == number
        tokens, packed = pack_bucket(num_tokens[mine], hashes[mine], max_length, row_tokens)
        for name, (num_rows, took) in packed.items():
            full = num_rows * row_tokens
            found.setdefault(name, {})[bucket] = 100 * (1 - tokens / max(1, full))
            real[name] += tokens
            rows[name] += full
            seconds[name] += took
    for name, columns in found.items():
        columns["all"] = 100 * (1 - real[name] / rows[name])
        columns["documents/s"] = len(num_tokens) / seconds[name] if seconds[name] else 0.0
    return found


def pack_bucket(
    num_tokens: NDArray[np.int64], hashes: NDArray[np.uint64], max_length: int, row_tokens: int
) -> tuple[int, dict[str, tuple[int, float]]]:
    """The tokens of a bucket, and rows and seconds of each packer."""

    def deal() -> NDArray[np.int32]:
        sequences, _ = cut_documents(num_tokens, TEMPLATE, max_length, "split")
        return sequences.lengths[sequences.deal(hashes)]

    lengths = deal()
    tokens = int(lengths.sum(dtype=np.int64))
    return tokens, {
        "ours": best_of_three(lambda: len(pack_rows(deal(), row_tokens, 2048)[1])),
        "best fit decreasing": best_of_three(
            lambda: best_fit(np.sort(lengths)[::-1].copy(), row_tokens)
        ),
        "best fit": best_of_three(lambda: best_fit(lengths, row_tokens)),
        "next fit": best_of_three(lambda: next_fit(lengths, row_tokens)),
        "the least there can be": (-(-tokens // row_tokens), 0.0),
    }


def measure_kinds(
    num_tokens: NDArray[np.int64], hashes: NDArray[np.uint64]
) -> dict[str, dict[str, float]]:
    """How fast each kind of sequences is made, and how full they are."""
    counts = np.maximum(1, num_tokens // SENTENCE_TOKENS)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = number * np.repeat(num_tokens / counts, counts)
    sentences = Sentences(starts.astype(np.int32), np.cumsum(counts))
    kinds = {
        "documents": lambda: cut_documents(num_tokens, TEMPLATE, 512, "split")[0],
        "concatenated": lambda: concatenate_documents(num_tokens, TEMPLATE, 512),
        "full_sentences": lambda: join_sentences(
            num_tokens, sentences, TEMPLATE, 512, across_documents=True
        ),
        "doc_sentences": lambda: join_sentences(
            num_tokens, sentences, TEMPLATE, 512, across_documents=False
        ),
        "pairs": lambda: pair_sentences(num_tokens, hashes, sentences, TEMPLATE, 512)[0],
    }
    found = {}
    for name, make in kinds.items():
        sequences, seconds = best_of_three(make)
        found[name] = {
            "tokens each": float(sequences.lengths.mean()),
            "tokens/s": float(num_tokens.sum()) / seconds,
            "documents/s": len(num_tokens) / seconds,
        }
    return found


def best_of_three(work: Callable[[], T]) -> tuple[T, float]:
    """What it gives, and the least seconds of processor time that it takes."""
    result = work()  # numba compiles, or reads its cache
    seconds = []
    for _ in range(3):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return result, max(min(seconds), 1e-9)


def shown(columns: dict[str, float]) -> list[str]:
    return [
        f"{value:.4f}" if "/s" not in name else f"{value:,.0f}" if value else ""
        for name, value in columns.items()
    ]


@numba.njit(cache=True)
def best_fit(lengths: NDArray[np.int32], row_tokens: int) -> int:
    """The number of rows; open rows are counted by their room, so the fit is a scan upwards, which
    passes over blocks of rooms that no row has."""
    open_rows = np.zeros(row_tokens + 1, np.int64)
    in_block = np.zeros(row_tokens // BLOCK + 1, np.int64)
    num_rows = 0
    for length in lengths:
        room = length
        while room < row_tokens and open_rows[room] == 0:
            empty = room % BLOCK == 0 and in_block[room // BLOCK] == 0
            room += BLOCK if empty else 1
        if room >= row_tokens:
            num_rows += 1
            room = row_tokens
        else:
            open_rows[room] -= 1
            in_block[room // BLOCK] -= 1
        open_rows[room - length] += 1
        in_block[(room - length) // BLOCK] += 1
    return num_rows


@numba.njit(cache=True)
def next_fit(lengths: NDArray[np.int32], row_tokens: int) -> int:
    """The number of rows, one of which is open."""
    num_rows, room = 0, 0
    for length in lengths:
        if length > room:
            num_rows += 1
            room = row_tokens
        room -= length
    return num_rows


if __name__ == "__main__":
    main()
