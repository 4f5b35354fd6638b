"""The domains and addresses that datatrove's URL filter refuses, as hashes mapped from disk.

The 4.56 million domains that datatrove ships would take 0.8 GB in every process as a set of
strings. Here they become a sorted array of 64-bit hashes, 36 MB, once a machine:

    $XDG_CACHE_HOME/tokenmill/blocklists/<sha256 of the asset>-1-domains.npy    (or ~/.cache/...)

Every worker maps it and the kernel keeps it once. The first process to come unpacks the asset and
hashes it, in some 3 seconds; others wait for it. A file is whole or absent. The price is that a
domain on no list is taken for one on the list with a probability of 4.56e6 / 2**64 = 2.5e-13.
"""

import fcntl
import functools
import importlib.resources
import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import RunError
from tokenmill.shards.files import sha256_file, writing
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.word_table import key_of, mix

VERSION = 1
"""Of the hash and the format; another number makes new files."""
LISTS = ("domains", "urls")
ONE = np.uint64(1)
_LINE_FEED = 10

_LOWER = np.arange(256, dtype=np.uint8)
_LOWER[ord("A") : ord("Z") + 1] += 32


@dataclass(frozen=True, slots=True)
class Blocklist:
    """Strings, known by their hashes."""

    hashes: NDArray[np.uint64]
    """Sorted; perhaps mapped from a file."""

    def holds(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """(n,) which of these hashes are listed."""
        if not len(self.hashes):
            return np.zeros(len(hashes), np.bool_)
        places = np.searchsorted(self.hashes, hashes)
        found: NDArray[np.bool_] = self.hashes[places.clip(max=len(self.hashes) - 1)] == hashes
        return found


def blocklist(strings: Iterable[str]) -> Blocklist:
    """A few strings, of which none holds a line feed; case does not matter."""
    return Blocklist(np.unique(hash_lines("\n".join(strings).encode())))


@functools.cache
def shipped_blocklists() -> dict[str, Blocklist]:
    """The lists in datatrove's asset: "domains" and "urls".

    Raises:
        RunError: the folder for compiled lists cannot be written.
    """
    folder = _cache_folder()
    paths = {name: folder / f"{asset_sha256()}-{VERSION}-{name}.npy" for name in LISTS}
    if not _all_exist(paths):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not _all_exist(paths):  # nobody did it while we waited
                    _compile(paths)
        except OSError as error:
            raise RunError(
                f"{folder}: cannot keep the compiled blocklists there ({error.strerror}). "
                "Set XDG_CACHE_HOME to a folder that can be written."
            ) from None
    return {
        name: Blocklist(np.load(path, mmap_mode="r").view(np.ndarray))
        for name, path in paths.items()
    }


def assets() -> Path:
    """Where datatrove keeps its lists."""
    return Path(str(importlib.resources.files("datatrove"))) / "assets"


@functools.cache
def asset_sha256() -> str:
    """Names the lists that an answer depends on."""
    return sha256_file(_asset())


def lowered(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bytes with A to Z in lower case."""
    return _LOWER[data]


def hash_lines(lines: bytes) -> NDArray[np.uint64]:
    """The hash of each line."""
    data = lowered(np.frombuffer(lines, np.uint8))
    ends = np.flatnonzero(data == _LINE_FEED)
    if len(data) and data[-1] != _LINE_FEED:
        ends = np.append(ends, len(data))
    hashes = np.empty(len(ends), np.uint64)
    _hash_spans(data, ends, hashes)
    return hashes


@compiled_inline
def hash_of(data: NDArray[np.uint8], start: np.uint64, stop: np.uint64) -> np.uint64:
    """The hash of lower-case bytes in the lists of this version."""
    return mix(key_of(data, start, stop), stop - start)


def _asset() -> Path:
    return sorted(assets().glob("url_filterblacklists*.tar.gz"))[-1]


def _cache_folder() -> Path:
    top = os.environ.get("XDG_CACHE_HOME")
    return (Path(top) if top else Path.home() / ".cache") / "tokenmill" / "blocklists"


def _all_exist(paths: dict[str, Path]) -> bool:
    return all(path.exists() for path in paths.values())


def _compile(paths: dict[str, Path]) -> None:
    with tarfile.open(_asset()) as archive:
        for name, path in paths.items():
            member = archive.extractfile(name)
            assert member is not None
            hashes = np.unique(hash_lines(member.read()))
            with writing(path) as part, part.open("wb") as file:
                np.save(file, hashes)


@compiled
def _hash_spans(
    data: NDArray[np.uint8], ends: NDArray[np.int64], hashes: NDArray[np.uint64]
) -> None:
    start = np.uint64(0)
    for line in range(len(ends)):
        hashes[line] = hash_of(data, start, np.uint64(ends[line]))
        start = np.uint64(ends[line]) + ONE
