"""The plan: which units of work there are, decided from the files alone.

A unit is about 64 MB of text: some row groups of a parquet file, a byte range of plain jsonl, a
whole file that cannot be entered in the middle (gz, zst), or a run of small files. Units are
named by their files and places, never by a worker, so a new file makes new units and leaves the
old ones alone.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from tokenmill.errors import SourceError
from tokenmill.pipeline.sources import InputFile, SourceConfig, file_id

UNIT_BYTES = 64 << 20
"""Text in a unit: seconds to minutes of work, and small enough to do again."""
MANY_FILES_BOUNDARY = 32
"""A run of small files also ends after one name in so many, chosen by the name's hash, so that an
added file moves the bounds of its own unit and hardly ever those of the next."""


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A file of a unit, or the piece of it that the unit reads."""

    name: str
    path: str
    sha256: str
    file_id: int
    """The upper 40 bits of its documents' ids."""
    start: int = 0
    """The first row group, or the first byte."""
    stop: int = -1
    """One past the last row group or byte; -1: to the end."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What one mill task does."""

    name: str
    """<source>/<file>-<place>; also the name of its outputs."""
    source: str
    files: tuple[UnitFile, ...]
    bytes: int
    """About how much it reads; for progress and for the order of work."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that the plan could not open."""

    source: str
    file: str
    error: str


def plan_units(
    source: str, config: SourceConfig, files: Sequence[InputFile]
) -> tuple[list[Unit], list[Unreadable]]:
    """The units of a source in their order, and the files that cannot be opened."""
    if config.format == "files":
        return list(_units_of_small_files(source, files)), []
    units: list[Unit] = []
    unreadable: list[Unreadable] = []
    for file in files:
        try:
            units += _units_of_file(source, config, file)
        except (pa.ArrowException, OSError, ValueError) as error:
            unreadable.append(Unreadable(source, file.name, f"no {config.format} file: {error}"))
    return units, unreadable


def check_file_ids(units: Sequence[Unit]) -> None:
    """Refuse two files with one id: their documents could not be told apart.

    Raises:
        SourceError: names both files.
    """
    seen: dict[int, tuple[str, str]] = {}
    for unit in units:
        for file in unit.files:
            place = (unit.source, file.name)
            other = seen.setdefault(file.file_id, place)
            if other != place:
                raise SourceError(
                    f"{other[0]}/{other[1]} and {place[0]}/{place[1]}: both names hash to file id "
                    f"{file.file_id:010x}. Rename one of the files."
                )


def _units_of_file(source: str, config: SourceConfig, file: InputFile) -> Iterator[Unit]:
    if config.format == "parquet":
        yield from _units_of_parquet(source, config, file)
    elif file.name.endswith((".gz", ".zst")):
        yield _unit(source, file, "", 0, -1, file.bytes)
    else:
        for start in range(0, file.bytes, UNIT_BYTES):
            stop = min(start + UNIT_BYTES, file.bytes)
            # A range does not know how many lines come before it: it counts its own.
            yield _unit(source, file, str(start) if start else "", start, stop, stop - start)


def _units_of_parquet(source: str, config: SourceConfig, file: InputFile) -> Iterator[Unit]:
    with pq.ParquetFile(file.path) as parquet:
        footer = parquet.metadata
    if config.columns.text not in footer.schema.to_arrow_schema().names:
        raise ValueError(
            f"no column {config.columns.text}; "
            f"it has {', '.join(footer.schema.to_arrow_schema().names)}"
        )
    sizes = [footer.row_group(group).total_byte_size for group in range(footer.num_row_groups)]
    start = total = 0
    for group, size in enumerate(sizes):
        if total and total + size > UNIT_BYTES:
            yield _unit(source, file, "", start, group, total)
            start, total = group, 0
        total += size
    if total:
        yield _unit(source, file, "", start, len(sizes), total)


def _unit(
    source: str, file: InputFile, segment: str, start: int, stop: int, num_bytes: int
) -> Unit:
    identity = file_id(source, file.name, segment)
    piece = UnitFile(file.name, file.path, file.sha256, identity, start, stop)
    base_id = file_id(source, file.name)
    return Unit(f"{source}/{_stem(file.name)}-{base_id:010x}-{start}", source, (piece,), num_bytes)


def _units_of_small_files(source: str, files: Sequence[InputFile]) -> Iterator[Unit]:
    run: list[UnitFile] = []
    total = 0
    for file in files:
        run.append(UnitFile(file.name, file.path, file.sha256, file_id(source, file.name)))
        total += file.bytes
        boundary = hashlib.blake2b(file.name.encode(), digest_size=4).digest()
        by_hash = int.from_bytes(boundary, "big") % MANY_FILES_BOUNDARY == 0
        if total >= UNIT_BYTES or (by_hash and total >= UNIT_BYTES // 4):
            yield _unit_of_run(source, run, total)
            run, total = [], 0
    if run:
        yield _unit_of_run(source, run, total)


def _unit_of_run(source: str, run: list[UnitFile], total: int) -> Unit:
    return Unit(
        f"{source}/{_stem(run[0].name)}-{run[0].file_id:010x}-files", source, tuple(run), total
    )


def _stem(name: str) -> str:
    """A file's name as it may stand in an output's name: short, without folders and odd
    characters."""
    base = name.rsplit("/", 1)[-1].split(".")[0]
    return "".join(char if char.isalnum() or char in "-_" else "_" for char in base)[:40] or "file"
