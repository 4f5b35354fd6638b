"""JATS XML, the format of PubMed Central and of most journals, to text.

    title / abstracts / body / floats / appendices / references, if asked for

A block each: a heading, a paragraph, a list item, a row of a table, a caption with its label
before it. A figure, table or note inside a paragraph comes after it. Left out are what stands
around the article (authors, funding, acknowledgements, interests, supplements), reviews and replies
(<sub-article>, <response>) and, by policy, formulas, cells of tables and references.

Citation markers stay as they are printed, "[12]" or "(Ito, 2019)"; superscript ones go, because
they would stick to the word before. A superscript number after a digit gets a ^, lest ten to the
fifth become 105.

The parser resolves no entity, loads nothing and keeps libxml2's own bounds (256 elements deep, 10
million bytes a text node): the file bounds the size of the result and the depth of the walk. A
character named in HTML (&alpha;) is known by its name, any other entity stays as it is written.
About 40 MB of XML a second.
"""

import re
from collections.abc import Iterator
from html.entities import html5

from lxml import etree

from tokenmill.pipeline.articles.article import Article, BadArticle
from tokenmill.pipeline.articles.config import ArticleConfig
from tokenmill.pipeline.articles.creative_commons import creative_commons
from tokenmill.pipeline.articles.mathml import mathml_text

PARTS = (
    "body",
    "floats-group",
    "floats-wrap",
    "back/{*}app-group",
    "back/{*}app",
    "back/{*}ref-list",
)
BLOCKS = frozenset({
    "article-title", "subtitle", "sec", "title", "p", "list", "list-item", "def-item", "term",
    "def", "disp-quote", "attrib", "verse-group", "verse-line", "speech", "speaker", "statement",
    "fig", "table-wrap", "boxed-text", "fn", "app", "ref",
})  # fmt: skip
"""Elements that begin and end a block of text."""
LABELLED = frozenset({
    "sec", "list-item", "statement", "fig", "table-wrap", "boxed-text", "fn", "app", "ref",
})  # fmt: skip
"""Elements whose label belongs to the first block in them."""
FLOATS = frozenset({
    "fig", "fig-group", "table-wrap", "table-wrap-group", "boxed-text", "fn",
})  # fmt: skip
"""Elements that may stand in the middle of a sentence and are no part of it."""
FORMULAS = frozenset({"disp-formula", "inline-formula", "tex-math", "math"})
VERBATIM = frozenset({"preformat", "code"})
SPACED = frozenset({"element-citation", "nlm-citation", "person-group", "name"})
"""Elements of a reference that hold elements only, which read as words."""
SKIPPED = frozenset({
    "graphic", "inline-graphic", "media", "supplementary-material", "inline-supplementary-material",
    "object-id", "alt-text", "long-desc", "permissions", "sec-meta", "private-char", "index-term",
})  # fmt: skip
NOTES = frozenset({
    "aff", "corresp", "author-notes", "contrib", "fn", "table-fn",
})  # fmt: skip
"""What a marker may point at that the text holds elsewhere or not at all."""

_HREF = "{http://www.w3.org/1999/xlink}href"
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_CITED_NUMBERS = re.compile(r"[\s\d,;*()\[\]\u2013-]+")
_RAISED_NUMBER = re.compile(r"\s*[\u2212\u2013-]?\d")
_TEX_BODY = re.compile(r"\\begin\{document\}(.*)\\end\{document\}", re.DOTALL)


def jats_article(data: bytes, config: ArticleConfig) -> Article:
    """The article of one XML file.

    Raises:
        BadArticle: the bytes are no well-formed XML, or the XML is no JATS article.
    """
    article = _parse(data)
    walk = _Walk(config)
    meta = article.find("{*}front/{*}article-meta")
    about = Article("") if meta is None else _about(meta)
    if meta is not None:
        walk.enter_all(meta.findall("{*}title-group/{*}article-title"))
        walk.enter_all(meta.findall("{*}title-group/{*}subtitle"))
        walk.enter_all(meta.findall("{*}abstract"))
    for part in PARTS:
        walk.enter_all(article.findall(f"{{*}}{part}"))
    language = (article.get(_LANG) or "").lower() or None
    return Article("\n\n".join(walk.blocks), about.id, about.url, about.licence, language)


def _parse(data: bytes) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise BadArticle(f"no well-formed XML: {error.msg}") from None
    if _name(root) != "article":
        raise BadArticle(f"no JATS: expected <article>, found <{_name(root)}>")
    if root.find("{*}front") is None and root.find("{*}body") is None:
        raise BadArticle("no JATS: <article> has neither <front> nor <body>")
    return root


def _about(meta: etree._Element) -> Article:
    """What the front matter says of the article: identifiers, address, licence."""
    ids = {i.get("pub-id-type"): (i.text or "").strip() for i in meta.findall("{*}article-id")}
    pmc = ids.get("pmc") or ids.get("pmcid")
    doi = ids.get("doi")
    name = f"PMC{pmc.removeprefix('PMC')}" if pmc else doi
    return Article("", name or None, f"https://doi.org/{doi}" if doi else None, _licence(meta))


def _licence(meta: etree._Element) -> str | None:
    # Before JATS 1.0 the statements may stand without <permissions>.
    permissions = meta.findall("{*}permissions") or [
        *meta.findall("{*}license"),
        *meta.findall("{*}copyright-statement"),
    ]
    addresses = [e.get(_HREF, "") for part in permissions for e in part.iter()]
    words = [word for part in permissions for word in part.itertext()]
    known = creative_commons(" ".join([*addresses, *words]))
    if known:
        return known
    for licence in meta.iter("{*}license"):
        return licence.get(_HREF) or "NOASSERTION"
    return None


