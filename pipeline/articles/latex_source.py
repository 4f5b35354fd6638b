r"""The LaTeX of an article as one string: its files put together as TeX would read them.

    main.tex  \input{intro}  \ours        ->   preamble, body: intro.tex in it, \ours written out
    intro.tex  % old
    main.bbl

The main files are those with a \documentclass that no other file reads, in the folder nearest to
the top; an archive of several is one article, as on arXiv. Comments go. Macros of the author's that
take no arguments are replaced by what they stand for; those with arguments are not. Bytes that are
not UTF-8 are read as inputenc says, else as ISO-8859-1. What is put together is bounded by
max_bytes, so that files that read each other end as an error.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tokenmill.pipeline.articles.article import BadArticle

TEX_SUFFIXES = (".tex", ".ltx", ".latex")
VERBATIM = ("verbatim", "Verbatim", "lstlisting", "minted", "alltt")
MAX_DEPTH = 16
"""Files that read files."""
MACRO_PASSES = 3
"""Macros that stand for macros."""

_PARTS = ("standalone", "subfiles")
"""Classes of files that are pieces of others."""
_ENCODINGS = {
    "latin1": "iso8859-1", "latin2": "iso8859-2", "latin5": "iso8859-9", "latin9": "iso8859-15",
    "ansinew": "cp1252", "cp1252": "cp1252", "cp1250": "cp1250", "cp1251": "cp1251",
    "koi8-r": "koi8-r", "applemac": "mac-roman",
}  # fmt: skip
_INPUTENC = re.compile(rb"\\usepackage\s*\[([\w-]+)\]\s*\{inputenc\}")
_CLASS = re.compile(r"\\document(?:class|style)\s*(?:\[[^\]]{0,1000}\]\s*)?\{([^{}]*)\}")
_COMMENT_OR_VERBATIM = re.compile(
    rf"(?<!\\)((?:\\\\)*)%[^\n]*(?:\n[ \t]*)?|\\begin\{{({'|'.join(VERBATIM)})\}}"
    r"|(\\verb\*?([^A-Za-z\s*])[^\n]{0,200}?\4)"
)
_INPUT = re.compile(
    r"\\(?:input|include|subfile)\s*\{([^{}]*)\}|\\input\s+([^\s{}\\]+)"
    r"|\\(?:bibliography\s*\{[^{}]*\}|printbibliography\b)"
)
_DEFINITION = re.compile(
    r"\\(?:(?:new|renew|provide)command\*?\s*(?:\{\s*\\([A-Za-z]+)\s*\}|\\([A-Za-z]+))"
    r"((?:\s*\[[^\]]{0,1000}\]){0,2})|def\s*\\([A-Za-z]+)([^{}\\\n]*))\s*\{"
)
_ENDS_IN_WORD = re.compile(r"\\[A-Za-z]+$")
_WORD = re.compile(r"\\([A-Za-z]+)([ \t]*\n?[ \t]*)")


@dataclass(frozen=True, slots=True)
class Source:
    """A main file with all that it reads, without comments."""

    preamble: str
    body: str


def read_sources(files: Mapping[str, bytes], max_bytes: int) -> list[Source]:
    """The main files of an article, in the order of their names.

    Args:
        files: by name; only text is looked at.
        max_bytes: the most characters that one may grow to.

    Raises:
        BadArticle: no file is a main file, or one grows beyond max_bytes.
    """
    texts = {name: without_comments(text) for name, text in _decoded(files)}
    return [
        _divided(_Reader(texts, main, max_bytes).read(), max_bytes) for main in _main_files(texts)
    ]


def matching_braces(text: str) -> dict[int, int]:
    """Where each { that is closed is closed; others are not in it."""
    open_braces: list[int] = []
    pairs = {}
    for found in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if found.group() == "{":
            open_braces.append(found.start())
        elif found.group() == "}" and open_braces:
            pairs[open_braces.pop()] = found.start()
    return pairs


def without_comments(text: str) -> str:
    """TeX without its comments, each with its line end and the next line's indent; what stands in
    verbatim environments stays."""
    pieces = []
    position = 0
    while found := _COMMENT_OR_VERBATIM.search(text, position):
        slashes, environment, verb, _ = found.groups()
        pieces.append(text[position : found.start()])
        position = found.end()
        if environment is None:
            pieces.append(verb or slashes)
            continue
        end = text.find(f"\\end{{{environment}}}", position)
        position = len(text) if end < 0 else end
        pieces.append(text[found.start() : position])
    pieces.append(text[position:])
    return "".join(pieces)


def _decoded(files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    stated = [_INPUTENC.search(data) for data in files.values()]
    name = next((found.group(1).decode() for found in stated if found), "latin1")
    encoding = _ENCODINGS.get(name, "iso8859-1")
    for name, data in sorted(files.items()):
        if b"\0" in data:
            continue  # a picture, or whatever bears the name
        try:
            yield name, data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError:
            text = data.decode(encoding, errors="replace")
            yield name, text.replace("\r\n", "\n").replace("\r", "\n")


def _main_files(texts: Mapping[str, str]) -> list[str]:
    names = [name for name in texts if name.lower().endswith(TEX_SUFFIXES)]
    classes = {
        name: found.group(1).strip() for name in names if (found := _CLASS.search(texts[name]))
    }
    read = {
        target
        for name in names
        for found in _INPUT.finditer(texts[name])
        if (target := _resolved(texts, found, name, name)) is not None
    }
    whole = [name for name, kind in classes.items() if kind not in _PARTS]
    mains = [name for name in whole if name not in read] or whole
    if not mains:
        if len(names) == 1:
            return names  # plain TeX, or a piece
        raise BadArticle(f"no LaTeX article: {len(names)} TeX files, none with a \\documentclass")
    top = min(name.count("/") for name in mains)
    return [name for name in mains if name.count("/") == top]


def _resolved(texts: Mapping[str, str], found: re.Match[str], main: str, reader: str) -> str | None:
    """The file that an \\input or \\bibliography reads, if it is there."""
    target = found.group(1) or found.group(2)
    if target is None:
        own = f"{posixpath.splitext(main)[0]}.bbl"
        return own if own in texts else None
    for folder in (posixpath.dirname(main), posixpath.dirname(reader)):
        path = posixpath.normpath(posixpath.join(folder, target.strip().strip('"')))
        for candidate in (f"{path}.tex", path):
            if candidate in texts:
                return candidate
    return None


class _Reader:
    """Puts a main file and what it reads together."""

    def __init__(self, texts: Mapping[str, str], main: str, max_bytes: int) -> None:
        self.texts, self.main, self.max_bytes = texts, main, max_bytes
        self._size = 0

    def read(self) -> str:
        return self._read(self.main, (self.main,))

    def _read(self, name: str, readers: tuple[str, ...]) -> str:
        self._size += len(self.texts[name])
        if self._size > self.max_bytes:
            raise BadArticle("longer than max_document_bytes with all that it reads")

        def included(found: re.Match[str]) -> str:
            target = _resolved(self.texts, found, self.main, name)
            if target is None or target in readers or len(readers) >= MAX_DEPTH:
                return ""
            return self._read(target, (*readers, target))

        return _INPUT.sub(included, self.texts[name])


def _divided(text: str, max_bytes: int) -> Source:
    text, macros = _definitions(text)
    text = _expanded(text, macros, max_bytes)
    preamble, begun, body = text.partition(r"\begin{document}")
    if not begun:
        preamble, body = "", text
    return Source(preamble, body.partition(r"\end{document}")[0])


def _definitions(text: str) -> tuple[str, dict[str, str]]:
    """The text without definitions of macros, and what each without arguments stands for."""
    pairs = matching_braces(text)
    macros = {}
    pieces = []
    position = 0
    for found in _DEFINITION.finditer(text):
        start = found.end() - 1
        if found.start() < position or start not in pairs:
            continue  # in another one's body, or broken
        pieces.append(text[position : found.start()])
        position = pairs[start] + 1
        braced, bare, arguments, defined, parameters = found.groups()
        if not arguments and not parameters:
            macros[braced or bare or defined] = text[start + 1 : position - 1]
    return "".join([*pieces, text[position:]]), macros


def _expanded(text: str, macros: Mapping[str, str], max_bytes: int) -> str:
    """The text with macros written out; TeX eats the space behind one, unless it has \\xspace."""
    for _ in range(MACRO_PASSES):
        size = len(text)

        def expansion(found: re.Match[str]) -> str:
            nonlocal size
            body = macros.get(found.group(1))
            if body is None:
                return found.group()
            size += len(body)
            if size > max_bytes:
                raise BadArticle("longer than max_document_bytes when its macros are written out")
            if "\\xspace" in body:
                return body.replace("\\xspace", "") + found.group(2)
            return f"{body} " if _ENDS_IN_WORD.search(body) else body

        longer = _WORD.sub(expansion, text)
        if longer == text:
            break
        text = longer
    return text
