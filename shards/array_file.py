"""Arrays by name in one file that is mapped: processes share its pages until one writes to them.

    8 bytes: length of the header | header, JSON | arrays, each from a multiple of 64 bytes on

The file is whole or not there at all. It is for what can be made again: one that is cut, damaged or
of another version is as good as none, so `open_arrays` answers None.
"""

import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from tokenmill.shards.files import writing

VERSION = 1
ALIGNMENT = 64
"""Bytes; a line of the processor's memory."""
LENGTH_BYTES = 8


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of numbers or bytes; whoever has the old file mapped keeps it."""
    described: dict[str, dict[str, Any]] = {}
    size = 0
    for name, array in arrays.items():
        described[name] = {"dtype": array.dtype.str, "shape": list(array.shape), "start": size}
        size += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    digest = _digest(described, arrays)
    header = {"version": VERSION, "bytes": size, "digest": digest, "arrays": described}
    text = json.dumps(header).encode()
    text += b" " * (-(LENGTH_BYTES + len(text)) % ALIGNMENT)
    with writing(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).data)
            file.write(bytes(-array.nbytes % ALIGNMENT))


def open_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays of a file, to read and to write to: what is written stays in this process."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        stop = LENGTH_BYTES + int.from_bytes(mapped[:LENGTH_BYTES], "little")
        header = json.loads(mapped[LENGTH_BYTES:stop])
        if header["version"] != VERSION or len(mapped) != stop + header["bytes"]:
            return None
        arrays = {
            name: np.frombuffer(
                mapped, entry["dtype"], int(np.prod(entry["shape"])), stop + entry["start"]
            ).reshape(entry["shape"])
            for name, entry in header["arrays"].items()
        }
        whole = header["digest"] == _digest(header["arrays"], arrays)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return arrays if whole else None


def _digest(described: dict[str, dict[str, Any]], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Over names, types, shapes and all bytes."""
    digest = xxhash.xxh3_128(json.dumps(described).encode())
    for array in arrays.values():
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
