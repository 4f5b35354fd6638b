"""The manifest of a folder of shards: what they are, what made them, and one hash over all of them.

RUN/shards/<pack>/manifest.json
RUN/shards/<pack>/<bucket>/00000-000.arrow             rows to train on
RUN/shards/<pack>/held-out/<bucket>/00000-000.arrow    rows that no training step reads

In the file each field of the shards is one list: 250,000 shards, 64 TB of tokens, are read in 2 s.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np

from tokenmill.errors import FormatError, RecipeError
from tokenmill.shards.files import read_json, write_json
from tokenmill.shards.settings import read_settings
from tokenmill.shards.shard_list import ShardList

FORMAT_VERSION = 2


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
    sequences: str = "documents"
    """What its sequences are made of, as the recipe's packing says: documents, pairs, ..."""
    dtype: Literal["uint16", "uint32"]
    bucket_edges: tuple[int, ...]
    tokenizer_sha256: str
    keys: tuple[str, ...]
    """The keys of the receipts that made the shards."""
    tokens_cut: int
    """Tokens of kept documents that the policy left out."""
    tokens_cut_of: dict[str, int] = field(default_factory=dict)
    """The same by bucket, without those of held-out documents."""
    tokens_over_budget: int = 0
    """Tokens of kept documents for which the phase's token budget had no room."""
    shards: ShardList
    """Generation by generation."""
    root: str
    """One SHA-256 over the paths and checksums of all shards."""

    def of_bucket(self, bucket: str, *, held_out: bool = False) -> ShardList:
        """The shards of a bucket, in the order in which their rows are numbered."""
        shards = self.shards
        chosen = (shards.column("bucket") == bucket) & (shards.column("held_out") == held_out)
        return shards.where(chosen)

    def up_to(self, generation: int) -> "Manifest":
        """The manifest as it was when the corpus had grown to this generation."""
        known = int(np.searchsorted(self.shards.column("generation"), generation, side="right"))
        if known == len(self.shards):
            return self
        shards = self.shards[:known]
        return replace(self, shards=shards, root=root_of(shards))


def root_of(shards: ShardList) -> str:
    """The root hash of some shards."""
    return root_hash(zip(shards.column("path"), shards.column("sha256"), strict=True))


def root_hash(outputs: Iterable[tuple[str, str]]) -> str:
    """One hash over (path, SHA-256) pairs, whatever order they come in."""
    lines = sorted(f"{sha256}  {path}\n" for path, sha256 in outputs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    mapping = {field.name: getattr(manifest, field.name) for field in fields(manifest)}
    write_json(folder / "manifest.json", {**mapping, "shards": manifest.shards.to_lists()})


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a pack's folder.

    Raises:
        FormatError: it is missing, damaged, or of another version.
    """
    path = folder / "manifest.json"
    mapping = read_json(path)
    check_version(path, mapping)
    try:
        shards = ShardList.from_lists(mapping.pop("shards", None), f"{path}: shards")
        shards = shards.where(np.argsort(shards.column("generation"), kind="stable"))
        manifest = read_settings(Manifest, {**mapping, "shards": shards}, str(path))
    except RecipeError as error:
        raise FormatError(f"{error} Build the run again.") from None
    if manifest.root != root_of(shards):
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
