"""Seconds and memory from an opened loader to the first batch after a resume, ours and peers'.

    pip install -r benchmarks/peers/requirements.txt && pip install --no-deps -e .
    python benchmarks/resume.py                    up to 10**9 rows for ours, 10**7 for peers
    python benchmarks/resume.py --small            up to 10**6 rows
    python benchmarks/resume.py --json out.json    and the figures as JSON

Each resume runs in a process of its own: it opens the loader or dataset, has a state of the step
(whose size is that of its JSON, or of its pickle where it holds tensors), and is timed from then
until the first batch is there. Memory is the peak of the resident set over the opened loader's.
Ours opens a manifest of as many shards as such a corpus has (synthetic.py), and checks the witness
of its state; figures are medians of --rounds processes. Peers read rows of 16 tokens, 32 a batch,
from local files in their own format. What costs most of them is the plan of an epoch, which grows
with its rows: there 10**9 rows follow from the two sizes by a straight line, and say "about". Where
nothing grows, 10**9 rows are measured.
"""

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from memory import forget_peak, mapped_mb, peak_mb, resident_mb
from synthetic import simulated_run

from tokenmill.loader import Loader
from tokenmill.shards.table import table

STEP_ROWS = (32, 128)
MICRO_BATCH_ROWS = 4
"""What a step is read in; the whole of it is measured too."""
STEPS = (10, 10**5, 10**7)
PEERS = {
    "google_grain": "grain, random access",
    "lightning": "litdata, the same batch size",
    "lightning:resume_elastic": "litdata, another batch size",
    "mosaic": "mosaicml-streaming",
    "torch_data": "torchdata, RandomSampler",
    "hugging_face": "datasets, as transformers' Trainer",
}
"""The module of `peers/` that runs it, its function if that is not `resume`, and what it is."""
NO_PLAN = ("google_grain", "lightning")
"""Those that make no plan of an epoch, so that a billion rows can be measured too."""
PEER_BATCH_ROWS = 32
PEER_STEP = 10**5


@dataclass(frozen=True, kw_only=True)
class Figures:
    name: str
    rows: int
    step: int
    step_rows: int
    batch_rows: int
    """Of the first batch. The witness is over the rows of two steps."""
    seconds: float
    processor_seconds: float
    peak_mb: float
    """The largest resident set over that of the opened loader."""
    mapped_mb: float
    """What of it are pages of mapped files, which are the page cache's."""
    state_bytes: int
    open_seconds: float
    """Reading the manifest or index; imports are done."""
    open_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="up to 10**6 rows")
    parser.add_argument("--only", choices=["ours", "peers"])
    parser.add_argument("--rounds", type=int, default=5, help="processes for each figure of ours")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_child(*options.child)))
        return
    figures = []
    if options.only != "peers":
        sizes = [10**6] if options.small else [10**6, 10**8, 10**9]
        figures += [figure for rows in sizes for figure in measure_ours(rows, options.rounds)]
        print(our_table(figures))
    if options.only != "ours":
        sizes = [10**5, 10**6] if options.small else [10**6, 10**7]
        peers = []
        for peer in PEERS:
            peers += measure_peer(peer, [*sizes, 10**9] if peer in NO_PLAN else sizes)
        print(peer_table(peers))
        figures += peers
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in figures], indent=1) + "\n")


def measure_ours(num_rows: int, rounds: int) -> list[Figures]:
    """Every step and batch size over one simulated corpus."""
    phases = {f"rows-{rows}": rows for rows in STEP_ROWS}
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        run = simulated_run(Path(folder) / "run", num_rows, phases=phases)
        for phase, step_rows in phases.items():
            with Loader(run, phase, prefetch_bytes=0) as loader:
                for step in STEPS:
                    loader.seek(step)
                    (run / f"{phase}-{step}.json").write_text(json.dumps(loader.state_dict()))
            for step, batch_rows in product(STEPS, (MICRO_BATCH_ROWS, step_rows)):
                child = ("ours", str(run), phase, str(run / f"{phase}-{step}.json"))
                facts = {"step": step, "step_rows": step_rows, "batch_rows": batch_rows}
                child = (*child, str(batch_rows))
                figures.append(_run(child, rounds, name="ours", rows=num_rows, **facts))
    return figures


def measure_peer(peer: str, sizes: list[int]) -> list[Figures]:
    figures = []
    for num_rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            child = (peer, str(Path(folder) / "data"), str(num_rows))
            facts = {"step_rows": PEER_BATCH_ROWS, "batch_rows": PEER_BATCH_ROWS}
            try:
                figures.append(
                    _run(child, 1, name=PEERS[peer], rows=num_rows, step=PEER_STEP, **facts)
                )
            except subprocess.CalledProcessError as error:
                print(f"SKIPPED {PEERS[peer]}: {error.stderr.strip()[-300:]}", file=sys.stderr)
    return figures


