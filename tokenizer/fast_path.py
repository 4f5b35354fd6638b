"""Which tokenizers are served from remembered words, and where their texts may be cut.

A text may be cut for a tokenizer only where nothing in it looks across:

- WordPiece with BERT's normalizer and pre-tokenizer never looks across a gap. Its unit is the word.
- Byte-level BPE in the manner of GPT-2 binds one space to the word that follows. Its unit is the
  gap and the word after it. A pre-token of white space does look across a gap, so no unit begins
  after a word that ends with white space of Unicode.

All else (SentencePiece, other regular expressions, dropout, added tokens that eat white space)
takes the library's own path, and `find_unit` says why.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from unicodedata import normalize

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

GAP_CHARACTERS = " \t\n\r"
UTF8_BYTES = [byte for byte in range(0xF5) if byte not in (0xC0, 0xC1)]
"""The bytes that stand in UTF-8."""


class Unit(StrEnum):
    """The piece of text that a tokenizer encodes without looking outside it."""

    WORD = "word"
    GAP_AND_WORD = "gap and word"


@dataclass(frozen=True, slots=True)
class AddedTokens:
    """The added tokens that are matched in text; special ones are not, they are text."""

    in_words: tuple[str, ...]
    """Every form, lower-cased, in which one can stand in a word; such a word is never cut."""
    in_gaps: tuple[re.Pattern[str], ...]
    """Those of white space alone: matched before normalizing, and after."""

    @property
    def characters(self) -> frozenset[str]:
        """The characters of those in words, also when they are composed or decomposed."""
        forms = "".join(self.in_words)
        return frozenset(form for kind in ("NFC", "NFD") for form in normalize(kind, forms))

    def cut_gap(self, gap: str) -> Iterator[tuple[str, bool]]:
        """The parts of a gap, and which of them are added tokens."""
        return _cut_at(gap, self.in_gaps)

    def end_gap(self, gap: str) -> bool:
        """Whether the last character of a gap belongs to an added token.

        They are matched leftmost first, longest first, those that are not normalized before the
        others.
        """
        for pattern in self.in_gaps:
            gap = gap[max((match.end() for match in pattern.finditer(gap)), default=0) :]
        return not gap


def find_unit(tokenizer: Tokenizer, settings: dict[str, Any]) -> tuple[Unit | None, str]:
    """The unit of a tokenizer, or None and the reason why it has none.

    Args:
        tokenizer: the library's.
        settings: the content of its tokenizer.json.
    """
    model = settings["model"]["type"]
    if model == "WordPiece":
        reason = _why_not_words(settings) or _why_not_added(tokenizer, settings, Unit.WORD)
        return (None, reason) if reason else (Unit.WORD, "")
    if model == "BPE":
        reason = _why_not_bytes(settings) or _why_not_added(tokenizer, settings, Unit.GAP_AND_WORD)
        return (None, reason) if reason else (Unit.GAP_AND_WORD, "")
    return None, f"its model is {model}"


def find_added_tokens(tokenizer: Tokenizer, settings: dict[str, Any]) -> AddedTokens:
    """The added tokens of a tokenizer that has a unit."""
    in_words: list[str] = []
    in_gaps: dict[bool, list[str]] = {False: [], True: []}
    for token in _matched(settings):
        if not token["content"].strip(GAP_CHARACTERS):
            in_gaps[token["normalized"]].append(token["content"])
        else:
            in_words += [form.lower() for form in _forms(tokenizer, token)]
    longest_first = [sorted(in_gaps[normalized], key=len, reverse=True) for normalized in in_gaps]
    patterns = ["|".join(map(re.escape, contents)) for contents in longest_first if contents]
    return AddedTokens(tuple(in_words), tuple(re.compile(pattern) for pattern in patterns))


def _cut_at(text: str, patterns: tuple[re.Pattern[str], ...]) -> Iterator[tuple[str, bool]]:
    if not patterns:
        yield text, False
        return
    at = 0
    for match in patterns[0].finditer(text):
        if match.start() > at:
            yield from _cut_at(text[at : match.start()], patterns[1:])
        yield match.group(), True
        at = match.end()
    if at < len(text):
        yield from _cut_at(text[at:], patterns[1:])


def byte_letters() -> list[str]:
    """The letter by which byte-level tokenizers write each of the 256 bytes (GPT-2's table)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = iter(range(0x100, 0x200))
    letters = [chr(byte if byte in shown else next(hidden)) for byte in range(256)]
    assert set(letters) == set(ByteLevel.alphabet())
    return letters


def _why_not_words(settings: dict[str, Any]) -> str:
    normalizer = _type(settings["normalizer"])
    if normalizer not in ("BertNormalizer", None):
        return f"its normalizer is {normalizer}, not BertNormalizer"
    pre_tokenizer = _type(settings["pre_tokenizer"])
    if pre_tokenizer != "BertPreTokenizer":
        return f"its pre-tokenizer is {pre_tokenizer}, not BertPreTokenizer"
    prefix = settings["model"]["continuing_subword_prefix"]
    if not prefix or prefix.strip("#") or settings["model"]["unk_token"].startswith(prefix):
        return f"its tokens inside a word begin with {prefix!r}, not with ##"
    return ""


def _why_not_bytes(settings: dict[str, Any]) -> str:
    normalizer = _type(settings["normalizer"])
    if normalizer not in ("NFC", None):
        return f"its normalizer is {normalizer}, not NFC"
    pre_tokenizer = _type(settings["pre_tokenizer"])
    if pre_tokenizer != "ByteLevel":
        return f"its pre-tokenizer is {pre_tokenizer}, not ByteLevel"
    if settings["pre_tokenizer"]["add_prefix_space"]:
        return "it puts a space before each text"
    if not settings["pre_tokenizer"].get("use_regex", True):
        return "its ByteLevel does not cut at words"
    model = settings["model"]
    if model.get("dropout"):
        return "it drops merges at random"
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return "its tokens carry a mark for the inside or the end of a word"
    letters = byte_letters()
    if model.get("ignore_merges"):
        return "it takes words of its vocabulary without merging"
    if not merges_follow_their_parts(model["merges"]):
        return "a merge comes before one that makes its parts"
    missing = [byte for byte in UTF8_BYTES if letters[byte] not in model["vocab"]]
    if missing:
        return f"its vocabulary lacks {len(missing)} of the bytes that UTF-8 has"
    return ""


def merges_follow_their_parts(merges: list[tuple[str, str]]) -> bool:
    """Whether each merge comes after those that make its two tokens, as trainers order them."""
    last_rank = {first + second: rank for rank, (first, second) in enumerate(merges)}
    return all(last_rank.get(part, -1) < rank for rank, pair in enumerate(merges) for part in pair)


def _why_not_added(tokenizer: Tokenizer, settings: dict[str, Any], unit: Unit) -> str:
    for token in settings["added_tokens"]:
        forms = _forms(tokenizer, token)
        space = any(character.isspace() for form in forms for character in form)
        text = token["content"].strip(GAP_CHARACTERS)
        if space and (text or token["special"]):
            return f"its added token {token['content']!r} mixes white space and text"
        if space and unit is Unit.WORD and not token["special"]:
            return f"its added token {token['content']!r} is white space"
        strips = token["lstrip"] or token["rstrip"] or (token["single_word"] and not text)
        if strips and not token["special"]:
            return f"its added token {token['content']!r} takes white space around it"
    return ""


def _matched(settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [token for token in settings["added_tokens"] if not token["special"]]


def _forms(tokenizer: Tokenizer, token: dict[str, Any]) -> set[str]:
    """The content of an added token as it stands before and after the normalizer."""
    content: str = token["content"]
    if tokenizer.normalizer is None or not token["normalized"]:
        return {content}
    return {content, tokenizer.normalizer.normalize_str(content)}


def _type(part: dict[str, Any] | None) -> str | None:
    return part["type"] if part else None
