"""The shards of a folder, mapped when a row of them is asked for.

The latest 4,096 stay open. More would cost address space and, above 65,530 mappings, fail in the
kernel; a corpus of 1e9 rows has 250,000 shards, and every step touches others. Opening a shard
again costs 50 microseconds.
"""

import threading
from pathlib import Path
from typing import Protocol

from tokenmill.shards.manifest import Manifest
from tokenmill.shards.mapped import MappedShard
from tokenmill.shards.shard_list import ShardInfo

OPEN_SHARDS = 4096


class OpenShards(Protocol):
    """Where rows come from: a folder (LocalShards), or a store far away (loader/cache.py)."""

    @property
    def repair(self) -> str:
        """For errors: what to do about a shard that is damaged."""

    def name(self, info: ShardInfo) -> str:
        """A shard, for errors."""

    def get(self, info: ShardInfo) -> MappedShard:
        """A shard, open.

        Raises:
            FormatError: it cannot be had; the message says what was found.
        """

    def get_again(self, info: ShardInfo) -> MappedShard:
        """A shard whose bytes were found to be damaged, read anew from where it comes from."""


class LocalShards:
    """The shards of a pack's folder."""

    def __init__(self, folder: Path, manifest: Manifest, most: int = OPEN_SHARDS) -> None:
        self.folder = folder
        self._row_tokens, self._dtype = manifest.row_tokens, manifest.dtype
        self._most = most
        self._lock = threading.Lock()
        self._open: dict[str, MappedShard] = {}
        """By path, the one used longest ago first."""

    @property
    def repair(self) -> str:
        return "Delete what is left of it and build the run again; whole shards are kept."

    def name(self, info: ShardInfo) -> str:
        return str(self.folder / info.path)

    def get(self, info: ShardInfo) -> MappedShard:
        with self._lock:
            shard = self._open.pop(info.path, None)
            if shard is None:
                path = self.folder / info.path
                shard = MappedShard(path, info, self._row_tokens, self._dtype)
            self._open[info.path] = shard
            if len(self._open) > self._most:
                # Whoever still reads views of it keeps them; the mapping ends with the last view.
                del self._open[next(iter(self._open))]
        return shard

    def get_again(self, info: ShardInfo) -> MappedShard:
        shard = self.get(info)
        shard.read_again()
        return shard
