"""Which duplicates leave, and what is stored to find them by."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from tokenmill.errors import RecipeError
from tokenmill.pipeline.dedup.repeat_config import RepeatConfig
from tokenmill.pipeline.signatures import SignatureConfig

Scope = Literal["source", "dump", "all"]
"""Which documents are compared: those of one source, of one dump of a source, or all."""
Keep = Literal["first", "longest"]
Preset = Literal["default", "fineweb", "refinedweb"]

MEMORY_BYTES = 256 << 20
"""Two tasks and Ray's own processes stay below 2 GB."""


class Bands(NamedTuple):
    """Which documents count as near duplicates."""

    num: int
    """Bands of a signature; documents are compared that agree in all entries of one."""
    rows: int
    """Entries in a band."""
    min_similarity: float
    """Least estimated similarity of two documents that are then near duplicates."""

    @property
    def num_hashes(self) -> int:
        return self.num * self.rows


PRESETS: dict[Preset, Bands] = {
    "default": Bands(16, 7, 0.7),
    "fineweb": Bands(14, 8, 0.0),
    "refinedweb": Bands(450, 20, 0.0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class NearConfig:
    """Near duplicates: documents whose runs of words are mostly the same."""

    preset: Preset = "default"
    """`default`: 16 bands of 7, then compared: finds 97 % of pairs at similarity 0.8 and all but
    none below 0.6. `fineweb`: 14 bands of 8 (arXiv:2406.17557), `refinedweb`: 450 bands of 20
    (arXiv:2306.01116), both as published: who agrees in a band is a near duplicate."""
    bands: int | None = None
    """Bands of a signature; null: the preset's."""
    band_rows: int | None = None
    """Entries in a band; null: the preset's."""
    min_similarity: float | None = None
    """Least estimated similarity to count as near duplicates; null: the preset's. 0: to agree in
    one band is enough."""
    keep: Keep = "first"
    """Which document of a cluster stays: the first in the plan, or the one of most tokens."""
    memory_bytes: int = MEMORY_BYTES
    """What a task may hold of signatures and pairs, besides its process (200 MB). The clustering
    holds 4 bytes for each document of the run, 12 where the longest stays, whatever is set."""

    def __post_init__(self) -> None:
        if self.banding.num < 1 or self.banding.rows < 1:
            found = f"got {self.banding.num} and {self.banding.rows}"
            raise RecipeError(f"bands and band_rows must be at least 1, {found}")
        if not 0 <= self.banding.min_similarity <= 1:
            raise RecipeError(
                f"min_similarity must be from 0 to 1, got {self.banding.min_similarity}"
            )
        if not 1 << 20 <= self.memory_bytes <= 1 << 34:
            raise RecipeError(
                f"memory_bytes must be from {1 << 20} (1 MiB) to {1 << 34} (16 GiB), "
                f"got {self.memory_bytes}"
            )

    @property
    def banding(self) -> Bands:
        """The preset with what the recipe changes of it."""
        num, rows, least = PRESETS[self.preset]
        return Bands(
            num if self.bands is None else self.bands,
            rows if self.band_rows is None else self.band_rows,
            least if self.min_similarity is None else self.min_similarity,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DedupConfig:
    """Which duplicates leave, in this order: exact ones, those of one address, near ones."""

    exact: bool = True
    """Documents whose cleaned text is equal to an earlier one's, byte by byte."""
    url: bool = False
    """Documents whose address is an earlier one's; docs/duplicates.md says when two are equal."""
    near: NearConfig | None = None
    """Documents that are nearly another's text; null: they stay."""
    scope: Scope = "all"
    """Which documents are compared: those of one `source`, of one `dump` of a source, or `all`."""
    repeats: RepeatConfig | None = None
    """Spans of text that stand also earlier in the corpus, whatever the scope; null: they stay."""
    signatures: SignatureConfig | None = None
    """MinHash signatures that the mill stores of kept documents; null: what `near` asks for."""

    def __post_init__(self) -> None:
        if self.near is None:
            return
        needed = self.near.banding.num_hashes
        if self.signatures is None:
            object.__setattr__(self, "signatures", SignatureConfig(num_hashes=needed))
        elif self.signatures.num_hashes < needed:
            raise RecipeError(
                f"signatures.num_hashes must be at least {needed} = bands x band_rows of near, "
                f"got {self.signatures.num_hashes}. Raise it, or leave signatures out."
            )
