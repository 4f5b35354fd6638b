"""C4's rules for lines as one compiled loop over the bytes of a batch.

A line is cut where `str.splitlines` cuts and stripped. It is written behind the lines that stay,
citations left out, and looked at there; a line that must go is written over by the next one.

    "Menu\nIt rains.[1] \r\nWe use cookies."    "It rains."
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.rules.lines import (
    PLAIN,
    THREE,
    TWO,
    break_bytes,
    byte_kinds,
    code_point,
    copy_bytes,
    num_characters,
    point_table,
    skip_space_back,
    trim_start,
)
from tokenmill.pipeline.rules.phrases import Phrases, contents, phrase_table
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.white_space import space_bytes
from tokenmill.tokenizer.word_table import NOTHING, ONE

LOREM_IPSUM, JAVASCRIPT, CURLY_BRACKET, POLICY = 1, 2, 4, 8
"""What a line can hold."""
PHRASES = {
    "lorem ipsum": LOREM_IPSUM,
    "javascript": JAVASCRIPT,
    "{": CURLY_BRACKET,
    "terms of use": POLICY,
    "privacy policy": POLICY,
    "cookie policy": POLICY,
    "uses cookies": POLICY,
    "use of cookies": POLICY,
    "use cookies": POLICY,
}
"""Lower case. Source: tensorflow_datasets, text/c4_utils.py, as in datatrove."""
RARE_PAIRS = ("ps", "ja", "ms", "ki", "cy")
"""One stands in each phrase. In English text 2 bytes of 1000 belong to one of them."""
LONG_WORD, UNPUNCTUATED, FEW_WORDS, NAMES_JAVASCRIPT, STATES_POLICY, STAYS = range(6)
LINE_COUNTS = ("long_word", "unpunctuated", "short", "javascript", "policy")
"""Why lines leave, in the order in which it is looked at; blank ones are not counted."""

_EDIT = np.frombuffer(b"[edit]", np.uint8)
_CITATION_NEEDED = np.frombuffer(b"[citation needed]", np.uint8)
_BRACKET, _PLAIN_SPACE = 2, 3
_KINDS = byte_kinds({"[": _BRACKET, " ": _PLAIN_SPACE})


class LineSettings(NamedTuple):
    """C4Rule as compiled code sees it."""

    remove_citations: bool
    keep_only_terminal_punctuation: bool
    min_words: int
    max_word_characters: int
    drop_javascript: bool
    drop_policy: bool
    drop_lorem_ipsum: bool
    drop_curly_bracket: bool


@cache
def phrases() -> Phrases:
    """The table by which PHRASES are found."""
    return phrase_table(PHRASES, RARE_PAIRS)


@cache
def decimal_digits() -> NDArray[np.bool_]:
    """Which code points a regular expression takes for a digit."""
    return point_table(point for point in range(0x20000) if chr(point).isdecimal())


@compiled
def clean_lines(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    settings: LineSettings,
    phrases: Phrases,
    digits: NDArray[np.bool_],
    out: NDArray[np.uint8],
    ends: NDArray[np.int64],
    num_edits: NDArray[np.int32],
    lines: NDArray[np.int32],
    holds: NDArray[np.uint8],
) -> None:
    """Write the lines that stay, and what was seen.

    Args:
        out: room for all bytes of the batch.
        ends: (documents,) gets where each document's text ends in `out`.
        num_edits: (documents,) gets lines that left or changed.
        lines: (documents, 5) gets lines that left, by LINE_COUNTS.
        holds: (documents, 2) gets whether lorem ipsum, and a curly bracket, came before the other.
    """
    to = NOTHING
    for document in range(len(ends)):
        at, stop = np.uint64(offsets[document]), np.uint64(offsets[document + 1])
        document_bytes = stop - at
        begin = to
        edits = 0
        while at < stop:
            start = at
            first, last, num_words, long_word, has_bracket, at = _line(
                data, at, stop, settings.max_word_characters
            )
            same = first == start and (at == last or (at == last + ONE and data[last] == 10))
            # Behind what stays and a line feed; at the start of a text white space is left out.
            line = to + ONE if to > begin else to
            if has_bracket and settings.remove_citations:
                end = _copy_without_citations(data, first, last, out, line, digits)
                same &= end - line == last - first
                if to == begin:
                    end = trim_start(out, line, end)
            else:
                end = copy_bytes(data, first, last, out, line)
            reason, found = _reason(out, line, end, num_words, long_word, settings, phrases)
            if found & LOREM_IPSUM and not (holds[document, 1] and settings.drop_curly_bracket):
                holds[document, 0] = 1
            if found & CURLY_BRACKET and not (holds[document, 0] and settings.drop_lorem_ipsum):
                holds[document, 1] = 1
            if reason != STAYS:
                lines[document, reason] += num_words > 0
                edits += 1
                continue
            edits += not same
            if to > begin:
                out[to] = 10
            to = end
        to = skip_space_back(out, begin, to)
        if edits == 0 and to - begin != document_bytes:
            edits = 1  # only white space at an end
        ends[document] = to
        num_edits[document] = edits


@compiled_inline
def _line(
    data: NDArray[np.uint8], at: np.uint64, stop: np.uint64, max_word_characters: int
) -> tuple[np.uint64, np.uint64, int, bool, bool, np.uint64]:
    """Where the first word of a line starts and its last one ends, how many there are, whether one
    is too long, whether a "[" is there, and where the next line starts."""
    first = last = word = at
    num_words = 0
    long_word = has_bracket = False
    while True:
        kind = PLAIN
        width = NOTHING
        if at < stop:
            kind = _KINDS[data[at]]
            if kind == PLAIN:
                at += ONE
                continue
            if kind == _BRACKET:
                has_bracket = True
                at += ONE
                continue
            width = ONE if kind == _PLAIN_SPACE else space_bytes(data, at)
            if width == NOTHING:
                at += ONE
                continue
        if at > word:
            if num_words == 0:
                first = word
            num_words += 1
            last = at
            if at - word > max_word_characters and not long_word:
                long_word = bool(num_characters(data, word, at) > max_word_characters)
        if width == NOTHING:  # the text ends
            break
        if kind != _PLAIN_SPACE:
            line_break = break_bytes(data, at, stop)
            if line_break != NOTHING:
                at += line_break
                break
        at += width
        word = at
    return first, last, num_words, long_word, has_bracket, at


@compiled_inline
def _reason(
    line: NDArray[np.uint8],
    start: np.uint64,
    stop: np.uint64,
    num_words: int,
    long_word: bool,
    settings: LineSettings,
    phrases: Phrases,
) -> tuple[int, int]:
    """Why a line leaves, and what a document might be dropped for in it."""
    if long_word:
        return LONG_WORD, 0
    if settings.keep_only_terminal_punctuation and not _ends_a_sentence(line, start, stop):
        return UNPUNCTUATED, 0
    if num_words < settings.min_words:
        return FEW_WORDS, 0
    found = contents(line, start, stop, phrases)
    if found & JAVASCRIPT and settings.drop_javascript:
        return NAMES_JAVASCRIPT, found & LOREM_IPSUM
    if found & POLICY and settings.drop_policy:
        return STATES_POLICY, found
    return STAYS, found


@compiled
def _copy_without_citations(
    data: NDArray[np.uint8],
    at: np.uint64,
    stop: np.uint64,
    out: NDArray[np.uint8],
    to: np.uint64,
    digits: NDArray[np.bool_],
) -> np.uint64:
    """Leave out what `\\[\\d*]|\\[edit]|\\[citation needed]` finds; where the rest ends."""
    while at < stop:
        if data[at] == 91:  # [
            after = _after_citation(data, at, stop, digits)
            if after > at:
                at = after
                continue
        out[to] = data[at]
        to += ONE
        at += ONE
    return to


@compiled_inline
def _after_citation(
    data: NDArray[np.uint8], start: np.uint64, stop: np.uint64, digits: NDArray[np.bool_]
) -> np.uint64:
    """Where the citation at `start` ends; `start` where there is none."""
    at = start + ONE
    while at < stop:
        if data[at] == 93:  # ]
            return at + ONE
        point, following = code_point(data, at)
        if point >= len(digits) or not digits[point]:
            break
        at = following
    if _stands_at(data, start, stop, _EDIT):
        return start + np.uint64(len(_EDIT))
    if _stands_at(data, start, stop, _CITATION_NEEDED):
        return start + np.uint64(len(_CITATION_NEEDED))
    return start


@compiled_inline
def _stands_at(
    data: NDArray[np.uint8], at: np.uint64, stop: np.uint64, expected: NDArray[np.uint8]
) -> bool:
    for byte in expected:
        if at == stop or data[at] != byte:
            return False
        at += ONE
    return True


@compiled_inline
def _ends_a_sentence(data: NDArray[np.uint8], start: np.uint64, stop: np.uint64) -> bool:
    """Whether a line ends in . ? ! " or ' and not in three full stops."""
    if start == stop:
        return False
    last = data[stop - ONE]
    if last == 46:  # .
        dots = stop - start > TWO and data[stop - TWO] == 46 and data[stop - THREE] == 46
        return not dots
    return bool(last == 63 or last == 33 or last == 34 or last == 39)
