"""The listing: which files a source has, here or far away, all alike and sorted by name.

A folder, a data set of the hub and a bucket are listed; a web server cannot be, so it is given one
file's address or a list of names (Common Crawl's warc.paths.gz). The limit is applied here, and
sizes of listed names are asked for only until it is reached.
"""

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tokenmill.errors import SourceError
from tokenmill.pipeline.fetch import object_store, web
from tokenmill.pipeline.fetch.address import check_name, is_remote, scheme_of, selected, shown
from tokenmill.pipeline.fetch.hub import hub_store, list_hub
from tokenmill.pipeline.fetch.object_store import ObjectStore
from tokenmill.pipeline.fetch.retry import retrying
from tokenmill.pipeline.fetch.store import Store, read_all
from tokenmill.pipeline.fetch.web import WebStore
from tokenmill.pipeline.sources import PATTERNS, SourceConfig, SourceFile, list_files

STAT_THREADS = 16
LISTING_ATTEMPTS = 4
GZIP = b"\x1f\x8b"


def list_source(source: str, config: SourceConfig) -> list[SourceFile]:
    """All files of a source that its settings ask for, sorted by name.

    Raises:
        SourceError: the place is not there, not reachable, refused, or holds no such file.
    """
    if config.file_list:
        files = _of_list(source, config)
    elif is_remote(config.path):
        files = _limited(source, config, _of_store(source, config))
    else:
        files = _limited(source, config, [_local(*file) for file in list_files(source, config)])
    return sorted(files, key=lambda file: file.name)


def store_of(file: SourceFile, options: Mapping[str, Any]) -> Store:
    """The bytes of a remote file.

    Args:
        options: the source's storage_options.
    """
    scheme = scheme_of(file.address)
    if scheme in ("http", "https"):
        return WebStore(file.address, file.version)
    return hub_store(file.address) if scheme == "hf" else ObjectStore(file, options)


def _local(name: str, path: Path) -> SourceFile:
    status = path.stat()
    return SourceFile(name, str(path), status.st_size, str(status.st_mtime_ns))


def _limited(source: str, config: SourceConfig, files: list[SourceFile]) -> list[SourceFile]:
    if config.limit is None:
        return files
    by_name = {file.name: file for file in files}
    order = [by_name[name] for name in config.limit.order(list(by_name))]
    return _some(source, list(config.limit.take(order)), len(files))


def _some(source: str, files: list[SourceFile], listed: int) -> list[SourceFile]:
    if not files:
        raise SourceError(
            f"sources.{source}.limit: none of {listed:,} files fits into it. Files are taken "
            "whole: raise limit.bytes or limit.share, or take another limit.sample_seed."
        )
    return files


def _of_store(source: str, config: SourceConfig) -> list[SourceFile]:
    where, scheme = f"sources.{source}.path", scheme_of(config.path)
    if scheme in ("http", "https"):
        return [_of_web(where, config)]
    if scheme == "hf":
        files, pattern = list_hub(where, config.path)
    else:
        files, pattern = object_store.list_objects(where, config.path, config.storage_options)
    if len(files) == 1 and not pattern and config.path.endswith(f"/{files[0].name}"):
        return files  # one file by its own name, whatever that is
    patterns = config.patterns or PATTERNS[config.format]
    names = set(selected([file.name for file in files], pattern, patterns))
    if not names:
        raise SourceError(
            f"{where}: {shown(config.path)}: {len(files):,} files, none named "
            f"{pattern or ' or '.join(patterns)}. Correct the path, the format or the patterns."
        )
    return [file for file in files if check_name(source, file.name) in names]


def _of_web(where: str, config: SourceConfig) -> SourceFile:
    name = unquote(urlsplit(config.path).path.rpartition("/")[2])
    if not name or "*" in name:
        raise SourceError(
            f"{where}: {shown(config.path)}: a web server lists no files. Give one file's "
            "address, or the names in a file_list."
        )
    check = f"{where}: {shown(config.path)}"
    return retrying(check, lambda: web.stat(name, config.path), LISTING_ATTEMPTS)


def _of_list(source: str, config: SourceConfig) -> list[SourceFile]:
    """The files that a list names; their sizes are asked for in its order, a few at once."""
    if scheme_of(config.path) == "hf":
        raise SourceError(
            f"sources.{source}.file_list: the hub lists its files itself. Take a glob in path, "
            "or patterns."
        )
    addresses = _addresses(source, config)
    if not addresses:
        raise SourceError(
            f"sources.{source}.file_list: {shown(config.file_list)}: no name in it"
            f"{' that matches patterns' if config.patterns else ''}. Correct the list."
        )
    if config.limit is None:
        return list(_stats(config, addresses, list(addresses)))
    order = config.limit.order(list(addresses))
    taken = list(config.limit.take(_stats(config, addresses, order)))
    return _some(source, taken, len(addresses))


def _addresses(source: str, config: SourceConfig) -> dict[str, str]:
    """Name to address of each line."""
    where = f"sources.{source}.file_list"
    found: dict[str, str] = {}
    for line in _lines(where, config):
        whole = is_remote(line) or line.startswith("/")
        address = line if whole else f"{config.path.rstrip('/')}/{line}"
        base = config.path.rstrip("/") + "/"
        if address.startswith(base):
            name = address.removeprefix(base).partition("?")[0]
        else:
            name = (urlsplit(address).path if is_remote(address) else address).lstrip("/")
        if config.patterns and not selected([name], "", config.patterns):
            continue
        if found.setdefault(check_name(source, name), address) != address:
            raise SourceError(
                f"{where}: {shown(found[name])} and {shown(address)} would both be named {name}. "
                "Take one of them out."
            )
    return found


def _lines(where: str, config: SourceConfig) -> Iterator[str]:
    data = _read_list(where, config)
    if data.startswith(GZIP):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise SourceError(
                f"{where}: {shown(config.file_list)}: broken gzip ({error}). Fetch it anew."
            ) from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{where}: {shown(config.file_list)}: expected one name a line in UTF-8 ({error})."
        ) from None
    yield from (line for line in map(str.strip, text.splitlines()) if line)


def _read_list(where: str, config: SourceConfig) -> bytes:
    place = config.file_list
    if not is_remote(place):
        try:
            return Path(place).read_bytes()
        except OSError as error:
            raise SourceError(f"{where}: {place}: {error.strerror}. Correct the recipe.") from None
    store = store_of(SourceFile(place, place, None), config.storage_options)
    return retrying(f"{where}: {shown(place)}", lambda: read_all(store), LISTING_ATTEMPTS)


def _stats(
    config: SourceConfig, addresses: dict[str, str], names: Sequence[str]
) -> Iterator[SourceFile]:
    """The files of some names in their order, as long as someone asks for more."""

    def stat(name: str) -> SourceFile:
        address = addresses[name]
        if not is_remote(address):
            try:
                return _local(name, Path(address))
            except OSError as error:
                raise SourceError(f"{address}: {error.strerror}. Correct the list.") from None
        if scheme_of(address) in ("http", "https"):
            return retrying(shown(address), lambda: web.stat(name, address), LISTING_ATTEMPTS)
        options = config.storage_options
        return retrying(
            address, lambda: object_store.stat(name, address, options), LISTING_ATTEMPTS
        )

    with ThreadPoolExecutor(STAT_THREADS) as threads:
        for start in range(0, len(names), 4 * STAT_THREADS):
            yield from threads.map(stat, names[start : start + 4 * STAT_THREADS])
