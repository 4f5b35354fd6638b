"""A sample before the whole: `build --sample 0.1%`, its forecast, and what became of it.

    RUN/sample/          a run like any other, of the drawn units and documents; it can be resumed
    RUN/forecast.json    what the whole run will be; after that run also what it was

Documents and tokens have 90 % intervals by the theory of sampling (estimate.py). Disk follows from
them, as far as files compress alike. Time is a range: between the rates of the fastest and the
slowest unit of the sample, on this machine as busy as it was; what a worker does once at its start
stands apart. Memory is what a worker of the sample took at most, and what its tables of words may
still grow by. Duplicates are not forecast, a sample has too few pairs: all is before they leave.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.build import build
from tokenmill.pipeline.corpus import Corpus
from tokenmill.pipeline.costs import (
    disk_bytes,
    mill_seconds,
    other_seconds,
    peak_memory,
    start_seconds,
)
from tokenmill.pipeline.engine import Engine
from tokenmill.pipeline.estimate import Drawn, Estimate, Total, add, interval, total
from tokenmill.pipeline.filters import STEP_REASONS
from tokenmill.pipeline.finish import Built
from tokenmill.pipeline.lock import locked
from tokenmill.pipeline.measures import decision_batches, measure, measured, one_batch
from tokenmill.pipeline.pack import GROUP_TOKENS
from tokenmill.pipeline.receipts import Receipt, paths
from tokenmill.pipeline.sample import Draw, Sample
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.files import read_json, write_json
from tokenmill.shards.settings import read_settings, to_mapping
from tokenmill.shards.table import table

MILL_SECONDS = "milling, seconds of one worker"
START_SECONDS = "first batch of a worker"
OTHER_SECONDS = "all else, seconds of one worker"
PEAK_MEMORY = "peak memory of a worker"
SEQUENCE_BYTES = 16
"""Of a sequence in a shard besides its tokens: its length, document and start."""

Unit = Literal["", "bytes", "seconds"]
_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One number of a forecast."""

    name: str
    unit: Unit = ""
    value: float
    low: float | None = None
    """None: no interval is known."""
    high: float | None = None
    actual: float | None = None
    """What the whole run gave, once it is done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a sample says of the whole run."""

    recipe_sha256: str
    share: float
    seed: int
    documents: int
    """That were milled."""
    drawn: dict[str, str]
    """How much of each source was read, in words."""
    duplicates: float
    """Share of the documents kept by the rules that left as duplicates in the sample."""
    lines: tuple[Line, ...]


def build_sample(
    corpus: Corpus,
    run: Path,
    engine: Callable[[], Engine],
    *,
    recipe: str = "",
    sample: Sample,
) -> tuple[Built, Forecast]:
    """Build the sample of a run in RUN/sample, and write down what it says of the run.

    Args:
        recipe: as it is given to `build`; a run of another one is not compared.

    Raises:
        TokenmillError: as `build` does.
    """
    with locked(run):
        built = build(corpus, run / "sample", engine, recipe=recipe, sample=sample)
        forecast = forecast_of(corpus, built, sample, recipe)
        write_json(run / "forecast.json", to_mapping(forecast))
    return built, forecast


def compared(corpus: Corpus, built: Built, recipe: str) -> Forecast | None:
    """The forecast of a finished run beside what it was, written down; None if there is none of
    this recipe."""
    path = built.run / "forecast.json"
    if not path.exists():
        return None
    forecast = read_settings(Forecast, read_json(path), str(path))
    if forecast.recipe_sha256 != _sha256(recipe):
        return None
    actual = _actual(corpus, built)
    lines = tuple(replace(line, actual=actual.get(line.name, 0.0)) for line in forecast.lines)
    forecast = replace(forecast, lines=lines)
    write_json(path, to_mapping(forecast))
    return forecast


def forecast_of(corpus: Corpus, built: Built, sample: Sample, recipe: str) -> Forecast:
    """What a finished sample says of the whole."""
    totals: dict[str, list[Total]] = defaultdict(list)
    of_one: dict[str, float] = {}
    here: Counter[str] = Counter()
    milling = []
    for name, drew in built.draws.items():
        drawn, decisions = _drawn(built, name, drew)
        for measure_name, one in measure(decisions, corpus).items():
            totals[measure_name].append(total(drawn, one.values, one.by))
            of_one[measure_name] = one.of_one
            here[measure_name] += round(float(one.values.sum()))
        receipts = list(_of_source(built.stages.mill, name).values())
        milling.append(mill_seconds(receipts, drawn.factor, _text_bytes(built, name, drawn)))
    whole = {name: interval(add(parts), of_one=of_one[name]) for name, parts in totals.items()}
    kept = built.counts.get("documents.kept", 0)
    later = sum(built.counts.get(f"documents.{reason}", 0) for reason in STEP_REASONS)
    return Forecast(
        recipe_sha256=_sha256(recipe),
        share=sample.share,
        seed=sample.seed,
        documents=built.counts.get("documents", 0),
        drawn={name: _in_words(drew) for name, drew in built.draws.items()},
        duplicates=later / max(kept + later, 1),
        lines=(
            *(_line(name, estimate) for name, estimate in whole.items()),
            *_disk_lines(built, whole, here),
            *_cost_lines(built, milling, whole, here),
        ),
    )


