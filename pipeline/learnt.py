"""What the workers of a run have learnt of words, on disk: a new worker starts with it.

    RUN/words/words-<key>       the table of words that texts are split into
    RUN/words/english-<key>     what spaCy's patterns say of characters: asking takes a second

Each is one file that workers map; its pages are theirs in common until one learns more. A worker
that knows a good deal more than the file says writes it anew when it ends a unit. Nothing depends
on these files: what is not in them is learnt again, and one that is damaged or of other libraries
is left alone and written over. What follows from a word by our own rules (tokens, sums) costs less
than reading it, half a microsecond, and is not kept.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import xxhash
from numpy.typing import NDArray

from tokenmill.pipeline.rules import spacy_english
from tokenmill.pipeline.rules.english import EnglishSplitter
from tokenmill.shards.array_file import open_arrays, save_arrays
from tokenmill.tokenizer import word_table
from tokenmill.tokenizer.word_table import TableArrays, WordTable

GROWTH = 1.25
"""How many times as much a worker must know before it writes a file anew."""


def known_words(run: Path) -> WordTable | None:
    """The words that earlier workers met, or None."""
    arrays = open_arrays(_words_path(run))
    if arrays is None:
        return None
    table = WordTable()
    table.arrays = TableArrays(**arrays)
    return table


def keep_words(run: Path, table: WordTable) -> None:
    """Leave the words to later workers, if they are many more than the file has."""
    path = _words_path(run)
    if _is_larger(table.arrays._asdict(), path):
        save_arrays(path, table.arrays._asdict())


def known_english(run: Path) -> EnglishSplitter:
    """A splitter with the tables that an earlier worker got from spaCy."""
    arrays = open_arrays(_english_path(run))
    return EnglishSplitter() if arrays is None else EnglishSplitter.from_arrays(arrays)


def keep_english(run: Path, splitter: EnglishSplitter) -> None:
    """Leave spaCy's tables to later workers."""
    arrays, path = splitter.arrays(), _english_path(run)
    if arrays and _is_larger(arrays, path):
        save_arrays(path, arrays)


def _is_larger(arrays: Mapping[str, NDArray[Any]], path: Path) -> bool:
    size = sum(array.nbytes for array in arrays.values())
    return size > GROWTH * path.stat().st_size if path.exists() else True


def _words_path(run: Path) -> Path:
    return run / "words" / f"words-{_key(word_table)}"


def _english_path(run: Path) -> Path:
    return run / "words" / f"english-{_key(spacy_english, version('spacy'))}"


def _key(module: ModuleType, *parts: str) -> str:
    """Of the code that gives a file its meaning, and of the versions that it depends on."""
    source = Path(str(module.__file__)).read_bytes()
    return xxhash.xxh3_64_hexdigest(b"\n".join([source, *(part.encode() for part in parts)]))
