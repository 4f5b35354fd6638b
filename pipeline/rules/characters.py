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
