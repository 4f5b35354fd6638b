"""HTTP responses as crawlers store them: pages out of whatever servers send."""

import contextlib
import gzip
import io
import zlib

import pytest
import zstandard
from fastwarc.stream_io import BrotliWriter
from hypothesis import given
from hypothesis import strategies as st
from warc_files import response

from tokenmill.pipeline.extract.response import BadResponse, NoPage, Page, read_response

BODY = b"<html><body>" + b"some words " * 50 + b"</body></html>"
MAX = 1 << 16


def chunked(body: bytes, size: int = 100, extension: bytes = b"") -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces]
    return b"".join(chunks) + b"0\r\n\r\n"


def brotli(body: bytes) -> bytes:
    packed = io.BytesIO()
    with BrotliWriter(packed) as writer:
        writer.write(body)
    return packed.getvalue()


def bare_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


CODINGS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
}


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("coding", CODINGS)
def test_bodies_are_decoded(coding, in_chunks):
    body, headers = CODINGS[coding](BODY), {"Content-Encoding": coding}
    if in_chunks:
        body, headers = chunked(body), {**headers, "Transfer-Encoding": "chunked"}
    assert read_response(response(body, headers=headers), MAX) == Page(BODY, "utf-8", False)


def test_deflate_may_be_bare_and_codings_may_be_stacked():
    bare = response(bare_deflate(BODY), headers={"Content-Encoding": "deflate"})
    assert read_response(bare, MAX).body == BODY
    twice = response(
        gzip.compress(zlib.compress(BODY)), headers={"Content-Encoding": "deflate, gzip"}
    )
    assert read_response(twice, MAX).body == BODY


@given(body=st.binary(min_size=1, max_size=300), size=st.integers(1, 100))
def test_chunks_of_any_size_are_joined(body, size):
    sent = chunked(b"<p>" + body, size, extension=b";name=value")
    block = response(sent, headers={"Transfer-Encoding": "chunked"})
    assert read_response(block, MAX).body == b"<p>" + body


@pytest.mark.parametrize(
    "headers",
    [{"Transfer-Encoding": "chunked"}, *({"Content-Encoding": name} for name in CODINGS)],
)
def test_a_body_that_is_not_what_its_header_says_is_taken_as_it_is(headers):
    assert read_response(response(BODY, headers=headers), MAX).body == BODY


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_that_is_cut_or_damaged_is_bad(coding):
    packed = CODINGS[coding](BODY)
    for body in (packed[:-6], packed[: len(packed) // 2] + b"????" + packed[len(packed) // 2 :]):
        with pytest.raises(BadResponse, match=r"damaged|cut off"):
            read_response(response(body, headers={"Content-Encoding": coding}), MAX)


def test_a_chunk_that_is_cut_is_bad():
    for body in (chunked(BODY)[:150], chunked(BODY)[:105] + b"zz\r\nmore"):
        with pytest.raises(BadResponse, match="chunk"):
            read_response(response(body, headers={"Transfer-Encoding": "chunked"}), MAX)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_is_bad_and_never_decoded_to_its_end(coding):
    bomb = CODINGS[coding](b"<p>" + b" " * (50 << 20))
    with pytest.raises(BadResponse, match="more than max_document_bytes = 65536"):
        read_response(response(bomb, headers={"Content-Encoding": coding}), MAX)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (response(BODY, status="404 Not Found"), "status_not_200"),
        (response(BODY, status="301 Moved"), "status_not_200"),
        (response(b"GIF89a", content_type="image/gif"), "not_html"),
        (response(b"{}", content_type="application/json; charset=utf-8"), "not_html"),
        (response(b"plain words", content_type=None), "not_html"),
        (response(b"%PDF-1.4", content_type=""), "not_html"),
        (response(b""), "empty_body"),
        (response(b" \r\n "), "empty_body"),
        (response(gzip.compress(b""), headers={"Content-Encoding": "gzip"}), "empty_body"),
    ],
)
def test_what_is_no_page_says_why(block, reason):
    with pytest.raises(NoPage, match=f"^{reason}$"):
        read_response(block, MAX)


@pytest.mark.parametrize("content_type", [None, "", "*/*", "unknown/unknown"])
def test_a_type_that_tells_nothing_is_found_out(content_type):
    assert read_response(response(BODY, content_type=content_type), MAX).body == BODY


def test_a_server_may_call_a_page_xhtml():
    page = read_response(
        response(BODY, content_type='Application/XHTML+XML; charset="latin1"'), MAX
    )
    assert page == Page(BODY, "latin1", True)


@pytest.mark.parametrize("block", [b"", b"no http", b"\0\xff\n\n", b"HTTP/1.1\r\n\r\nx"])
def test_what_is_no_http_is_bad(block):
    with pytest.raises(BadResponse, match="no HTTP response"):
        read_response(block, MAX)


@given(
    block=st.binary(max_size=200)
    | st.binary(max_size=200).map(lambda b: b"HTTP/1.1 200 OK\r\n" + b)
)
def test_no_bytes_raise_anything_else(block):
    with contextlib.suppress(BadResponse, NoPage):
        read_response(block, MAX)
