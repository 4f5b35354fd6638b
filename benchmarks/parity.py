"""Decisions beside those of datatrove's filters and fastText, document by document.

    python benchmarks/parity.py RECIPE --set sources.web.path=FOLDER

Each document of the recipe's sources, whatever its kind, goes through Gopher's repetition and
quality filters, C4's (its text too), FineWeb's and fastText's lid.176, each by itself with its
defaults, and through ours. Printed are the documents that differ; exits with 1 where more than one
in a thousand does. datatrove does about 0.1 MB a second and core so: sample with --every.
"""

import argparse
import functools
import multiprocessing
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tokenmill.pipeline.documents import Documents
from tokenmill.pipeline.edits.config import EditConfig
from tokenmill.pipeline.examine import Examiner
from tokenmill.pipeline.filters import FilterConfig
from tokenmill.pipeline.rules.c4 import C4Rule
from tokenmill.pipeline.rules.checks import Verdict
from tokenmill.pipeline.rules.datatrove_names import (
    DATATROVE_NAMES,
    GOPHER_QUALITY,
    GOPHER_REPETITION,
)
from tokenmill.pipeline.rules.fineweb import FineWebRule
from tokenmill.pipeline.rules.gopher import GopherRule
from tokenmill.pipeline.rules.language import LanguageRule, model_path
from tokenmill.pipeline.texts import source_texts
from tokenmill.recipe import load_recipe
from tokenmill.tokenizer.words import Splitter

ALLOWED = 0.001
"""Share of documents that may differ."""
BATCH = 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--every", type=int, default=1, help="take one document in so many")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, arguments.set)
    batches = source_texts(recipe.sources, Path(), [])
    texts = (text for batch in batches for text in batch.to_pylist())
    chosen = (text for number, text in enumerate(texts) if number % arguments.every == 0)
    differing: Counter[str] = Counter()
    documents = 0
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for number, found in pool.imap(compare, _batches(chosen)):
            documents += number
            differing.update(name for name, _ in found)
            for name, line in found:
                print(f"{name}: {line}")
    for name in ("gopher repetition", "gopher quality", "c4", "c4 text", "fineweb", "language"):
        print(f"{name:18} {differing[name]:6} of {documents:,} documents differ")
    return int(max(differing.values(), default=0) > ALLOWED * documents)


def compare(texts: list[str]) -> tuple[int, list[tuple[str, str]]]:
    """How many documents, and (what, a line) for each difference."""
    found = []
    ours = _ours(texts)
    for number, text in enumerate(texts):
        for name, theirs in _theirs(text).items():
            mine = ours[name][number]
            near = name == "language" and mine[0] == theirs[0] and abs(mine[1] - theirs[1]) < 1e-4
            if mine != theirs and not near:
                found.append(
                    (name, f"{text[:60]!r}: ours {str(mine)[:60]}, theirs {str(theirs)[:60]}")
                )
    return len(texts), found


def _ours(texts: list[str]) -> dict[str, list[Any]]:
    n = len(texts)
    none = pa.nulls(n, pa.string())
    numbers = np.arange(n)
    batch = Documents(
        pa.array(texts, pa.large_string()), numbers.astype(np.uint64), numbers, *[none] * 5
    )
    repetition = GopherRule(**_off(GOPHER_QUALITY))
    quality = GopherRule(**_off(GOPHER_REPETITION))
    c4 = _examiner("c4").examine(batch)
    language = _examiner("language").examine(batch).signals
    decided = {
        "gopher repetition": _reasons(_examiner("repetition", gopher=repetition), batch),
        "gopher quality": _reasons(_examiner("quality", gopher=quality), batch),
        "fineweb": _reasons(_examiner("fineweb"), batch),
        "c4": _named(c4.verdict),
    }
    kept = c4.verdict.kept
    decided["c4 text"] = [text if kept[i] else None for i, text in enumerate(c4.texts.to_pylist())]
    labels = zip(language["language"].tolist(), language["language_probability"], strict=True)
    return {**decided, "language": list(labels)}


def _reasons(examiner: Examiner, batch: Documents) -> list[str]:
    return _named(examiner.examine(batch).verdict)


def _named(verdict: Verdict) -> list[str]:
    """In datatrove's words."""
    return [DATATROVE_NAMES.get(verdict.reasons[code], "") for code in verdict.codes]


def _off(checks: dict[str, str]) -> dict[str, None]:
    return dict.fromkeys(reason.partition(".")[2] for reason in checks)


_examiners: dict[str, Examiner] = {}


def _examiner(name: str, **rules: Any) -> Examiner:
    if name not in _examiners:
        own = {"c4": C4Rule(), "fineweb": FineWebRule(), "language": LanguageRule()}
        filters = FilterConfig(**(rules or {name: own[name]}))
        _examiners[name] = Examiner(filters, EditConfig(), "web", Splitter().split)
    return _examiners[name]


def _theirs(text: str) -> dict[str, Any]:
    from datatrove.data import Document

    found: dict[str, Any] = {}
    for name, block in _filters().items():
        document = Document(text, "0")
        with warnings.catch_warnings(action="ignore"):
            kept = block.filter(document)
        found[name] = "" if kept is True else kept[1]
        if name == "c4":
            found["c4 text"] = document.text if kept is True else None
    labels, probabilities = _model().predict(text.replace("\n", " "))
    found["language"] = (labels[0].removeprefix("__label__"), probabilities[0])
    return found


@functools.cache
def _filters() -> dict[str, Any]:
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    return {
        "gopher repetition": GopherRepetitionFilter(),
        "gopher quality": GopherQualityFilter(),
        "c4": C4QualityFilter(),
        "fineweb": FineWebQualityFilter(),
    }


@functools.cache
def _model() -> Any:
    import fasttext

    return fasttext.load_model(str(model_path("lid.176")))


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


if __name__ == "__main__":
    sys.exit(main())
