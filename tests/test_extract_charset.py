"""Charsets of pages: the right characters whatever servers and authors name."""

import re

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.pipeline.extract.charset import decode_page
from tokenmill.pipeline.extract.response import NoPage, read_response

WORDS = {
    "iso-8859-1": "Größe und Fähigkeit, déjà vu à la crème, año, façade. ",
    "iso-8859-2": "Příliš žluťoučký kůň úpěl ďábelské ódy, źródło i żółć. ",
    "iso-8859-7": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία του λαού. ",
    "iso-8859-15": "Le cœur a coûté 20 € à l'œuvre, Šašo. ",
    "windows-1251": "Съешь же ещё этих мягких французских булок, да выпей чаю. ",
    "windows-1252": "“Quotes” — and dashes… €5, naïve. ",
    "koi8-r": "Съешь же ещё этих мягких французских булок. ",
    "euc-jp": "色は匂へど散りぬるを我が世誰ぞ常ならむ。カタカナ。",
    "shift_jis": "色は匂へど散りぬるを我が世誰ぞ常ならむ。カタカナ。",
    "iso-2022-jp": "色は匂へど散りぬるを我が世誰ぞ常ならむ。カタカナ。",
    "euc-kr": "다람쥐 헌 쳇바퀴에 타고파. 한국어 문장입니다. ",
    "gb2312": "我能吞下玻璃而不伤身体。这是中文的句子。",
    "gb18030": "我能吞下玻璃而不伤身体。㐀𠀀这是中文的句子。",
    "big5": "我能吞下玻璃而不傷身體。這是中文的句子。",
    "utf-16": "Größe, 色は匂へど, Съешь. ",
    "utf-8": "Größe, 色は匂へど, Съешь. ",
}
TEXTS = {charset: words * 10 for charset, words in WORDS.items()}


def html(text, declared=None):
    meta = f'<meta http-equiv="Content-Type" content="text/html; charset={declared}">'
    return f"<html><head>{meta if declared else ''}</head><body><p>{text}</p></body></html>"


@pytest.mark.parametrize("charset", TEXTS)
def test_what_the_server_names_is_read(charset):
    page = html(TEXTS[charset])
    assert decode_page(page.encode(charset), charset.upper()) == page


@pytest.mark.parametrize("charset", [name for name in TEXTS if name != "utf-16"])
@pytest.mark.parametrize("form", ["<meta charset='{}'>", '<?xml version="1.0" encoding="{}"?>'])
def test_what_the_page_names_is_read(charset, form):
    page = form.format(charset) + TEXTS[charset]
    assert decode_page(page.encode(charset), None) == page


DETECTED = (
    "iso-8859-2", "iso-8859-7", "windows-1251", "koi8-r", "euc-jp", "euc-kr", "gb18030", "big5",
    "shift_jis",
)  # fmt: skip


@pytest.mark.parametrize("charset", DETECTED)
@pytest.mark.parametrize("named", [None, "no-such-charset", "base64", "utf-8", ""])
def test_what_nobody_names_or_is_named_wrongly_is_detected(charset, named):
    page = html(TEXTS[charset])
    assert decode_page(page.encode(charset), named) == page


@pytest.mark.parametrize("named", ["ISO-8859-1", "windows-1251", "gbk", "utf-16", None])
def test_utf8_is_utf8_whoever_says_otherwise(named):
    page = html(TEXTS["utf-8"], declared="iso-8859-1")
    assert decode_page(page.encode(), named) == page


def test_a_page_is_believed_where_the_detector_agrees_with_it_against_the_server():
    page = html(TEXTS["iso-8859-7"], declared="iso-8859-7")
    assert decode_page(page.encode("iso-8859-7"), "ISO-8859-1") == page
    page = html(TEXTS["windows-1251"], declared="iso-8859-1")
    assert decode_page(page.encode("windows-1251"), "windows-1251") == page


def test_a_few_wrong_bytes_do_not_make_a_page_of_utf8_another():
    page = html(TEXTS["utf-8"])
    damaged = page.encode().replace(b"<p>", b"<p>\xe9 \xff")
    assert decode_page(damaged, None) == page.replace("<p>", "<p>\ufffd \ufffd")


@pytest.mark.parametrize("charset", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_read_and_left_out(charset):
    page = html(TEXTS["utf-8"])
    assert decode_page(page.encode(charset), "iso-8859-1") == page


@given(body=st.binary(), named=st.none() | st.text(max_size=12))
def test_every_page_has_characters(body, named):
    decode_page(body, named).encode()


def guides(test_data):
    """(address, page) of the installation guide in all its charsets and languages."""
    for path in sorted((test_data / "web" / "warc").glob("crawl-0*.warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(
                stream, record_types=WarcRecordType.response, parse_http=False
            ):
                address = record.headers.get("WARC-Target-URI").strip("<>")
                if "install.debian.example" in address:
                    try:
                        yield address, read_response(record.reader.read(), 1 << 26)
                    except NoPage:
                        continue


def test_the_crawl_is_read_in_all_its_charsets(test_data):
    """The guide was written in UTF-8: nothing that is read may hold what UTF-8 text does not."""
    seen = set()
    for address, page in guides(test_data):
        declared = re.search(rb'charset="?([\w-]+)', page.body)[1].decode().lower()
        text = decode_page(page.body, page.charset)
        expected = page.body.decode("cp1252" if declared == "iso-8859-1" else declared)
        assert text == expected, address
        assert "\ufffd" not in text, address
        seen.add(declared)
    assert len(seen) == 9