class _Walk:
    """Goes through elements in their order and gathers blocks of text."""

    def __init__(self, config: ArticleConfig) -> None:
        self.config = config
        self.blocks: list[str] = []
        self._open: list[str] = []
        """Pieces of the block that has begun."""
        self._label = ""
        """What the next block begins with."""
        self._floats: list[etree._Element] = []
        """To come when the block has ended."""
        self._items: list[int] = []
        """Of each list that has begun: how many items have."""

    def enter_all(self, elements: list[etree._Element]) -> None:
        """Whole parts of an article, one after the other."""
        for element in elements:
            self._enter(element)
            self._end_block()

    def _enter(self, element: etree._Element) -> None:
        """The text of an element, without what follows it."""
        name = _name(element)
        if name in SKIPPED or self._left_out(name):
            return
        if name == "label":
            if _name(element.getparent()) in LABELLED:
                self._label = _words(element)
        elif name in FLOATS and "".join(self._open).strip():
            self._floats.append(element)
        elif name in FORMULAS:
            self._formula(element, name)
        elif name == "table":
            self._end_block()
            self._add_block("\n".join(self._row(row) for row in _rows(element)))
        elif name in VERBATIM:
            self._end_block()
            self._add_block("".join(element.itertext()).strip("\n"))
        elif name == "alternatives":
            self._enter_best(element)
        elif name in ("xref", "sup"):
            self._raised_or_reference(element, name)
        elif name in BLOCKS:
            self._block(element, name)
        else:
            self._inside(element, " " if name in SPACED else "")

    def _left_out(self, name: str) -> bool:
        return (
            (name == "ref-list" and self.config.references == "drop")
            or (name in ("table", "table-wrap-foot") and self.config.tables == "drop")
            or (name in FORMULAS and self.config.formulas == "drop")
        )

    def _inside(self, element: etree._Element, between: str = "") -> None:
        """An element's own text and its children's."""
        self._add(element.text)
        for child in element:
            if isinstance(child.tag, str):
                self._enter(child)
            else:  # comments are gone: an entity
                self._add(html5.get(f"{child.name};", child.text))
            self._add(child.tail)
            self._add(between)

    def _add(self, text: str | None) -> None:
        if text:
            self._open.append(text)

    def _block(self, element: etree._Element, name: str) -> None:
        self._end_block()
        if name == "list":
            self._items.append(0)
        elif name == "list-item" and self._items:
            self._items[-1] += 1
            kind = element.getparent().get("list-type")
            self._label = f"{self._items[-1]}." if kind == "order" else "-"
        self._inside(element)
        self._end_block()
        if name == "list":
            self._items.pop()
        if name in LABELLED:
            self._label = ""  # a label of nothing

    def _end_block(self) -> None:
        text = " ".join("".join(self._open).split())
        self._open.clear()
        if text:
            self._add_block(text)
        floats, self._floats = self._floats, []
        for element in floats:
            self._enter(element)

    def _add_block(self, text: str) -> None:
        if text:
            self.blocks.append(f"{self._label} {text}" if self._label else text)
            self._label = ""

    def _raised_or_reference(self, element: etree._Element, name: str) -> None:
        """A superscript or a marker that points at something; both may be a citation."""
        if name == "xref" and element.get("ref-type") in NOTES:
            return
        if _is_raised_citation(element, name):
            return
        after_digit = bool(self._open) and self._open[-1][-1].isdigit()
        if name == "sup" and after_digit and _RAISED_NUMBER.match(element.text or ""):
            self._add("^")
        self._inside(element)

    def _formula(self, element: etree._Element, name: str) -> None:
        self._add(" " if name == "disp-formula" else "")
        tex = next(element.iter("{*}tex-math"), None)
        math = next(element.iter("{*}math"), None)
        if tex is not None:
            self._add(_tex(tex))
        elif math is not None:
            self._add(mathml_text(math))
        else:
            self._inside(element)
        self._add(" " if name == "disp-formula" else "")

    def _enter_best(self, alternatives: etree._Element) -> None:
        """One of several forms of the same thing: TeX, else MathML, else the first with text."""
        by_name = {_name(child): child for child in reversed(alternatives)}
        for name in ("tex-math", "math", "table"):
            if name in by_name:
                return self._enter(by_name[name])
        for child in alternatives:
            if _words(child):
                return self._enter(child)

    def _row(self, row: etree._Element) -> str:
        """The cells of a row of a table with tabs between them."""
        cells = []
        for cell in row:
            walk = _Walk(self.config)
            walk.enter_all([cell])
            cells.append(" ".join(walk.blocks))
        return "\t".join(cells).rstrip()


def _name(element: etree._Element) -> str:
    """The element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _words(element: etree._Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _rows(table: etree._Element) -> Iterator[etree._Element]:
    """The table's own rows; those of a table in a cell are read with the cell."""
    for child in table:
        if _name(child) == "tr":
            yield child
        elif _name(child) in ("thead", "tbody", "tfoot"):
            yield from child.findall("{*}tr")


def _is_raised_citation(element: etree._Element, name: str) -> bool:
    """A citation by number in superscript: <sup><xref>1</xref></sup> or the other way round."""
    inner = element.find("{*}xref" if name == "sup" else "{*}sup")
    if inner is None:
        return False
    kind = (inner if name == "sup" else element).get("ref-type")
    return kind == "bibr" and _CITED_NUMBERS.fullmatch(_words(element)) is not None


def _tex(element: etree._Element) -> str:
    """A formula's TeX; publishers wrap each into a document of its own."""
    source = "".join(element.itertext())
    body = _TEX_BODY.search(source)
    tex = " ".join((body.group(1) if body else source).split())
    return f"${tex.strip('$ ')}$"
