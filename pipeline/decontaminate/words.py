"""The words of a document from its tokens alone, as hashes that do not depend on how it was cut.

    " The" | "re" | "fore" | ","     "the" | "##refore" | ","     one word: therefore

What a token adds to a word is known once its table is made: the polynomial of its letters, and
the factor by which what stands before is multiplied. So the hash of a word is one multiplication
and one addition a token, the same for "The", " the" and "t" + "he", and for any tokenizer whose
tokens are pieces of the text. A token of several words, or one that ends inside a character, goes
by its bytes, ten times slower; English has next to none.

A token that stands for what the vocabulary does not know is no word: two of them need not be equal.
"""

import json
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tokenmill.pipeline.decontaminate.folding import (
    ALONE,
    BETWEEN,
    LAST_HAN,
    MARK,
    NUM_POINTS,
    folded_points,
)
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.fast_path import byte_letters

LETTER_FACTOR = np.uint64(0x9E3779B97F4A7C15)
WORD_FACTOR = np.uint64(0xD6E8FEB86659FD93)
_MIX_FACTOR = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT = np.uint64(32)
_NOTHING, _ONE, _SIX = np.uint64(0), np.uint64(1), np.uint64(6)
_LOW_SIX = np.uint64(0x3F)

ENDS_BEFORE, ENDS_AFTER, BY_BYTES = np.uint8(1), np.uint8(2), np.uint8(4)
"""Kinds of tokens: a word ends before it; after it; it goes by its bytes."""


class TokenTable(NamedTuple):
    """What each token of a vocabulary adds to a word."""

    kinds: NDArray[np.uint8]
    """(vocabulary,)"""
    values: NDArray[np.uint64]
    """(vocabulary,) the polynomial of its letters."""
    factors: NDArray[np.uint64]
    """(vocabulary,) LETTER_FACTOR to the power of their number; 1: it has none."""
    data: NDArray[np.uint8]
    """The bytes of tokens that go by them."""
    starts: NDArray[np.int64]
    """(vocabulary + 1,) where each token's bytes start there."""
    folded: NDArray[np.uint32]
    """(NUM_POINTS,) folded_points."""


def token_table(tokenizer: Tokenizer, vocab_size: int) -> TokenTable:
    """The table of a tokenizer's tokens; ids without a token are taken for white space."""
    folded = folded_points()
    kinds = np.full(vocab_size, ENDS_BEFORE, np.uint8)
    values = np.zeros(vocab_size, np.uint64)
    factors = np.ones(vocab_size, np.uint64)
    data = [b""] * vocab_size
    for number, text in token_bytes(tokenizer).items():
        simple = _simple(text)
        if simple is None:
            kinds[number], data[number] = BY_BYTES, text
        else:
            kinds[number], values[number], factors[number] = simple
    starts = np.cumsum([0, *map(len, data)], dtype=np.int64)
    return TokenTable(
        kinds, values, factors, np.frombuffer(b"".join(data), np.uint8), starts, folded
    )


def token_bytes(tokenizer: Tokenizer) -> dict[int, bytes]:
    """The bytes that each token stands for; a space before one that begins a word by its kind
    alone, and in place of special tokens and of the unknown."""
    settings: dict[str, Any] = json.loads(tokenizer.to_str())
    model = settings["model"]
    prefix = model.get("continuing_subword_prefix")
    suffix = model.get("end_of_word_suffix")
    added = {token["id"]: token for token in settings["added_tokens"]}
    is_byte_level = '"ByteLevel"' in json.dumps([settings["pre_tokenizer"], settings["decoder"]])
    byte_of = {letter: byte for byte, letter in enumerate(byte_letters())}
    found: dict[int, bytes] = {}
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        if token == model.get("unk_token") or (number in added and added[number]["special"]):
            found[number] = b" "
        elif number in added:
            found[number] = token.encode() if is_byte_level else f" {token} ".encode()
        elif is_byte_level:
            found[number] = bytes(byte_of[letter] for letter in token if letter in byte_of)
        elif prefix:
            found[number] = (
                token.removeprefix(prefix) if token.startswith(prefix) else f" {token}"
            ).encode()
        elif len(token) == 6 and token.startswith("<0x"):
            found[number] = bytes.fromhex(token[3:5])
        elif model["type"] == "WordLevel":
            found[number] = f" {token} ".encode()
        else:
            found[number] = token.replace("▁", " ").replace(suffix or "</w>", " ").encode()
    return found


