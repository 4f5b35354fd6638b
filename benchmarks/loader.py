"""How fast the loader gives batches, and how soon the first one comes at a late step.

    python benchmarks/loader.py                    over a synthetic run of 100 MB, removed after
    python benchmarks/loader.py RUN --phase P      over a finished build
    python benchmarks/loader.py --json out.json    and the figures as JSON

Batches are made in the calling thread, so all figures are of one core; shards are in the page cache
after the first round. Synthetic lengths are lognormal (mu 6, sigma 1.1, at most 1,024 tokens),
filled into rows in their order.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from tokenmill.loader import Loader
from tokenmill.shards.manifest import FORMAT_VERSION, Manifest, root_hash, write_manifest
from tokenmill.shards.run import PhaseInfo, TokenizerInfo, new_run, pack_folder, write_run
from tokenmill.shards.shard import Rows, write_shard

ROW_TOKENS = 16_384
MAX_LENGTH = 1024
LATE_STEP = 1_000_000

COLD_START = """
from time import perf_counter
start = perf_counter()
import sys
from tokenmill.loader import Loader
imported = perf_counter()
with Loader(sys.argv[1], sys.argv[2], micro_batch_rows=int(sys.argv[3]), prefetch=0) as loader:
    loader.seek(int(sys.argv[4]))
    next(loader)
print(imported - start, perf_counter() - imported)
"""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is measured. Times are medians unless they say otherwise."""

    row_tokens: int
    rows_per_step: int
    micro_batch_rows: int
    sequences_per_row: float
    million_tokens_per_second: float
    """Tokens of the batches, padding included; masks included."""
    first_batch_ms: float
    """From opening the loader to the first micro-batch of step 1,000,000, numba's functions
    loaded."""
    first_import_ms: float
    """Importing tokenmill.loader where it never ran: numba compiles."""
    cold_import_ms: float
    """Importing tokenmill.loader in a new process, numba's cache on disk warm."""
    cold_first_batch_ms: float
    """From opening to that batch in the new process, after the import."""
    resume_ms: float
    """Opening, loading a state of that step with its witness, and the next batch."""
    state_bytes: int
    peak_memory_mb: float
    """Of the measuring process, shards that it mapped included."""


