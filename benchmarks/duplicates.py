"""Near duplicates among simulated documents: time, memory and disk, by number of documents.

    python benchmarks/duplicates.py --folder SCRATCH [--documents 100000 1000000 10000000]
    python benchmarks/duplicates.py --folder SCRATCH --known SAMPLE/refinedweb

Signatures are drawn, written as the mill writes them (units of 10,000 documents) and go through the
real stages on Ray. Of 100 documents 60 are like none, 10 each share 0.5, 0.8 and 0.9 of their
entries with an earlier one, and 10 have one band from a list of a hundred templates. Memory is the
largest sum of the proportional set sizes (PSS) of all processes of this one, Ray's own and files
that are mapped included, twice a second; the list of workers shows the peak of each (VmHWM).

`--known` takes the real pages of a folder with near-duplicate-clusters.jsonl instead, and prints
how many clusters are found beside what the pairs' true similarities let expect.
"""

import argparse
import contextlib
import json
import os
import shutil
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from math import prod, sqrt
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenmill.pipeline.dedup.config import NearConfig, Preset
from tokenmill.pipeline.dedup.near import near_duplicates
from tokenmill.pipeline.dedup.probability import probability_linked
from tokenmill.pipeline.dedup.steps import MilledUnit, Step, open_removals
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.plan import Unit
from tokenmill.pipeline.ray_engine import RayEngine
from tokenmill.pipeline.receipts import Receipt
from tokenmill.pipeline.signatures import SignatureConfig, minhash, mix
from tokenmill.shards.listing import Output
from tokenmill.shards.table import table
from tokenmill.tokenizer.compiled import compiled
from tokenmill.tokenizer.words import Splitter

NUM_HASHES = 112
BAND_ROWS = 7
UNIT_DOCUMENTS, BATCH_DOCUMENTS = 10_000, 1_000
SHARES = (0.5, 0.8, 0.9)
"""Of equal entries, in a tenth of the documents each."""
TEMPLATE = 9
"""The tenth of documents that has one band of a template."""
NUM_TEMPLATES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where there is room")
    parser.add_argument(
        "--documents", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000]
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--preset", default="default", help="default or fineweb")
    parser.add_argument("--known", type=Path, help="a folder with near-duplicate-clusters.jsonl")
    arguments = parser.parse_args()
    config = NearConfig(preset=arguments.preset)
    if arguments.known:
        known_clusters(arguments.folder, arguments.known, arguments.preset)
        return
    measured = [
        simulate(arguments.folder, number, config, arguments.workers)
        for number in arguments.documents
    ]
    show(measured, config, arguments.workers)


class Measured:
    """What a run of the stages took."""

    def __init__(self) -> None:
        self.documents = self.files = 0
        self.seconds: dict[str, float] = {}
        self.disk: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        self.peak_bytes = 0
        self.workers: list[int] = []


def simulate(folder: Path, documents: int, config: NearConfig, workers: int) -> Measured:
    """Write the signatures, find the duplicates, compare with what was planted."""
    run = folder / f"simulated-{documents}"
    shutil.rmtree(run, ignore_errors=True)
    names = range(0, documents, UNIT_DOCUMENTS)
    with get_context("spawn").Pool(workers) as pool:
        sizes = pool.starmap(
            write_unit, [(run, s, min(s + UNIT_DOCUMENTS, documents)) for s in names], 8
        )
    units = [milled(f"{s:012d}", min(UNIT_DOCUMENTS, documents - s)) for s in names]
    measured = Measured()
    measured.documents, measured.disk["signatures"] = documents, sum(sizes)
    step = run_stages(run, units, config, workers, measured)
    found = found_by_share(run, step, documents)
    for share in SHARES:
        planted, removed = found[share]
        theory = probability_linked(share, config.banding, NUM_HASHES)
        print(f"{documents:,}: of {planted:,} that share {share} of their entries "
              f"{removed / max(1, planted):.5f} are removed, in theory {theory:.5f}")  # fmt: skip
    shutil.rmtree(run)
    return measured


def run_stages(
    run: Path, units: Sequence[MilledUnit], config: NearConfig, workers: int, measured: Measured
) -> Step:
    """The stages as a build runs them, on Ray."""
    engine = RayEngine(workers=workers)

    def stage(
        name: str, function: Callable[[Any], Receipt], tasks: Sequence[Any], below: str = ""
    ) -> Mapping[str, Receipt]:
        started = time.monotonic()
        receipts = {receipt.name: receipt for receipt in engine.run(function, tasks)}
        measured.seconds[name] = time.monotonic() - started
        outputs = [output for receipt in receipts.values() for output in receipt.outputs]
        measured.disk[name] = sum(output.bytes for output in outputs)
        for receipt in receipts.values():
            measured.counts.update({f"{name}.{k}": n for k, n in receipt.counts.items()})
        return receipts

    with watched(measured):
        step = near_duplicates(run, stage, units, config, "all")
        measured.workers = sorted(
            (peak for pid in processes() if (peak := high_water(pid))), reverse=True
        )
    engine.close()
    return step


