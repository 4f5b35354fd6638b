"""spaCy's English tokenizer, asked for many words at a time.

It is the tokenizer of `spacy.blank("en")`, which datatrove's filters split English text with: the
same code and patterns, over a vocabulary that works out nothing about a word. Three of its patterns
are only searched where they can match. Words are asked for together, with a line feed between two:
that is a token to spaCy, so no exception (":)", "Mr.") reaches from one word into the next.

spaCy's time grows with the square of a word's length, so a word above 2,000 characters is asked for
in pieces of so many and always cut there; beyond a million characters it is cut nowhere else.
IS_ALPHA is asked for by another name: its number is that of a free place in spaCy's tables, which
fail when they meet it again.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

MAX_CHARACTERS = 2000
"""The longest word that is asked for in one piece."""
MAX_PIECES = 500
"""The pieces of a word that are asked for."""
CALL_CHARACTERS = 1 << 16
"""How many characters one call of spaCy takes, or a little more."""
MAX_TOKENS = 1 << 21
"""Tokens that one tokenizer makes: it forgets them, but its table of what it forgot grows."""
SUFFIX_CHARACTERS = 6
"""No suffix pattern matches more, but for a run of dots; the longest are units, of five letters."""
_SUFFIX_MAY_END = re.compile(r"[^A-Za-z0-9]$|[0-9'\u2019]")
"""Units stand after a digit, "s" after an apostrophe; no other suffix ends in a letter or digit."""
_ESCAPE = re.compile(r"\\[uU][0-9A-Fa-f]+")
_RUN = re.compile(r"[A-Za-z]+|[0-9]+")


class SpacyEnglish:
    """Where spaCy cuts English words, and which letters its patterns treat alike."""

    def __init__(self) -> None:
        # Importing spaCy takes a second, so it waits until the first new word.
        with _without_torch():
            from spacy.attrs import LENGTH
            from spacy.lang.char_classes import ALPHA
            from spacy.lang.en import English
            from spacy.tokenizer import Tokenizer
            from spacy.util import compile_infix_regex, compile_prefix_regex, compile_suffix_regex
            from spacy.vocab import Vocab

        defaults = English.Defaults
        prefix = compile_prefix_regex(defaults.prefixes)
        suffix = compile_suffix_regex(defaults.suffixes)
        infix = compile_infix_regex(defaults.infixes)
        self._length = LENGTH
        self._letter = re.compile(f"[{ALPHA}]")
        self._affixes = (prefix.search, suffix.search, infix.search)
        self._sources = [
            prefix.pattern,
            suffix.pattern,
            infix.pattern,
            *defaults.tokenizer_exceptions,
        ]
        self._new_tokenizer: Callable[[], Any] = lambda: Tokenizer(
            Vocab(),
            rules=defaults.tokenizer_exceptions,
            prefix_search=prefix.match,  # each of its alternatives begins with ^
            suffix_search=_search_end(suffix),
            infix_finditer=infix.finditer,
            token_match=defaults.token_match,
            url_match=lambda text: defaults.url_match(text) if "." in text else None,
        )
        self._tokenizer = self._new_tokenizer()
        self._num_tokens = 0

    def letters(self) -> NDArray[np.bool_]:
        """(0x10000,) code points that are letters to all patterns, and in none of them by name."""
        points = [
            match.start()
            for match in self._letter.finditer("".join(map(_character, range(0x10000))))
            if not any(search(match[0]) for search in self._affixes)
        ]
        letters = np.zeros(0x10000, np.bool_)
        letters[points] = True
        return letters

    def runs(self) -> set[str]:
        """The runs of letters and of digits in patterns and exceptions, by any of two measures.

        A run ends at what is no letter of `letters`, or at what is no ASCII letter.
        """
        letters = self.letters()
        runs: set[str] = set()
        for source in self._sources:
            text = _ESCAPE.sub(" ", source)
            runs.update(_RUN.findall(text))
            runs.update("".join(c if letters[min(ord(c), 0xFFFF)] else " " for c in text).split())
        return runs

    def cut(self, words: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where spaCy cuts words.

        Args:
            words: not empty, without white space.

        Returns:
            (tokens,) the byte of its word at which each token ends, and (words,) where each word's
            tokens end in them.
        """
        stops, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for batch in _batches(words):
            batch_stops, batch_counts = self._cut(batch)
            stops.append(batch_stops)
            counts.append(batch_counts)
        return np.concatenate(stops), np.cumsum(np.concatenate(counts))

    def _cut(self, words: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each token ends in its word, and the number of tokens of each word."""
        pieces = [piece for word in words for piece in _pieces(word)]
        text = "\n".join(pieces).replace("IS_ALPHA", "AS_ALPHA")
        if self._num_tokens > MAX_TOKENS:
            self._tokenizer = self._new_tokenizer()
            self._num_tokens = 0
        with self._tokenizer.vocab.memory_zone():
            lengths = self._tokenizer(text).to_array(self._length).astype(np.int64)
        self._num_tokens += len(lengths)
        stops = np.cumsum(lengths)  # in characters; all tokens together are the text
        line_feeds = np.cumsum([len(piece) + 1 for piece in pieces])  # where each one ends
        num_before = np.searchsorted(line_feeds, stops, side="right")
        is_word = np.diff(num_before, prepend=0) == 0
        stops = stops[is_word] - num_before[is_word]  # in the words one after another
        word_stops = np.cumsum([len(word) for word in words])
        last = np.searchsorted(stops, word_stops, side="right")
        data = np.frombuffer("".join(words).encode() + b"\n", np.uint8)
        to_byte = np.flatnonzero((data & 0xC0) != 0x80)
        counts = np.diff(last, prepend=0)
        word_starts = to_byte[np.concatenate([[0], word_stops[:-1]])]
        return to_byte[stops] - np.repeat(word_starts, counts), counts


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


def _search_end(suffix: re.Pattern[str]) -> Callable[[str], re.Match[str] | None]:
    """The same search, which finds what ends a text, or nothing, begun where a match may begin."""

    def search(text: str) -> re.Match[str] | None:
        start = max(0, len(text) - SUFFIX_CHARACTERS)
        if text.endswith(".."):
            return suffix.search(text)
        return suffix.search(text, start) if _SUFFIX_MAY_END.search(text, start) else None

    return search


def _batches(words: Sequence[str]) -> Iterator[Sequence[str]]:
    """Words in their order, so many together as one call takes."""
    first = characters = 0
    for number, word in enumerate(words):
        characters += len(word)
        if characters >= CALL_CHARACTERS:
            yield words[first : number + 1]
            first, characters = number + 1, 0
    if first < len(words):
        yield words[first:]


def _pieces(word: str) -> Iterator[str]:
    """What is asked for a word; one letter many times stands for a piece that is not cut."""
    for start in range(0, len(word), MAX_CHARACTERS):
        piece = word[start : start + MAX_CHARACTERS]
        yield piece if start < MAX_PIECES * MAX_CHARACTERS else "x" * len(piece)


def _character(point: int) -> str:
    """The character; a space for half of a surrogate pair."""
    return " " if 0xD800 <= point < 0xE000 else chr(point)