def words_of(
    table: TokenTable, tokens: NDArray[Any]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """One document's words.

    Returns:
        (words + 1,) the polynomials of the hashes of its first words, 0 for none of them; see
        `run_hash`. (words + 1,) the token in which each word begins, closed by their number.
    """
    prefixes, firsts = _scratch(len(tokens))
    while (count := fill_words(table, tokens, prefixes, firsts)) < 0:
        prefixes, firsts = _scratch(2 * len(firsts))
    firsts[count] = len(tokens)
    return prefixes[: count + 1], firsts[: count + 1]


def _scratch(size: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    return np.zeros(size + 2, np.uint64), np.zeros(size + 2, np.int64)


@compiled_inline
def run_hash(prefixes: NDArray[np.uint64], start: int, stop: int, factor: np.uint64) -> np.uint64:
    """The hash of the words from start to stop, never 0; factor: WORD_FACTOR ** (stop - start)."""
    value = prefixes[stop] - prefixes[start] * factor
    value = (value ^ (value >> _SHIFT)) * _MIX_FACTOR
    value ^= value >> _SHIFT
    result: np.uint64 = value | _ONE if value == _NOTHING else value
    return result


@compiled
def power(base: np.uint64, exponent: int) -> np.uint64:
    result = _ONE
    for _ in range(exponent):
        result *= base
    return result


@compiled
def fill_words(
    table: TokenTable,
    tokens: NDArray[Any],
    prefixes: NDArray[np.uint64],
    firsts: NDArray[np.int64],
) -> int:
    """Fill what words_of returns; the number of words, -1 where they do not fit."""
    kinds, values, factors = table.kinds, table.values, table.factors
    count, room = 0, len(prefixes) - 2
    value = _NOTHING  # of the word that is open, if one is
    point, bytes_left = _NOTHING, 0
    prefixes[0] = 0
    for place in range(len(tokens)):
        token = np.uint64(tokens[place])
        kind = kinds[token]
        if kind & BY_BYTES:
            for index in range(table.starts[token], table.starts[token + _ONE]):
                byte = np.uint64(table.data[index])
                if byte >= 0xC0:
                    bytes_left = 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3
                    point = byte & np.uint64(0x3F >> bytes_left)
                    continue
                if byte >= 0x80:
                    point = (point << _SIX) | (byte & _LOW_SIX)
                    bytes_left -= 1
                    if bytes_left:
                        continue
                else:
                    point = byte
                code = _code(table.folded, point)
                if code == MARK:
                    continue
                if value != _NOTHING and (code == BETWEEN or code & ALONE):
                    count = _close(prefixes, count, value)
                    value = _NOTHING
                if code == BETWEEN:
                    continue
                if count >= room:
                    return -1
                if value == _NOTHING:
                    firsts[count] = place
                value = value * LETTER_FACTOR + np.uint64(code)
                if code & ALONE:
                    count = _close(prefixes, count, value)
                    value = _NOTHING
            continue
        if kind & ENDS_BEFORE and value != _NOTHING:
            count = _close(prefixes, count, value)
            value = _NOTHING
        if factors[token] != _ONE:
            if value == _NOTHING:
                if count >= room:
                    return -1
                firsts[count] = place
            value = value * factors[token] + values[token]
        if kind & ENDS_AFTER and value != _NOTHING:
            count = _close(prefixes, count, value)
            value = _NOTHING
    if value != _NOTHING:
        count = _close(prefixes, count, value)
    return count


@compiled_inline
def _close(prefixes: NDArray[np.uint64], count: int, value: np.uint64) -> int:
    mixed = (value ^ (value >> _SHIFT)) * _MIX_FACTOR
    mixed ^= mixed >> _SHIFT
    prefixes[count + 1] = prefixes[count] * WORD_FACTOR + mixed
    return count + 1


@compiled_inline
def _code(folded: NDArray[np.uint32], point: np.uint64) -> int:
    if point < NUM_POINTS:
        return int(folded[point])
    return int(point) | ALONE if point <= LAST_HAN else BETWEEN


def _simple(text: bytes) -> tuple[np.uint8, int, int] | None:
    """Kind, value and factor of a token that holds letters of one word at most; else None."""
    try:
        characters = text.decode()
    except UnicodeDecodeError:
        return None
    folded = folded_points()
    codes = [_python_code(folded, ord(character)) for character in characters]
    codes = [code for code in codes if code != MARK]
    is_letter = [code != BETWEEN for code in codes]
    letters = [code for code in codes if code != BETWEEN]
    if sum(code & ALONE != 0 for code in letters) and len(letters) > 1:
        return None
    first = is_letter.index(True) if letters else 0
    last = first + len(letters)
    if letters != codes[first:last]:
        return None  # two words
    kind = 0
    if (first if letters else codes) or (letters and letters[0] & ALONE):
        kind |= int(ENDS_BEFORE)
    if letters and (last < len(codes) or letters[0] & ALONE):
        kind |= int(ENDS_AFTER)
    value, factor = 0, 1
    for code in letters:
        value = (value * int(LETTER_FACTOR) + code) % (1 << 64)
        factor = factor * int(LETTER_FACTOR) % (1 << 64)
    return np.uint8(kind), value, factor


def _python_code(folded: NDArray[np.uint32], point: int) -> int:
    if point < NUM_POINTS:
        return int(folded[point])
    return point | ALONE if point <= LAST_HAN else BETWEEN
