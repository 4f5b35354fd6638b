"""A source: where a kind of text is, in which format, and which columns hold what.

Sources live in manifests/sources/*.yaml; a recipe names them and may change any key.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tokenmill.errors import RecipeError, SourceError

Kind = Literal["web", "code", "science"]
Format = Literal["parquet", "jsonl", "files"]

PATTERNS: dict[Format, tuple[str, ...]] = {
    "parquet": ("*.parquet",),
    "jsonl": ("*.jsonl", "*.jsonl.gz", "*.jsonl.zst", "*.json.gz", "*.json.zst"),
    "files": ("*",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Which columns (or JSON keys) hold what; only text must exist."""

    text: str = "text"
    id: str | None = None
    """The source's own name for a document; free text."""
    url: str | None = None
    licence: str | None = None


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
        if self.max_document_bytes < 1:
            raise RecipeError(f"max_document_bytes must be positive, got {self.max_document_bytes}")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of a source, as the run found it."""

    name: str
    """Relative to the source's path, with forward slashes."""
    path: str
    bytes: int
    sha256: str


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
    found = {path for pattern in patterns for path in top.rglob(pattern) if path.is_file()}
    if not found:
        raise SourceError(
            f"sources.{source}.path: {top}: no file named {' or '.join(patterns)} in it. "
            "Correct the path, the format or the patterns."
        )
    return sorted((path.relative_to(top).as_posix(), path) for path in found)


def file_id(source: str, name: str, segment: str = "") -> int:
    """40 bits that name a file (or a segment of it that counts its own positions)."""
    text = "\0".join([source, name, segment]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=5).digest(), "big")
