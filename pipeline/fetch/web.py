"""Files of a web server: sizes, and ranges of bytes over connections that are kept.

Every answer must carry the version that was listed (the ETag, else the date), so that ranges of
two versions never meet in one file. Passwords are those of ~/.netrc. Redirects are followed; where
one led is remembered for the next range, without the credentials that another host must not see.
"""

import http.client
import netrc
import os
import re
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

from tokenmill.errors import SourceError
from tokenmill.pipeline.fetch.address import shown
from tokenmill.pipeline.fetch.connections import Answer, basic, get
from tokenmill.pipeline.fetch.retry import Transient, seconds_of
from tokenmill.pipeline.fetch.store import changed, drain
from tokenmill.pipeline.sources import Checksum, SourceFile

AGAIN = (408, 425, 429, 500, 502, 503, 504)
MAX_REDIRECTS = 10


class WebStore:
    """One file behind an address of http or https."""

    def __init__(
        self, address: str, version: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            version: what `stat` gave; empty to take what comes.
            headers: for the address itself, not for where it leads.
        """
        self.address, self.version = address, version
        self.headers = {**_password(address), **(headers or {})}
        self.final: str | None = None

    def open(self, start: int, stop: int | None) -> "WebStream":
        last = "" if stop is None else stop - 1
        whole = start == 0 and stop is None
        response = self._get({} if whole else {"Range": f"bytes={start}-{last}"})
        try:
            stream = WebStream(response)
            found = version_of(response)
            if self.version and found != self.version:
                raise changed(shown(self.address), self.version, found or "no version")
        except BaseException:
            response.close()
            raise
        return stream

    def vouches(self, checksum: Checksum) -> bool:
        return True

    def check(self) -> None:
        """Nothing to ask: every answer carried its version."""

    def _get(self, headers: Mapping[str, str]) -> Answer:
        """The answer of the address, or of where it led before.

        An address that a store signed for some minutes ages; then the first one is asked again.
        """
        final = self.final  # other threads may forget it
        if final is not None:
            try:
                return self._follow(final, headers)
            except (SourceError, Transient):
                self.final = None
        return self._follow(self.address, headers)

    def _follow(self, address: str, headers: Mapping[str, str]) -> Answer:
        for _ in range(MAX_REDIRECTS):
            own = self.headers if _host(address) == _host(self.address) else {}
            response = _request(address, {**own, **headers}, self.address)
            place = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not place:
                if address != self.address:
                    self.final = address
                return _accepted(response, self.address)
            response.close()
            address = urljoin(address, place)
        raise SourceError(f"{shown(self.address)}: more than {MAX_REDIRECTS} redirects.")


class WebStream:
    """The body of an answer."""

    def __init__(self, response: Answer) -> None:
        self.response = response
        length = response.headers.get("Content-Length", "")
        self.left = int(length) if length.isdigit() else None
        self.start, self.size = 0, self.left
        if response.status == 416:  # an empty file has no first byte
            self.size = 0
        if response.status == 206:
            found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if not found:
                raise Transient("an answer of status 206 without a readable Content-Range")
            self.start = int(found[1])
            self.size = None if found[2] == "*" else int(found[2])

    def readinto(self, buffer: memoryview) -> int:
        try:
            number = self.response.readinto(buffer)
        except (http.client.HTTPException, OSError) as error:
            raise Transient(f"the connection was cut ({_reason(error)})") from None
        if self.left is not None:
            self.left -= number
            if not number and self.left:
                raise Transient(f"the connection ended {self.left} bytes too early")
        return number

    def close(self) -> None:
        self.response.close()


def stat(name: str, address: str) -> SourceFile:
    """A file as its server describes it now. One byte is asked for: signed addresses and some
    servers answer no HEAD.

    Raises:
        Transient, SourceError: as WebStore.open.
    """
    stream = WebStore(address).open(0, 1)
    if stream.response.status == 206:
        drain(stream)  # so that the connection serves the next file
    else:
        stream.close()
    return SourceFile(name, address, stream.size, version_of(stream.response))


def version_of(response: Answer) -> str:
    """What an answer says of the version of its bytes; empty if nothing."""
    return response.headers.get("ETag") or response.headers.get("Last-Modified") or ""


def _request(address: str, headers: Mapping[str, str], first_address: str) -> Answer:
    try:
        return get(address, {"User-Agent": "tokenmill", **headers})
    except ValueError as error:  # http.client.InvalidURL is one
        raise SourceError(f"{shown(first_address)}: no address of a web server: {error}") from None
    except (http.client.HTTPException, OSError) as error:
        raise Transient(f"no answer ({_reason(error)})") from None


def _accepted(response: Answer, address: str) -> Answer:
    """An answer that holds the bytes; any other becomes an error."""
    status = response.status
    empty = status == 416 and response.headers.get("Content-Range") == "bytes */0"
    if status in (200, 206) or empty:
        return response
    retry_after = seconds_of(response.headers.get("Retry-After"))
    response.close()
    if status in AGAIN:
        raise Transient(f"the server answered {status}", retry_after)
    place = shown(address)
    if status in (401, 403, 407):
        raise SourceError(
            f"{place}: the server refuses access ({status}). Check the credentials: HF_TOKEN and "
            "the terms of a gated data set, ~/.netrc, or the signature of the address."
        )
    if status in (404, 410):
        raise SourceError(
            f"{place}: not there ({status}). Correct the address, or run again if it was listed."
        )
    if status in (412, 416):
        raise changed(place, "the range that was asked for", f"status {status}")
    raise SourceError(f"{place}: the server answered {status}; expected 200 or 206.")


def _password(address: str) -> dict[str, str]:
    """Basic authorization from ~/.netrc (or the file that NETRC names)."""
    try:
        known = netrc.netrc(os.environ.get("NETRC")).authenticators(
            urlsplit(address).hostname or ""
        )
    except (FileNotFoundError, netrc.NetrcParseError):
        return {}
    return {"Authorization": basic(known[0], known[2] or "")} if known else {}


def _host(address: str) -> tuple[str, str]:
    return urlsplit(address).scheme, urlsplit(address).netloc


def _reason(error: Exception) -> str:
    """What went wrong in a few words, without an address, which may hold a signature."""
    text = getattr(error, "strerror", None) or str(error)
    return re.sub(r"https?://[^ ]+", "(address)", f"{type(error).__name__}: {text}")[:200]
