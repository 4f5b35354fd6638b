"""Read articles: JATS XML and LaTeX, as files of their own and in tar archives, also gzip.

    articles.tar.gz   a.xml b.nxml figure.jpg           a document a member that is XML
    2101.00001.gz     main.tex intro.tex main.bbl       one document
    arXiv_src_1.tar   2101/2101.00001.gz ...            a document a member that is gzip

A position is the number of the member in its archive, all members counted. A .tex file that lies
in a folder by itself is a document of its own: what it reads with \\input is another. Members that
are neither articles nor parts of one are counted; links are not followed.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tokenmill.pipeline.archive import (
    BLOCK_BYTES,
    CHUNK_BYTES,
    Broken,
    Member,
    Readable,
    Unpacked,
    is_tar,
    read_members,
)
from tokenmill.pipeline.articles.article import Article, BadArticle
from tokenmill.pipeline.articles.jats import jats_article
from tokenmill.pipeline.articles.latex import latex_text
from tokenmill.pipeline.articles.latex_source import TEX_SUFFIXES
from tokenmill.pipeline.batches import Batch, Record
from tokenmill.pipeline.documents import Documents, SetAside, Skipped
from tokenmill.pipeline.plan import Unit, UnitFile, is_archive
from tokenmill.pipeline.sources import SourceConfig, printable
from tokenmill.shards.sources import POSITION_BITS

XML_SUFFIXES = (".xml", ".nxml")
OTHER_MEMBER = "no_article"
"""Why a member is skipped: a picture, a style, a PDF."""

_ARXIV = re.compile(r"(?:(\d{4}\.\d{4,5})|([a-z-]+)(\d{7}))(v\d+)?")
_ENDINGS = re.compile(r"(\.tex|\.tar|\.tgz|\.gz)+$")

Candidate = tuple[int, str, Callable[[], Article]]
"""The number of a member, its name, and what reads it, to be called before the next is taken."""


def read_articles(unit: Unit, config: SourceConfig) -> Iterator[Documents | SetAside | Skipped]:
    """A unit's articles in their order, with what was set aside between them."""
    batch = Batch()
    skipped: Counter[str] = Counter()
    for file in unit.files:
        packed = is_archive(file.name)
        place = "file"
        try:
            for number, name, read in _candidates(file, config, skipped):
                place = f"member {number}" if packed else "file"
                try:
                    article = read()
                    if number >= 1 << POSITION_BITS:
                        raise BadArticle(f"more than {1 << POSITION_BITS:,} members; cut the file")
                except BadArticle as error:
                    message = f"{printable(name)}: {error}" if packed else str(error)
                    yield SetAside(unit.source, file.name, place, message)
                else:
                    batch.add(file.first_id, number, _record(article, name, config))
                    if batch.full:
                        yield batch.take()
                place = f"after {place}"
        except (Broken, OSError) as error:
            yield SetAside(unit.source, file.name, place, str(error))
    if len(batch):
        yield batch.take()
    for reason, count in sorted(skipped.items()):
        yield Skipped(reason, count)


def _record(article: Article, name: str, config: SourceConfig) -> Record:
    own, url = printable(name), article.url
    if config.format == "latex":
        own = _ENDINGS.sub("", own.rsplit("/", 1)[-1])
        if found := _ARXIV.fullmatch(own):
            new, subject, old, version = found.groups()
            own = (new or f"{subject}/{old}") + (version or "")
            url = f"https://arxiv.org/abs/{own}"
    return Record(
        text=article.text,
        id=article.id or own,
        url=url,
        licence=article.licence or config.licence,
        language=article.language,
    )


def _candidates(file: UnitFile, config: SourceConfig, skipped: Counter[str]) -> Iterator[Candidate]:
    """What may be an article in a file, in its order."""
    with Path(file.path).open("rb") as stream:
        content = Unpacked(stream) if is_archive(file.name) else None
        if content is None or not is_tar(content.peek(BLOCK_BYTES)):
            yield 0, file.name, partial(_read_one, content or stream, file.name, config)
        elif config.format == "jats":
            yield from _xml_members(content, config, skipped)
        else:
            yield from _tex_members(content, file.name, config, skipped)


def _xml_members(
    archive: Unpacked, config: SourceConfig, skipped: Counter[str]
) -> Iterator[Candidate]:
    for member in read_members(archive):
        if member.name.lower().endswith(XML_SUFFIXES):
            yield member.number, member.name, partial(_read_member, member, config)
        else:
            skipped[OTHER_MEMBER] += 1


def _tex_members(
    archive: Unpacked, name: str, config: SourceConfig, skipped: Counter[str]
) -> Iterator[Candidate]:
    """Each gzip member, and all TeX files together."""
    parts = _Parts(config)
    first = None
    for member in read_members(archive):
        if member.name.lower().endswith(".gz"):
            yield member.number, member.name, partial(_read_packed, member, config)
        elif parts.take(member):
            first = member.number if first is None else first
        else:
            skipped[OTHER_MEMBER] += 1
    if first is not None:
        yield first, name, parts.article


class _Parts:
    """The TeX files of one article, gathered from its archive."""

    def __init__(self, config: SourceConfig) -> None:
        self.config = config
        self.files: dict[str, bytes] = {}
        self._left = config.max_document_bytes

    def take(self, member: Member) -> bool:
        """Read a member if it is TeX or a list of references."""
        if member.content is None or not member.name.lower().endswith((*TEX_SUFFIXES, ".bbl")):
            return False
        self._left -= member.bytes
        if self._left >= 0:
            self.files[printable(member.name).removeprefix("./")] = _bytes(member.content)
        return True

    def article(self) -> Article:
        if self._left < 0:
            raise _too_long(self.config.max_document_bytes - self._left, self.config)
        return _article(self.files, self.config)


def _read_one(content: Readable, name: str, config: SourceConfig) -> Article:
    data = _bytes(content, config.max_document_bytes + 1)
    if len(data) > config.max_document_bytes:
        raise BadArticle(f"longer than max_document_bytes, which is {config.max_document_bytes}")
    return _article({"main.tex" if config.format == "latex" else name: data}, config)


def _read_member(member: Member, config: SourceConfig) -> Article:
    if member.content is None:
        raise BadArticle("a link or a device, no file")
    if member.bytes > config.max_document_bytes:
        raise _too_long(member.bytes, config)
    return _article({member.name: _bytes(member.content)}, config)


def _read_packed(member: Member, config: SourceConfig) -> Article:
    """The article of a gzip member: an archive of its files, or its one file."""
    if member.content is None:
        raise BadArticle("a link or a device, no file")
    try:
        content = Unpacked(member.content)
        if not is_tar(content.peek(BLOCK_BYTES)):
            return _read_one(content, member.name, config)
        parts = _Parts(config)
        for inner in read_members(content):
            parts.take(inner)
        return parts.article()
    except Broken as error:
        raise BadArticle(str(error)) from None


def _article(files: dict[str, bytes], config: SourceConfig) -> Article:
    if config.format == "latex":
        return Article(latex_text(files, config.articles, config.max_document_bytes))
    (data,) = files.values()
    return jats_article(data, config.articles)


def _bytes(content: Readable, most: float = math.inf) -> bytes:
    """All bytes, or at least the first so many."""
    chunks = []
    while most > 0 and (chunk := content.read(CHUNK_BYTES)):
        chunks.append(chunk)
        most -= len(chunk)
    return b"".join(chunks)


def _too_long(size: int, config: SourceConfig) -> BadArticle:
    return BadArticle(f"{size} bytes, max_document_bytes is {config.max_document_bytes}")
