"""WARC files made by hand for the tests: records, and the ways in which files hold them."""

import gzip
from collections.abc import Mapping, Sequence

FORMS = ("members", "one member", "plain")


def record(
    kind: str,
    block: bytes,
    *,
    length: int | str | None = None,
    end: bytes = b"\r\n\r\n",
    **headers: str,
) -> bytes:
    """A record; `length` is what its Content-Length says where that is not the truth."""
    lines = [
        "WARC/1.0",
        f"WARC-Type: {kind}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        f"Content-Length: {len(block) if length is None else length}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + block + end


def response(
    body: bytes,
    *,
    status: str = "200 OK",
    content_type: str | None = "text/html; charset=utf-8",
    headers: Mapping[str, str] = {},
) -> bytes:
    """What a server sends."""
    lines = [f"HTTP/1.1 {status}"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def page(text: str, **settings: str | None) -> bytes:
    html = f"<!DOCTYPE html><html><head><title>t</title></head><body><p>{text}</p></body></html>"
    return response(html.encode(), **settings)  # type: ignore[arg-type]


def joined(records: Sequence[bytes], form: str) -> bytes:
    """A file of these records."""
    if form == "members":
        return b"".join(gzip.compress(one, mtime=0) for one in records)
    if form == "one member":
        return gzip.compress(b"".join(records), mtime=0)
    return b"".join(records)
