"""What each character is, as a table that compiled code looks up.

A bit for each set, by code point, with the answers of Python's own `str` methods and of Unicode's
general categories. Characters that are not looked at (above plane 3, but for tags and variation
selectors, Unicode has private use only) count as symbols. The price is a megabyte and 0.2 seconds
a process.
"""

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled_inline

LETTER = 1
"""str.isalpha: general category L."""
LETTER_OR_NUMBER = 2
"""str.isalnum."""
WHITE_SPACE = 4
"""str.isspace."""
SYMBOL = 8
"""Neither a letter, a mark nor a number by general category, nor white space."""

_NUM_POINTS = 0x110000
_ASSIGNED = (*range(0x40000), *range(0xE0000, 0xE0200))
ONE, TWO, THREE = np.uint64(1), np.uint64(2), np.uint64(3)


@cache
def character_sets() -> NDArray[np.uint8]:
    """(0x110000,) the sets of each code point."""
    sets = np.full(_NUM_POINTS, SYMBOL, np.uint8)
    for point in _ASSIGNED:
        character = chr(point)
        bits = 0
        if character.isalpha():
            bits = LETTER | LETTER_OR_NUMBER
        elif character.isalnum():
            bits = LETTER_OR_NUMBER
        if character.isspace():
            bits |= WHITE_SPACE
        elif unicodedata.category(character)[0] not in "LMN":
            bits |= SYMBOL
        sets[point] = bits
    return sets


@compiled_inline
def decode(data: NDArray[np.uint8], at: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The code point of the UTF-8 that starts at `at`, and its bytes."""
    lead = np.uint64(data[at])
    if lead < 0x80:
        return lead, ONE
    second = np.uint64(data[at + ONE] & 0x3F)
    if lead < 0xE0:
        return np.uint64((lead & 0x1F) << 6 | second), TWO
    third = np.uint64(data[at + TWO] & 0x3F)
    if lead < 0xF0:
        return np.uint64((lead & 0x0F) << 12 | second << 6 | third), THREE
    fourth = np.uint64(data[at + THREE] & 0x3F)
    point = (lead & 0x07) << 18 | second << 12 | third << 6 | fourth
    return np.uint64(point), np.uint64(4)
