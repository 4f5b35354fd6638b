"""A source: where a kind of text is, in which format, and which columns hold what.

Sources live in manifests/sources/*.yaml; a recipe names them and may change any key.
`fetch/listing.py` says which files a source has, here or far away; this file knows folders.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenmill.errors import RecipeError, SourceError
from tokenmill.pipeline.articles.config import ArticleConfig
from tokenmill.pipeline.code_languages import languages_key
from tokenmill.pipeline.extract.config import ExtractionConfig
from tokenmill.pipeline.fetch.address import is_remote, refuse_secrets, selected, shown, split_glob
from tokenmill.pipeline.fetch.limit import LimitConfig
from tokenmill.pipeline.token_files import TokensConfig

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
    "tokens": ("*.ds", "*.ds.index", "*.ds.metadata", "*.bin", "*.idx", "*.parquet"),
}


SECRET_OPTIONS = (
    "key", "secret", "token", "password", "username", "account_key", "sas_token",
    "connection_string", "aws_access_key_id", "aws_secret_access_key", "aws_session_token",
)  # fmt: skip
"""Names under which fsspec's stores take credentials."""
NO_SECRETS = ("anon", "cloud", "google_default")
"""Values of gcsfs's `token` that only say where to look for one."""


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
    """A file, a folder that is searched with all its subfolders, or a glob; of this machine, or
    hf://datasets/OWNER/NAME[@REVISION][/FOLDER], https://..., s3://..., gs://..."""
    format: Format
    patterns: tuple[str, ...] = ()
    """File names to take from a folder, with * and ?; empty: the format's own."""
    file_list: str = ""
    """A file or an address with one name a line (gz too), relative to path, or an address."""
    limit: LimitConfig | None = None
    """Only the first bytes of it, or a sample of its files."""
    storage_options: dict[str, Any] = field(default_factory=dict)
    """For fsspec: endpoint_url, anon, requester_pays... Credentials come from the environment."""
    columns: Columns = field(default_factory=Columns)
    licence: str = ""
    """The licence of documents that state none themselves."""
    max_document_bytes: int = 1 << 26
    """Longer documents are set aside (64 MiB): a decompression bomb is no text."""
    extraction: ExtractionConfig = field(default_factory=ExtractionConfig)
    """How the pages of a source of WARC files become text."""
    articles: ArticleConfig = field(default_factory=ArticleConfig)
    """What of articles in JATS XML and LaTeX becomes text."""
    tokens: TokensConfig = field(default_factory=TokensConfig)
    """Of a source of tokens; in its parquet files columns.text names the lists of ids."""

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            if not pattern or pattern.startswith("/") or ".." in pattern:
                raise RecipeError(f"patterns: {pattern!r} is no name of a file, with * and ?")
        refuse_secrets("path", self.path)
        refuse_secrets("file_list", self.file_list)
        for key in _secrets(self.storage_options):
            raise RecipeError(
                f"storage_options.{key}: a recipe holds no credentials. Set them in the "
                "environment, for instance AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        if self.max_document_bytes < 1:
            raise RecipeError(f"max_document_bytes must be positive, got {self.max_document_bytes}")

    def reading(self) -> list[Any]:
        """All settings that decide which documents come out of a file's bytes."""
        parts: list[Any] = [self.kind, self.format, self.columns, self.licence]
        parts += [self.max_document_bytes, self.tokens]
        if self.format == "warc":
            parts.append(self.extraction.reading())
        if self.format in ("jats", "latex"):
            parts.append(self.articles.reading(self.format))
        if self.format == "files" and self.kind == "code":
            parts.append(languages_key())
        return parts


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a store says of a file's bytes."""

    kind: Literal["sha256", "md5", "git"]
    """git: the SHA-1 of "blob", the size and the bytes, as the hub has of small files."""
    value: str
    """In hex."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source, as a folder or a store lists it."""

    name: str
    """Relative to the source's path, with forward slashes."""
    address: str
    bytes: int | None
    """None where the store does not say."""
    version: str = ""
    """Another one when the bytes change: an ETag, a date; empty where the checksum says it."""
    checksum: Checksum | None = None

    @property
    def remote(self) -> bool:
        return is_remote(self.address)


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
    """(name, path) of each file of a source in a folder of this machine, sorted by name.

    Raises:
        SourceError: the path does not exist, is remote, or holds no file of that format.
    """
    where = f"sources.{source}.path"
    if is_remote(config.path):
        raise SourceError(
            f"{where}: {shown(config.path)} is remote, and only local files are read here. "
            f"Download it and give its folder, for instance --set {where}=FOLDER."
        )
    path = config.path.removeprefix("file://")
    top, pattern = Path(path), ""
    if not top.exists():
        folder, pattern = split_glob(path)
        top = Path(folder or (path[:1] if path.startswith("/") else "."))
    if top.is_file():
        return [(top.name, top)]
    if not top.is_dir():
        raise SourceError(
            f"{where}: {top}: no such file or folder. Correct the recipe, "
            f"or give the place: --set {where}=FOLDER."
        )
    patterns = config.patterns or PATTERNS[config.format]
    files = {file.relative_to(top).as_posix(): file for file in _walk(top)}
    found = selected(list(files), pattern, patterns)
    if not found:
        raise SourceError(
            f"{where}: {top}: no file named {pattern or ' or '.join(patterns)} in it. "
            "Correct the path, the format or the patterns."
        )
    return sorted((name, files[name]) for name in found)


def refuse_own_outputs(run: Path, listed: Mapping[str, Sequence[SourceFile]]) -> None:
    """Refuse a run inside a source's folder: the next build would read its outputs.

    Raises:
        SourceError: names the source and the file.
    """
    place = run.resolve()
    for source, files in listed.items():
        for file in files:
            if not file.remote and Path(file.address).resolve().is_relative_to(place):
                raise SourceError(
                    f"sources.{source}.path: {file.address} lies inside the run {run}. "
                    "Choose another --out."
                )


def _secrets(options: Mapping[str, Any]) -> Iterator[str]:
    """The keys of storage options, at any depth, that hold credentials."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from (f"{key}.{inner}" for inner in _secrets(value))
        elif key.lower() in SECRET_OPTIONS and value not in NO_SECRETS:
            yield key


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
