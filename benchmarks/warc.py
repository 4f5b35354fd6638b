"""Reading WARC files and extracting their pages, beside FastWARC and resiliparse by themselves.

    python benchmarks/warc.py --data FOLDER --json warc.json

FOLDER holds *.warc.gz files; they are put into one, as large as a unit is at least. `read` is
every record looked at and the blocks of all responses read, without HTTP decoding; FastWARC alone
does the same with its own iterator. `extract` is from a file to texts: alone, one process takes
FastWARC's records, lets it decode HTTP, and gives each page to resiliparse with the charset that it
detects; ours is the reader of the mill with its child process, its charsets and its arrays. Seconds
are of processor time, the child's included, the least of --rounds; wall seconds are of that round.
"""

import argparse
import gc
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from tokenmill.pipeline.documents import Documents
from tokenmill.pipeline.extract.config import ExtractionConfig
from tokenmill.pipeline.extract.response import HTML_TYPES
from tokenmill.pipeline.plan import plan_units
from tokenmill.pipeline.read import read_unit
from tokenmill.pipeline.sources import InputFile, SourceConfig
from tokenmill.pipeline.warc_records import Record, read_records
from tokenmill.shards.table import table

MAX_BYTES = 1 << 26


class Spent(NamedTuple):
    """What some work took."""

    seconds: float
    wall: float
    count: int
    """Of records or pages."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of *.warc.gz files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "all.warc.gz"
        with file.open("wb") as out:
            for path in sorted(arguments.data.glob("*.warc.gz")):
                out.write(path.read_bytes())
        figures = compare(file, arguments.rounds)
    header = ("what", "who", "records", "seconds", "wall", "MB/s of gz", "of the rate alone")
    print(table(header, [(f["what"], f["who"], f"{f['count']:,}", f"{f['seconds']:.3f}",
                          f"{f['wall_seconds']:.3f}", f"{f['mb_per_second']:.1f}",
                          f"{f['of_the_rate_alone']:.2f}") for f in figures]))  # fmt: skip
    if arguments.json:
        about = {"date": str(date.today()), "cores": os.cpu_count(),
                 "python": platform.python_version()}  # fmt: skip
        arguments.json.write_text(json.dumps({**about, "figures": figures}, indent=1))


def compare(file: Path, rounds: int) -> list[dict[str, Any]]:
    """Every piece of work with what it took, those beside each other in turn."""
    megabytes = file.stat().st_size / 1e6
    work: dict[tuple[str, str], Callable[[], int]] = {
        ("read", "FastWARC alone"): lambda: read_alone(file),
        ("read", "ours"): lambda: read_ours(file),
        ("extract", "resiliparse alone"): lambda: extract_alone(file),
        ("extract", "ours"): lambda: extract_ours(file),
    }
    spent: dict[tuple[str, str], Spent] = {}
    for _ in range(rounds):  # in turn, so that a busy minute strikes all
        for name, function in work.items():
            spent[name] = min(spent.get(name, Spent(1e9, 0, 0)), measure(function))
    figures = []
    for (what, who), took in spent.items():
        alone = next(value for name, value in spent.items() if name[0] == what)
        figures.append({
            "what": what, "who": who, "count": took.count, "seconds": took.seconds,
            "wall_seconds": took.wall, "mb_per_second": megabytes / took.seconds,
            "of_the_rate_alone": alone.seconds / took.seconds,
        })  # fmt: skip
    return figures


def measure(work: Callable[[], int]) -> Spent:
    gc.collect()
    before, began = processor_seconds(), time.perf_counter()
    count = work()
    return Spent(processor_seconds() - before, time.perf_counter() - began, count)


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def read_alone(file: Path) -> int:
    count = 0
    with file.open("rb") as stream:
        for record in ArchiveIterator(stream, parse_http=False):
            count += 1
            if record.record_type == WarcRecordType.response:
                record.reader.read()
    return count


def read_ours(file: Path) -> int:
    size = file.stat().st_size
    with file.open("rb") as stream:
        found = read_records(stream, size, 0, size, WarcRecordType.response, MAX_BYTES)
        return sum(isinstance(record, Record) for record in found)


def extract_alone(file: Path) -> int:
    texts = []
    with file.open("rb") as stream:
        responses = WarcRecordType.response
        for record in ArchiveIterator(stream, record_types=responses, parse_http=False):
            record.freeze()  # FastWARC 2.0.1 decodes gzip bodies past their record without it
            record.parse_http(auto_decode="all")
            if record.http_headers.status_code != 200:
                continue
            if record.http_content_type not in HTML_TYPES:
                continue
            body = record.reader.read()
            if body:
                html = bytes_to_str(body, detect_encoding(body) or "utf-8")
                texts.append(extract_plain_text(html, main_content=True))
    return len(texts)


def extract_ours(file: Path) -> int:
    config = SourceConfig(kind="web", path="", format="warc", extraction=ExtractionConfig())
    units, unreadable = plan_units(
        "web", config, [InputFile(file.name, str(file), file.stat().st_size, "")]
    )
    assert not unreadable
    items = (item for unit in units for item in read_unit(unit, config))
    return sum(len(item.texts) for item in items if isinstance(item, Documents))


if __name__ == "__main__":
    main()
