"""The sample that `build --sample 0.1%` mills: which units, and which documents of theirs.

    units of a source, in the order of a seeded hash    u7 u2 u9 u4 u1 ...
    drawn                                               the first 32 of them, or the share if more
    documents of a drawn unit                           by a seeded hash, what the share still asks

Units are read whole, so at least 32 of each source are drawn (or all) to see how they differ, and
where that is more than the share, documents are left out inside them. Of a source that is not on
this machine whole files are drawn in their place, at least 8, because what is not drawn need not be
fetched. Everything is decided by hashes of names and doc_ids: a larger sample holds every
document of a smaller one. The price is the reading of 2 GB of text a source, or of 8 files,
however small the share.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.pipeline.documents import Documents
from tokenmill.pipeline.plan import Unit, plan_units
from tokenmill.pipeline.sources import InputFile, SourceConfig, SourceFile
from tokenmill.pipeline.token_files import owner_of
from tokenmill.shards.arrays import as_numpy

MIN_UNITS = 32
"""Drawn of each source: fewer would not show how units differ."""
MIN_FILES = 8
"""Drawn where they have to be fetched: some hundred MB each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What is asked for: a share of the corpus."""

    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise RecipeError(
                f"--sample {self.share:.6%}: expected more than 0 % and less than 100 %. "
                "Build without --sample for the whole corpus."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentSample:
    """Which documents of a drawn unit are milled."""

    share: float
    seed: int


@dataclass(frozen=True, slots=True)
class Draw:
    """What was drawn of one source."""

    of: Literal["units", "files"]
    """What was drawn from."""
    total_bytes: int
    """Of all units or files, as stored; their number where a store does not say how long they
    are."""
    drawn: dict[str, int]
    """The same of each unit or file that was drawn, by its name."""
    files: tuple[SourceFile, ...]
    """That hold them."""
    documents: DocumentSample | None
    """Which of their documents; None: all."""

    def has(self, unit: Unit) -> bool:
        """Whether a unit belongs to the sample."""
        return self.cluster(unit) in self.drawn

    def cluster(self, unit: Unit) -> str:
        """The unit or file by which a unit came into the sample."""
        return unit.name if self.of == "units" else _together(unit.files[0].name)


def parse_share(text: str) -> float:
    """A share as people write it: 0.1%, 10 %, 0.001.

    Raises:
        RecipeError: it is no number, or no share.
    """
    number, percent, rest = text.partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = math.nan
    if rest.strip() or not 0 < share < 1:
        raise RecipeError(
            f"--sample {text}: expected a share above 0 and below all, as 0.1% or 0.001. "
            "Build without --sample for the whole corpus."
        )
    return share


def draw(source: str, config: SourceConfig, files: Sequence[SourceFile], sample: Sample) -> Draw:
    """Draw from a source, by its listing and by what the plan makes of files at hand."""
    if any(file.remote for file in files):
        return _draw_files(files, sample)
    at_hand = [InputFile(file.name, file.address, file.bytes or 0, "") for file in files]
    units, _ = plan_units(source, config, at_hand)
    sizes = unit_bytes(units)
    drawn, documents = draw_names(sizes, MIN_UNITS, sample)
    names = {piece.name for unit in units if unit.name in drawn for piece in unit.files}
    chosen = tuple(file for file in files if file.name in names)
    return Draw("units", sum(sizes.values()), drawn, chosen, documents)


def _draw_files(files: Sequence[SourceFile], sample: Sample) -> Draw:
    known = all(file.bytes is not None for file in files)
    sizes: dict[str, int] = {}
    for file in files:
        name = _together(file.name)
        size = (file.bytes or 0) if known else 1
        sizes[name] = sizes.get(name, 0) + size
    drawn, documents = draw_names(sizes, MIN_FILES, sample)
    chosen = tuple(file for file in files if _together(file.name) in drawn)
    return Draw("files", sum(sizes.values()), drawn, chosen, documents)


def draw_names(
    sizes: Mapping[str, int], least: int, sample: Sample
) -> tuple[dict[str, int], DocumentSample | None]:
    """Names and sizes of what is drawn, and which of its documents."""
    wanted = round(sample.share * len(sizes), 9)  # 0.07 * 100 is 7.000000000000001
    in_order = sorted(sizes, key=lambda name: _hash(sample.seed, name))
    drawn = {name: sizes[name] for name in in_order[: max(least, math.ceil(wanted))]}
    share = 1.0
    if wanted < least and drawn:
        share = min(1.0, sample.share * sum(sizes.values()) / max(sum(drawn.values()), 1))
    return drawn, DocumentSample(share=share, seed=sample.seed) if share < 1 else None


def _together(name: str) -> str:
    """The file with which a file is drawn: an index is nothing without its tokens."""
    return owner_of(name) or name


def unit_bytes(units: Sequence[Unit]) -> dict[str, int]:
    """The bytes on disk of each unit: of the piece of a file that it reads, or of whole files."""
    last: dict[str, int] = {}
    for unit in units:
        for piece in unit.files:
            last[piece.path] = max(last.get(piece.path, 0), piece.stop)
    return {
        unit.name: sum(
            # Row groups of one file are about equally long.
            piece.file.bytes
            if piece.stop < 0
            else piece.file.bytes * (piece.stop - piece.start) // max(last[piece.path], 1)
            for piece in unit.files
        )
        for unit in units
    }


def is_drawn(doc_ids: NDArray[np.uint64], sample: DocumentSample) -> NDArray[np.bool_]:
    """(documents,) which belong to the sample: by a hash of their ids."""
    x = doc_ids ^ np.uint64(_hash(sample.seed, "documents"))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)  # the end of splitmix64
    x ^= x >> np.uint64(31)
    return x < np.uint64(min(int(sample.share * 2**64), 2**64 - 1))


def take(documents: Documents, chosen: NDArray[np.bool_]) -> Documents:
    """Some of the documents of a batch."""
    mask = pa.array(chosen)
    return Documents(
        *(
            value[chosen] if isinstance(value, np.ndarray) else value.filter(mask)
            for value in (getattr(documents, field.name) for field in fields(Documents))
        )
    )


def seen_batch(doc_ids: NDArray[np.uint64], num_bytes: NDArray[np.int64]) -> pa.RecordBatch:
    """What was seen of all documents of a drawn unit: how long they are."""
    return pa.RecordBatch.from_pydict({"doc_id": pa.array(doc_ids), "bytes": pa.array(num_bytes)})


def text_bytes(texts: pa.Array) -> NDArray[np.int64]:
    """(documents,) UTF-8 bytes of each text."""
    return as_numpy(pc.binary_length(texts)).astype(np.int64)


def _hash(seed: int, name: str) -> int:
    text = f"{seed}\0{name}".encode(errors="surrogateescape")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "big")
