"""Repeated text of a run: speed, disk and memory of each stage, and the same by a suffix array.

    python benchmarks/repeats.py RUN [--memory-bytes N] [--times N] [--suffix-array]

RUN is a run that was milled; nothing is written into it. --times makes the corpus so many times as
long, each copy with other tokens, so that the share of repeated text stays. Seconds are of
processor time in this process, so one core. --suffix-array wants pydivsufsort and says whether it
finds the same spans; it holds the corpus in memory, about 65 bytes a token.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.dedup.repeat_config import RepeatConfig
from tokenmill.pipeline.dedup.repeat_pieces import batches_of_all
from tokenmill.pipeline.dedup.repeats import repeated_text
from tokenmill.pipeline.dedup.steps import MilledUnit, open_removals, open_spans
from tokenmill.pipeline.outputs import Tables
from tokenmill.pipeline.plan import Unit
from tokenmill.pipeline.receipts import Receipt, paths
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.files import read_json
from tokenmill.shards.settings import read_settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--memory-bytes", type=int, default=RepeatConfig().memory_bytes)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--suffix-array", action="store_true")
    parser.add_argument("--out", type=Path, help="where the work is done; default: a new folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="repeats-", dir=arguments.out))
    try:
        units = copy_units(arguments.run, folder, arguments.times)
        num_tokens = sum(unit.receipt.counts["tokens"] for unit in units)
        print(f"{num_tokens:,} tokens in {len(units)} units")
        config = RepeatConfig(memory_bytes=arguments.memory_bytes)
        search(folder, units, config)  # numba compiles, or reads its cache
        covered = search(folder, units, config, show=num_tokens)
        print(f"repeated: {covered.sum():,} tokens, {covered.mean():.1%}")
        if arguments.suffix_array:
            start = time.process_time()
            same = by_suffix_array(*all_tokens(folder, units), config.min_tokens)
            seconds = time.process_time() - start
            print(
                f"{'suffix array':16} {num_tokens / seconds / 1e6:8.2f} M tokens/s  "
                f"peak {peak_bytes() / 2**20:7,.0f} MiB  same spans: {(same == covered).all()}"
            )
    finally:
        shutil.rmtree(folder)


def copy_units(run: Path, folder: Path, times: int) -> list[MilledUnit]:
    """The units of a run, and copies of them in which every token is another."""
    receipts = [
        read_settings(Receipt, read_json(path), str(path))
        for path in sorted((run / "receipts" / "mill").rglob("*.json"))
    ]
    units = []
    for copy in range(times):
        for receipt in receipts:
            name = f"{copy}/{receipt.name}"
            num_tokens = 0
            with Tables(folder) as tables:
                for file in paths(receipt, "tokens-"):
                    for batch in batches_of_all(run, [file]):
                        tokens = as_numpy(batch["tokens"].values) ^ np.uint16(copy)
                        rows = pa.LargeListArray.from_arrays(
                            batch["tokens"].offsets, pa.array(tokens)
                        )
                        doc_ids = as_numpy(batch["doc_id"]) ^ np.uint64(copy << 40)
                        columns = {"doc_id": pa.array(doc_ids), "tokens": rows}
                        path = folder / "milled" / name / Path(file).name
                        tables.append(path, pa.RecordBatch.from_pydict(columns))
                        num_tokens += len(tokens)
            milled = Receipt(
                stage="mill", name=name, key=name, parts={}, outputs=tables.described(),
                counts={"tokens": num_tokens}, details={}, seconds=0, versions={},
            )  # fmt: skip
            units.append(MilledUnit(Unit(name, name.split("/")[0], ()), milled))
    return units


def search(
    folder: Path, units: Sequence[MilledUnit], config: RepeatConfig, show: int = 0
) -> NDArray[np.bool_]:
    """(tokens,) which are repeated; for so many tokens, what each stage took."""

    def stage(
        name: str, function: Callable[[Any], Receipt], tasks: Sequence[Any], below: str = ""
    ) -> Mapping[str, Receipt]:
        forget_peak()
        start = time.process_time()
        receipts = {task.name: function(task) for task in tasks}
        seconds = time.process_time() - start
        if show:
            written = sum(o.bytes for receipt in receipts.values() for o in receipt.outputs)
            print(
                f"{name:16} {show / seconds / 1e6:8.2f} M tokens/s  peak "
                f"{peak_bytes() / 2**20:7,.0f} MiB  disk {written / show:6.3f} bytes/token  "
                f"{len(tasks)} tasks"
            )
        return receipts

    shutil.rmtree(folder / "receipts", ignore_errors=True)
    step = repeated_text(folder, stage, config, units, ())
    tokens, ends, doc_ids = all_tokens(folder, units)
    starts = dict(zip(doc_ids.tolist(), np.concatenate([[0], ends[:-1]]).tolist(), strict=True))
    lengths = dict(zip(doc_ids.tolist(), np.diff(ends, prepend=0).tolist(), strict=True))
    covered = np.zeros(len(tokens), np.bool_)
    for spans in open_spans(folder, step.spans):
        for doc_id, begin, end in zip(spans.doc_ids, spans.starts, spans.stops, strict=True):
            covered[starts[int(doc_id)] + begin : starts[int(doc_id)] + end] = True
    for removals in open_removals(folder, step.removals):
        for doc_id in removals.doc_ids.tolist():
            covered[starts[doc_id] : starts[doc_id] + lengths[doc_id]] = True
    return covered


def all_tokens(
    folder: Path, units: Sequence[MilledUnit]
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.uint64]]:
    """All tokens; (documents,) where each ends, and its doc_id."""
    files = [path for unit in units for path in paths(unit.receipt, "tokens-")]
    batches = list(batches_of_all(folder, files))
    tokens = np.concatenate([as_numpy(batch["tokens"].values) for batch in batches])
    lengths = np.concatenate([np.diff(as_numpy(batch["tokens"].offsets)) for batch in batches])
    return tokens, np.cumsum(lengths), np.concatenate([as_numpy(b["doc_id"]) for b in batches])


def by_suffix_array(
    tokens: NDArray[Any], ends: NDArray[np.int64], doc_ids: NDArray[np.uint64], min_tokens: int
) -> NDArray[np.bool_]:
    """(tokens,) which are in windows that stand earlier, by the order of all suffixes."""
    from pydivsufsort import divsufsort, kasai  # type: ignore[import-not-found]

    order = divsufsort(tokens)
    common = kasai(tokens, order)  # (tokens,) tokens that a suffix shares with the next in order
    last_of_group = np.ones(len(order), np.bool_)
    last_of_group[:-1] = common[: len(order) - 1] < min_tokens
    group = np.cumsum(last_of_group) - last_of_group
    lengths = np.diff(ends, prepend=0)
    left = np.repeat(ends, lengths) - np.arange(len(tokens))  # tokens to the document's end
    is_window = left[order] >= min_tokens
    first = np.full(int(group[-1]) + 1, len(order))
    np.minimum.at(first, group[is_window], order[is_window])
    repeated = order[is_window][order[is_window] != first[group[is_window]]]
    edge = np.zeros(len(tokens) + 1, np.int64)
    np.add.at(edge, repeated, 1)
    np.add.at(edge, repeated + min_tokens, -1)
    covered: NDArray[np.bool_] = np.cumsum(edge[:-1]) > 0
    return covered


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The largest resident memory since then, mapped files counted."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
