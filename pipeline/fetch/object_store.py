"""Files of object stores: s3, gs and whatever else fsspec knows.

Credentials come from the environment, as the store's own tools take them. Ranges are asked for one
by one, and the object's ETag is asked for again at the end, so that two versions never meet in
one file. An S3 ETag is taken for an MD5 where it can be one: a single part, not encrypted by KMS.
"""

import base64
import contextlib
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import fsspec

from tokenmill.errors import SourceError
from tokenmill.pipeline.fetch.address import split_glob
from tokenmill.pipeline.fetch.retry import Transient, retrying
from tokenmill.pipeline.fetch.store import changed
from tokenmill.pipeline.sources import Checksum, SourceFile

LISTING_ATTEMPTS = 4


def list_objects(
    where: str, address: str, options: Mapping[str, Any]
) -> tuple[list[SourceFile], str]:
    """All objects below the top of an address, and the glob that it ends with.

    Raises:
        SourceError: no such place, no access, no driver, or no answer.
    """
    top, pattern = split_glob(address)
    store, path = _open(where, top, options)

    def ask() -> dict[str, dict[str, Any]]:
        with _errors(where, address):
            store.invalidate_cache()
            return dict(store.find(path, detail=True))

    found = retrying(where, ask, LISTING_ATTEMPTS)
    prefix = path.rstrip("/") + "/"
    files = [
        _described(name.removeprefix(prefix), store.unstrip_protocol(name), info)
        for name, info in found.items()
        if not name.endswith("/")  # what consoles leave to show a folder
    ]
    if len(files) == 1 and list(found) == [path]:  # the address of one object
        only = next(iter(found.items()))
        files = [_described(path.rpartition("/")[2], store.unstrip_protocol(path), only[1])]
    return files, pattern


def stat(name: str, address: str, options: Mapping[str, Any]) -> SourceFile:
    """
    Raises:
        Transient, SourceError: as ObjectStore.open.
    """
    store, path = _open(name, address, options)
    with _errors("fetch", address):
        return _described(name, address, store.info(path, refresh=True))


class ObjectStore:
    """One object."""

    def __init__(self, file: SourceFile, options: Mapping[str, Any]) -> None:
        self.file = file
        self.store, self.path = _open("fetch", file.address, options)

    def open(self, start: int, stop: int | None) -> "ObjectStream":
        with _errors("fetch", self.file.address):
            data = self.store.cat_file(self.path, start=start, end=stop)
        return ObjectStream(data, start, self.file.bytes)

    def vouches(self, checksum: Checksum) -> bool:
        """An ETag of S3 is no MD5 where the object is encrypted with a key of the customer's."""
        if checksum.kind != "md5" or not hasattr(self.store, "call_s3"):
            return True
        bucket, key, _ = self.store.split_path(self.path)
        with _errors("fetch", self.file.address):
            head = self.store.call_s3("head_object", Bucket=bucket, Key=key)
        encrypted = str(head.get("ServerSideEncryption", "")).startswith("aws:kms")
        return not encrypted and "SSECustomerAlgorithm" not in head

    def check(self) -> None:
        """
        Raises:
            SourceError: the object is no longer the one that was listed.
        """
        if not self.file.version:
            return
        now = stat(self.file.name, self.file.address, self.store.storage_options)
        if (now.version, now.bytes) != (self.file.version, self.file.bytes):
            raise changed(self.file.address, self.file.version, now.version)


class ObjectStream:
    """A range that was read whole."""

    def __init__(self, data: bytes, start: int, size: int | None) -> None:
        self.data, self.start, self.size = io.BytesIO(data), start, size

    def readinto(self, buffer: memoryview) -> int:
        return self.data.readinto(buffer)

    def close(self) -> None:
        pass


def _open(where: str, address: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it."""
    try:
        store, path = fsspec.core.url_to_fs(address, **options)
    except (ImportError, ValueError, TypeError) as error:
        raise SourceError(
            f"{where}: {address}: no store for it ({_first_line(error)}). For s3:// and gs:// "
            "install s3fs or gcsfs; check the address and storage_options."
        ) from None
    return store, path


@contextlib.contextmanager
def _errors(where: str, address: str) -> Iterator[None]:
    """A store's errors as ours: refused and gone are final, the rest may pass."""
    try:
        yield
    except FileNotFoundError:
        raise SourceError(
            f"{where}: {address}: not there. Correct the address, or run again if it was listed."
        ) from None
    except PermissionError as error:
        raise _refused(where, address, error) from None
    except Exception as error:  # each store raises its own library's
        if "Credential" in type(error).__name__:
            raise _refused(where, address, error) from None
        raise Transient(f"{address}: {type(error).__name__}: {_first_line(error)}") from None


def _refused(where: str, address: str, error: Exception) -> SourceError:
    return SourceError(
        f"{where}: {address}: the store refuses access ({_first_line(error)}). Check the "
        "credentials in the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, "
        "GOOGLE_APPLICATION_CREDENTIALS), or set storage_options.anon for open data."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def _described(name: str, address: str, info: Mapping[str, Any]) -> SourceFile:
    tag = str(info.get("ETag") or info.get("etag") or info.get("mtime") or "").strip('"')
    checksum = None
    if isinstance(info.get("md5Hash"), str):  # Google's, in base 64
        checksum = Checksum("md5", base64.b64decode(info["md5Hash"]).hex())
    elif "ETag" in info and re.fullmatch("[0-9a-f]{32}", tag):
        checksum = Checksum("md5", tag)
    return SourceFile(name, address, info.get("size"), tag, checksum)
