"""Bytes of a page to its characters, whatever charset its server and author named.

    1. a byte order mark
    2. UTF-8, if more of what is not ASCII is well-formed UTF-8 than is not
    3. what the server and the page name; where they differ, the one that the detector finds too,
       else the server's
    4. what the detector finds

Servers that name ISO-8859-1 for all they send are common; text in another charset that happens to
be UTF-8 is not, so 2 comes before 3. Labels mean what the WHATWG's Encoding Standard says they mean
(ISO-8859-1 is windows-1252, GB2312 is GB18030). Bytes without a character become U+FFFD.
"""

import codecs
import re

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

HEAD_BYTES = 2048
"""Where a page names its charset; the standard asks for it in the first 1024 bytes."""
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
WIDER = {"euc_kr": "cp949", "shift_jis": "cp932", "gbk": "gb18030", "gb2312": "gb18030"}
"""The standard reads these as the larger charsets that grew out of them."""

_DECLARED = re.compile(
    rb"<meta[^>]*?charset\s*=\s*[\"']?\s*([\w.:-]+)|<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)",
    re.IGNORECASE,
)


def decode_page(body: bytes, server: str | None) -> str:
    """The characters of a page.

    Args:
        server: the charset that the HTTP header names.
    """
    for mark, name in BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(name, errors="replace")
    named = [name for name in (_codec(server), _declared(body)) if name]
    if b"\0" not in body:
        named = [name for name in named if not name.startswith("utf-16")]
    if body.isascii():
        # Nearly all charsets agree on ASCII; ISO-2022-JP and UTF-16 are written with it, too.
        return body.decode(named[0] if named else "ascii", errors="replace")
    text = _as_utf8(body)
    if text is None:
        # It is not UTF-8, whoever says so.
        others = [name for name in named if name != "utf-8"]
        text = body.decode(_charset(body, others), errors="replace")
    return text


def _as_utf8(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        text = body.decode(errors="replace")
    wrong = text.count("\ufffd")
    not_ascii = len(text) - len(text.encode("ascii", errors="ignore"))
    return text if not_ascii > 2 * wrong else None


def _charset(body: bytes, named: list[str]) -> str:
    """The charset of what is not UTF-8."""
    if named and named[0] == named[-1]:
        return named[0]
    detected = detect_encoding(body, html5_compatible=False)
    detected = _wider(detected) if detected else None
    if named:
        return detected if detected in named else named[0]
    return "cp1252" if detected in (None, "utf-8", "ascii") else detected


def _declared(body: bytes) -> str | None:
    """What the page itself names."""
    found = _DECLARED.search(body, 0, HEAD_BYTES)
    return _codec((found[1] or found[2]).decode()) if found else None


def _codec(label: str | None) -> str | None:
    """Python's name for a label of the Encoding Standard; None for any other word."""
    name = map_encoding_to_html5(label, fallback_utf8=False) if label else None
    return _wider(name) if name else None


def _wider(name: str) -> str:
    name = codecs.lookup(name).name
    return WIDER.get(name, name)
