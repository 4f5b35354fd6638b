"""Threads that bring shards into a cache: what somebody waits for, then what steps will need.

What must go to make room is what is needed last, or was not met as far as it was looked, and never
anything that is needed before what comes; what somebody waits for may take any place. Only these
threads touch the store, so nobody who waits for a shard is held by a server that is silent.

A shard is hashed when it has come. If its SHA-256 is wrong it is fetched once more; if it is wrong
again, the checksums of its blocks come from the store too, and whoever touches a damaged block is
told so (loader/rows.py).
"""

import threading
from pathlib import Path

from tokenmill.errors import FormatError, RecipeError, TokenmillError
from tokenmill.loader.at_exit import end_at_exit
from tokenmill.loader.cache_folder import CacheFolder, Held, cached_bytes
from tokenmill.loader.horizon import Horizon
from tokenmill.loader.remote import Closed, RemoteRun
from tokenmill.shards.files import sha256_file
from tokenmill.shards.shard import block_crcs, crc_path
from tokenmill.shards.shard_list import ShardInfo

NUM_THREADS = 4
MOST_STEPS = 1024
"""As far ahead as is looked: half a second of arithmetic, once, spread over the threads."""
_POLL_SECONDS = 0.02
"""How often is looked for what another process fetches."""
_IDLE_SECONDS = 1.0


class Fetching:
    """Threads at work from the first moment until `end`."""

    def __init__(
        self,
        remote: RemoteRun,
        pack: str,
        folder: CacheFolder,
        horizon: Horizon,
        order: str,
        lock: threading.Lock,
    ) -> None:
        """
        Args:
            pack: the folder of the shards, relative to the run.
            order: see CacheFolder.enter.
            lock: guards the horizon.
        """
        self._remote, self._pack, self._folder = remote, pack, folder
        self._horizon, self._order, self._lock = horizon, order, lock
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._waited_for: dict[str, ShardInfo] = {}
        self._errors: dict[str, TokenmillError] = {}
        self._failure: BaseException | None = None
        """What ended a thread that should not have ended."""
        self.threads = [
            threading.Thread(target=self._work, name="tokenmill-fetch", daemon=True)
            for _ in range(NUM_THREADS)
        ]
        for thread in self.threads:
            thread.start()
        end_at_exit(self)

    def wake(self) -> None:
        """More steps are in sight."""
        with self._news:
            self._news.notify_all()

    def wait_for(self, info: ShardInfo) -> None:
        """Wait until a shard has come, or for a moment.

        Raises:
            Closed: fetching has ended.
            FormatError, RunError: it cannot be fetched. Whatever ended one of the threads is raised
                too.
        """
        with self._news:
            self._waited_for[info.sha256] = info
            self._news.notify_all()
            self._news.wait(_POLL_SECONDS)
            error = self._errors.pop(info.sha256, self._failure)
            if error:
                raise error
            if self._stop.is_set():
                raise Closed

    def has_come(self, info: ShardInfo) -> None:
        """Nobody waits for a shard any more."""
        with self._news:
            self._waited_for.pop(info.sha256, None)

    def end(self) -> None:
        """Threads that wait end now, those that read from the store with the next piece."""
        self._stop.set()
        self.wake()

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                done = self._fetch_waited_for() or self._fetch_ahead()
            except Closed:
                return
            except BaseException as error:
                with self._news:
                    self._failure = error
                    self._news.notify_all()
                return
            with self._news:
                if done:
                    self._news.notify_all()
                elif not self._stop.is_set():
                    self._news.wait(_POLL_SECONDS if self._waited_for else _IDLE_SECONDS)

    def _fetch_waited_for(self) -> bool:
        with self._news:
            infos = list(self._waited_for.values())
        for info in infos:
            try:
                done = self._fetch(info, None)
            except TokenmillError as error:
                with self._news:
                    self._errors[info.sha256] = error
                done = True
            if done or self._folder.path(info).exists():
                with self._news:
                    self._waited_for.pop(info.sha256, None)
                return True
        return False

    def _fetch_ahead(self) -> bool:
        try:
            wanted = self._next_wanted()
            return wanted is not None and self._fetch(wanted[1], wanted[0])
        except TokenmillError:
            return False  # who needs the shard, or comes to the step, meets the error again

    def _next_wanted(self) -> tuple[int, ShardInfo] | None:
        """The first shard that is not here, as far ahead as the cache can hold, and the step that
        needs it."""
        room, seen = self._folder.max_bytes, set()
        with self._lock:
            uses = self._horizon.needed()
        while not self._stop.is_set():
            for step, info in uses:
                if info.sha256 in seen:
                    continue
                seen.add(info.sha256)
                room -= cached_bytes(info)
                if room < 0:
                    return None
                if not self._folder.has(info):
                    return step, info
            with self._lock:
                if self._horizon.num_ahead >= MOST_STEPS:
                    return None
                step = self._horizon.end
                uses = [(step, info) for info in self._horizon.look_further()]
        return None

    def _fetch(self, info: ShardInfo, step: int | None) -> bool:
        """Fetch a shard for a step, or for now (None); False where it is here, another process or
        thread fetches it, or there is no room."""
        looked_for = set()
        if self._folder.room() < cached_bytes(info):
            looked_for = self._look_far()
        with self._folder.locked():
            if not self._is_wanted(info, step):
                return False
            # A shard that another process has brought since then may be needed next: it stays.
            held = self._folder.hold(
                info, lambda names: self._may_evict([n for n in names if n in looked_for], step)
            )
        if held is None:
            return False
        try:
            self._bring(info, held)
        except BaseException:
            self._folder.drop(held)
            raise
        self._folder.keep(held, info)
        return True

    def _is_wanted(self, info: ShardInfo, step: int | None) -> bool:
        """Whether a shard is needed still: while this thread had no core it may have come, been
        read by everybody, and gone."""
        if step is None:
            with self._news:
                return info.sha256 in self._waited_for
        with self._lock:
            return step >= self._horizon.step

    def _look_far(self) -> set[str]:
        """Find out when the shards that are here are needed, as far as is looked; their names."""
        names = self._folder.names()
        for _ in range(MOST_STEPS):
            with self._lock:
                known = (self._horizon.next_use(name, self._horizon.step) for name in names)
                if self._horizon.num_ahead >= MOST_STEPS or None not in known:
                    break
                try:
                    self._horizon.look_further()
                except RecipeError:  # for whoever comes to that step
                    break
        return set(names)

    def _may_evict(self, names: list[str], step: int | None) -> list[str]:
        """Of the shards that are here, those that are not needed up to a step; the last to be
        needed first."""
        with self._lock:
            first = self._folder.slowest(self._order, self._horizon.step)
            found = [(self._horizon.next_use(name, first), name) for name in names]
            never = self._horizon.end + 1
        uses = [(never if use is None else use, name) for use, name in found]
        return [name for use, name in sorted(uses, reverse=True) if step is None or use > step]

    def _bring(self, info: ShardInfo, held: Held) -> None:
        """Its bytes and their checksums, into the part."""
        name = f"{self._pack}/{info.path}"
        for _ in range(2):
            self._remote.download(name, held.part, self._stop)
            found = held.part.stat().st_size
            if found == info.bytes and sha256_file(held.part) == info.sha256:
                crc_path(held.part).write_bytes(block_crcs(held.part).astype("<u4").tobytes())
                return
        if found != info.bytes:
            raise FormatError(f"the manifest says {info.bytes} bytes, the store has {found}.")
        crcs = self._remote.read(crc_path(Path(name)).as_posix(), self._stop)
        crc_path(held.part).write_bytes(crcs)
