"""Whole files or none: write under a temporary name, sync, rename.

A process killed at any line leaves either the old file, the new file, or a `*.part-*` file that
nobody reads and the next run removes. The price is one fsync a file and one for its folder.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenmill.errors import FormatError, RunError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its name when the block ends without an
    exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two attempts at the same file apart; the bytes are the same, so the
    # later rename is harmless.
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        yield part
        _sync(part)
        part.replace(path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    with writing(path) as part:
        part.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values are equal bytes."""
    write_whole(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value in a JSON file of ours.

    Raises:
        FormatError: the file is missing, or is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file. Is the folder a finished run?") from None
    except ValueError as error:
        raise FormatError(f"{path}: no JSON ({error}). Delete it and build again.") from None


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn what the system says of a folder that cannot be written into one of our errors."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{folder}: cannot write there ({error.strerror}). Choose another --out."
        ) from None


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_parts(top: Path, folders: Sequence[str]) -> None:
    """Remove what killed processes left in some folders. Only while nobody else writes there."""
    for folder in folders:
        for part in (top / folder).rglob("*.part-*"):
            part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    # Without this a crash of the machine can leave a file with the right name and no bytes.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
