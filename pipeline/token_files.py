"""Files of tokens that others have made: where in them each document stands.

    x.ds   x.ds.index   x.ds.metadata    datatrove: ids | uint64 ends | tokenizer, size, count
    x.bin  x.idx                         Megatron: ids | header, lengths, pointers, documents

A file of ids may be hundreds of GB and its index many, so both are mapped: the documents of a range
of bytes are found by halving, and only their part of the index is read. Each part is checked where
it is used and what holds for the whole file whenever it is opened, so that ranges together
see all of it. Files are only read here, never written.

Source: TokenizedFile and MegatronTokenizedFile of datatrove; IndexedDataset of Megatron-LM
(megatron/core/datasets/indexed_dataset.py).
"""

import struct
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

DATATROVE = ".ds"
MEGATRON = ".bin"

UNNAMED = "Unknown Tokenizer"
"""What datatrove writes for a tokenizer that it was not told."""
MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
MEGATRON_HEADER = struct.Struct("<9sQBQQ")
"""Magic, version, code of the ids' type, sequences, one more than documents."""
MEGATRON_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}


@dataclass(frozen=True, kw_only=True, slots=True)
class TokensConfig:
    """What a source of tokens says of them, besides its files."""

    tokenizer: str = ""
    """The name that its .ds.metadata gives the tokenizer, where it is not that of the recipe's; to
    be set only by who knows that both have one vocabulary."""
    strip: tuple[int, ...] = ()
    """Ids that stand around documents and go, besides the tokenizer's own [CLS], [SEP], [PAD]."""


class BadTokenFile(Exception):
    """A file is not what its index says; says what is wrong with it."""


class TokenFile(Protocol):
    """A file of ids, and where its documents stand."""

    tokens: NDArray[Any]
    """(tokens,) integers, mapped."""

    def documents(self, start: int, stop: int) -> NDArray[np.int64]:
        """(documents + 1,) the bounds, in tokens, of the documents that begin in a range of bytes.

        Args:
            stop: one past the range's last byte; those at the end of the file belong to the last.

        Raises:
            BadTokenFile: these documents overlap, or reach beyond the file.
        """


def index_of(name: str) -> str:
    """The file that must stand beside a file of ids, or nothing where the name is none."""
    if name.endswith(MEGATRON):
        return f"{name.removesuffix(MEGATRON)}.idx"
    return f"{name}.index" if name.endswith(DATATROVE) else ""


def metadata_of(name: str) -> str:
    """The file that may stand beside it."""
    return f"{name}.metadata"


def owner_of(name: str) -> str:
    """The file of ids that a file of this name tells of, or nothing."""
    for suffix in (".index", ".metadata"):
        if name.endswith(f"{DATATROVE}{suffix}"):
            return name.removesuffix(suffix)
    return f"{name.removesuffix('.idx')}{MEGATRON}" if name.endswith(".idx") else ""


def open_token_file(name: str, paths: Mapping[str, Path]) -> TokenFile:
    """A file of ids.

    Args:
        paths: where it and the files beside it are, by name.

    Raises:
        BadTokenFile: the file as a whole is not what its index says.
    """
    path, index = paths[name], paths[index_of(name)]
    if name.endswith(MEGATRON):
        return _Megatron(path, index)
    return _Datatrove(path, index, paths.get(metadata_of(name)))


def stated_tokenizer(metadata: Path) -> str:
    """The tokenizer that a .ds.metadata names, or nothing.

    Raises:
        BadTokenFile: the file does not have its three lines.
    """
    name = _read_metadata(metadata)[0]
    return "" if name.startswith(UNNAMED) else name


