"""Where sentences begin in the tokens of documents, for packings that cut between sentences.

A sentence begins after a line feed, and after a word that ends one:

    It is. (So "it" was!) Mr. J. Doe met 3. e.g. U.S. men...  No    five: It (So Mr. No
    Mr.   J.   3.   e.g.   U.S.                                     end none

A word ends a sentence where it ends in a full stop, a question or exclamation mark or an ellipsis,
closing quotes and brackets passed over; unless the stop follows an abbreviation of a short list,
single letters (J. U.S. e.g.), or a number of one or two digits. That is looked up once for each
distinct word, so a document is one walk over the numbers of its words.

The price of a rule that sees one word at a time: a sentence begins after "etc." and "Yahoo!"
wherever they stand, none after "So do I.", and none inside a run of Chinese or Japanese without
white space. Nothing is lost by it: sentences only say where a sequence may be cut.
"""

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.rules.lines import before, code_point, point_table
from tokenmill.tokenizer import Encoder
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.find_words import LONG, LONG_INDEX
from tokenmill.tokenizer.remembered import Tokens
from tokenmill.tokenizer.word_table import NOTHING, ONE
from tokenmill.tokenizer.words import Words

VERSION = 1
"""Of the rule; part of the mill's key where sentences are asked for."""
STOPS = ".!?\u2026\u3002\uff01\uff1f\uff61"
CLOSING = "\"')]}\u2019\u201d\u00bb\u203a\uff09\u300d\u300f\u3011\u3009\u300b"
OPENING = "\"'([{\u2018\u201c\u201e\u00ab\u2039\uff08\u300c\u300e\u3010\u3008\u300a\u00bf\u00a1"
ABBREVIATIONS = (
    "mr", "mrs", "ms", "dr", "prof", "rev", "hon", "gen", "col", "lt", "capt", "sgt", "gov", "sen",
    "rep", "st", "mt", "jr", "sr", "vs", "cf", "al", "ca", "eg", "ie", "viz", "fig", "figs", "eq",
    "eqs", "sec", "ch", "vol", "nos", "pp", "ed", "eds", "approx", "dept", "inc", "ltd", "co",
    "corp", "jan", "feb", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec",
)  # fmt: skip
"""Words of eight letters at most whose full stop hardly ever ends a sentence, in lower case."""
_STOPS, _CLOSING, _OPENING = (point_table(map(ord, marks)) for marks in (STOPS, CLOSING, OPENING))
_KEYS = np.array([int.from_bytes(word.encode(), "little") for word in ABBREVIATIONS], np.uint64)
_MAX_DIGITS = np.uint64(2)
_EIGHT = np.uint64(8)
_DOT = np.uint64(ord("."))
_POINTS = np.uint64(len(_STOPS))


def encode_sentences(encoder: Encoder, words: Words) -> tuple[Tokens, Tokens]:
    """The tokens of documents, and the places among them where sentences begin.

    Returns:
        (tokens,) ids and (documents,) where each document's end; (sentences,) int32 first tokens of
        sentences, counted from each document's own first token, and (documents,) where each
        document's end. They rise, begin with 0, and are none where a document has no tokens.
    """
    pairs = find_sentences(words)
    tokens, places = encoder.encode_with_places(words, pairs)
    ends = tokens[1]
    document = np.searchsorted(words.ends, pairs, side="right")
    is_first = np.diff(document, prepend=-1) > 0
    firsts = (ends - np.diff(ends, prepend=0))[document]  # (pairs,)
    places[is_first] = firsts[is_first]  # with the gap before the first word
    # Words without tokens begin where the next one does.
    stays = (places < ends[document]) & (is_first | (np.diff(places, prepend=-1) > 0))
    num_sentences = np.bincount(document[stays], minlength=len(ends))
    return tokens, ((places - firsts)[stays].astype(np.int32), np.cumsum(num_sentences))


def find_sentences(words: Words) -> NDArray[np.int64]:
    """(sentences,) the words that begin one, numbered over the batch: the first of each document,
    and others."""
    begins = np.empty(len(words.word_ids), np.bool_)
    _mark_sentences(
        words.word_ids, words.gap_ids, words.ends,
        words.words.per_word(_end_sentences), _spans_end_sentences(words.data, words.long_words),
        words.gaps.per_word(_hold_line_feeds), _spans_hold_line_feeds(words.data, words.long_gaps),
        begins,
    )  # fmt: skip
    return np.flatnonzero(begins)


