"""A page of HTML to its text, by one of two libraries. Neither knows a limit: see child.py."""

import logging
import re

from resiliparse.extract.html2text import extract_plain_text

from tokenmill.pipeline.extract.config import ExtractionConfig

VOID = (
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source",
    "track", "wbr",
)  # fmt: skip
"""Elements that HTML knows to be empty."""

_SELF_CLOSED = re.compile(r"<([A-Za-z][A-Za-z0-9]*)((?:\s[^<>]*)?)/>")


def html_to_text(html: str, config: ExtractionConfig) -> str:
    """The text of a page, empty where the extractor finds none.

    Raises:
        Exception: whatever the library raises on a page that it cannot do.
    """
    return (_resiliparse if config.extractor == "resiliparse" else _trafilatura)(html, config)


def close_elements(xhtml: str) -> str:
    """XHTML for a parser of HTML, to which <title/> and <a id="x"/> are open until a closing tag
    that never comes."""
    return _SELF_CLOSED.sub(_closed, xhtml)


def _closed(tag: re.Match[str]) -> str:
    name = tag[1]
    return tag[0] if name.lower() in VOID else f"<{name}{tag[2]}></{name}>"


def _resiliparse(html: str, config: ExtractionConfig) -> str:
    return extract_plain_text(
        html,
        main_content=config.main_content,
        links=config.links,
        comments=config.comments,
        alt_texts=False,  # as NeMo Curator has it: the name of an image is no sentence
    )


def _trafilatura(html: str, config: ExtractionConfig) -> str:
    import trafilatura  # half a second, for those who ask for it

    logging.disable()  # it tells of every page in which it finds nothing
    text = trafilatura.extract(
        html,
        favor_precision=config.favour == "precision",
        favor_recall=config.favour == "recall",
        include_comments=config.comments,
        include_links=config.links,
        # Its deduplication remembers earlier pages: a text would depend on its neighbours.
        deduplicate=False,
    )
    return text or ""
