"""An HTTP response as a crawler stored it: is it a page, and what are its bytes?

    page = read_response(block, max_bytes)      Page(body, charset, xhtml)

Chunks are joined and gzip, deflate, br and zstd undone. A response that only says it is chunked or
compressed is taken as it stands, as browsers did not but crawlers do; one that is compressed and
cut is no page. No decoder gives more than max_bytes, whatever it was fed.
"""

import codecs
import io
import re
import zlib
from dataclasses import dataclass

import zstandard
from fastwarc.stream_io import BrotliReader
from fastwarc.warc import WarcRecord

HTML_TYPES = ("text/html", "application/xhtml+xml")
SNIFFED_TYPES = ("", "unknown/unknown", "application/unknown", "*/*")
"""Content types that tell nothing, as in the WHATWG's MIME sniffing."""

ZSTD_STEP_BYTES = 1 << 12
"""zstd packs at most 32,768 bytes into one: what one step gives stays below 128 MiB."""

_HTML = re.compile(
    rb"\s*(<\?xml[^>]*>\s*)?<(!doctype html|!--|"
    rb"(html|head|body|title|meta|link|style|script|iframe|h1|div|font|table|a|b|br|p)[\s/>])",
    re.IGNORECASE,
)
"""How a page begins, much as the WHATWG's MIME sniffing has it."""

STATUS, NOT_HTML, EMPTY = "status_not_200", "not_html", "empty_body"
"""Why a response is no page. Nothing is wrong with such a record: it is counted."""


class NoPage(Exception):
    """A sound response that is no page of HTML; the argument says why."""


class BadResponse(Exception):
    """A response that cannot be decoded; the argument says why."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of HTML as bytes."""

    body: bytes
    charset: str | None
    """What the server said."""
    xhtml: bool


def read_response(block: bytes, max_bytes: int) -> Page:
    """The page in a response of status 200.

    Args:
        block: status line, headers and body, as they came from the server.
        max_bytes: the most bytes of body, after decoding.

    Raises:
        NoPage: another status, no HTML, or no body.
        BadResponse: no HTTP, a damaged or cut body, or one longer than max_bytes.
    """
    record = WarcRecord()
    record.set_bytes_content(block)
    record.is_http = True
    try:
        record.parse_http()
    except (OSError, ValueError) as error:
        raise BadResponse(f"no HTTP response: {error}") from None
    headers = record.http_headers
    if headers.status_code is None:
        raise BadResponse("no HTTP response: no status line")
    if headers.status_code != 200:
        raise NoPage(STATUS)
    content_type = (record.http_content_type or "").lower()
    if content_type not in (*HTML_TYPES, *SNIFFED_TYPES):
        raise NoPage(NOT_HTML)
    body = record.reader.read()
    if "chunked" in (headers.get("Transfer-Encoding") or "").lower():
        body = _joined(body)
    for coding in reversed((headers.get("Content-Encoding") or "").lower().split(",")):
        body = _decoded(body, coding.strip(), max_bytes)
    if len(body) > max_bytes:
        raise BadResponse(f"the body has more than max_document_bytes = {max_bytes} bytes")
    if not body.strip():
        raise NoPage(EMPTY)
    if content_type not in HTML_TYPES and not _HTML.match(body.removeprefix(codecs.BOM_UTF8)):
        raise NoPage(NOT_HTML)
    charset = (record.http_charset or "").strip("\"' ")
    return Page(body, charset or None, content_type == HTML_TYPES[1])


def _joined(body: bytes) -> bytes:
    """The chunks of a body put together; a body that does not begin with one as it is."""
    chunks: list[bytes] = []
    place = 0
    while (line_end := body.find(b"\n", place)) >= 0:
        try:
            size = int(body[place:line_end].split(b";")[0], 16)
        except ValueError:
            if not chunks:
                return body
            raise BadResponse(f"no length of a chunk at byte {place} of the body") from None
        if size <= 0:
            return b"".join(chunks)
        chunk = body[line_end + 1 : line_end + 1 + size]
        if len(chunk) < size:
            raise BadResponse(f"a chunk of {size} bytes is cut off after {len(chunk)}")
        chunks.append(chunk)
        place = line_end + 1 + size
        place += 2 if body[place : place + 2] == b"\r\n" else 1
    return b"".join(chunks) if chunks else body


def _decoded(body: bytes, coding: str, max_bytes: int) -> bytes:
    try:
        if coding in ("gzip", "x-gzip"):
            return _inflated(body, 31, max_bytes) if body.startswith(b"\x1f\x8b") else body
        if coding == "deflate":
            # Said of zlib's form; some servers send the bare one. HTML looks like neither.
            if body.lstrip().startswith(b"<"):
                return body
            return _inflated(body, 15 if body[:1] == b"\x78" else -15, max_bytes)
        if coding == "br":
            if body.lstrip().startswith(b"<"):
                return body
            return BrotliReader(io.BytesIO(body)).read(max_bytes + 1)
        if coding == "zstd" and body.startswith(b"\x28\xb5\x2f\xfd"):
            return _unpacked(body, max_bytes)
    except (OSError, zlib.error, zstandard.ZstdError) as error:
        raise BadResponse(f"the body is damaged {coding}: {error}") from None
    return body


def _unpacked(body: bytes, max_bytes: int) -> bytes:
    frame = zstandard.ZstdDecompressor().decompressobj()
    parts = []
    left = max_bytes
    for at in range(0, len(body), ZSTD_STEP_BYTES):
        parts.append(frame.decompress(body[at : at + ZSTD_STEP_BYTES]))
        left -= len(parts[-1])
        if frame.eof or left < 0:
            return b"".join(parts)
    raise BadResponse("the compressed body is cut off")


def _inflated(body: bytes, window: int, max_bytes: int) -> bytes:
    stream = zlib.decompressobj(window)
    data = stream.decompress(body, max_bytes + 1)
    if not stream.eof and len(data) <= max_bytes:
        raise BadResponse("the compressed body is cut off")
    return data
