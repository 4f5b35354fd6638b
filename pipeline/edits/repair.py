"""Repair text that was decoded wrongly: ftfy, asked only about lines that it may change.

ftfy works line by line, and what it can do to a line shows in the line's bytes:

- an HTML entity `&...;`, as long as no `<` has come in the document (with "auto");
- two characters side by side that its expression for mojibake looks for (mojibake.py), or a C1
  control character;
- a control character, or one of the characters that a setting replaces.

A line with none of these comes out as it went in, so it is not sent; the test in
tests/test_edits_repair.py asks ftfy about lines that were not. One line in 230 of English web text
is sent, and 99 of 100 of those are changed. A line of more than a million bytes, which ftfy cuts,
takes its whole document along. The scan runs at some 900 MB a second; ftfy itself does about six.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from typing import Literal

import ftfy
import numpy as np
import pyarrow as pa
from ftfy import chardata
from numpy.typing import NDArray

from tokenmill.pipeline.edits.edited import Edited
from tokenmill.pipeline.edits.mojibake import ASTRAL, mojibake_pairs
from tokenmill.pipeline.edits.splice import Change, splice
from tokenmill.pipeline.sources import Kind
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.words import text_buffers

ONE, TWO = np.uint64(1), np.uint64(2)
MAX_ENTITY = 24
"""ftfy looks for no longer names."""
MAX_LINE_BYTES = 1_000_000
"""ftfy's max_decode_length, in characters, of which a line has no more than bytes."""

SHORT_BYTES, MAX_REMEMBERED = 64, 1 << 13
"""Lines so short come again ("&nbsp;"), and are remembered while a batch lasts."""

_QUOTES = [ord(quote) for quote in "\u02bc\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f"]
_LINE_BREAKS = [ord(character) for character in "\r\x85\u2028\u2029"]
_NEVER, _UNTIL_TAG, _ALWAYS = 0, 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairConfig:
    """What ftfy may mend. Defaults are those of datatrove's FTFYFormatter: repair what is broken,
    enforce no format."""

    unescape_html: bool | Literal["auto"] = "auto"
    """Replace HTML entities; "auto" stops at the first `<` of a document, which may be HTML."""
    remove_terminal_escapes: bool = True
    """Remove the sequences that colour text in a terminal."""
    fix_encoding: bool = True
    """Decode mojibake, text that was read in another encoding than it was written in."""
    restore_byte_a0: bool = True
    """In doing so, take a space for a no-break space where that makes the text decodable."""
    replace_lossy_sequences: bool = True
    """In doing so, put U+FFFD where part of a character is lost."""
    decode_inconsistent_utf8: bool = True
    """Decode mojibake inside other text."""
    fix_c1_controls: bool = True
    """Read C1 control characters as Windows-1252."""
    fix_latin_ligatures: bool = False
    """Write ligatures as letters."""
    fix_character_width: bool = False
    """Write full-width Latin and half-width Katakana letters in the usual width."""
    uncurl_quotes: bool = False
    """Write straight quotation marks."""
    fix_line_breaks: bool = False
    """Write every line break as a line feed."""
    fix_surrogates: bool = True
    """Join surrogates that a repair leaves."""
    remove_control_chars: bool = True
    """Remove control characters that are neither white space nor C1."""
    normalization: Literal["NFC", "NFD", "NFKC", "NFKD"] | None = None
    """A normal form of Unicode for the whole text."""
    kinds: tuple[Kind, ...] = ("web", "science")
    """The kinds of text it repairs. In code an entity or a control character may be meant."""


def repair(texts: pa.LargeStringArray, config: RepairConfig) -> Edited:
    """The texts as ftfy repairs them, and how many lines of each it changed."""
    offsets, data = text_buffers(texts)
    found = _find_suspects(data, offsets, _byte_classes(config), *_tables(config), _mode(config))
    num_edits = np.zeros(len(texts), np.int32)
    return Edited(splice(texts, _changes(data, found, config, num_edits)), num_edits, {})


def _changes(
    data: NDArray[np.uint8],
    suspects: NDArray[np.int64],
    config: RepairConfig,
    num_edits: NDArray[np.int32],
) -> Iterator[Change]:
    """The lines that ftfy writes otherwise, counted in `num_edits`."""
    settings = (_ftfy_config(config, unescape=False), _ftfy_config(config))

    def fix(text: bytes, unescape: int) -> bytes:
        return ftfy.fix_text(text.decode(), settings[unescape]).encode()

    fix_short = lru_cache(MAX_REMEMBERED)(fix)
    for document, start, stop, unescape in map(np.ndarray.tolist, suspects):
        text = data[start:stop].tobytes()
        fixed = (fix_short if len(text) <= SHORT_BYTES else fix)(text, unescape)
        if fixed != text:
            num_edits[document] += 1
            yield document, start, stop, fixed


def _ftfy_config(config: RepairConfig, *, unescape: bool = True) -> ftfy.TextFixerConfig:
    flags = {field.name: getattr(config, field.name) for field in fields(config)}
    del flags["kinds"]
    if not unescape:
        flags["unescape_html"] = False
    return ftfy.TextFixerConfig(**flags)


def _mode(config: RepairConfig) -> int:
    if config.unescape_html == "auto":
        return _UNTIL_TAG
    return _ALWAYS if config.unescape_html else _NEVER