def _run(child: tuple[str, ...], rounds: int, **facts: Any) -> Figures:
    """Medians of a child's figures."""
    command = [sys.executable, __file__, "--child", *child]
    seen: list[dict[str, float]] = []
    for _ in range(rounds):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seen.append(json.loads(done.stdout.splitlines()[-1]))
    return Figures(**facts, **{name: float(np.median([s[name] for s in seen])) for name in seen[0]})


def _child(name: str, *arguments: str) -> dict[str, float]:
    """Go through the parts of a resume, with the clock and the memory between them."""
    parts = our_resume(*arguments) if name == "ours" else _peer_resume(name, *arguments)
    next(parts)
    at_first, start = resident_mb(), perf_counter()
    state = next(parts)
    opened, memory = perf_counter(), resident_mb()
    forget_peak()
    mapped = mapped_mb()
    resumed, processor = perf_counter(), process_time()
    next(parts)
    return {
        "seconds": perf_counter() - resumed,
        "processor_seconds": process_time() - processor,
        "peak_mb": peak_mb() - memory,
        "mapped_mb": mapped_mb() - mapped,
        "state_bytes": _num_bytes(state),
        "open_seconds": opened - start,
        "open_mb": memory - at_first,
    }


def our_resume(run: str, phase: str, file: str, batch_rows: str) -> Iterator[Any]:
    """Three parts: before opening; opened, with the state; the first batch."""
    state = json.loads(Path(file).read_text())
    yield None
    with Loader(run, phase, micro_batch_rows=int(batch_rows), prefetch_bytes=0) as loader:
        yield state
        loader.load_state_dict(state)
        yield next(loader)


def _peer_resume(peer: str, folder: str, num_rows: str) -> Iterator[Any]:
    module, _, function = peer.partition(":")
    resume = getattr(import_module(f"peers.{module}"), function or "resume")
    parts: Iterator[Any] = resume(Path(folder), int(num_rows), PEER_STEP, PEER_BATCH_ROWS)
    return parts


def _num_bytes(state: Any) -> int:
    try:
        return len(json.dumps(state))
    except TypeError:
        return len(pickle.dumps(state))


def our_table(figures: list[Figures]) -> str:
    header = (
        "rows",
        "rows a step",
        "a batch",
        "step",
        "ms",
        "processor ms",
        "MB",
        "of it mapped",
        "state, bytes",
        "open, ms",
        "open, MB",
    )
    return table(
        header,
        [
            (
                f"{each.rows:,}",
                f"{each.step_rows}",
                f"{each.batch_rows}",
                f"{each.step:,}",
                f"{each.seconds * 1e3:.1f}",
                f"{each.processor_seconds * 1e3:.1f}",
                f"{each.peak_mb:.1f}",
                f"{each.mapped_mb:.1f}",
                f"{each.state_bytes:.0f}",
                f"{each.open_seconds * 1e3:.0f}",
                f"{each.open_mb:.0f}",
            )
            for each in figures
        ],
    )


def peer_table(figures: list[Figures]) -> str:
    """A line for each size of each peer, and one for the straight line through them."""
    lines = []
    for name in dict.fromkeys(each.name for each in figures):
        of_peer = [each for each in figures if each.name == name]
        lines += [
            (name, f"{each.rows:,}", *_cells(each.seconds, each.peak_mb), f"{each.state_bytes:.0f}")
            for each in of_peer
        ]
        if len(of_peer) > 1 and of_peer[-1].rows < 10**9:
            cells = _cells(*(_at_a_billion(of_peer, field) for field in ("seconds", "peak_mb")))
            lines.append(("", "about 1,000,000,000", *cells, ""))
    return table(("peer", "rows", "seconds", "MB", "state, bytes"), lines)


def _cells(seconds: float, megabytes: float) -> tuple[str, str]:
    return f"{seconds:.3f}" if seconds < 10 else f"{seconds:,.0f}", f"{megabytes:,.0f}"


def _at_a_billion(figures: list[Figures], field: str) -> float:
    """The straight line through the last two sizes."""
    small, large = (float(getattr(each, field)) for each in figures[-2:])
    slope = (large - small) / (figures[-1].rows - figures[-2].rows)
    return max(large, large + slope * (10**9 - figures[-1].rows))


if __name__ == "__main__":
    main()
