"""Which characters side by side may make ftfy take a line for mojibake, read from ftfy itself.

ftfy touches the encoding of a line only if its expression BADNESS_RE matches there. Each
alternative of that expression is a row of sets of characters, so where it matches, two given sets
of it stand side by side. Here the alternatives are numbered, and of each the two neighbouring sets
that are rarest together are kept:

    [a-z] \\s? [ÃÂ] [ ]    `first` has the alternative's bit at Ã and Â, `second` at the space;
                          characters a, b in a row are suspect where first[a] & second[b]

No match is missed: it holds its alternative's pair. What is caught in vain costs only time, for
ftfy itself decides. The price is 0.1 seconds a process and a megabyte of tables.
"""

import re
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from ftfy.badness import BADNESS_RE
from numpy.typing import NDArray

ASTRAL = 0x10000
"""The row for every character from here on: ftfy's sets name none, some hold all of them."""

_CHARACTERS = "".join(map(chr, [*range(0xD800), *range(0xE000, ASTRAL)]))
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_ELEMENT = re.compile(r"\[(?:\\.|[^\]\\])*\]|\\[sw]|[^\[\](){}*+$|\\\s]")
_ALTERNATIVE = re.compile(rf"(?:\s|{_ELEMENT.pattern})*")


class Pairs(NamedTuple):
    """A bit for each alternative, a row for each code point below ASTRAL and one for the rest."""

    first: NDArray[np.uint64]
    second: NDArray[np.uint64]
    alone: NDArray[np.bool_]
    """Characters that match by themselves."""


@cache
def mojibake_pairs() -> Pairs:
    """What BADNESS_RE looks for, as far as two neighbouring characters tell."""
    first, second = np.zeros(ASTRAL + 1, np.uint64), np.zeros(ASTRAL + 1, np.uint64)
    alone = np.zeros(ASTRAL + 1, np.bool_)
    alternatives = _COMMENT.sub("", BADNESS_RE.pattern).split("|")
    assert len(alternatives) <= 64
    for number, alternative in enumerate(alternatives):
        elements = _elements(alternative)
        if len(elements) == 1:
            alone[_members(elements[0])] = True
            continue
        pairs = [(_members(a), _members(b)) for a, b in pairwise(elements) if a and b]
        left, right = min(pairs, key=lambda pair: len(pair[0]) * len(pair[1]))
        bit = np.uint64(1 << number)
        first[left] |= bit
        second[right] |= bit
    # Plain text is skipped a byte at a time, so no pair may be of two ASCII characters.
    assert not np.bitwise_or.reduce(first[:0x80]) & np.bitwise_or.reduce(second[:0x80])
    return Pairs(first, second, alone)


def _elements(alternative: str) -> list[str]:
    """The sets in a row; "" stands for one that may be absent, as its neighbours may not touch."""
    assert _ALTERNATIVE.fullmatch(alternative), f"ftfy's expression has grown: {alternative}"
    elements: list[str] = []
    for element in _ELEMENT.findall(alternative):
        if element == "?":
            elements[-1] = ""
        elif element != "^":
            elements.append(element)
    return elements


@cache
def _members(element: str) -> NDArray[np.int64]:
    """The code points that a set holds, ASTRAL for all from there on."""
    assert max(element) < chr(ASTRAL)
    points = [ord(character) for character in re.findall(element, _CHARACTERS)]
    if element == "." or "\\w" in element or element.startswith("[^"):
        points.append(ASTRAL)
    return np.array(points, np.int64)