def forecast_table(forecast: Forecast, workers: int) -> str:
    """A forecast as people read it; with what the run gave, if it is known."""
    done = any(line.actual is not None for line in forecast.lines)
    header = ("forecast", "estimate", "from, to", *(("actual", "inside") if done else ()))
    parts = [
        f"a sample of {forecast.share:.4%} of the corpus, {forecast.documents:,} documents: "
        + ", ".join(f"{name} {words}" for name, words in forecast.drawn.items()),
        table(header, [_row(line, done) for line in forecast.lines]),
        "documents and tokens: 90 % intervals by the theory of sampling; disk, time and memory: "
        "ranges, as wide as those rates were seen to differ",
        "documents and tokens are counted before duplicates leave: no sample shows how many there "
        f"are, {forecast.duplicates:.2%} in this one, more in the whole",
    ]
    seconds = {line.name: line for line in forecast.lines}
    mill, other = seconds[MILL_SECONDS], seconds[OTHER_SECONDS]
    start = seconds[START_SECONDS].value if START_SECONDS in seconds else 0.0
    low = start + ((mill.low or 0.0) + (other.low or 0.0)) / workers
    high = start + ((mill.high or 0.0) + (other.high or 0.0)) / workers
    parts.append(
        f"time on {workers} worker{'s' * (workers > 1)} as busy as now: "
        f"{_shown(low, 'seconds')} to {_shown(high, 'seconds')}"
    )
    return "\n".join(parts)


def _drawn(built: Built, name: str, drew: Draw) -> tuple[Drawn, pa.RecordBatch]:
    """The sample of one source, and the decisions on its documents."""
    units = [unit for unit in built.stages.units if unit.source == name]
    names = dict.fromkeys(drew.cluster(unit) for unit in units)
    clusters = {cluster: number for number, cluster in enumerate(names)}
    decisions, milled, seen, cluster = [], [_NONE], [_NONE], [_NONE]
    for unit in units:
        mine = list(decision_batches(built.run, _decision_files(built, unit.name)))
        doc_ids = np.concatenate([np.zeros(0, np.uint64), *(as_numpy(b["doc_id"]) for b in mine)])
        ids, sizes = _seen(built, unit.name, doc_ids)
        order = np.argsort(ids)
        decisions += mine
        seen.append(sizes)
        milled.append(sizes[order[np.searchsorted(ids[order], doc_ids)]])
        cluster.append(np.full(len(doc_ids), clusters[drew.cluster(unit)]))
    drawn = Drawn(
        cluster_bytes=np.array([drew.drawn[name] for name in clusters], np.int64),
        total_bytes=drew.total_bytes,
        seen=np.concatenate(seen),
        milled=np.concatenate(milled),
        cluster=np.concatenate(cluster),
    )
    return drawn, one_batch(decisions)


