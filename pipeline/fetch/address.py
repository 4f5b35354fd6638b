"""Addresses: where a source's files are, and what of that may be shown.

    data/web                                        a folder of this machine
    hf://datasets/OWNER/NAME[@REVISION][/FOLDER]    the Hugging Face hub
    https://host/path                               a web server
    s3://bucket/prefix/*.parquet, gs://...          an object store, through fsspec

A file's name is its path below the top: the folder, or what stands before the first part that has
a * or ?. Names take part in doc_ids, so they hold no host, port or revision: one corpus is the same
from a folder and from a server.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import urlsplit, urlunsplit

from fsspec.utils import glob_translate

from tokenmill.errors import RecipeError, SourceError

_GLOB = re.compile(r"[*?\[]")


def scheme_of(address: str) -> str:
    """ "https", "s3", "hf"...; empty for a path of this machine."""
    scheme, found, _ = address.partition("://")
    return scheme.lower() if found and scheme.lower() != "file" else ""


def is_remote(address: str) -> bool:
    return bool(scheme_of(address))


def shown(address: str) -> str:
    """An address for messages and receipts: a query may hold a signature, so it is left out."""
    if scheme_of(address) not in ("http", "https"):
        return address
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def refuse_secrets(where: str, address: str) -> None:
    """Refuse a user and password inside an address.

    Raises:
        RecipeError: there is one; the recipe stays in the run, for all to read.
    """
    if scheme_of(address) in ("http", "https") and "@" in urlsplit(address).netloc:
        raise RecipeError(
            f"{where}: {shown(address)}: a recipe holds no passwords. "
            "Put the user and password of that host into ~/.netrc."
        )


def split_glob(path: str) -> tuple[str, str]:
    """(top, pattern): what stands before the first part with * ? or [, and the rest.

    The pattern is empty where there is none. `**` stands for any number of folders.
    """
    parts = path.split("/")
    for place, part in enumerate(parts):
        if _GLOB.search(part):
            return "/".join(parts[:place]), "/".join(parts[place:])
    return path, ""


def selected(names: Sequence[str], pattern: str, patterns: Sequence[str]) -> list[str]:
    """The names that a glob matches; without one, those that end like one of the patterns."""
    if pattern:
        try:
            matches = re.compile(glob_translate(pattern)).match
        except ValueError as error:
            raise RecipeError(f"path: {pattern}: {error}") from None
        return [name for name in names if matches(name)]
    return [name for name in names if any(PurePosixPath(name).match(p) for p in patterns)]


def check_name(source: str, name: str) -> str:
    """A name that may stand below a folder of the run.

    Raises:
        SourceError: a store lists it with .., an empty part, or a NUL.
    """
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise SourceError(
            f"sources.{source}: the store lists a file named {name!r}, which no folder can hold. "
            "Leave it out with patterns or a glob."
        )
    return name
