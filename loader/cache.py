"""Shards of a run far away, on a local disk of limited size.

    cache = ShardCache(remote, manifest, CacheFolder(folder, cache_bytes))
    cache.follow(shards_of, order)       what each step will read
    cache.go_to(step)                    called when a step is begun
    cache.get(info)                      waits for the shard if it is not there yet

A few threads fetch whole shards in exactly the order in which steps will need them, as far ahead as
the cache can hold (loader/fetching.py). So with a cohort order and room for two cohorts of each
bucket, every shard is fetched once a visit, however many processes of the machine share the folder.
"""

import contextlib
import fcntl
import threading
from collections.abc import Callable, Iterator, Sequence

from tokenmill.errors import FormatError, RecipeError
from tokenmill.loader.cache_folder import CacheFolder, Reader, cached_bytes
from tokenmill.loader.fetching import Fetching
from tokenmill.loader.horizon import Horizon
from tokenmill.loader.remote import Closed, RemoteRun
from tokenmill.shards.manifest import Manifest
from tokenmill.shards.mapped import MappedShard
from tokenmill.shards.shard_list import ShardInfo


class ShardCache:
    """Where a loader opens the shards of one pack; see OpenShards."""

    def __init__(self, remote: RemoteRun, manifest: Manifest, folder: CacheFolder) -> None:
        self._remote, self._manifest, self._folder = remote, manifest, folder
        self._open: dict[str, MappedShard] = {}
        self._lock = threading.Lock()
        """Guards the horizon, what is open and who fetches."""
        self._horizon: Horizon
        self._order: str
        self._reader: Reader | None = None
        self._fetching: Fetching | None = None
        self._is_closing = False

    def follow(self, shards_of: Callable[[int], Sequence[ShardInfo]], order: str) -> None:
        """
        Args:
            shards_of: the shards that a step reads, in the order in which it does.
            order: equal for loaders of which every step reads the same, such as ranks.
        """

        def checked(step: int) -> Sequence[ShardInfo]:
            infos = shards_of(step)
            needed, most = sum(map(cached_bytes, infos)), self._folder.max_bytes
            if needed > most:
                raise RecipeError(
                    f"cache_bytes: step {step} reads {len(infos)} shards, {needed} bytes, and the "
                    f"cache may hold {most}. Allow at least twice as many as a step needs, or set "
                    "loader.cohort_shards in the recipe, so that a step needs fewer shards."
                )
            return infos

        self._horizon, self._order = Horizon(checked), order

    @property
    def repair(self) -> str:
        return "Copy it there again from where the run was built."

    def name(self, info: ShardInfo) -> str:
        return f"{self._remote.address}/shards/{self._manifest.pack}/{info.path}"

    def go_to(self, step: int) -> None:
        """Begin to read a step: what comes after it is fetched from now on.

        Raises:
            RecipeError: the cache cannot hold what the step reads.
        """
        fetching = self._begun()
        with self._lock:
            if self._reader:
                self._reader.at(step)
            self._horizon.go_to(step)
            if not self._horizon.num_ahead:
                self._horizon.look_further()
            # The kernel keeps what was removed until nobody has it mapped.
            gone = [sha256 for sha256, shard in self._open.items() if not shard.path.exists()]
            for sha256 in gone:
                del self._open[sha256]
        fetching.wake()

    def get(self, info: ShardInfo) -> MappedShard:
        with self._lock:
            shard = self._open.get(info.sha256)
        fetching = None
        while shard is None:
            shard = self._try_to_open(info)
            if shard is None:
                fetching = self._begun()
                fetching.wait_for(info)
        if fetching:
            fetching.has_come(info)
        return shard

    def get_again(self, info: ShardInfo) -> MappedShard:
        self._forget(info)
        return self.get(info)

    def end(self) -> None:
        """Have all fetching end; whoever waits for a shard gets Closed."""
        with self._lock:
            fetching, self._fetching = self._fetching, None
            reader, self._reader = self._reader, None
            self._open.clear()
        if fetching:
            fetching.end()
        if reader:
            reader.leave()

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Inside the block nothing is fetched, and nobody waits for a shard."""
        self._is_closing = True
        try:
            self.end()
            yield
        finally:
            self._is_closing = False

    def _begun(self) -> Fetching:
        """The threads that fetch, at work."""
        with self._lock:
            if self._is_closing:
                raise Closed
            if self._fetching is None:
                self._reader = self._folder.enter(self._order)
                self._fetching = Fetching(
                    self._remote,
                    f"shards/{self._manifest.pack}",
                    self._folder,
                    self._horizon,
                    self._order,
                    self._lock,
                )
            return self._fetching

    def _try_to_open(self, info: ShardInfo) -> MappedShard | None:
        path = self._folder.path(info)
        with self._folder.locked(fcntl.LOCK_SH):
            if not path.exists():
                return None
            try:
                shard = MappedShard(path, info, self._manifest.row_tokens, self._manifest.dtype)
            except FormatError:
                shard = None
        if shard is None:  # the machine lost its power: the disk kept less than was written
            self._forget(info)
            return None
        with self._lock:
            self._open[info.sha256] = shard
        return shard

    def _forget(self, info: ShardInfo) -> None:
        with self._lock:
            self._open.pop(info.sha256, None)
        self._folder.evict(info)
