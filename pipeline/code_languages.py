"""The language of a source file, told by its name alone.

Pygments knows some 850 patterns of file names. Almost all are an ending (*.py) or a whole name
(Makefile) and are looked up in a table that is made once a process; the other dozen are one regular
expression. Where languages share an ending, MEANT says which is meant, else Pygments does. The
names are Linguist's, as in the columns of The Stack and StarCoder.
"""

import fnmatch
import functools
import re
from importlib.metadata import version

from pygments.lexers import find_lexer_class_for_filename, get_all_lexers

MEANT = {
    ".ac": "M4", ".as": "ActionScript", ".bas": "Visual Basic", ".cl": "OpenCL", ".cls": "TeX",
    ".fs": "F#", ".h": "C", ".hh": "C++", ".inc": "PHP", ".ipynb": "Jupyter Notebook", ".l": "Lex",
    ".m": "MATLAB", ".m4": "M4", ".pl": "Perl", ".pm": "Perl", ".s": "Assembly", ".S": "Assembly",
    ".sc": "Scala", ".sql": "SQL", ".sty": "TeX", ".svg": "SVG", ".t": "Perl", ".toc": "TeX",
    ".v": "Verilog", ".y": "Yacc",
}  # fmt: skip
"""Endings that languages share, or that Pygments has no language of their own for."""
LINGUIST = {
    "Bash": "Shell", "CUDA": "Cuda", "Delphi": "Pascal", "Docker": "Dockerfile",
    "EmacsLisp": "Emacs Lisp", "Fish": "fish", "FortranFixed": "Fortran", "GAS": "Assembly",
    "Groff": "Roff", "Java Server Page": "Java Server Pages", "LessCss": "Less",
    "Matlab": "MATLAB", "NASM": "Assembly", "Nimrod": "Nim", "Perl6": "Raku", "Pug": "Pug",
    "Tcsh": "Shell", "Text only": "Text", "VB.net": "Visual Basic .NET", "VimL": "Vim Script",
    "systemverilog": "SystemVerilog", "verilog": "Verilog", "vhdl": "VHDL",
}  # fmt: skip
"""Linguist's names for what Pygments calls otherwise."""
PROSE = frozenset({"Text", "Markdown", "reStructuredText"})


def language_of(path: str) -> str | None:
    """The language of a file of that name; None for one that says none."""
    name = path.rsplit("/", 1)[-1]
    whole_names, endings, others = _patterns()
    dot = name.rfind(".")
    ending = name[dot:] if dot > 0 else ""
    if name in whole_names:
        found = _asked(name)
    elif ending in MEANT:
        return MEANT[ending]
    elif ending in endings:
        found = _asked(f"x{ending}")
    elif others.fullmatch(name):
        found = _asked(name)
    else:
        return None
    return LINGUIST.get(found, found)


def languages_key() -> str:
    """What decides on languages, for the keys of what is made with them."""
    return f"pygments {version('pygments')}"


@functools.cache
def _asked(name: str) -> str:
    """What Pygments says, which takes a millisecond."""
    return str(find_lexer_class_for_filename(name).name)


@functools.cache
def _patterns() -> tuple[frozenset[str], frozenset[str], re.Pattern[str]]:
    """Pygments's whole names, its endings, and all other patterns as one."""
    names, endings, others = set(), set(), set()
    for _, _, patterns, _ in get_all_lexers(plugins=False):
        for pattern in patterns:
            if not any(sign in pattern for sign in "*?["):
                names.add(pattern)
            elif re.fullmatch(r"\*\.[^.*?\[\]]+", pattern):
                endings.add(pattern[1:])
            else:
                others.add(pattern)
    return (
        frozenset(names),
        frozenset(endings),
        re.compile("|".join(fnmatch.translate(pattern) for pattern in sorted(others))),
    )
