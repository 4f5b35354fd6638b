"""What each character is to a tokenizer: a letter, a digit, white space... and what becomes of it.

The library is asked about a character once, when it is first seen, so no table of Unicode of ours
can differ from its own. What it does to a character next to others is known of these alone:

- BERT's normalizer goes character by character, but for accents: it decomposes, which orders the
  marks of a letter anew, and then drops marks. If all that stays are characters that no mark comes
  before, their order is that of the text.
- NFC composes a mark with the letter before it. For characters of Unicode 3.2 it never changed, so
  Python's own does the same.
- GPT-2's regular expression knows but the classes, and the letters after an apostrophe.

All else is UNKNOWN, and a word that holds it is answered by the library whole.
"""

import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
from tokenizers import Tokenizer, normalizers, pre_tokenizers

NEVER_SEEN, LETTER, DIGIT, OTHER, SPACE, VANISHES, UNKNOWN = range(7)
"""Kinds of characters. OTHER is BERT's punctuation, and for GPT-2 what is none of the rest."""
KIND = 7
"""The bits of a class that hold the kind."""
PLAIN = 8
"""Set where the normalizer leaves a character alone, but for the case of ASCII letters, whatever
stands around it."""
BREAKS = 16
"""Set where BERT's pre-tokenizer cuts before and after a character, whatever stands there."""
IN_TOKEN = 32
"""Set where an added token holds the character, in this or the other case."""
NUM_POINTS = 0x110000

_NFD = normalizers.NFD()
_LOWEST_MARK, _HIGHEST_MARK = "\u0334", "\u0345"
"""Of the combining classes 1 and 240: no class goes before the one or after the other."""
_EMOJI = range(0x1F000, 0x1FB00)
_JAMO = range(0x1160, 0x1200)
"""Vowels and final consonants of Hangul, which compose with what stands before them."""


class Characters:
    """The classes of characters, and the normalizer for texts without UNKNOWN ones."""

    lower: bool
    """Whether the normalizer makes A to Z lower-case."""
    separator: str
    """A character that is in no text that may be rewritten, and that the normalizer leaves."""

    def __init__(self, in_tokens: frozenset[str]) -> None:
        """
        Args:
            in_tokens: the characters of added tokens, lower-cased.
        """
        self.classes = np.zeros(NUM_POINTS, np.uint8)
        """By code point: the kind and the other bits."""
        self._in_tokens = in_tokens

    def learn(self, points: Iterable[int]) -> None:
        """Find the classes of code points that were never seen."""
        for point in points:
            character = chr(point)
            in_token = IN_TOKEN if character.lower() in self._in_tokens else 0
            self.classes[point] = self._class_of(character) | in_token

    def rewrite(self, text: str) -> str:
        """What the normalizer makes of texts of known characters, separators between them."""
        raise NotImplementedError

    def _class_of(self, character: str) -> int:
        raise NotImplementedError


class BertCharacters(Characters):
    """Of a tokenizer with BERT's pre-tokenizer, and its normalizer or none; texts are words."""

    separator = "\n"

    def __init__(
        self, tokenizer: Tokenizer, settings: dict[str, Any], in_tokens: frozenset[str]
    ) -> None:
        super().__init__(in_tokens)
        options = settings["normalizer"] or {}
        self.lower = options.get("lowercase", False)
        strips = options.get("strip_accents")
        self._strips_accents = self.lower if strips is None else strips
        self._normalizer = tokenizer.normalizer
        self._pre_tokenizer = tokenizer.pre_tokenizer
        self._rewritten = {ord(self.separator): self.separator}
        self.learn(range(128))

    def rewrite(self, text: str) -> str:
        return text.translate(self._rewritten)

    def _class_of(self, character: str) -> int:
        after = self._normalized(character)
        self._rewritten.setdefault(ord(character), after)
        if not after:
            return VANISHES
        if not self._keeps_order(character):
            return UNKNOWN
        parts = self._cut(f"a{after}a")
        in_token = self._in_tokens.intersection(character.lower() + after)
        breaks = BREAKS if parts[0] == parts[-1] == "a" and not in_token else 0
        if after == character or (character.isascii() and after == character.lower()):
            kinds = {1: LETTER, 2: SPACE, 3: OTHER}
            return kinds[len(parts)] | PLAIN | breaks
        # Spaces stand around an ideogram, and would again.
        is_settled = all(self._normalized(other).strip() == other.strip() for other in after)
        return (LETTER if is_settled else UNKNOWN) | breaks

    def _normalized(self, text: str) -> str:
        return text if self._normalizer is None else str(self._normalizer.normalize_str(text))

    def _cut(self, text: str) -> list[str]:
        return [part for part, _ in self._pre_tokenizer.pre_tokenize_str(text)]

    def _keeps_order(self, character: str) -> bool:
        """Whether all that stays of a character, once decomposed, is where it was."""
        if not self._strips_accents:
            return True
        parts = _NFD.normalize_str(character)
        return all(_is_starter(part) or not self._normalized(part) for part in parts)


class ByteCharacters(Characters):
    """Of a tokenizer with GPT-2's pre-tokenizer, and NFC or no normalizer."""

    lower = False
    separator = "\uffff"  # no character, so UNKNOWN where there is something to rewrite

    def __init__(self, tokenizer: Tokenizer, in_tokens: frozenset[str]) -> None:
        super().__init__(in_tokens)
        self._composes = tokenizer.normalizer is not None
        self._pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.learn(range(128))

    def rewrite(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self._composes else text

    def _class_of(self, character: str) -> int:
        runs = (("a", LETTER), ("1", DIGIT), ("!", OTHER))
        kind = next((kind for first, kind in runs if self._runs_on(first + character)), SPACE)
        if not self._composes or character.isascii():
            return kind | PLAIN
        if not _is_known(character):
            return UNKNOWN
        is_mark = unicodedata.category(character)[0] == "M" or ord(character) in _JAMO
        is_plain = not is_mark and unicodedata.normalize("NFC", character) == character
        return kind | (PLAIN if is_plain else 0)

    def _runs_on(self, pair: str) -> bool:
        return len(self._pre_tokenizer.pre_tokenize_str(pair)) == 1


def _is_starter(part: str) -> bool:
    """Whether no mark is moved across a character that NFD leaves alone."""
    pairs = (part + _LOWEST_MARK, _HIGHEST_MARK + part)
    return all(_NFD.normalize_str(pair) == pair for pair in pairs)


def _is_known(character: str) -> bool:
    """Whether what NFC does to a character is the same in all versions of Unicode."""
    if ord(character) in _EMOJI:
        return unicodedata.category(character) != "Cn"
    return unicodedata.ucd_3_2_0.category(character) != "Cn"
