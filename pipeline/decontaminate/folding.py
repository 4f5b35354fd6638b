"""What counts of a character when words are compared: its letter, lower-cased, without accents.

    Don't re-read: "naïve" costs 10 €    ->    don t re read naive costs 10

A word is a run of letters and digits; all else lies between words. A mark on a letter is nothing,
so that both ways of writing "ï" are one. Scripts that put no space between words have no runs to
speak of: each of their characters is a word.
"""

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

NUM_POINTS = 0x20000
"""Code points that are looked up; beyond stand Han characters, and what is no letter."""
LAST_HAN = 0x3FFFF
BETWEEN = 0
"""Of a character between words."""
MARK = 1
"""Of a character that is nothing by itself."""
ALONE = 1 << 31
"""Set where the character is a word."""
UNSPACED = (
    "CJK UNIFIED", "CJK COMPATIBILITY IDEOGRAPH", "HIRAGANA LETTER", "KATAKANA LETTER",
    "HALFWIDTH KATAKANA LETTER", "THAI CHARACTER", "LAO LETTER", "KHMER LETTER", "MYANMAR LETTER",
)  # fmt: skip
"""How the Unicode names of characters begin that stand in words without spaces."""


@cache
def folded_points() -> NDArray[np.uint32]:
    """(NUM_POINTS,) by code point: BETWEEN, MARK, or its letter, with ALONE where that is a word.

    The answers are those of Python's Unicode tables (`unicodedata.unidata_version`).
    """
    return np.array([_fold(chr(point)) for point in range(NUM_POINTS)], np.uint32)


def _fold(character: str) -> int:
    if ord(character) >= NUM_POINTS:
        return ord(character) | ALONE if ord(character) <= LAST_HAN else BETWEEN
    category = unicodedata.category(character)
    if category[0] not in "LNM":
        return BETWEEN
    if category[0] == "M":
        return MARK
    lower = character.lower()
    spread = [c for c in unicodedata.normalize("NFD", lower) if unicodedata.category(c)[0] != "M"]
    # A Hangul syllable comes apart into letters; it stays whole.
    point = ord(spread[0] if len(spread) == 1 else lower[0])
    return point | ALONE if unicodedata.name(character, "").startswith(UNSPACED) else point
