"""The plan: which units of work there are, decided from the files alone.

A unit is about 64 MB of text: some row groups of a parquet file, a byte range of plain jsonl or of
the records of a WARC file, a whole file that cannot be entered in the middle (gz, zst), or a run of
small files. Units are named by their files and places, never by a worker, so a new file makes new
units and leaves the old ones alone.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tokenmill.errors import SourceError
from tokenmill.pipeline.code_files import licence_files, nearest_folder
from tokenmill.pipeline.sources import InputFile, SourceConfig, name_hash
from tokenmill.pipeline.token_files import index_of, metadata_of, owner_of
from tokenmill.shards.sources import POSITION_BITS

UNIT_BYTES = 64 << 20
"""Text in a unit: seconds to minutes of work, and small enough to do again."""
TEXT_SHARES = {
    ("warc", True): 1 / 4,
    ("warc", False): 1 / 16,
    ("wet", True): 8 / 3,
    ("wet", False): 1.0,
}
"""About how many bytes of text a byte of file gives, compressed or not. A gigabyte of Common
Crawl's gzip WARC has 47 million tokens of main text (240T in 5.1M files: DCLM, arXiv:2406.11794);
text alone shrinks to three eighths."""
MANY_FILES_BOUNDARY = 32
"""A run of small files also ends after one name in so many, chosen by the name's hash, so that an
added file moves the bounds of its own unit and hardly ever those of the next."""


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A file of a unit, or the piece of it that the unit reads."""

    file: InputFile
    first_id: int
    """The doc_id of its first document: 40 bits of a hash, then 24 bits of position. A small file
    is one document and has all 64 bits of its hash."""
    start: int = 0
    """The first row group, or the first byte."""
    stop: int = -1
    """One past the last row group or byte; -1: to the end."""

    @property
    def is_beside(self) -> bool:
        """Whether it is read beside the unit's documents and is none here: an empty range."""
        return self.stop == 0

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def path(self) -> str:
        return self.file.path


@dataclass(frozen=True, slots=True)
class Unit:
    """What one mill task does."""

    name: str
    """<source>/<file>-<place>; also the name of its outputs."""
    source: str
    files: tuple[UnitFile, ...]
    generation: int = 0
    """Of its files; see generations.py."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that the plan could not open."""

    source: str
    file: str
    error: str


class _NoUse(Exception):
    """A sound file that cannot be read as the recipe says."""


def plan_units(
    source: str,
    config: SourceConfig,
    files: Sequence[InputFile],
    earlier: Sequence[InputFile] = (),
) -> tuple[list[Unit], list[Unreadable]]:
    """The units of a source in their order, and the files that cannot be opened.

    Args:
        earlier: files that have units of their own, and may be read beside these.
    """
    if config.format == "files":
        units = list(_units_of_small_files(source, files))
        return _with_licences(units, [*earlier, *files]) if config.kind == "code" else units, []
    if config.format in ("jats", "latex"):
        return list(_units_of_articles(source, files)), []
    units = []
    unreadable: list[Unreadable] = []
    beside = {file.name: file for file in (*earlier, *files)}
    for file in files:
        try:
            if config.format == "parquet" or _is_token_table(config, file.name):
                units += _units_of_parquet(source, config, file)
            elif config.format == "tokens":
                units += _units_of_tokens(source, file, beside)
            elif config.format in ("warc", "wet"):
                units += _units_of_records(source, config, file)
            else:
                units += _units_of_lines(source, file)
        except (pa.ArrowException, OSError) as error:
            unreadable.append(Unreadable(source, file.name, f"no {config.format} file: {error}"))
        except _NoUse as error:
            unreadable.append(Unreadable(source, file.name, str(error)))
    return units, unreadable


def check_columns(
    source: str, config: SourceConfig, files: Iterable[tuple[str, Path | BinaryIO]]
) -> None:
    """Refuse columns that no file has; reads footers until all are found, mostly the first.

    Raises:
        SourceError: names those columns and the ones that there are.
    """
    if config.format != "parquet":
        return
    missing = set(config.columns.named())
    found: set[str] = set()
    for _, path in files:
        with contextlib.suppress(pa.ArrowException, OSError):
            found.update(pq.read_schema(path).names)
        if missing <= found:
            return
    if found:
        names = ", ".join(sorted(missing - found))
        raise SourceError(
            f"sources.{source}.columns: {names}: no file has such a column. "
            f"They have {', '.join(sorted(found))}."
        )


def check_ids(units: Sequence[Unit]) -> None:
    """Refuse two files, or two ranges of one, with one id: their documents could not be told apart.

    Raises:
        SourceError: names both files.
    """
    seen: dict[int, tuple[str, str, int]] = {}
    for unit in units:
        for piece in unit.files:
            # Row groups of one parquet file share its id; their positions differ.
            start = 0 if piece.name.endswith(".parquet") else piece.start
            place = (unit.source, piece.name, start)
            other = seen.setdefault(piece.first_id, place)
            if other != place:
                raise SourceError(
                    f"{other[0]}/{other[1]} and {place[0]}/{place[1]}: both names hash to id "
                    f"{piece.first_id}. Rename one of the files."
                )


def is_archive(name: str) -> bool:
    """Whether a file of articles may hold many."""
    return name.lower().endswith((".tar", ".tgz", ".gz"))