@compiled
def draw(start: int, num_entries: int, signatures: NDArray[np.uint32]) -> None:
    """Write the signatures of documents from `start` on. Those of a copy's original and of the
    templates are a function of their number, so that nothing need be remembered."""
    for row in range(len(signatures)):
        number = start + row
        kind = number % 10
        original = np.uint64(number)
        share = np.uint64(0)
        if 0 < kind <= 3 and number >= 100:
            # An earlier document that is like none: its number ends with 4 to 8.
            place = mix(np.uint64(number) + np.uint64(1 << 40)) % np.uint64(number // 100 * 10)
            original = place * np.uint64(10) + np.uint64(5)
            if original >= np.uint64(number):
                original = np.uint64(5)
            share = np.uint64((0.5 if kind == 1 else 0.8 if kind == 2 else 0.9) * (1 << 32))
        template = mix(np.uint64(number)) % np.uint64(100)
        for entry in range(num_entries):
            own = mix(np.uint64(number) * np.uint64(1 << 14) + np.uint64(entry))
            value = own
            if kind == 9 and entry < 7:
                value = mix(np.uint64(1 << 60) + template * np.uint64(1 << 14) + np.uint64(entry))
            elif share and (own >> np.uint64(32)) < share:
                value = mix(original * np.uint64(1 << 14) + np.uint64(entry))
            signatures[row, entry] = np.uint32(value & np.uint64(0xFFFFFFFF))


def write_unit(run: Path, start: int, stop: int) -> int:
    """Write the signatures of some documents; the size of the file."""
    with Tables(run) as tables:
        path = run / "milled" / "web" / f"{start:012d}" / "signatures-000.arrow"
        for first in range(start, stop, BATCH_DOCUMENTS):
            signatures = np.empty((min(BATCH_DOCUMENTS, stop - first), NUM_HASHES), np.uint32)
            draw(first, NUM_HASHES, signatures)
            doc_ids = np.arange(first, first + len(signatures), dtype=np.uint64) + np.uint64(1)
            tables.append(path, signed(doc_ids, signatures))
    return path.stat().st_size


def signed(doc_ids: NDArray[np.uint64], signatures: NDArray[np.uint32]) -> pa.RecordBatch:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(signatures.ravel()), signatures.shape[1])
    return pa.RecordBatch.from_pydict({"doc_id": pa.array(doc_ids), "signature": lists})


def milled(name: str, documents: int) -> MilledUnit:
    """A unit as the mill's receipt tells of it; only the signatures are there."""
    files = ("decisions-000.parquet", "signatures-000.arrow", "tokens-000.arrow")
    outputs = tuple(Output(path=f"milled/web/{name}/{f}", bytes=0, sha256="") for f in files)
    receipt = Receipt(
        stage="mill", name=f"web/{name}", key=name, parts={}, outputs=outputs,
        counts={"documents": documents}, details={}, seconds=0, versions={},
    )  # fmt: skip
    return MilledUnit(Unit(f"web/{name}", "web", ()), receipt)


def found_by_share(run: Path, step: Step, documents: int) -> dict[float, tuple[int, int]]:
    """How many were planted with each share of equal entries, and how many of those left. The
    first hundred are like none."""
    is_removed = np.zeros(documents, np.bool_)
    for removals in open_removals(run, step.removals):
        is_removed[removals.doc_ids.astype(np.int64) - 1] = True
    wrong = int(is_removed[np.isin(np.arange(documents) % 10, (0, 4, 5, 6, 7, 8, TEMPLATE))].sum())
    print(f"{documents:,}: {wrong:,} removed that share less")
    return {
        share: (len(is_removed[100 + kind :: 10]), int(is_removed[100 + kind :: 10].sum()))
        for kind, share in enumerate(SHARES, 1)
    }


@contextlib.contextmanager
def watched(measured: Measured) -> Iterator[None]:
    """Take down the largest memory of this process and all below it."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.5):
            total = sum(proportional(pid) for pid in processes())
            measured.peak_bytes = max(measured.peak_bytes, total)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def processes() -> list[int]:
    """This process and all below it."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def proportional(pid: int) -> int:
    return kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def high_water(pid: int) -> int:
    return kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:")


