"""Articles to text: how far it agrees with others' text of the same articles, and how fast it is.

    python benchmarks/articles.py --jats FOLDER --truth FOLDER
    python benchmarks/articles.py --latex FOLDER

The first folder holds archives of JATS XML, the second json lines with `text` and the member's name
in `metadata.raw_file`. Precision and recall are of runs of five words. --latex reads a folder of
.tex files, each alone, by this converter and by pylatexenc as it comes.
"""

import argparse
import json
import re
import tarfile
import time
from collections import Counter
from pathlib import Path

import zstandard
from pylatexenc.latex2text import LatexNodes2Text

from tokenmill.pipeline.articles.config import ArticleConfig
from tokenmill.pipeline.articles.jats import jats_article
from tokenmill.pipeline.articles.latex import latex_text
from tokenmill.shards.table import table

RUN_WORDS = 5
MAX_BYTES = 1 << 26


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jats", type=Path, help="a folder of .tar.gz of JATS XML")
    parser.add_argument("--truth", type=Path, help="a folder of .jsonl.zst")
    parser.add_argument("--latex", type=Path, help="a folder of .tex files")
    arguments = parser.parse_args()
    if arguments.jats:
        print(agreement(arguments.jats, arguments.truth))
    if arguments.latex:
        print(latex_rates(sorted(arguments.latex.rglob("*.tex"))))


def agreement(jats: Path, truth: Path) -> str:
    """A table of policies with precision, recall and rate."""
    known = {}
    for path in sorted(truth.glob("*.jsonl.zst")):
        with zstandard.open(path, "rt", encoding="utf-8") as file:
            for record in map(json.loads, file):
                known[record["metadata"]["raw_file"]] = _runs(record["text"])
    articles = {}
    for path in sorted(jats.glob("*.tar.gz")):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file and member.name in known:
                    articles[member.name] = file.read()
    rows = []
    for name, config in {
        "as it comes": ArticleConfig(),
        "formulas: drop": ArticleConfig(formulas="drop"),
        "all kept": ArticleConfig(tables="keep", references="keep"),
    }.items():
        both = ours = theirs = 0
        seconds = 0.0
        for member, data in articles.items():
            started = time.perf_counter()
            text = jats_article(data, config).text
            seconds += time.perf_counter() - started
            mine = _runs(text)
            both += (mine & known[member]).total()
            ours += mine.total()
            theirs += known[member].total()
        rate = sum(map(len, articles.values())) / seconds / 1e6
        rows.append((name, f"{both / ours:.4f}", f"{both / theirs:.4f}", f"{rate:.1f}"))
    header = (f"{len(articles)} articles", "precision", "recall", "MB of XML/s")
    return table(header, rows)


def latex_rates(paths: list[Path]) -> str:
    """A table of MB a second."""
    sources = [path.read_bytes() for path in paths]
    total = sum(map(len, sources)) / 1e6
    started = time.perf_counter()
    for source in sources:
        latex_text({"main.tex": source}, ArticleConfig(), MAX_BYTES)
    ours = total / (time.perf_counter() - started)
    library = LatexNodes2Text(math_mode="verbatim")
    started = time.perf_counter()
    for source in sources:
        library.latex_to_text(source.decode(errors="replace"))
    theirs = total / (time.perf_counter() - started)
    rows = [("tokenmill", f"{ours:.2f}"), ("pylatexenc", f"{theirs:.2f}")]
    return table((f"{len(paths)} files, {total:.1f} MB", "MB/s"), rows)


def _runs(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return Counter(zip(*(words[place:] for place in range(RUN_WORDS)), strict=False))


if __name__ == "__main__":
    main()
