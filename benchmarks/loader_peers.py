"""Batches with masked tokens from our loader and its peers, in turns, on one core.

    pip install -r benchmarks/peers/requirements.txt && pip install --no-deps -e .
    python benchmarks/loader_peers.py                    over a synthetic run of 100 MB
    python benchmarks/loader_peers.py RUN --phase P      over the documents of a finished build
    python benchmarks/loader_peers.py --json out.json    and the figures as JSON

All read the same documents from local files in their own format, from the page cache, make batches
of some 65,536 tokens in the calling thread, and end in torch tensors on the CPU. Those that do not
pack get full rows, documents concatenated and split, so they have no padding to carry.
"transformers' masks" are DataCollatorForLanguageModeling; "numpy masks" a faster stand-in of ours
(peers/masks.py), which shows the loader behind the collator. Seconds are of processor time, of all
threads, so that a busy machine does not decide; figures are medians of --rounds, and a round gives
each --seconds. A peer that is not installed is named and left out.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from time import process_time
from typing import Any

os.environ.update(TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")

import numpy as np
import torch
from peers.corpus import Batches, read_corpus
from synthetic import synthetic_run

from tokenmill.loader import Loader
from tokenmill.loader.plan import read_plan
from tokenmill.shards.table import table


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Medians over the rounds, in millions of tokens a second."""

    name: str
    real: float
    """Tokens that are not padding."""
    with_padding: float
    ratio: float
    """Ours to theirs, real tokens."""


OURS = "ours: packed rows, static shapes, masks"
PEERS = {
    "hugging_face": "datasets and transformers",
    "mosaic": "mosaicml-streaming",
    "lightning": "litdata",
    "google_grain": "grain",
    "modernbert": "packing as ModernBERT does",
}
"""The module of `peers/` that runs it, and what it is."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", type=Path, help="a finished build; else a synthetic one")
    parser.add_argument("--phase", default="phase1")
    parser.add_argument("--rows", type=int, default=3072, help="rows of the synthetic run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = options.run or synthetic_run(folder / "run", options.rows)
        all_batches = contenders(folder, run, options.phase)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        torch.set_num_threads(1)
        rates = measure(all_batches, options.rounds, options.seconds)
    print(
        table(
            ("million tokens/s", "real", "with padding", "ours to it"),
            [
                (each.name, f"{each.real:.2f}", f"{each.with_padding:.2f}", f"{each.ratio:.1f}")
                for each in rates
            ],
        )
    )
    if options.json:
        options.json.write_text(json.dumps([asdict(rate) for rate in rates], indent=1) + "\n")


def contenders(folder: Path, run: Path, phase: str) -> dict[str, Batches]:
    """Name to its batches; what a peer reads is written."""
    corpus = read_corpus(run, phase)
    rate = read_plan(run, phase).config.masking.rate
    found: dict[str, Batches] = {OURS: partial(our_batches, run, phase)}
    for module, peer in PEERS.items():
        try:
            found |= import_module(f"peers.{module}").contenders(folder / module, corpus, rate)
        except ImportError as error:
            print(f"SKIPPED {peer}: {error}", file=sys.stderr)
    return found


def our_batches(run: Path, phase: str) -> Iterator[dict[str, Any]]:
    with Loader(run, phase, micro_batch_rows=4, prefetch_bytes=0) as loader:
        for batch in loader:
            tensors = batch.to_torch("cpu")
            yield {"input_ids": tensors.input_ids, "num_tokens": tensors.num_tokens}


def measure(all_batches: dict[str, Batches], rounds: int, seconds: float) -> list[Rate]:
    """Let each run for some seconds, one after the other, as often as there are rounds."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in all_batches}
    for _ in range(rounds):
        for name, batches in all_batches.items():
            seen[name].append(_rate(batches, seconds))
    medians = {name: np.median(rates, axis=0) / 1e6 for name, rates in seen.items()}
    return [
        Rate(name=name, real=real, with_padding=both, ratio=medians[OURS][0] / real)
        for name, (real, both) in medians.items()
    ]


def _rate(batches: Batches, seconds: float) -> tuple[float, float]:
    """Tokens a second of processor time, real ones and all; opening and the first batch are not
    timed."""
    real = both = 0
    taken = 0.0
    while taken < seconds:
        epoch = batches()
        next(epoch)
        start = process_time()
        for batch in epoch:
            both += batch["input_ids"].numel()
            real += batch.get("num_tokens", batch["input_ids"].numel())
            if process_time() - start + taken >= seconds:
                break
        taken += process_time() - start
        epoch.close()
    return real / taken, both / taken


if __name__ == "__main__":
    main()
