"""LaTeX to text: what the printed page says, from sound sources and from broken ones."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pylatexenc.latex2text import LatexNodes2Text

from tokenmill.pipeline.articles.article import BadArticle
from tokenmill.pipeline.articles.config import ArticleConfig
from tokenmill.pipeline.articles.latex import latex_text
from tokenmill.pipeline.articles.latex_source import without_comments
from tokenmill.pipeline.articles.latex_words import OWN_SYMBOLS, symbols

MAX_BYTES = 1 << 20
MANY_B = "\\b" * 100_000


def text_of(files, **policies):
    data = {name: source.encode() for name, source in files.items()}
    return latex_text(data, ArticleConfig(**policies), MAX_BYTES)


def blocks(source, **policies):
    """The blocks of one file without a preamble."""
    text = text_of({"a.tex": source}, **policies)
    return text.split("\n\n") if text else []


def test_an_article_is_put_together_from_its_files():
    files = {
        "main.tex": r"""\documentclass[11pt]{article} % \input{no}
            \usepackage{amsmath}\newcommand{\ours}{WindMill\xspace}\def\eg{e.g.}
            \newtheorem{thm}{Theorem}
            \title{Of \emph{Mills}\thanks{To all.}}\author{K. Ito}
            \begin{document}\maketitle
            \begin{abstract}They turn.\end{abstract}
            \input{parts/wind}
            \include{water.tex} \input parts/wind
            \bibliography{refs}
            \end{document} \section{Not printed}""",
        "parts/wind.tex": "\\section{Wind}\n\\ours is old, \\eg here. %\n  % no\nEnd.",
        "water.tex": "\\begin{thm}[Flow] It flows. \\input{main}\\end{thm}",
        "main.bbl": "\\begin{thebibliography}{9}\\bibitem{x} K. Ito. \\newblock Mills.\n"
        "\\end{thebibliography}",
        "figure.tex": "\\documentclass{standalone}\\begin{document}x\\end{document}",
        "logo.png": "\x89PNG",
    }
    expected = [
        "Of Mills", "Abstract", "They turn.", "Wind", "WindMill is old, e.g.here. End.",
        "Theorem (Flow). It flows.", "Wind", "WindMill is old, e.g.here. End.",
    ]  # fmt: skip
    assert text_of(files).split("\n\n") == expected
    assert text_of(files, references="keep").split("\n\n") == [*expected, "K. Ito. Mills."]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (r"\section*{A \textbf{b}} c", ["A b", "c"]),
        ("a\nb\n\n  \n c \\par d", ["a b", "c", "d"]),
        (r"a~b ``c'' `d' e--f --- g\-h\/ i\ j\,k",
         ["a b \u201cc\u201d \u2018d' e\u2013f \u2014 gh i j k"]),
        (r"50\% of \$5 \& \_x \{y\} \#1", ["50% of $5 & _x {y} #1"]),
        (r"Erd\H{o}s, na\"{\i}ve, Sk\l odowska, caf\'e, \c{c}, \AA",
         ["Erd\u0151s, na\u00efve, Sk\u0142odowska, caf\u00e9, \u00e7, \u00c5"]),
        (r"as in \cite[p.~2]{a,b}, see Fig.~\ref{x} (\cite{y}; \cite{z}).", ["as in, see Fig.."]),
        ("Go.\\footnote{Slowly. \\emph{Very}.} Then\n stop.", ["Go. Then stop.", "Slowly. Very."]),
        (r"\begin{itemize}\item a \item[b)] c\end{itemize} d", ["- a", "b) c", "d"]),
        (
            r"\begin{enumerate}\item a\begin{itemize}\item b\end{itemize}\item c\end{enumerate}",
            ["1. a", "- b", "2. c"],
        ),
        (
            r"\begin{figure}[ht]\includegraphics[width=1cm]{f}\caption[s]{A \emph{mill}.}"
            r"\label{f}\end{figure}",
            ["A mill."],
        ),
        (r"\begin{proof} Clear. \end{proof}", ["Proof. Clear."]),
        ("\\begin{verbatim}\n if x: % no\n   y\n\\end{verbatim}", [" if x: % no\n   y"]),
        (r"call \verb|f(%, $)| now", ["call f(%, $) now"]),
        (r"\textcolor{red}{a} \href{http://x}{b} \unknown{c} {\bf d}", ["a b c d"]),
        (r"\begin{tikzpicture}\node{x};\end{tikzpicture} a", ["a"]),
        (r"\def\x#1{y}\let\a\b z \newcommand{\q}[1]{\emph{#1}} w", ["z w"]),
        (r"a \\[2pt] b", ["a b"]),
    ],
)  # fmt: skip
def test_blocks(source, found):
    assert blocks(source) == found


@pytest.mark.parametrize(
    ("source", "kept", "dropped"),
    [
        ("Let $x^2$ be.", "Let $x^2$ be.", "Let be."),
        (r"Let \(x\) be.", "Let $x$ be.", "Let be."),
        (r"So \[ x = \$ \] holds.", r"So $$x = \$$$ holds.", "So holds."),
        ("So $$ x $$ holds.", "So $$x$$ holds.", "So holds."),
        (
            "So \\begin{align*}\na &= b\\label{e} \\\\\n\n c \\nonumber\\end{align*} holds.",
            r"So $$a &= b \\ c$$ holds.",
            "So holds.",
        ),
        (r"\newcommand{\R}{\mathbb{R}} $\R^n$.", r"$\mathbb{R}^n$.", "."),
    ],
)
def test_formulas_are_tex_or_nothing(source, kept, dropped):
    assert blocks(source) == [kept]
    assert blocks(source, formulas="drop") == [dropped]


def test_tables_keep_their_caption_and_by_policy_their_cells():
    source = (
        r"\begin{table}\caption{Mills.}\begin{tabular}{l|r} \hline kind & \textbf{number} \\ "
        r"wind & 3 \\ \multicolumn{2}{c}{all} \end{tabular}\end{table}"
    )
    assert blocks(source) == ["Mills."]
    assert blocks(source, tables="keep") == ["Mills.", "kind\tnumber\nwind\t3\nall"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("a {b c", ["a b c"]),
        ("a } b", ["a b"]),
        ("a $x b\n\nc $y$", ["a x b", "c $y$"]),
        (r"a \[ x" + "\n\n" + r"b \(c", ["a x", "b c"]),
        (r"\begin{equation} x" + "\n\nb", ["x", "b"]),
        (r"\begin{tabular}{l} a & b", ["a\tb"]),
        (r"a \end{itemize} b", ["a", "b"]),
        (r"\section{a" + "\n\nb", ["a", "b"]),
        (r"\footnote{a" + "\n\nb", ["a", "b"]),
        (r"\cite{a b", ["a b"]),
        (r"\begin{", []),
        ("\\", []),
        (r"\verb", []),
        (r"\begin{verbatim} a", ["a"]),
        ("{" * 100_000 + "a", ["a"]),
        (r"\emph{" * 100_000 + "a" + "}" * 100_000, ["a"]),
        (r"\begin{x}" * 50_000 + "a" + r"\end{x}" * 50_000, ["a"]),
        ("\ue000a\ue001b\ue002", ["ab"]),
    ],
)
def test_broken_latex_gives_the_text_that_can_be_told(source, found):
    assert blocks(source) == found


PIECES = (
    "{", "}", "$", "$$", "\\[", "\\]", "\\(", "\\begin{a}", "\\end{a}", "\\begin{equation}",
    "\\begin{tabular}", "\\end{tabular}", "\\footnote{", "\\section{", "\\cite[", "\\item[",
    "\\verb|", "\\newcommand{\\x}{\\x\\x}", "\\x", "\\documentclass[", "\\def\\y", "\\input{a}",
    "%", "\n", "\n\n", "\\", "\\'", "a ", "~", "&", "\\begin{verbatim}", "\\newtheorem{",
    "\\label{$", "(\\ref", ";", "]",
)  # fmt: skip


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=40))
def test_any_sequence_of_pieces_is_read_to_its_end(pieces):
    files = {"a.tex": "\\documentclass{article}" + "".join(pieces)}
    text = text_of(files, tables="keep", references="keep")
    assert not re.search("[\ue000-\ue002]", text)
    if "\\x" not in pieces and "%" not in pieces:
        assert text.count("a ") + text.endswith("a") <= "".join(pieces).count("a")


@pytest.mark.parametrize("piece", PIECES)
def test_time_grows_with_length_and_no_faster(piece):
    def seconds(number):
        started = time.process_time()
        blocks(piece * (number // len(piece)))
        return time.process_time() - started

    # Ten times the text in a hundred times the time would be a search from each place to the end.
    assert (
        min(seconds(100_000) for _ in range(2)) < 40 * min(seconds(10_000) for _ in range(3)) + 0.1
    )


@given(letter=st.sampled_from("aeioucnszAEO"), accent=st.sampled_from("'`^\"~=.cvuHk"))
def test_accents_are_those_of_pylatexenc(letter, accent):
    source = f"x\\{accent}{{{letter}}}y"
    assert blocks(source) == [LatexNodes2Text().latex_to_text(source)]


def test_symbols_are_those_of_pylatexenc():
    names = [name for name in symbols() if name.isalpha() and name not in OWN_SYMBOLS]
    source = "".join(f"\\{name}{{}}@@\n\n" for name in names)
    library = LatexNodes2Text().latex_to_text(source).split("@@")
    assert len(names) > 700
    assert [block[:-2] for block in blocks(source)] == [" ".join(text.split()) for text in library][
        :-1
    ]


def test_bytes_that_are_not_utf_8_are_read_as_inputenc_says():
    config = ArticleConfig()
    source = r"\documentclass{article}\usepackage[%s]{inputenc}\begin{document}%s"
    for name, codec, word in [
        ("latin1", "latin-1", "caf\u00e9"),
        ("koi8-r", "koi8-r", "\u043c\u0435\u043b"),
    ]:
        data = (source % (name, word)).encode(codec)
        assert latex_text({"a.tex": data}, config, MAX_BYTES) == word
    assert latex_text({"a.tex": "caf\u00e9".encode("latin-1")}, config, MAX_BYTES) == "caf\u00e9"
    assert (
        latex_text({"a.tex": "\ufeffcaf\u00e9\r\rb".encode()}, config, MAX_BYTES)
        == "caf\u00e9\n\nb"
    )


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({}, "0 TeX files"),
        ({"a.tex": "x", "b.tex": "y"}, "2 TeX files, none with a \\documentclass"),
        ({"a.tex": "\0\1\2"}, "0 TeX files"),
        ({"a.tex": r"\documentclass{x}\input{b}\input{b}", "b.tex": "x" * 600_000}, "max_document"),
        (
            {"a.tex": f"\\newcommand{{\\a}}{{{MANY_B}}}\\newcommand{{\\b}}{{{'x' * 20}}}\\a"},
            "macros are written out",
        ),
    ],
)  # fmt: skip
def test_what_is_no_article_is_refused_by_name(files, error):
    with pytest.raises(BadArticle, match=re.escape(error)):
        text_of(files)


def test_main_files_of_the_top_folder_are_one_article():
    main = "\\documentclass{article}\\begin{document}%s\\end{document}"
    files = {"p/b.tex": main % "two", "p/a.tex": main % "one", "p/old/c.tex": main % "no"}
    assert text_of(files) == "one\n\ntwo"
    # A cycle ends, and each file is the input of another: none is a main file but by its class.
    assert text_of({"a.tex": main % "x\\input{b}", "b.tex": "y\\input{b}\\input{a}"}) == "xy"


def test_comments_go_with_their_line_ends():
    assert without_comments("a%b\n  c\\%d\\\\%e\nf") == "ac\\%d\\\\f"
    assert without_comments("a%b") == "a"
