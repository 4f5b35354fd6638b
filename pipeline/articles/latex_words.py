"""What LaTeX's macros and environments mean for plain text, as tables.

A macro that is in none of them, nor among pylatexenc's symbols, goes, and its arguments stay.
"""

import functools
from collections.abc import Mapping

from pylatexenc.latex2text import LatexNodes2Text, get_default_latex_context_db

HEADINGS = frozenset({
    "title", "icmltitle", "part", "chapter", "section", "subsection", "subsubsection", "paragraph",
    "subparagraph", "caption", "captionof", "subcaption",
})  # fmt: skip
"""Macros whose last argument is a block of its own."""
NOTES = frozenset({"footnote", "footnotetext"})
NOT_TEXT = frozenset({
    "label", "ref", "eqref", "pageref", "autoref", "nameref", "cref", "Cref", "vref", "subref",
    "cite", "citep", "citet", "citealp", "citealt", "citeauthor", "citeyear", "citeyearpar",
    "Citet", "Citep", "parencite", "textcite", "autocite", "footcite", "onlinecite", "nocite",
    "bibliography", "bibliographystyle", "bibitem", "addbibresource", "author", "affil",
    "affiliation", "address", "email", "institute", "institution", "date", "thanks", "orcid",
    "documentclass", "documentstyle", "usepackage", "RequirePackage", "input", "include",
    "includegraphics", "includepdf", "epsfig", "psfig", "epsfbox", "graphicspath", "vspace",
    "hspace", "vskip", "hskip", "rule", "setlength", "addtolength", "setcounter", "addtocounter",
    "stepcounter", "refstepcounter", "value", "newtheorem", "newcommand", "renewcommand",
    "providecommand", "newenvironment", "renewenvironment", "newcounter", "newlength",
    "DeclareMathOperator", "theoremstyle", "pagestyle", "thispagestyle", "pagenumbering",
    "markboth", "markright", "index", "hypersetup", "color", "definecolor", "cline", "cmidrule",
    "phantom", "hphantom", "vphantom", "linespread", "fontsize", "selectfont", "tikzset",
    "pgfplotsset", "lstset", "captionsetup", "hyphenation", "ccsdesc", "pacs", "numberwithin",
    "allowdisplaybreaks", "setstretch", "footnotemark", "today", "special", "citation",
})  # fmt: skip
"""Macros that go with all their arguments."""
LAST_IS_TEXT = frozenset({
    "textcolor", "colorbox", "fcolorbox", "href", "resizebox", "scalebox", "rotatebox", "raisebox",
    "parbox", "multicolumn", "multirow", "makebox", "framebox", "adjustbox", "captionbox",
})  # fmt: skip
MATH = frozenset({
    "equation", "align", "alignat", "flalign", "gather", "multline", "eqnarray", "displaymath",
    "math", "dmath", "IEEEeqnarray", "xalignat",
})  # fmt: skip
PICTURES = frozenset({
    "tikzpicture", "pgfpicture", "picture", "pspicture", "axis", "comment", "filecontents",
    "CCSXML", "overpic", "forest",
})  # fmt: skip
TABLES = frozenset({
    "tabular", "tabularx", "tabulary", "tabu", "longtable", "supertabular", "array", "deluxetable",
})  # fmt: skip
NUMBERED = frozenset({"enumerate", "compactenum", "inparaenum"})
LISTS = NUMBERED | {"itemize", "description", "compactitem", "inparaitem", "list", "trivlist"}
STATEMENTS = {"proof": "Proof"}
"""What is printed at the head of an environment, beside what \\newtheorem says."""
OWN_SYMBOLS = {
    "%": "%", "-": "", "/": "", "TeX": "TeX", "LaTeX": "LaTeX", "LaTeXe": "LaTeX2e",
    "copyright": "\u00a9",
}  # fmt: skip
"""What pylatexenc says otherwise or not: places where a word may break, TeX's own name."""
ACCENTS = frozenset("'`^\"~=.cvuHkrdbt")
"""Macros that change the one character behind them."""


@functools.cache
def symbols() -> Mapping[str, str]:
    """The text of each macro that stands for characters, as pylatexenc knows them."""
    known = get_default_latex_context_db()
    plain = {}
    for spec in known.iter_macro_specs():
        text = spec.simplify_repl
        if isinstance(text, str) and "%" not in text and spec.macroname not in NOT_TEXT:
            plain[spec.macroname] = text
    return plain | OWN_SYMBOLS


@functools.lru_cache(maxsize=1 << 16)
def accented(accent: str, character: str) -> str:
    """A character with an accent; both as TeX writes them."""
    space = " " if accent.isalpha() and character[0].isalpha() else ""
    return str(LatexNodes2Text().latex_to_text(f"\\{accent}{space}{character}"))