def kilobytes(path: Path, field: str) -> int:
    """A field of a process in bytes, 0 where it has just ended."""
    with contextlib.suppress(OSError, IndexError):
        return int(path.read_text().split(field)[1].split()[0]) * 1024
    return 0


def show(measured: Sequence[Measured], config: NearConfig, workers: int) -> None:
    """A table by number of documents, what each stage took, and what a billion would take."""
    rows = [
        (f"{m.documents:,}", f"{sum(m.seconds.values()):,.0f}", f"{m.peak_bytes / 1e9:.2f}",
         f"{m.disk['signatures'] / 1e9:,.2f}", f"{written(m) / 1e9:,.2f}",
         f"{m.counts['near-sketches.pairs']:,}", f"{m.counts['near-removals.removed']:,}")
        for m in measured
    ]  # fmt: skip
    last = measured[-1]
    times = 1e9 / last.documents
    rows.append(
        ("1,000,000,000 (expected)", f"{times * sum(last.seconds.values()):,.0f}",
         f"{last.peak_bytes / 1e9 + 4 * (1e9 - last.documents) / 1e9:.1f}",
         f"{times * last.disk['signatures'] / 1e9:,.0f}", f"{times * written(last) / 1e9:,.0f}",
         "", "")
    )  # fmt: skip
    header = ("documents", f"seconds, {workers} cores", "peak GB", "signatures GB", "written GB",
              "pairs compared", "removed")  # fmt: skip
    print(table(header, rows))
    print(f"seconds and disk are {times:,.0f} times those of {last.documents:,}; memory is theirs "
          "and 4 bytes a document more in the one clustering task")  # fmt: skip
    stages = [
        (name, f"{seconds:.1f}", f"{last.disk[name] / last.documents:.1f}")
        for name, seconds in last.seconds.items()
    ]
    print(table(("stage", "seconds", "bytes a document"), stages))
    peaks = ", ".join(f"{peak / 1e6:,.0f}" for peak in last.workers[: workers + 3])
    print(f"peaks of the largest processes in MB (VmHWM): {peaks}")
    print({name: number for name, number in last.counts.items() if "left_out" in name})


def written(measured: Measured) -> int:
    return sum(size for name, size in measured.disk.items() if name != "signatures")


def known_clusters(folder: Path, pages: Path, preset: Preset) -> None:
    """How many of the known clusters of real pages are found."""
    run = folder / "known"
    shutil.rmtree(run, ignore_errors=True)
    splitter, units, texts = Splitter(), [], {}
    files = sorted(path.name for path in pages.glob("*.parquet"))
    for number, file in enumerate(files):
        column = pq.read_table(pages / file, columns=["content"])["content"].combine_chunks()
        doc_ids = np.arange(len(column), dtype=np.uint64) + np.uint64((number + 1) << 24)
        entries = minhash(splitter.split(column), SignatureConfig(num_hashes=NUM_HASHES))
        with Tables(run) as tables:
            path = run / "milled" / "web" / str(number) / "signatures-000.arrow"
            tables.append(path, signed(doc_ids, entries))
        units.append(milled(str(number), len(column)))
        texts[file] = column
    config = NearConfig(preset=preset)
    step = run_stages(run, units, config, 2, Measured())
    removed = {
        int(doc_id) for removals in open_removals(run, step.removals) for doc_id in removals.doc_ids
    }
    found = expected = variance = 0.0
    lines = (pages / "near-duplicate-clusters.jsonl").read_text().splitlines()
    for line in lines:
        members = [(m["file"], m["row"]) for m in json.loads(line)["members"]]
        found += any((files.index(f) + 1 << 24) + row in removed for f, row in members)
        sets = [five_words(texts[file][row].as_py()) for file, row in members]
        shares = [len(one & other) / len(one | other) for one, other in combinations(sets, 2)]
        linked = 1 - prod(1 - probability_linked(share, config.banding) for share in shares)
        expected, variance = expected + linked, variance + linked * (1 - linked)
    print(f"{preset}: {found:.0f} of {len(lines)} clusters found, in theory {expected:.1f} "
          f"+- {sqrt(variance):.1f}; {len(removed):,} documents removed")  # fmt: skip
    shutil.rmtree(run)


def five_words(text: str) -> set[tuple[str, ...]]:
    """The runs of a text, the slow and obvious way."""
    spread = (unicodedata.normalize("NFD", word.lower()) for word in text.split())
    words = ["".join(c for c in word if unicodedata.category(c)[0] in "LN") for word in spread]
    words = [word for word in words if word]
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


if __name__ == "__main__":
    main()