def _units_of_lines(source: str, file: InputFile) -> Iterator[Unit]:
    if file.name.endswith((".gz", ".zst")):
        yield _unit(source, file, 0, -1, counts_from_start=False)
    else:
        for start in range(0, file.bytes, UNIT_BYTES):
            stop = min(start + UNIT_BYTES, file.bytes)
            # A range does not know how many lines come before it: it counts its own.
            yield _unit(source, file, start, stop, counts_from_start=start > 0)


def _units_of_records(source: str, config: SourceConfig, file: InputFile) -> Iterator[Unit]:
    """Ranges of a WARC or WET file, compressed ones too: gzip has a member for each record."""
    share = TEXT_SHARES[config.format, file.name.endswith(".gz")]
    step = max(1, int(UNIT_BYTES / share))
    for start in range(0, file.bytes, step):
        stop = min(start + step, file.bytes)
        yield _unit(source, file, start, stop, counts_from_start=start > 0)


def _units_of_articles(source: str, files: Sequence[InputFile]) -> Iterator[Unit]:
    """An archive is one unit, because it is read as a stream; other files are one document each."""
    yield from _units_of_small_files(source, [f for f in files if not is_archive(f.name)])
    for file in files:
        if is_archive(file.name):
            yield _unit(source, file, 0, -1, counts_from_start=False)


def _is_token_table(config: SourceConfig, name: str) -> bool:
    return config.format == "tokens" and name.endswith(".parquet")


def _units_of_tokens(
    source: str, file: InputFile, beside: Mapping[str, InputFile]
) -> Iterator[Unit]:
    """Ranges of a file of ids, each with the files that say where documents stand."""
    owner, index = owner_of(file.name), index_of(file.name)
    for name in (owner, index):
        if name and name not in beside:
            raise _NoUse(f"{name} belongs to it and is not there. Give the folder that holds both.")
    if owner:
        return
    if not index:
        raise _NoUse("no file of tokens: they end with .ds, .bin or .parquet")
    pieces = tuple(
        UnitFile(beside[name], name_hash(source, name) >> POSITION_BITS << POSITION_BITS, 0, 0)
        for name in (index, metadata_of(file.name))
        if name in beside
    )
    for unit in _units_of_lines(source, file):
        yield replace(unit, files=(*unit.files, *pieces))


def _units_of_parquet(source: str, config: SourceConfig, file: InputFile) -> Iterator[Unit]:
    with pq.ParquetFile(file.path) as parquet:
        footer, names = parquet.metadata, parquet.schema_arrow.names
    if config.columns.text not in names:
        raise _NoUse(f"no column {config.columns.text}; it has {', '.join(names)}")
    if footer.num_rows > 1 << POSITION_BITS:
        raise _NoUse(f"{footer.num_rows:,} rows, more than {1 << POSITION_BITS:,}; cut it")
    sizes = [footer.row_group(group).total_byte_size for group in range(footer.num_row_groups)]
    start = total = 0
    for group, size in enumerate(sizes):
        if total and total + size > UNIT_BYTES:
            yield _unit(source, file, start, group, counts_from_start=False)
            start, total = group, 0
        total += size
    if start < len(sizes) and footer.num_rows:
        yield _unit(source, file, start, len(sizes), counts_from_start=False)


def _unit(source: str, file: InputFile, start: int, stop: int, *, counts_from_start: bool) -> Unit:
    whole = name_hash(source, file.name) >> POSITION_BITS
    own = name_hash(source, file.name, str(start)) >> POSITION_BITS if counts_from_start else whole
    piece = UnitFile(file, own << POSITION_BITS, start, stop)
    return Unit(f"{source}/{_stem(file.name)}-{whole:010x}-{start}", source, (piece,))


def _units_of_small_files(source: str, files: Sequence[InputFile]) -> Iterator[Unit]:
    run: list[UnitFile] = []
    total = 0
    for file in files:
        run.append(UnitFile(file, name_hash(source, file.name)))
        total += file.bytes
        by_hash = run[-1].first_id % MANY_FILES_BOUNDARY == 0
        if total >= UNIT_BYTES or (by_hash and total >= UNIT_BYTES // 4):
            yield _unit_of_run(source, run)
            run, total = [], 0
    if run:
        yield _unit_of_run(source, run)


def _with_licences(units: Sequence[Unit], files: Sequence[InputFile]) -> list[Unit]:
    """The units of source files, each with the licence files that its documents fall under."""
    folders = licence_files(files)
    whole = []
    for unit in units:
        near = {nearest_folder(piece.name, folders) for piece in unit.files}
        pieces = tuple(
            UnitFile(file, name_hash(unit.source, file.name), stop=0)
            for folder in sorted(folder for folder in near if folder is not None)
            for file in folders[folder]
        )
        whole.append(replace(unit, files=(*unit.files, *pieces)))
    return whole


def _unit_of_run(source: str, run: list[UnitFile]) -> Unit:
    first = run[0]
    identity = first.first_id >> POSITION_BITS
    return Unit(f"{source}/{_stem(first.name)}-{identity:010x}-files", source, tuple(run))


def _stem(name: str) -> str:
    """A file's name as it may stand in an output's: short, without folders and odd characters."""
    base = name.rsplit("/", 1)[-1].split(".")[0]
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in base)[:40]
