"""A folder of shards with a bound on its bytes, shared by the processes of a machine.

    CACHE/lock                            held for every look at the folder, for milliseconds
    CACHE/readers/<process>-<n>           a loader that is open: its order and its step
    CACHE/shards/<sha256>.arrow           a whole shard, and <sha256>.arrow.crc32
    CACHE/shards/<sha256>.part-<bytes>    one that is coming; locked by the process that fetches it

A file is counted with its full size from the moment it begins to come, so the bound holds at every
moment. (The kernel keeps the bytes of a removed shard for as long as another process has it mapped,
which is until that process's next step.) All locks are flock's: they end with their process, so a
kill leaves nothing but parts that nobody holds, and whoever makes room next removes them.
"""

import contextlib
import fcntl
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenmill.shards.shard import CRC_BLOCK_BYTES, crc_path
from tokenmill.shards.shard_list import ShardInfo

_reader_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Held:
    """The right to fetch one shard, which one process at a time has."""

    part: Path
    """Where its bytes go."""
    file: int


class CacheFolder:
    """The files of a cache and their locks; it knows no order and no store."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._top = folder
        self._shards = folder / "shards"
        self._readers = folder / "readers"
        for each in (self._shards, self._readers):
            each.mkdir(parents=True, exist_ok=True)

    def path(self, info: ShardInfo) -> Path:
        return self._shards / f"{info.sha256}.arrow"

    def has(self, info: ShardInfo) -> bool:
        """Whether a shard is here or coming."""
        return self.path(info).exists() or self._part(info).exists()

    def names(self) -> list[str]:
        """Of the shards that are here, their SHA-256."""
        return [path.stem for path in self._shards.glob("*.arrow")]

    def room(self) -> int:
        """Bytes that may still come before something has to go."""
        return self.max_bytes - sum(map(_size, self._shards.iterdir()))

    @contextlib.contextmanager
    def locked(self, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
        """Keep other processes, and threads, from changing what is there."""
        file = os.open(self._top / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, kind)
            yield
        finally:
            os.close(file)

    def hold(self, info: ShardInfo, may_evict: Callable[[list[str]], list[str]]) -> Held | None:
        """Make room for a shard and take the right to fetch it; None where it is here, another
        process is fetching it, or there is no room. Only while locked.

        Args:
            may_evict: of the names (SHA-256) of shards, those that may go, first to go first.
        """
        part = self._part(info)
        if self.path(info).exists():
            return None
        file = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
        if not _try_lock(file):
            os.close(file)
            return None
        if self._make_room(may_evict, part):
            return Held(part, file)
        part.unlink()
        os.close(file)
        return None

    def keep(self, held: Held, info: ShardInfo) -> None:
        """What was fetched is whole, its checksums stand beside it."""
        with self.locked():
            crc_path(held.part).replace(crc_path(self.path(info)))
            held.part.replace(self.path(info))
            os.close(held.file)

    def drop(self, held: Held) -> None:
        """It was not fetched."""
        with self.locked():
            _remove(held.part)
            os.close(held.file)

    def _part(self, info: ShardInfo) -> Path:
        return self._shards / f"{info.sha256}.part-{cached_bytes(info)}"

    def evict(self, info: ShardInfo) -> None:
        with self.locked():
            _remove(self.path(info))

    def _make_room(self, may_evict: Callable[[list[str]], list[str]], own: Path) -> bool:
        for path in self._shards.iterdir():
            abandoned = ".part-" in path.name and path.suffix != ".crc32" and path != own
            if abandoned and _is_abandoned(path):
                _remove(path)
            elif path.suffix == ".crc32" and not path.with_suffix("").exists():
                path.unlink()
        excess = -self.room()
        sizes = {path.stem: _size(path) for path in self._shards.glob("*.arrow")}
        going = []
        for name in may_evict(list(sizes)) if excess > 0 else []:
            if excess <= 0:
                break
            going.append(name)
            excess -= sizes[name]
        if excess <= 0:
            for name in going:
                _remove(self._shards / f"{name}.arrow")
        return excess <= 0

    def enter(self, order: str) -> "Reader":
        """Let other processes know what is read here."""
        with self.locked():
            return Reader(self._readers / f"{os.getpid()}-{next(_reader_numbers)}", order)

    def slowest(self, order: str, step: int) -> int:
        """The least step of the loaders that read the same order, or this step."""
        for path in list(self._readers.iterdir()):
            if _is_abandoned(path):
                path.unlink(missing_ok=True)
                continue
            with contextlib.suppress(FileNotFoundError, ValueError):
                other, at = path.read_text().split()
                step = min(step, int(at)) if other == order else step
        return step


class Reader:
    """An open loader, as other processes see it."""

    def __init__(self, path: Path, order: str) -> None:
        self._path, self._order = path, order
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def at(self, step: int) -> None:
        os.pwrite(self._file, f"{self._order} {step:020d}".encode(), 0)

    def leave(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def cached_bytes(info: ShardInfo) -> int:
    """What a shard takes in a cache: its file and its checksums."""
    return _with_crcs(info.bytes)


def _size(path: Path) -> int:
    """What a file of the cache counts; checksums count with their shard."""
    if path.suffix == ".crc32":
        return 0
    _, is_part, num_bytes = path.name.partition(".part-")
    with contextlib.suppress(FileNotFoundError):
        return int(num_bytes) if is_part else _with_crcs(path.stat().st_size)
    return 0


def _with_crcs(num_bytes: int) -> int:
    return num_bytes + 4 * -(-num_bytes // CRC_BLOCK_BYTES)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_abandoned(path: Path) -> bool:
    """Whether the process that had a file locked is gone."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return _try_lock(file)
    finally:
        os.close(file)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    crc_path(path).unlink(missing_ok=True)