def measure(run: Path, phase: str, micro_batch_rows: int, seconds: float) -> Figures:
    with Loader(run, phase, micro_batch_rows=micro_batch_rows, prefetch=0) as loader:
        # The first round maps the shards and brings them into the page cache.
        million_tokens = max(_rate(loader, seconds) for _ in range(3)) / 1e6
        sequences = loader.rows_at(0).pieces
        loader.seek(LATE_STEP)
        state = loader.state_dict()

    def late_batch() -> None:
        with Loader(run, phase, micro_batch_rows=micro_batch_rows, prefetch=0) as late:
            late.seek(LATE_STEP)
            next(late)

    def resume() -> None:
        with Loader(run, phase, micro_batch_rows=micro_batch_rows, prefetch=0) as resumed:
            resumed.load_state_dict(state)
            next(resumed)

    arguments = (str(run), phase, str(micro_batch_rows), str(LATE_STEP))
    cold_import, cold_first = _cold_start(*arguments)
    with tempfile.TemporaryDirectory() as empty:
        first_import, _ = _cold_start(*arguments, NUMBA_CACHE_DIR=empty)
    return Figures(
        row_tokens=loader.row_tokens,
        rows_per_step=loader.rows_per_step,
        micro_batch_rows=micro_batch_rows,
        sequences_per_row=len(sequences.lengths) / len(sequences.row_ends),
        million_tokens_per_second=million_tokens,
        first_batch_ms=_median_ms(late_batch),
        first_import_ms=first_import * 1e3,
        cold_import_ms=cold_import * 1e3,
        cold_first_batch_ms=cold_first * 1e3,
        resume_ms=_median_ms(resume),
        state_bytes=len(json.dumps(state)),
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def _cold_start(*arguments: str, **environment: str) -> tuple[float, float]:
    """Seconds of the import, and from then to the first late batch, in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", COLD_START, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    imported, first = map(float, done.stdout.split())
    return imported, first


def _rate(loader: Loader, seconds: float) -> float:
    """Tokens a second."""
    num_tokens = 0
    start = perf_counter()
    while perf_counter() - start < seconds:
        num_tokens += len(next(loader).input_ids)
    return num_tokens / (perf_counter() - start)


def _median_ms(action: Callable[[], None], times: int = 9) -> float:
    taken = []
    for _ in range(times):
        start = perf_counter()
        action()
        taken.append(perf_counter() - start)
    return float(np.median(taken) * 1e3)


def synthetic_run(run: Path, num_rows: int) -> Path:
    """A run of one pack with two buckets, whose phase reads both, in batches of 32 rows."""
    tokenizer = TokenizerInfo(
        sha256="0" * 64,
        vocab_size=30_522,
        pad_id=0,
        mask_id=103,
        prefix=(101,),
        separator=(102,),
        suffix=(102,),
        unk_id=100,
        special_ids=(0, 100, 101, 102, 103),
    )
    folder = pack_folder(run, "short")
    generator = np.random.default_rng(0)
    shards = [
        write_shard(
            folder / bucket / f"{index:05d}.arrow",
            _random_rows(generator, num_rows // 8, shortest, longest),
            bucket=bucket,
            held_out=False,
            folder=folder,
        )
        for bucket, shortest, longest in (("0-255", 16, 256), ("256+", 256, MAX_LENGTH + 1))
        for index in range(4)
    ]
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        pack="short",
        row_tokens=ROW_TOKENS,
        max_length=MAX_LENGTH,
        overlong="split",
        dtype="uint16",
        bucket_edges=(256,),
        tokenizer_sha256=tokenizer.sha256,
        keys=(),
        tokens_cut=0,
        shards=tuple(shards),
        root=root_hash((shard.path, shard.sha256) for shard in shards),
    )
    write_manifest(folder, manifest)
    loader = {"mixture": {"all": 0.5, "256+": 0.5}, "batch_tokens": 32 * ROW_TOKENS}
    phase = PhaseInfo(pack="short", loader=loader, schedule={"tokens": 1_000_000_000})
    write_run(run, new_run("synthetic", tokenizer, {"phase1": phase}, {}))
    return run


def _random_rows(
    generator: np.random.Generator, num_rows: int, shortest: int, longest: int
) -> Rows:
    """Rows whose sequences have from shortest to below longest tokens."""
    drawn = generator.lognormal(6, 1.1, 200 * num_rows).astype(np.int32)
    drawn = drawn[(drawn >= shortest) & (drawn < longest)]
    lengths: list[int] = []
    row_ends: list[int] = []
    row_end = 0
    for length in np.resize(drawn, num_rows * ROW_TOKENS // shortest).tolist():
        if row_end + length > ROW_TOKENS:
            row_ends.append(len(lengths))
            row_end = 0
            if len(row_ends) == num_rows:
                break
        lengths.append(length)
        row_end += length
    rows = Rows(
        tokens=generator.integers(999, 30_522, (num_rows, ROW_TOKENS), np.uint16),
        row_ends=np.array(row_ends, np.int64),
        lengths=np.array(lengths, np.int32),
        doc_ids=np.arange(1, len(lengths) + 1, dtype=np.uint64),
        starts=np.zeros(len(lengths), np.int32),
        num_special=np.full(len(lengths), 2, np.uint8),
        joined=np.zeros(len(lengths), np.uint8),
    )
    rows.tokens[np.arange(ROW_TOKENS) >= rows.real_tokens()[:, None]] = 0
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, help="a finished build; else a synthetic one")
    parser.add_argument("--phase", default="phase1")
    parser.add_argument("--rows", type=int, default=3072, help="rows of the synthetic run")
    parser.add_argument("--micro-batch-rows", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each of three rounds")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or synthetic_run(Path(folder), options.rows)
        figures = measure(run, options.phase, options.micro_batch_rows, options.seconds)
    for name, value in asdict(figures).items():
        print(f"{name.replace('_', ' '):28} {value:12,.1f}")
    print(json.dumps(asdict(figures)))
    if options.json:
        options.json.write_text(json.dumps(asdict(figures), indent=1) + "\n")


if __name__ == "__main__":
    main()
