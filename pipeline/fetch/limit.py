"""A part of a source: its first bytes, or a sample of its files.

    limit: {bytes: 100 GB}                                  the first files, by name
    limit: {share: 0.01, sample_seed: 0}                    about one file in a hundred
    limit: {bytes: 100 GB, sample_seed: 0}                  files drawn until the bytes are full

Files are whole, and bytes are counted as they are stored. Each file is drawn by a hash of its own
name, so a corpus that grows keeps the files that were drawn from it; a larger share adds to a
smaller.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tokenmill.errors import RecipeError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15,
         "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}  # fmt: skip


class Sized(Protocol):
    """What a limit has to know of a file."""

    @property
    def bytes(self) -> int | None: ...


S = TypeVar("S", bound=Sized)


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitConfig:
    """How much of a source is read."""

    bytes: int | str | None = None
    """At most so many, as stored: a number, or 100 GB, 20 GiB."""
    share: float | None = None
    """Share of the files, above 0, at most 1; needs a sample_seed."""
    sample_seed: int | None = None
    """Draws the files; without it they are taken in the order of their names."""

    def __post_init__(self) -> None:
        if self.bytes is not None and parse_bytes(self.bytes) < 1:
            raise RecipeError(f"limit.bytes must be positive, got {self.bytes}")
        if self.share is not None and not 0 < self.share <= 1:
            raise RecipeError(f"limit.share must be above 0 and at most 1, got {self.share}")
        if self.share is not None and self.sample_seed is None:
            raise RecipeError("limit.share: which files? Give limit.sample_seed, a whole number.")

    def order(self, names: Sequence[str]) -> list[str]:
        """The names that may be taken, in the order in which they are."""
        if self.sample_seed is None:
            return sorted(names)
        drawn = {name: _draw(self.sample_seed, name) for name in names}
        below = 1.0 if self.share is None else self.share
        chosen = [name for name in names if drawn[name] < below * 2**64]
        return sorted(chosen, key=lambda name: (drawn[name], name))

    def take(self, files: Iterable[S]) -> Iterator[S]:
        """Files until the next one would be too much; a file of unknown size counts nothing."""
        left = None if self.bytes is None else parse_bytes(self.bytes)
        for file in files:
            if left is not None:
                left -= file.bytes or 0
                if left < 0:
                    return
            yield file


def parse_bytes(text: int | str) -> int:
    """100 GB, 20 GiB or 4096 as a number of bytes.

    Raises:
        RecipeError: the text is no size.
    """
    if isinstance(text, int):
        return text
    found = re.fullmatch(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    unit = found and UNITS.get(found[2].upper())
    if not found or unit is None:
        raise RecipeError(f"{text!r} is no size. Write a number of bytes, 100 GB or 20 GiB.")
    return int(float(found[1].replace("_", "")) * unit)


def _draw(seed: int, name: str) -> int:
    text = f"{seed}\0{name}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
