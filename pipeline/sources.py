"""A source: where a kind of text is, in which format, and which columns hold what.

Sources live in manifests/sources/*.yaml; a recipe names them and may change any key.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenmill.errors import RecipeError, SourceError

Kind = Literal["web", "code", "science"]
Format = Literal["parquet", "jsonl", "files", "warc", "wet", "jats", "latex", "tokens"]

PATTERNS: dict[Format, tuple[str, ...]] = {
    "parquet": ("*.parquet",),
    "jsonl": ("*.jsonl", "*.jsonl.gz", "*.jsonl.zst", "*.json.gz", "*.json.zst"),
    "files": ("*",),
    "warc": ("*.warc", "*.warc.gz"),
    "wet": ("*.wet", "*.wet.gz"),
    "jats": ("*.xml", "*.nxml", "*.tar", "*.tar.gz", "*.tgz"),
    "latex": ("*.tex", "*.tar", "*.tar.gz", "*.tgz"),
    "tokens": ("*.ds", "*.bin", "*.parquet"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Which columns (or JSON keys) hold what; only text must exist."""

    text: str = "text"
    id: str | None = None
    """The source's own name for a document; free text."""
    url: str | None = None
    licence: str | None = None
    dump: str | None = None
    """The crawl or release that a document is from; duplicates may be looked for within one."""
    language: str | None = None
    """The human or programming language."""

    def named(self) -> list[str]:
        """The columns that are asked for, text first."""
        rest = (self.id, self.url, self.licence, self.dump, self.language)
        return [self.text, *(name for name in rest if name is not None)]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """One source of a recipe."""

    kind: Kind
    path: str
    """A file, or a folder that is searched with all its subfolders."""
    format: Format
    patterns: tuple[str, ...] = ()
    """File names to take from a folder, with * and ?; empty: the format's own."""
    columns: Columns = field(default_factory=Columns)
    licence: str = ""
    """The licence of documents that state none themselves."""
    max_document_bytes: int = 1 << 26
    """Longer documents are set aside (64 MiB): a decompression bomb is no text."""

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            if not pattern or pattern.startswith("/") or ".." in pattern:
                raise RecipeError(f"patterns: {pattern!r} is no name of a file, with * and ?")
        if self.max_document_bytes < 1:
            raise RecipeError(f"max_document_bytes must be positive, got {self.max_document_bytes}")

    def reading(self) -> list[Any]:
        """All settings that decide which documents come out of a file's bytes."""
        return [self.kind, self.format, self.columns, self.licence, self.max_document_bytes]


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of a source, as the run found it."""

    name: str
    """Relative to the source's path, with forward slashes."""
    path: str
    bytes: int
    sha256: str
    modified: int = 0
    """Nanoseconds."""


def list_files(source: str, config: SourceConfig) -> list[tuple[str, Path]]:
    """(name, path) of each file of a source, sorted by name.

    Raises:
        SourceError: the path does not exist, is remote, or holds no file of that format.
    """
    if "://" in config.path:
        raise SourceError(
            f"sources.{source}.path: {config.path} is remote; this version reads local files. "
            f"Download it and give its folder, for instance --set sources.{source}.path=FOLDER."
        )
    top = Path(config.path)
    if top.is_file():
        return [(top.name, top)]
    if not top.is_dir():
        raise SourceError(
            f"sources.{source}.path: {top}: no such file or folder. Correct the recipe, "
            f"or give the place: --set sources.{source}.path=FOLDER."
        )
    patterns = config.patterns or PATTERNS[config.format]
    found = [path for path in _walk(top) if any(path.match(pattern) for pattern in patterns)]
    if not found:
        raise SourceError(
            f"sources.{source}.path: {top}: no file named {' or '.join(patterns)} in it. "
            "Correct the path, the format or the patterns."
        )
    return sorted((path.relative_to(top).as_posix(), path) for path in found)


def refuse_own_outputs(run: Path, listed: Mapping[str, Sequence[tuple[str, Path]]]) -> None:
    """Refuse a run inside a source's folder: the next build would read its outputs.

    Raises:
        SourceError: names the source and the file.
    """
    place = run.resolve()
    for source, files in listed.items():
        for _, path in files:
            if path.resolve().is_relative_to(place):
                raise SourceError(
                    f"sources.{source}.path: {path} lies inside the run {run}. "
                    "Choose another --out."
                )


def _walk(top: Path) -> Iterator[Path]:
    """All files below a folder, through links to folders too, none entered twice."""
    entered: set[str] = set()
    for folder, subfolders, files in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:
            subfolders.clear()
            continue
        entered.add(real)
        for path in (Path(folder) / name for name in files):
            if path.is_file():  # no pipe, no socket
                yield path
            elif path.is_symlink() and not path.exists():
                raise SourceError(f"{path}: the link leads nowhere. Mend it, or take it away.")


def printable(name: str) -> str:
    """A file's name as UTF-8, with ? for what is not."""
    return name.encode(errors="replace").decode()


def name_hash(source: str, name: str, range_start: str = "") -> int:
    """64 bits that name a file, or a byte range of it that counts its own positions."""
    text = "\0".join([source, name, range_start]).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