class _Datatrove:
    """<ids>, and a file of the number of tokens up to the end of each document."""

    def __init__(self, path: Path, index: Path, metadata: Path | None) -> None:
        self._ends = _map(index, 0, "<u8")
        size = path.stat().st_size
        num_tokens = int(self._ends[-1]) if len(self._ends) else 0
        token_bytes = size // num_tokens if num_tokens else 2
        if token_bytes not in (2, 4) or token_bytes * num_tokens != size:
            raise BadTokenFile(
                f"{size:,} bytes, but its index ends at token {num_tokens:,}: expected 2 or 4 "
                "bytes a token"
            )
        if metadata:
            _, stated_bytes, count = _read_metadata(metadata)
            if (stated_bytes, count) != (token_bytes, num_tokens):
                raise BadTokenFile(
                    f"{num_tokens:,} tokens of {token_bytes} bytes, but its metadata says "
                    f"{count:,} of {stated_bytes}"
                )
        self.tokens = _map(path, 0, f"<u{token_bytes}")

    def documents(self, start: int, stop: int) -> NDArray[np.int64]:
        first, last = self._first(start), self._first(stop)
        before = self._ends[first - 1 : first] if first else np.zeros(1, np.uint64)
        bounds = np.concatenate([before, self._ends[first:last]])
        if (bounds[1:] < bounds[:-1]).any() or bounds[-1] > len(self.tokens):
            raise BadTokenFile(f"documents {first:,} to {last - 1:,}: the index falls")
        return bounds.astype(np.int64)

    def _first(self, byte: int) -> int:
        """The first document that begins at this byte or after it."""
        position = -(-byte // self.tokens.itemsize)
        if position <= 0 or position >= len(self.tokens):
            return 0 if position <= 0 else len(self._ends)
        return min(bisect_left(self._ends, position) + 1, len(self._ends))


class _Megatron:
    """<ids>, and a file of where sequences begin and which of them make up a document."""

    def __init__(self, path: Path, index: Path) -> None:
        size, index_size = path.stat().st_size, index.stat().st_size
        with index.open("rb") as file:
            header = file.read(MEGATRON_HEADER.size)
        if len(header) < MEGATRON_HEADER.size or not header.startswith(MEGATRON_MAGIC):
            raise BadTokenFile("its .idx does not begin as one of Megatron's (MMIDIDX)")
        _, version, code, sequences, documents = MEGATRON_HEADER.unpack(header)
        if version != 1 or code not in MEGATRON_DTYPES:
            raise BadTokenFile(f"its .idx is of version {version} with ids of type {code}")
        starts = MEGATRON_HEADER.size + 4 * sequences
        expected = starts + 8 * sequences + 8 * documents
        if index_size != expected or not documents:
            raise BadTokenFile(
                f"its .idx has {index_size:,} bytes, expected {expected:,} for {sequences:,} "
                f"sequences and {documents:,} bounds of documents"
            )
        self._lengths = _map(index, MEGATRON_HEADER.size, "<i4", sequences)
        self._pointers = _map(index, starts, "<i8", sequences)
        self._firsts = _map(index, starts + 8 * sequences, "<i8", documents)
        dtype = np.dtype(MEGATRON_DTYPES[code])
        end = int(self._pointers[-1]) + int(self._lengths[-1]) * dtype.itemsize if sequences else 0
        if end != size:
            raise BadTokenFile(f"{size:,} bytes, but its index ends at byte {end:,}")
        if (self._firsts[0], self._firsts[-1]) != (0, sequences):
            raise BadTokenFile(f"its documents do not cover all {sequences:,} sequences")
        self.tokens = _map(path, 0, dtype.str)

    def documents(self, start: int, stop: int) -> NDArray[np.int64]:
        first, last = self._first(start), self._first(stop)
        firsts = self._firsts[first : last + 1].astype(np.int64)
        low, high = int(firsts[0]), int(firsts[-1])
        wrong = BadTokenFile(f"documents {first:,} to {last - 1:,}: the index does not join")
        if (firsts[1:] < firsts[:-1]).any() or not 0 <= low <= high <= len(self._pointers):
            raise wrong
        lengths = self._lengths[low:high].astype(np.int64)
        origin = int(self._pointers[low]) if low < len(self._pointers) else self.tokens.nbytes
        bounds = np.concatenate([[0], np.cumsum(lengths)]) * self.tokens.itemsize + origin
        stated = self._pointers[low : high + 1]  # with that of the sequence after them, if any
        if (lengths < 0).any() or (stated != bounds[: len(stated)]).any() or (not low and origin):
            raise wrong
        if bounds[-1] > self.tokens.nbytes or origin % self.tokens.itemsize:
            raise wrong
        return (bounds[firsts - low] // self.tokens.itemsize).astype(np.int64)

    def _first(self, byte: int) -> int:
        if byte <= 0 or byte >= self.tokens.nbytes:
            return 0 if byte <= 0 else len(self._firsts) - 1
        return bisect_left(self._firsts, bisect_left(self._pointers, byte))


def _map(path: Path, offset: int, dtype: str, count: int | None = None) -> NDArray[Any]:
    """Numbers of a file, mapped; a file without any cannot be."""
    size = path.stat().st_size - offset
    if count is None:
        count, rest = divmod(size, np.dtype(dtype).itemsize)
        if rest:
            raise BadTokenFile(
                f"{path.name} has {size:,} bytes, no multiple of {np.dtype(dtype).itemsize}"
            )
    if not count:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, "r", offset, (count,))


def _read_metadata(path: Path) -> tuple[str, int, int]:
    """The tokenizer's name, bytes of a token, tokens."""
    try:
        first, count, *_ = path.read_text().split("\n")
        name, _, token_bytes = first.rpartition("|")
        return name, int(token_bytes), int(count)
    except ValueError:  # also what is not UTF-8
        raise BadTokenFile(f"{path.name}: expected name|bytes and a count of tokens") from None
