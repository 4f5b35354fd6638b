"""Data sets of the Hugging Face hub, by its HTTP API.

    hf://datasets/OWNER/NAME[@REVISION][/FOLDER, FILE or GLOB]

The revision is resolved to a commit when the files are listed, so that a push in the middle of a
build does not mix versions; the file's own checksum, not the commit, decides whether it is fetched
again. HF_ENDPOINT and HF_TOKEN (or a saved login) are honoured.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urljoin

from huggingface_hub import get_token

from tokenmill.errors import SourceError
from tokenmill.pipeline.fetch.address import split_glob
from tokenmill.pipeline.fetch.retry import retrying
from tokenmill.pipeline.fetch.store import drain
from tokenmill.pipeline.fetch.web import WebStore
from tokenmill.pipeline.sources import Checksum, SourceFile

_PLACE = re.compile(
    r"hf://datasets/([^/@]+/[^/@]+)(?:@(refs/(?:convert|pr)/[^/]+|[^/]+))?(?:/(.*))?"
)
LISTING_ATTEMPTS = 4
"""A build that cannot list its sources says so after some seconds."""


@dataclass(frozen=True, slots=True)
class HubPlace:
    """The parts of an hf:// address."""

    repo: str
    revision: str
    path: str


def parse_place(where: str, address: str) -> HubPlace:
    """
    Raises:
        SourceError: it is no address of a data set.
    """
    found = _PLACE.fullmatch(address)
    if not found:
        raise SourceError(
            f"{where}: {address}: expected hf://datasets/OWNER/NAME[@REVISION][/FOLDER]."
        )
    return HubPlace(found[1], unquote(found[2] or "main"), (found[3] or "").strip("/"))


def list_hub(where: str, address: str) -> tuple[list[SourceFile], str]:
    """All files below the top of an address, and the glob that it ends with.

    Raises:
        SourceError: no such data set, revision or folder, no access, or no answer.
    """
    place = parse_place(where, address)
    top, pattern = split_glob(place.path)
    api = f"{endpoint()}/api/datasets/{place.repo}"
    info = _json(where, f"{api}/revision/{quote(place.revision, safe='')}")
    commit = str(info["sha"])
    try:
        entries = list(_tree(where, f"{api}/tree/{commit}", top))
    except SourceError:
        folder, _, _ = top.rpartition("/")
        entries = [e for e in _tree(where, f"{api}/tree/{commit}", folder) if e["path"] == top]
        if not entries:
            raise
        top = folder
    prefix = f"{top}/" if top else ""
    files = []
    for entry in entries:
        lfs = entry.get("lfs") or {}
        checksum = Checksum("sha256", lfs["oid"]) if lfs else Checksum("git", entry["oid"])
        files.append(
            SourceFile(
                name=entry["path"].removeprefix(prefix),
                address=f"hf://datasets/{place.repo}@{commit}/{entry['path']}",
                bytes=lfs.get("size", entry["size"]),
                checksum=checksum,
            )
        )
    return files, pattern


def hub_store(address: str) -> WebStore:
    """The bytes of a file that list_hub listed."""
    place = parse_place("fetch", address)
    url = f"{endpoint()}/datasets/{place.repo}/resolve/{place.revision}/{quote(place.path)}"
    return WebStore(url, headers=_headers())


def endpoint() -> str:
    """Read when it is needed: huggingface_hub reads it once, when it is imported."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _tree(where: str, tree: str, folder: str) -> Iterator[dict[str, Any]]:
    """The files below a folder, page by page."""
    page: str | None = f"{tree}{'/' * bool(folder)}{quote(folder)}?recursive=true"
    while page:
        entries, page = _page(where, page)
        yield from (entry for entry in entries if entry["type"] == "file")


def _json(where: str, url: str) -> Any:
    return _page(where, url)[0]


def _page(where: str, url: str) -> tuple[Any, str | None]:
    """An answer of the API, and the address of the next page."""

    def ask() -> tuple[Any, str | None]:
        stream = WebStore(url, headers=_headers()).open(0, None)
        body = drain(stream)
        try:
            return json.loads(body), _next_page(url, stream.response.headers.get("Link", ""))
        except ValueError:
            raise SourceError(
                f"{where}: {url}: expected the hub's JSON, found something else. Check HF_ENDPOINT."
            ) from None

    return retrying(where, ask, LISTING_ATTEMPTS)


def _next_page(url: str, link: str) -> str | None:
    found = re.search(r'<([^>]+)>\s*;\s*rel="?next"?', link)
    if not found:
        return None
    following = str(urljoin(url, found[1]))
    if not following.startswith(endpoint() + "/"):  # the token goes to the hub alone
        raise SourceError(f"{url}: its next page is on another host, {following}.")
    return following


def _headers() -> dict[str, str]:
    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}