def _end_sentences(data: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    return _spans_end_sentences(data, np.stack([starts[:-1], starts[1:]], axis=1))


def _spans_end_sentences(data: NDArray[np.uint8], spans: NDArray[np.int64]) -> NDArray[np.bool_]:
    marks = np.empty(len(spans), np.bool_)
    _mark_ends(data, spans, _STOPS, _CLOSING, _OPENING, _KEYS, marks)
    return marks


def _hold_line_feeds(data: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    return _spans_hold_line_feeds(data, np.stack([starts[:-1], starts[1:]], axis=1))


def _spans_hold_line_feeds(data: NDArray[np.uint8], spans: NDArray[np.int64]) -> NDArray[np.bool_]:
    marks = np.empty(len(spans), np.bool_)
    _mark_line_feeds(data, spans, marks)
    return marks


@compiled
def _mark_sentences(
    word_ids: NDArray[np.uint32],
    gap_ids: NDArray[np.uint32],
    ends: NDArray[np.int64],
    ends_one: NDArray[np.bool_],
    long_ends_one: NDArray[np.bool_],
    has_line: NDArray[np.bool_],
    long_has_line: NDArray[np.bool_],
    begins: NDArray[np.bool_],
) -> None:
    pair = NOTHING
    for document in range(len(ends)):
        first, ended = True, False
        while pair < np.uint64(ends[document]):
            gap, word = gap_ids[pair], word_ids[pair]
            if gap < LONG:
                line = has_line[np.uint64(gap)]
            else:
                line = long_has_line[gap & np.uint32(LONG_INDEX)]
            begins[pair] = ended or line or first
            if word < LONG:
                ended = ends_one[np.uint64(word)]
            else:
                ended = long_ends_one[word & np.uint32(LONG_INDEX)]
            first = False
            pair += ONE


@compiled
def _mark_ends(
    data: NDArray[np.uint8],
    spans: NDArray[np.int64],
    stops: NDArray[np.bool_],
    closing: NDArray[np.bool_],
    opening: NDArray[np.bool_],
    abbreviations: NDArray[np.uint64],
    marks: NDArray[np.bool_],
) -> None:
    for row in range(len(spans)):
        start, stop = np.uint64(spans[row, 0]), np.uint64(spans[row, 1])
        marks[row] = False
        while stop > start:
            last = before(data, stop)
            point, _ = code_point(data, last)
            if point < _POINTS and stops[point]:
                marks[row] = point != _DOT or not _is_short(
                    data, start, last, stops, opening, abbreviations
                )
                break
            if point >= _POINTS or not closing[point]:
                break
            stop = last


@compiled_inline
def _is_short(
    data: NDArray[np.uint8],
    start: np.uint64,
    stop: np.uint64,
    stops: NDArray[np.bool_],
    opening: NDArray[np.bool_],
    abbreviations: NDArray[np.uint64],
) -> bool:
    """Whether what stands before a full stop is an abbreviation, letters with stops, or a number
    of a list."""
    while start < stop:
        point, following = code_point(data, start)
        if point >= _POINTS or not opening[point]:
            break
        start = following
    if start == stop:
        return False
    key, shift, digits = NOTHING, NOTHING, NOTHING
    letters = True  # one after another, with a stop between any two
    expects_letter = True
    at = start
    while at < stop:
        point, following = code_point(data, at)
        is_stop = point < _POINTS and stops[point]
        is_digit = 48 <= point <= 57
        letters = letters and (is_stop != expects_letter) and not is_digit
        letters = letters and (not is_stop or point == _DOT)
        expects_letter = not expects_letter
        digits += np.uint64(is_digit)
        if stop - start <= _EIGHT:
            for place in range(at, following):
                byte = np.uint64(data[place])
                lower = byte | np.uint64(0x20) if 65 <= byte <= 90 else byte
                key |= lower << shift
                shift += _EIGHT
        at = following
    if letters and not expects_letter:
        return True
    if digits == stop - start:
        return bool(digits <= _MAX_DIGITS)
    if key != NOTHING:
        for known in abbreviations:
            if known == key:
                return True
    return False


@compiled
def _mark_line_feeds(
    data: NDArray[np.uint8], spans: NDArray[np.int64], marks: NDArray[np.bool_]
) -> None:
    for row in range(len(spans)):
        marks[row] = False
        for at in range(spans[row, 0], spans[row, 1]):
            marks[row] |= data[at] == 10
