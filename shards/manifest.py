"""The manifest of a folder of shards: what they are, what made them, and one hash over all of them.

RUN/shards/<pack>/manifest.json
RUN/shards/<pack>/<bucket>/00000-000.arrow             rows to train on
RUN/shards/<pack>/held-out/<bucket>/00000-000.arrow    rows that no training step reads
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenmill.errors import FormatError, RecipeError
from tokenmill.shards.files import read_json, write_json
from tokenmill.shards.settings import read_settings, to_mapping

FORMAT_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """One shard, as its manifest describes it."""

    path: str
    """Relative to the pack's folder."""
    bucket: str
    held_out: bool
    rows: int
    real_tokens: int
    """Tokens that are not padding."""
    sequences: int
    max_pieces: int
    """The most pieces in one of its rows."""
    generation: int
    """0 for the first build; a corpus that grows adds shards of later generations."""
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A folder of shards with one row shape: all the rows that phases of one max_length read."""

    format_version: int
    pack: str
    row_tokens: int
    max_length: int
    """The longest sequence, special tokens counted."""
    overlong: str
    """What became of longer documents: split, truncate or drop."""
    dtype: Literal["uint16", "uint32"]
    bucket_edges: tuple[int, ...]
    tokenizer_sha256: str
    keys: tuple[str, ...]
    """The keys of the receipts that made the shards."""
    tokens_cut: int
    """Tokens of kept documents that the policy left out."""
    shards: tuple[ShardInfo, ...]
    root: str
    """One SHA-256 over the paths and checksums of all shards."""

    def of_bucket(self, bucket: str, *, held_out: bool = False) -> tuple[ShardInfo, ...]:
        """The shards of a bucket, in the order in which their rows are numbered."""
        chosen = (shard for shard in self.shards if shard.bucket == bucket)
        return tuple(shard for shard in chosen if shard.held_out == held_out)


def root_hash(outputs: Iterable[tuple[str, str]]) -> str:
    """One hash over (path, SHA-256) pairs, whatever order they come in."""
    lines = sorted(f"{sha256}  {path}\n" for path, sha256 in outputs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_json(folder / "manifest.json", to_mapping(manifest))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a pack's folder.

    Raises:
        FormatError: it is missing, damaged, or of another version.
    """
    path = folder / "manifest.json"
    mapping = read_json(path)
    check_version(path, mapping)
    try:
        manifest = read_settings(Manifest, mapping, str(path))
    except RecipeError as error:
        raise FormatError(f"{error} Build the run again.") from None
    if manifest.root != root_hash((shard.path, shard.sha256) for shard in manifest.shards):
        raise FormatError(f"{path}: the root hash is not that of its shards. Build the run again.")
    return manifest


def check_version(path: Path, mapping: object) -> None:
    """Refuse a file of ours that another version of the format wrote."""
    found = mapping.get("format_version") if isinstance(mapping, dict) else None
    if found != FORMAT_VERSION:
        raise FormatError(
            f"{path}: expected format version {FORMAT_VERSION}, found {found}. "
            "Build the run again, or install the version of tokenmill that wrote it."
        )
