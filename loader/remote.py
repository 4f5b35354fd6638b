"""A run in a store far away: its small files are copied, its shards are brought when needed.

    mirror("s3://bucket/run", cache)    cache/runs/<name>/ with run.json, manifests, overlay, ...

The copy is a folder like the run's own, without shards, and is made anew whenever the run is
opened, so a retraction is seen. fsspec knows the stores and takes their credentials from the
environment.

What fails is tried five times with pauses that double from half a second; what is gone or refused
is not tried again.
"""

import errno
import fcntl
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.callbacks import Callback

from tokenmill.errors import FormatError, RecipeError, RunError
from tokenmill.shards.files import remove_parts, write_whole
from tokenmill.shards.overlay import overlay_path
from tokenmill.shards.run import pack_folder, read_run

ATTEMPTS = 5
FIRST_SECONDS = 0.5

Result = TypeVar("Result")


class Closed(RuntimeError):
    """Work was given up because its loader was closed."""


class RemoteRun:
    """The files of a run behind an address that fsspec knows."""

    def __init__(self, address: str) -> None:
        """
        Raises:
            RecipeError: there is no such kind of store, or its driver is not installed.
        """
        self.address = address.rstrip("/")
        try:
            self._store, self._top = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise RecipeError(
                f"{address}: no store for it ({error}). Check the address; s3:// needs s3fs, gs:// "
                "gcsfs, https:// aiohttp."
            ) from None

    def read(self, name: str, stop: threading.Event | None = None) -> bytes:
        """A small file.

        Raises:
            FormatError: it is not there.
            RunError: the store refuses or does not answer.
        """
        read: Callable[[], bytes] = lambda: self._store.cat_file(f"{self._top}/{name}")  # noqa: E731
        return self._trying(name, read, stop or threading.Event())

    def download(self, name: str, target: Path, stop: threading.Event) -> None:
        """A file as it is in the store.

        Raises:
            Closed: stop was set.
            FormatError, RunError: as read.
        """
        watch = _Watch(stop)

        def get() -> None:
            self._store.get_file(f"{self._top}/{name}", str(target), callback=watch)

        self._trying(name, get, stop)

    def _trying(self, name: str, action: Callable[[], Result], stop: threading.Event) -> Result:
        place = f"{self.address}/{name}"
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return action()
            except Closed:
                raise
            except FileNotFoundError:
                raise FormatError(f"{place} is not there.") from None
            except Exception as error:  # each store raises its own library's
                told = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
                if isinstance(error, PermissionError) or "Credential" in type(error).__name__:
                    raise RunError(
                        f"{place}: the store refuses access ({told}). Check the credentials in the "
                        "environment."
                    ) from None
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                    raise RunError(
                        f"{place}: the disk of the cache is full. Free some of it, or take another "
                        "folder or smaller cache_bytes."
                    ) from None
            if attempt < ATTEMPTS and stop.wait(FIRST_SECONDS * 2 ** (attempt - 1)):
                raise Closed
        raise RunError(
            f"{place}: cannot be read ({told}; tried {ATTEMPTS} times). Check the network and the "
            "address, then go on from the last checkpoint."
        )


def mirror(remote: RemoteRun, cache: Path) -> Path:
    """Copy what a loader reads of a run besides shards, and give the copy's folder.

    Raises:
        FormatError: there is no finished run at the address.
        RunError: the store refuses or does not answer.
    """
    name = hashlib.sha256(remote.address.encode()).hexdigest()[:16]
    folder = cache / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_parts(folder, ["."])
        _copy(remote, folder, "run.json")
        for pack in {info.pack for info in read_run(folder).phases.values()}:
            _copy(remote, folder, (pack_folder(folder, pack) / "manifest.json"))
        for optional in (overlay_path(folder), folder / "tokenizer" / "word_starts.npy"):
            try:
                _copy(remote, folder, optional)
            except FormatError:
                optional.unlink(missing_ok=True)
    return folder


def _copy(remote: RemoteRun, folder: Path, file: Path | str) -> None:
    path = folder / file
    data = remote.read(path.relative_to(folder).as_posix())
    # Other ranks read these files; most often nothing is new.
    if not path.exists() or path.read_bytes() != data:
        write_whole(path, data)


class _Watch(Callback):  # type: ignore[misc]
    """Ends a download between two of its pieces."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self._stop_event = stop

    def relative_update(self, inc: int = 1) -> Any:
        if self._stop_event.is_set():
            raise Closed