def _seen(
    built: Built, unit: str, doc_ids: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Which documents a unit has, and how long they are; where all were milled, as if all were
    equally long: then nothing depends on it."""
    files = paths(built.stages.mill[unit], "seen-")
    batches = [batch for path in files for batch in _batches(built.run / path)]
    if not batches:
        return doc_ids, np.ones(len(doc_ids), np.int64)
    ids = np.concatenate([as_numpy(batch["doc_id"]) for batch in batches])
    return ids, np.concatenate([as_numpy(batch["bytes"]) for batch in batches])


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _text_bytes(built: Built, name: str, drawn: Drawn) -> float:
    """How much text a source has to mill."""
    milled = _of_source(built.stages.mill, name).values()
    sampled = any(paths(receipt, "seen-") for receipt in milled)
    here = drawn.seen.sum() if sampled else sum(r.counts.get("bytes", 0) for r in milled)
    return float(here) * drawn.factor


def _decision_files(built: Built, unit: str) -> list[str]:
    outputs = built.stages.settle[unit].outputs
    return [output.path for output in outputs if output.path.endswith(".parquet")]


def _of_source(receipts: Mapping[str, Receipt], source: str) -> dict[str, Receipt]:
    return {unit: r for unit, r in receipts.items() if unit.partition("/")[0] == source}


def _disk_lines(
    built: Built, whole: Mapping[str, Estimate], here: Mapping[str, int]
) -> Iterator[Line]:
    """Bytes of the folders that grow with the corpus.

    Every file has some kilobytes of its own, so files of few documents take more for each: what
    follows from a share of each unit may be three times too much.
    """
    times = whole["tokens kept"]
    less = 3.0 if any(drew.documents for drew in built.draws.values()) else 1.1
    for folder in ("milled", "decisions", "text"):
        num_bytes = disk_bytes(built.run, folder) / max(here["tokens kept"], 1)
        if num_bytes:
            scaled = Estimate(
                *(num_bytes * bound for bound in (times.value, times.low, times.high))
            )
            yield _line(disk_name(folder), replace(scaled, low=scaled.low / less), "bytes")
    packed = [estimate for name, estimate in whole.items() if name.startswith("tokens packed")]
    shards = [shard for manifest in built.manifests for shard in manifest.shards]
    real = sum(shard.real_tokens for shard in shards)
    sequences = sum(shard.sequences for shard in shards)
    token_bytes = sum(np.dtype(m.dtype).itemsize for m in built.manifests) / len(built.manifests)
    each = token_bytes + SEQUENCE_BYTES * sequences / max(real, 1)
    value = each * sum(estimate.value for estimate in packed)
    high = each * sum(estimate.high for estimate in packed)
    # One row at the end of each bucket of each group is not full.
    rows = [
        2 * (len(manifest.bucket_edges) + 1) * manifest.row_tokens for manifest in built.manifests
    ]
    groups = 1 + whole["tokens kept"].high // GROUP_TOKENS
    # Nothing is known of how many duplicates will be missing from them.
    most = high + groups * token_bytes * sum(rows)
    yield _line(disk_name("shards"), Estimate(value, 0.0, most), "bytes")


def _cost_lines(
    built: Built,
    milling: Sequence[Estimate],
    whole: Mapping[str, Estimate],
    here: Mapping[str, int],
) -> Iterator[Line]:
    receipts = built.stages.mill.values()
    value, low, high = (
        sum(getattr(part, bound) for part in milling) for bound in ("value", "low", "high")
    )
    yield _line(MILL_SECONDS, Estimate(value, low, high), "seconds")
    start = start_seconds(receipts)
    if start:
        yield _line(START_SECONDS, start, "seconds")
    times = whole["documents read"].value / max(here["documents read"], 1)
    # Between what a build takes whatever its size, and all of it growing with the corpus.
    other = other_seconds(built.run)
    yield _line(OTHER_SECONDS, Estimate(other * times, other, other * times), "seconds")
    yield _line(PEAK_MEMORY, peak_memory(receipts), "bytes")


def _actual(corpus: Corpus, built: Built) -> dict[str, float]:
    """What a run gave, by the names of a forecast's lines."""
    files = [path for unit in built.stages.settle for path in _decision_files(built, unit)]
    actual: dict[str, float] = dict(measured(built.run, files, corpus))
    for folder in ("milled", "decisions", "text", "shards"):
        actual[disk_name(folder)] = disk_bytes(built.run, folder)
    receipts = list(built.stages.mill.values())
    text_bytes = sum(receipt.counts.get("bytes", 0) for receipt in receipts)
    actual[MILL_SECONDS] = mill_seconds(receipts, 1.0, text_bytes).value
    start = start_seconds(receipts)
    if start:
        actual[START_SECONDS] = start.value
    actual[OTHER_SECONDS] = other_seconds(built.run)
    actual[PEAK_MEMORY] = peak_memory(receipts).value
    return actual


def disk_name(folder: str) -> str:
    return f"disk, {folder}"


def _line(name: str, e: Estimate, unit: Unit = "") -> Line:
    return Line(name=name, unit=unit, value=e.value, low=e.low, high=e.high)


def _row(line: Line, done: bool) -> tuple[str, ...]:
    between = "-"
    if line.low is not None and line.high is not None:
        between = f"{_shown(line.low, line.unit)} to {_shown(line.high, line.unit)}"
    cells = (line.name, _shown(line.value, line.unit), between)
    if not done:
        return cells
    inside = "-" if is_inside(line) is None else "yes" if is_inside(line) else "no"
    return *cells, _shown(line.actual or 0.0, line.unit), inside


def is_inside(line: Line) -> bool | None:
    """Whether what came lies in the interval; None where there is none, or nothing came yet."""
    if line.low is None or line.high is None or line.actual is None:
        return None
    return round(line.low) <= line.actual <= math.ceil(line.high)


def _shown(value: float, unit: Unit) -> str:
    if unit == "bytes":
        return f"{value / 1e9:,.2f} GB" if value >= 1e9 else f"{value / 1e6:,.1f} MB"
    if unit == "seconds":
        return f"{value:,.1f} s" if value < 600 else f"{value / 3600:,.2f} h"
    return f"{value:,.0f}"


def _in_words(drew: Draw) -> str:
    share = f", {drew.documents.share:.2%} of their documents" if drew.documents else ""
    size = sum(drew.drawn.values()) / max(drew.total_bytes, 1)
    return f"{len(drew.drawn):,} {drew.of} ({size:.2%} of its bytes{share})"


def _sha256(recipe: str) -> str:
    return hashlib.sha256(recipe.encode()).hexdigest()