@cache
def _tables(
    config: RepairConfig,
) -> tuple[NDArray[np.bool_], NDArray[np.uint64], NDArray[np.uint64]]:
    """By code point, with one row for all from ASTRAL on: characters that are suspect alone, and
    the pairs that are suspect together."""
    pairs = mojibake_pairs()
    suspect = np.zeros(ASTRAL + 1, np.bool_)
    if config.fix_encoding:
        suspect |= pairs.alone
    else:
        pairs = pairs._replace(first=np.zeros_like(pairs.first))
    replaced: list[Iterable[int]] = []
    if config.fix_c1_controls:
        replaced.append(range(0x80, 0xA0))
    if config.remove_terminal_escapes:
        replaced.append([0x1B])
    if config.remove_control_chars:
        replaced.append(chardata.CONTROL_CHARS)
    if config.fix_latin_ligatures:
        replaced.append(chardata.LIGATURES)
    if config.fix_character_width:
        replaced.append(chardata.WIDTH_MAP)
    if config.uncurl_quotes:
        replaced.append(_QUOTES)
    if config.fix_line_breaks:
        replaced.append(_LINE_BREAKS)
    if config.normalization:
        replaced.append(range(0x80, ASTRAL + 1))
    for points in replaced:
        suspect[list(points)] = True
    return suspect, pairs.first, pairs.second


_PLAIN, _LINE_FEED, _AMPERSAND, _TAG, _SUSPECT, _WIDE = range(6)


@cache
def _byte_classes(config: RepairConfig) -> NDArray[np.uint8]:
    """(256,) what the scan does at each byte."""
    classes = np.full(256, _WIDE, np.uint8)
    classes[:0x80] = np.where(_tables(config)[0][:0x80], _SUSPECT, _PLAIN)
    classes[ord("\n")], classes[ord("&")], classes[ord("<")] = _LINE_FEED, _AMPERSAND, _TAG
    return classes


@compiled
def _find_suspects(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint8],
    suspects: NDArray[np.bool_],
    first: NDArray[np.uint64],
    second: NDArray[np.uint64],
    entities: int,
) -> NDArray[np.int64]:
    """(k, 4) document, start, stop and "entities are replaced" of each line for ftfy to look at."""
    found = np.empty((64, 4), np.int64)
    count = 0
    for document in range(len(offsets) - 1):
        at, end = np.uint64(offsets[document]), np.uint64(offsets[document + 1])
        mode = entities
        before = count
        cut_line: np.bool_ = np.bool_(False)
        while at < end:
            start = at
            suspect: np.bool_ = np.bool_(False)
            entity: np.bool_ = np.bool_(False)
            tag: np.bool_ = np.bool_(False)
            point = np.uint64(0)
            while True:
                while at < end and classes[data[at]] == _PLAIN:
                    at += ONE
                if at == end:
                    break
                kind = classes[data[at]]
                if kind == _WIDE:
                    before_it = point
                    if at > start and data[at - ONE] < 0x80:
                        before_it = np.uint64(data[at - ONE])
                    point, width = _decode(data, at)
                    suspect |= suspects[point]
                    if at > start:
                        suspect |= first[before_it] & second[point] != 0
                    at += width
                    if at < end and data[at] < 0x80:
                        suspect |= first[point] & second[data[at]] != 0
                    continue
                if kind == _AMPERSAND:
                    entity |= _is_entity(data, at, end)
                tag |= kind == _TAG
                suspect |= kind == _SUSPECT
                at += ONE
                if kind == _LINE_FEED:
                    break
            long = at - start > MAX_LINE_BYTES
            cut_line |= long and (suspect or (entity and mode != _NEVER))
            if tag and mode == _UNTIL_TAG:
                mode = _NEVER
            if suspect or (entity and mode != _NEVER):
                found = _added(found, count, document, start, at, mode != _NEVER)
                count += 1
        if cut_line:
            count = before
            found = _added(found, count, document, np.uint64(offsets[document]), end, True)
            count += 1
    return found[:count]


@compiled_inline
def _decode(data: NDArray[np.uint8], at: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The character that starts at `at`, ASTRAL for all from there on, and its bytes."""
    lead = data[at]
    if lead < 0xE0:
        return np.uint64((lead & 0x1F) << 6 | (data[at + ONE] & 0x3F)), np.uint64(2)
    if lead < 0xF0:
        point = (lead & 0x0F) << 12 | (data[at + ONE] & 0x3F) << 6 | (data[at + TWO] & 0x3F)
        return np.uint64(point), np.uint64(3)
    return np.uint64(ASTRAL), np.uint64(4)


@compiled
def _is_entity(data: NDArray[np.uint8], at: np.uint64, end: np.uint64) -> np.bool_:
    """Whether ftfy's `&#?[0-9A-Za-z]{1,24};` matches at an ampersand."""
    at += ONE
    if at < end and data[at] == 35:  # "#"
        at += ONE
    start = at
    while at < end and _is_letter_or_digit(data[at]):
        at += ONE
    size = at - start
    return (size > 0) & (size <= MAX_ENTITY) & (at < end) and data[at] == 59  # ";"


@compiled_inline
def _is_letter_or_digit(byte: np.uint8) -> np.bool_:
    return 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122


@compiled
def _added(
    found: NDArray[np.int64],
    count: int,
    document: int,
    start: np.uint64,
    stop: np.uint64,
    unescape: bool,
) -> NDArray[np.int64]:
    """With one more row, in a new array where the old one is full."""
    if count == len(found):
        grown = np.empty((2 * count, 4), np.int64)
        grown[:count] = found
        found = grown
    found[count, 0] = document
    found[count, 1] = start
    found[count, 2] = stop
    found[count, 3] = unescape
    return found
