"""How fast the loader gives batches, how soon the first one comes at a late step, and its memory.

    python benchmarks/loader.py                    over a synthetic run of 100 MB, removed after
    python benchmarks/loader.py RUN --phase P      over a finished build
    python benchmarks/loader.py --steps 100000     resident memory on the way through so many steps
    python benchmarks/loader.py --json out.json    and the figures as JSON

Batches are made in the calling thread, so all figures are of one core; shards are in the page cache
after the first round. Steps of --steps have two rows. loader_peers.py, resume.py and shuffle.py
compare with other loaders.
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
from memory import resident_mb
from synthetic import synthetic_run

from tokenmill.loader import Loader

LATE_STEP = 1_000_000

COLD_START = """
from time import perf_counter
start = perf_counter()
import sys
from tokenmill.loader import Loader
imported = perf_counter()
run, phase, rows, step = sys.argv[1:]
with Loader(run, phase, micro_batch_rows=int(rows), prefetch_bytes=0) as loader:
    loader.seek(int(step))
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
    """Tokens of the batches, padding included; masks included. The best of three rounds."""
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
    with Loader(run, phase, micro_batch_rows=micro_batch_rows, prefetch_bytes=0) as loader:
        # The first round maps the shards and brings them into the page cache.
        million_tokens = max(_rate(loader, seconds) for _ in range(3)) / 1e6
        sequences = loader.rows_at(0).pieces
        loader.seek(LATE_STEP)
        state = loader.state_dict()

    def late_batch() -> None:
        with Loader(run, phase, micro_batch_rows=micro_batch_rows, prefetch_bytes=0) as late:
            late.seek(LATE_STEP)
            next(late)

    def resume() -> None:
        with Loader(run, phase, micro_batch_rows=micro_batch_rows, prefetch_bytes=0) as resumed:
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


def memory_over(run: Path, phase: str, steps: int) -> dict[str, float]:
    """MB of resident memory after the first step, a tenth of them, half and all."""
    marks = {1: "first step", steps // 10: "10 %", steps // 2: "50 %", steps: "end"}
    seen = {}
    with Loader(run, phase, prefetch_bytes=0) as loader:
        for step in range(1, steps + 1):
            for _ in range(loader.num_micro_batches):
                next(loader)
            if step in marks:
                seen[marks[step]] = resident_mb()
    return seen


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", type=Path, help="a finished build; else a synthetic one")
    parser.add_argument("--phase", default="phase1")
    parser.add_argument("--rows", type=int, default=3072, help="rows of the synthetic run")
    parser.add_argument("--micro-batch-rows", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each of three rounds")
    parser.add_argument("--steps", type=int, help="only resident memory, over so many steps")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.steps:
            run = options.run or synthetic_run(Path(folder), options.rows, rows_per_step=2)
            figures = memory_over(run, options.phase, options.steps)
        else:
            run = options.run or synthetic_run(Path(folder), options.rows)
            measured = measure(run, options.phase, options.micro_batch_rows, options.seconds)
            figures = asdict(measured)
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):28} {value:12,.1f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
