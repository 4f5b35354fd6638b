r"""LaTeX to text, in one pass over the source.

    \section{Mills} A \emph{mill}~\cite{x} turns
    $x^2$ times.\footnote{Or so.}                  ->   Mills / A mill turns $x^2$ times. / Or so.

A block each: title, abstract, heading, paragraph, list item, caption; a footnote comes after its
paragraph, verbatim text stays as it is. Symbols and accents are pylatexenc's. A macro that is not
known goes and its arguments stay, but where latex_words.py says that they are no text. What LaTeX
would number (\cite, \ref) leaves nothing. Formulas stay as their TeX; they, references and tables
go or stay by policy.

Every brace, environment and formula is looked up or searched once within its paragraph, and nothing
calls itself: broken LaTeX costs no more time than sound, and gives the text that can be told. About
2 MB a second.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping

from tokenmill.pipeline.articles.config import ArticleConfig
from tokenmill.pipeline.articles.latex_source import (
    VERBATIM,
    matching_braces,
    read_sources,
)
from tokenmill.pipeline.articles.latex_words import (
    ACCENTS,
    HEADINGS,
    LAST_IS_TEXT,
    LISTS,
    MATH,
    NOT_TEXT,
    NOTES,
    NUMBERED,
    PICTURES,
    STATEMENTS,
    TABLES,
    accented,
    symbols,
)

LIGATURES = {
    "---": "\u2014",
    "--": "\u2013",
    "``": "\u201c",
    "''": "\u201d",
    "`": "\u2018",
    "~": " ",
}
LONGEST_ARGUMENT = 400
"""Characters in which an optional argument must close."""

_CELL, _ROW, _MARKER = "\ue000", "\ue001", "\ue002"
_TOKEN = re.compile(
    r"\\([A-Za-z@]+)\*?[ \t]*(?:\n(?!\n)[ \t]*)?|\\(.?)|(\n\n)|([{}])|(\$\$?)"
    r"|(---?|``|''|[`~&])|([^\\\n{}$`~&'-]+|.)",
    re.DOTALL,
)
_DOLLARS = re.compile(r"(?:[^\\$]|\\.)*", re.DOTALL)
_EMPTY_LINES = re.compile(r"\n[ \t]*\n\s*")
_NOT_PRINTED = re.compile(r"\\label\s*\{[^{}]*\}|\\(?:nonumber|notag)\b")
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{([^{}\\]*)\}")
_THEOREM = re.compile(r"\\newtheorem\*?\s*\{([^{}]*)\}\s*(?:\[[^\]]{0,400}\]\s*)?\{([^{}]*)\}")
_ONE_CHARACTER = re.compile(r"\{(?:\\[ij]\s*|[^{}\\]{0,4})\}|\\[ij](?![A-Za-z])|[^\s{}\\$]")
_EMPTY_BRACKETS = re.compile(rf"[(\[][\s;,]*{_MARKER}[\s;,{_MARKER}]*[)\]]")
_SPACE_BEFORE_MARKER = re.compile(rf"\s*{_MARKER}[\s{_MARKER}]*(?=[.,;:!?)\]]|$)")


def latex_text(files: Mapping[str, bytes], config: ArticleConfig, max_bytes: int) -> str:
    """The text of an article, blocks with an empty line between.

    Args:
        files: the article's files by name; others than text may be among them.
        max_bytes: the most characters that the source may grow to when it is put together.

    Raises:
        BadArticle: there is no main file, or it grows beyond max_bytes.
    """
    blocks = []
    for source in read_sources(files, max_bytes):
        title = _Reader(source.preamble, config).titles()
        blocks += [*title, *_Reader(source.body, config, source.preamble).blocks()]
    return "\n\n".join(blocks)


class _Reader:
    """Reads a source from its beginning to its end and gathers blocks of text."""

    def __init__(self, source: str, config: ArticleConfig, preamble: str = "") -> None:
        for mark in (_CELL, _ROW, _MARKER):
            source = source.replace(mark, "")
        self.source = _EMPTY_LINES.sub("\n\n", source)
        self.config = config
        self.heads = STATEMENTS | dict(_THEOREM.findall(preamble))
        self.braces = matching_braces(self.source)
        self.environments = _matching_environments(self.source)
        self._blocks: list[str] = []
        self._open: list[str] = []
        self._label = ""
        self._at_close: defaultdict[int, list[Callable[[], None]]] = defaultdict(list)
        """What to do when a brace is reached."""
        self._outer: list[list[str]] = []
        """The blocks around a note that has begun."""
        self._notes: list[str] = []
        self._items: list[tuple[bool, int]] = []
        """Of each list around: whether it is numbered, and how many items it has had."""
        self._paragraph_end = -1
        """Of the last formula looked at."""
        self._unclosed: dict[str, int] = {}
        """Up to where each closing delimiter is known not to come."""

    def titles(self) -> list[str]:
        """The titles in a preamble, whose other text is none."""
        for found in re.finditer(r"\\(?:icml)?title\b", self.source):
            _, last = self._arguments(found.end())
            if last:
                return _Reader(self.source[last[0] + 1 : last[1]], self.config).blocks()
        return []

    def blocks(self) -> list[str]:
        """All blocks, in their order."""
        position = 0
        while position < len(self.source):
            found = _TOKEN.match(self.source, position)
            assert found is not None
            word, symbol, _, brace, dollars, ligature, text = found.groups()
            start, position = position, found.end()
            if text is not None:
                self._open.append(text)
            elif word is not None:
                position = self._word(word, start, position)
            elif symbol is not None:
                position = self._symbol(symbol, position)
            elif brace == "}":
                for act in self._at_close.pop(start, ()):
                    act()
            elif dollars is not None:
                position = self._between(dollars, position, display=dollars == "$$")
            elif ligature is not None:
                self._open.append(_CELL if ligature == "&" else LIGATURES[ligature])
            elif brace is None:
                self._end_block()
        while self._outer:
            self._end_note()
        self._end_block()
        return self._blocks

    def _word(self, word: str, start: int, position: int) -> int:
        """A macro; where to read on."""
        if word == "begin":
            return self._begin(start)
        if word == "end":
            return self._end(start, position)
        if word in HEADINGS or word in NOTES:
            return self._heading(word, position)
        if word in NOT_TEXT:
            self._open.append(_MARKER)
            if word == "bibitem":
                self._end_block()
            return self._arguments(position)[0]
        if word in LAST_IS_TEXT:
            _, last = self._arguments(position)
            return last[0] if last else position
        if word == "item":
            return self._item(position)
        if word == "par":
            self._end_block()
        elif word == "verb":
            return self._verb(start)
        elif word in ("def", "let"):
            return self._definition(position)
        elif word in ACCENTS:
            return self._accent(word, position)
        else:
            self._open.append(symbols().get(word, ""))
        return position

    def _symbol(self, symbol: str, position: int) -> int:
        if symbol in ("(", "["):
            return self._between("\\)" if symbol == "(" else "\\]", position, display=symbol == "[")
        if symbol in ACCENTS:
            return self._accent(symbol, position)
        if symbol == "\\":
            self._open.append(_ROW)
            if self.source.startswith("[", position):
                position = self._optional(position)
        elif symbol not in (")", "]"):
            self._open.append(" " if symbol.isspace() else symbols().get(symbol, ""))
        return position

    def _begin(self, start: int) -> int:
        found = _ENVIRONMENT.match(self.source, start)
        if found is None:
            return start + len("\\begin")
        whole, position = found.group(2).strip(), found.end()
        name = whole.rstrip("*")
        inner_stop, stop = self.environments.get(start, (-1, -1))
        if name in MATH and stop >= 0:
            self._formula(self.source[position:inner_stop], display=True)
            return stop
        if stop >= 0 and self._left_out(name):
            return stop
        if name in VERBATIM and stop >= 0:
            self._end_block()
            self._add_block(self.source[position:inner_stop].strip("\n"))
            return stop
        self._end_block()
        if name == "abstract":
            self._add_block("Abstract")
        if name in LISTS:
            self._items.append((name in NUMBERED, 0))
        after = self._optional(position)
        if name in self.heads:
            note = self.source[position:after].strip("[]")
            self._label = f"{self.heads[name]} ({note})." if note else f"{self.heads[name]}."
        while self.source.startswith("{", after) and after in self.braces:
            after = self.braces[after] + 1
        return after

    def _end(self, start: int, position: int) -> int:
        found = _ENVIRONMENT.match(self.source, start)
        if found is None:
            return position
        self._end_block()
        self._label = ""
        if found.group(2).strip() in LISTS and self._items:
            self._items.pop()
        return found.end()

    def _left_out(self, name: str) -> bool:
        return (
            name in PICTURES
            or (name in TABLES and self.config.tables == "drop")
            or (name == "thebibliography" and self.config.references == "drop")
        )

    def _heading(self, word: str, position: int) -> int:
        """A macro whose argument becomes a block of its own, a note's after the one around."""
        after, last = self._arguments(position)
        if last is None:
            return after
        begin, end = (self._begin_note, self._end_note) if word in NOTES else (self._end_block,) * 2
        begin()
        self._at_close[last[1]].append(end)
        return last[0]

    def _begin_note(self) -> None:
        self._outer.append(self._open)
        self._open = []

    def _end_note(self) -> None:
        note = _as_block(self._open)
        self._open = self._outer.pop() if self._outer else []
        if note:
            self._notes.append(note)

    def _item(self, position: int) -> int:
        self._end_block()
        after = self._optional(position)
        numbered, number = self._items.pop() if self._items else (False, 0)
        self._items.append((numbered, number + 1))
        if after > position:  # a description's term is text
            self._open.append(self.source[position:after].strip().strip("[]") + " ")
        else:
            self._label = f"{number + 1}." if numbered else "-"
        return after

    def _verb(self, start: int) -> int:
        """\\verb|text|: nothing in it means anything."""
        begin = start + len("\\verb") + self.source.startswith("*", start + len("\\verb"))
        stop = self.source.find(self.source[begin : begin + 1] or "\n", begin + 1)
        line_end = self.source.find("\n", begin)
        if stop < 0 or 0 <= line_end < stop:
            return begin
        self._open.append(self.source[begin + 1 : stop])
        return stop + 1

    def _definition(self, position: int) -> int:
        """\\def or \\let that is no plain definition: what it names must not be read as used."""
        found = re.compile(r"\\[A-Za-z@]+[^\\{}\n]*(?:\\[A-Za-z@]+)?").match(self.source, position)
        after = found.end() if found else position
        return self.braces.get(after, after - 1) + 1

    def _accent(self, accent: str, position: int) -> int:
        found = _ONE_CHARACTER.match(self.source, position)
        if found is None:
            return position
        self._open.append(accented(accent, found.group()))
        return found.end()

    def _between(self, delimiter: str, position: int, *, display: bool) -> int:
        """A formula up to its delimiter, which must come before the paragraph ends."""
        if position < self._unclosed.get(delimiter, 0):
            return position
        if position > self._paragraph_end:
            stop = self.source.find("\n\n", position)
            self._paragraph_end = stop if stop >= 0 else len(self.source)
        paragraph = self._paragraph_end
        if "$" in delimiter:
            found = _DOLLARS.match(self.source, position, paragraph)
            stop = found.end() if found else paragraph
            closed = self.source.startswith(delimiter, stop)
        else:
            stop = self.source.find(delimiter, position, paragraph)
            closed = stop >= 0
        if not closed:
            self._unclosed[delimiter] = paragraph if "$" not in delimiter else stop
            return position
        self._formula(self.source[position:stop], display=display)
        return stop + len(delimiter)

    def _formula(self, tex: str, *, display: bool) -> None:
        tex = " ".join(_NOT_PRINTED.sub("", tex).split())
        if self.config.formulas == "drop" or not tex:
            self._open.append(" " if display else _MARKER)
        else:
            self._open.append(f" $${tex}$$ " if display else f"${tex}$")

    def _arguments(self, position: int) -> tuple[int, tuple[int, int] | None]:
        """Where a macro's arguments end, and the braces of the last."""
        position = self._optional(position)
        last = None
        while True:
            after = position
            while self.source[after : after + 1] in (" ", "\n") and last is None:
                after += 1
            stop = self.braces.get(after)
            if stop is None or self.source.startswith("\n\n", position):
                return position, last
            last, position = (after, stop), stop + 1
            position = self._optional(position)

    def _optional(self, position: int) -> int:
        """Where an argument in brackets that begins here ends; the place itself if none does."""
        if not self.source.startswith("[", position):
            return position
        stop = self.source.find("]", position, position + LONGEST_ARGUMENT)
        return position if stop < 0 or "\n\n" in self.source[position:stop] else stop + 1

    def _end_block(self) -> None:
        if self._outer:  # a paragraph inside a note
            self._open.append(" ")
            return
        text = _as_block(self._open)
        self._open.clear()
        if text:
            self._add_block(text)
        self._blocks += self._notes
        self._notes.clear()

    def _add_block(self, text: str) -> None:
        if text:
            self._blocks.append(f"{self._label} {text}" if self._label else text)
            self._label = ""


def _as_block(pieces: list[str]) -> str:
    """Pieces as one paragraph, or as the rows of a table."""
    text = "".join(pieces)
    if _MARKER in text:
        text = _EMPTY_BRACKETS.sub(_MARKER, text)
        text = _SPACE_BEFORE_MARKER.sub("", text).replace(_MARKER, "")
    if _CELL not in text:
        return " ".join(text.replace(_ROW, " ").split())
    rows = ("\t".join(" ".join(c.split()) for c in row.split(_CELL)) for row in text.split(_ROW))
    return "\n".join(row.strip("\t ") for row in rows if row.strip())


def _matching_environments(source: str) -> dict[int, tuple[int, int]]:
    """By the place of each \\begin that is ended: where its \\end begins and stops."""
    begun: list[tuple[str, int]] = []
    open_names: defaultdict[str, int] = defaultdict(int)
    pairs = {}
    for found in _ENVIRONMENT.finditer(source):
        kind, name = found.groups()
        if kind == "begin":
            begun.append((name, found.start()))
            open_names[name] += 1
            continue
        while open_names[name]:
            other, start = begun.pop()
            open_names[other] -= 1
            if other == name:
                pairs[start] = (found.start(), found.end())
                break
    return pairs
