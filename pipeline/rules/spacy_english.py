"""What spaCy's English tokenizer goes by, as tables: kinds of characters, units and exceptions.

spaCy cuts words by some dozen patterns over classes of characters and by a list of exceptions
("can't", "Mr.", ":)"). The classes are found by asking its patterns for every code point, so none
is copied here; what the patterns do with them is written in english_cuts.py and web_address.py. A
spaCy that has other patterns is refused.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple, cast

import numpy as np
import xxhash
from numpy.typing import NDArray

from tokenmill.errors import TokenmillError
from tokenmill.pipeline.rules.lines import TABLE_POINTS
from tokenmill.tokenizer.interning import intern_spans
from tokenmill.tokenizer.word_table import TableArrays, WordTable

PATTERNS = "8610c1de6539772c"
"""Of all patterns of spaCy 3.8, which the code follows."""

PREFIX, SUFFIX, INFIX, LETTER = 1, 2, 4, 8
"""Cut off at the start, at the end, inside; a letter beside which signs are cut out."""
BEFORE_DOT, AFTER_DOT, BEFORE_LAST_DOT, CAPITAL = 16, 32, 64, 128
"""A dot between the first two is cut out, one after the third or two capitals is cut off."""
TLD, DIGIT, WORD = 256, 512, 1024
"""In the last part of the name of a host; `\\d` and `\\w` of Python's patterns."""

_SIGN = re.compile(r"\\?(\W)")


class EnglishPatterns(NamedTuple):
    """What compiled functions cut English words by."""

    kinds: NDArray[np.uint16]
    """(0x110000,) the kinds of each code point, bits from PREFIX to WORD."""
    units: TableArrays
    """Strings that are cut off at the end after a digit: "km", "US$"."""
    exceptions: TableArrays
    """Strings that have tokens of their own."""
    stops: NDArray[np.int64]
    """The bytes of their exception at which tokens end, one exception after another."""
    ends: NDArray[np.int64]
    """(exceptions,) where the tokens of each end in `stops`."""
    are_joined: NDArray[np.bool_]
    """(exceptions,) those that are found again where the patterns have cut them into pieces."""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Its arrays by name, for other processes."""
        arrays: dict[str, NDArray[Any]] = {}
        for name, table in self._asdict().items():
            if isinstance(table, TableArrays):
                starts = table.starts[1 : table.length[0] + 1]
                arrays |= {f"{name}_bytes": table.arena[: starts[-1]], f"{name}_starts": starts}
            else:
                arrays[name] = table
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "EnglishPatterns":
        """The patterns whose `to_arrays` these are."""
        fields: dict[str, Any] = {
            name: arrays[name]
            if name in arrays
            else _table(arrays[f"{name}_bytes"], arrays[f"{name}_starts"])
            for name in cls._fields
        }
        return cls(**fields)


def english_patterns() -> EnglishPatterns:
    """Those of the installed spaCy; importing it takes a second.

    Raises:
        TokenmillError: this spaCy has other patterns than those that the code follows.
    """
    with _without_torch():
        import spacy
        from spacy.attrs import ORTH
        from spacy.lang import char_classes
        from spacy.lang.en import English
        from spacy.lang.tokenizer_exceptions import URL_PATTERN
    defaults = English.Defaults
    prefixes, suffixes, infixes = (
        list(filter(str.strip, patterns))
        for patterns in (defaults.prefixes, defaults.suffixes, defaults.infixes)
    )
    patterns = "\n".join([*prefixes, *suffixes, *infixes, URL_PATTERN])
    found = xxhash.xxh3_64_hexdigest(patterns.encode())
    if found != PATTERNS or defaults.token_match is not None:
        raise TokenmillError(
            f"spaCy {spacy.__version__} cuts English words by other patterns than spaCy 3.8, whose "
            "words the filters count; install that: pip install 'spacy==3.8.*'"
        )
    lower, upper, quotes = (
        char_classes.ALPHA_LOWER, char_classes.ALPHA_UPPER, char_classes.CONCAT_QUOTES
    )  # fmt: skip
    characters = [_character(point) for point in range(TABLE_POINTS)]
    alone = "\n".join(characters)
    kinds = np.zeros(sys.maxunicode + 1, np.uint16)
    for kind, alternatives in {
        PREFIX: prefixes,
        SUFFIX: suffixes,
        INFIX: infixes,
        LETTER: [f"[{char_classes.ALPHA}]"],
        BEFORE_DOT: [f"[{lower}{quotes}]"],
        AFTER_DOT: [f"[{upper}{quotes}]"],
        CAPITAL: [f"[{upper}]"],
        TLD: [f"[{lower}]"],
        DIGIT: [r"\d"],
        WORD: [r"\w"],
    }.items():
        kinds[_points(alternatives, alone)] |= kind
    dots = re.finditer(suffixes[-2], ".".join(characters) + ".")
    kinds[[dot.start() // 2 for dot in dots]] |= BEFORE_LAST_DOT
    units = f"{char_classes.CURRENCY}|{char_classes.UNITS}".replace("\\", "").split("|")
    exceptions = {
        text: [token[ORTH] for token in rule]
        for text, rule in defaults.tokenizer_exceptions.items()
        if not text.isspace()
    }
    tokens = [token.encode() for rule in exceptions.values() for token in rule]
    token_ends = np.cumsum([len(rule) for rule in exceptions.values()])
    stops = np.cumsum([len(token) for token in tokens])
    starts = np.concatenate([[0], stops[token_ends[:-1] - 1]])
    prefix, suffix, infix = map("|".join, (prefixes, suffixes, infixes))
    is_found = re.compile(f"^(?:{prefix})|(?:{suffix})$|{infix}").search
    return EnglishPatterns(
        kinds,
        _table_of(list(dict.fromkeys(units))),
        _table_of(list(exceptions)),
        stops - np.repeat(starts, np.diff(token_ends, prepend=0)),
        token_ends,
        np.array([is_found(text) is not None for text in exceptions]),
    )


def _points(alternatives: list[str], all_points: str) -> NDArray[np.int64]:
    """The code points that any of some patterns matches, each with a line feed behind."""
    signs = {sign[1] for text in alternatives if (sign := _SIGN.fullmatch(text))}
    # A pattern that looks back matches no character alone.
    patterns = {text for text in alternatives if not _SIGN.fullmatch(text) and text[:4] != "(?<="}
    if signs:  # one class of characters is found a hundred times as fast as one after another
        patterns.add("[" + "".join(map(re.escape, sorted(signs))) + "]")
    found = [match.start() // 2 for text in patterns for match in re.finditer(text, all_points)]
    return np.array(found, np.int64)


def _character(point: int) -> str:
    """The character; a space for half of a surrogate pair."""
    return " " if 0xD800 <= point < 0xE000 else chr(point)


def _table_of(texts: list[str]) -> TableArrays:
    data = [text.encode() for text in texts]
    starts = np.cumsum([0, *map(len, data)])
    return _table(np.frombuffer(b"".join(data), np.uint8), starts)


def _table(data: NDArray[np.uint8], starts: NDArray[np.int64]) -> TableArrays:
    """Strings numbered from 1 in their order."""
    table = WordTable()
    numbers = intern_spans(table, data, starts[:-1], starts[1:])
    assert numbers.tolist() == list(range(1, len(starts)))
    return table.arrays


@contextmanager
def _without_torch() -> Iterator[None]:
    """Keep spaCy from importing torch for models that nobody needs here: 180 MB and two seconds."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = cast(ModuleType, None)  # importing it fails, as if it was not there
    try:
        yield
    finally:
        del sys.modules["torch"]
