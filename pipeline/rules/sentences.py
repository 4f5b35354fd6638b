"""Sentences as spaCy's rule-based sentencizer counts them, over words that are remembered.

A sentence ends before the first word that is no punctuation after one that is a full stop or
another sentence end; white space that is not one plain space counts as such a word. Each line is a
text of its own, and one without words counts for one sentence, as datatrove counts.

    "Yes. (No!) It is"    3: "Yes. (", "No!)", "It is"

What a word is, is looked up once for each distinct word; a document is a walk over their numbers.
"""

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.rules.english import EnglishWords
from tokenmill.pipeline.rules.lines import code_point, point_table
from tokenmill.tokenizer.compiled import compiled
from tokenmill.tokenizer.find_words import LONG, LONG_INDEX

SENTENCE_ENDS = (
    "!.?\u0589\u061f\u06d4\u0700\u0701\u0702\u07f9\u0964\u0965\u104a\u104b\u1362\u1367\u1368\u166e"
    "\u1735\u1736\u1803\u1809\u1944\u1945\u1aa8\u1aa9\u1aaa\u1aab\u1b5a\u1b5b\u1b5e\u1b5f\u1c3b"
    "\u1c3c\u1c7e\u1c7f\u203c\u203d\u2047\u2048\u2049\u2e2e\u2e3c\u3002\ua4ff\ua60e\ua60f\ua6f3"
    "\ua6f7\ua876\ua877\ua8ce\ua8cf\ua92f\ua9c8\ua9c9\uaa5d\uaa5e\uaa5f\uaaf0\uaaf1\uabeb\ufe52"
    "\ufe56\ufe57\uff01\uff0e\uff1f\uff61\U00010a56\U00010a57\U00011047\U00011048\U000110be"
    "\U000110bf\U000110c0\U000110c1\U00011141\U00011142\U00011143\U000111c5\U000111c6\U000111cd"
    "\U000111de\U000111df\U00011238\U00011239\U0001123b\U0001123c\U000112a9\U0001144b\U0001144c"
    "\U000115c2\U000115c3\U000115c9\U000115ca\U000115cb\U000115cc\U000115cd\U000115ce\U000115cf"
    "\U000115d0\U000115d1\U000115d2\U000115d3\U000115d4\U000115d5\U000115d6\U000115d7\U00011641"
    "\U00011642\U0001173c\U0001173d\U0001173e\U00011a42\U00011a43\U00011a9b\U00011a9c\U00011c41"
    "\U00011c42\U00016a6e\U00016a6f\U00016af5\U00016b37\U00016b38\U00016b44\U0001bc9f\U0001da88"
)
"""The marks that may end a sentence: spaCy's `Sentencizer.default_punct_chars`."""
_OTHER, _PUNCTUATION, _SENTENCE_END = 0, 1, 2
_TOKEN = 1
"""Added to the class of a gap whose part before its first line feed is a word for spaCy."""
_LINE = 2
"""Added for each line feed."""


def count_sentences(english: EnglishWords) -> NDArray[np.int64]:
    """(documents,) sentences, counted line by line; lines are split at "\\n" alone.

    Source: spacy/pipeline/sentencizer.pyx; `split_into_sentences` of datatrove.
    """
    words = english.words
    counts = np.empty(len(english), np.int64)
    _count(
        english.ids, english.pair_ends, words.ends, words.gap_ids,
        english.table.per_word(_word_classes), words.gaps.per_word(_gap_classes),
        _span_classes(words.data, words.long_gaps), counts,
    )  # fmt: skip
    return counts


@cache
def _punctuation() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which code points are punctuation, and which end a sentence."""
    points = range(0x20000)
    marks = (point for point in points if unicodedata.category(chr(point))[0] == "P")
    return point_table(marks), point_table(map(ord, SENTENCE_ENDS))


def _word_classes(data: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.uint8]:
    classes = np.empty(len(starts) - 1, np.uint8)
    _classify_words(data, starts, *_punctuation(), classes)
    return classes


def _gap_classes(data: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.int32]:
    return _span_classes(data, np.stack([starts[:-1], starts[1:]], axis=1))


def _span_classes(data: NDArray[np.uint8], spans: NDArray[np.int64]) -> NDArray[np.int32]:
    classes = np.empty(len(spans), np.int32)
    _classify_gaps(data, spans, classes)
    return classes


@compiled
def _classify_words(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    punctuation: NDArray[np.bool_],
    ends: NDArray[np.bool_],
    classes: NDArray[np.uint8],
) -> None:
    for word in range(len(classes)):
        at, stop = np.uint64(starts[word]), np.uint64(starts[word + 1])
        point, following = code_point(data, at) if at < stop else (np.uint64(0), at)
        if following == stop and point < len(ends) and ends[point]:
            classes[word] = _SENTENCE_END
            continue
        while at < stop:
            point, following = code_point(data, at)
            if point >= len(punctuation) or not punctuation[point]:
                break
            at = following
        classes[word] = _PUNCTUATION if at == stop else _OTHER


@compiled
def _classify_gaps(
    data: NDArray[np.uint8], spans: NDArray[np.int64], classes: NDArray[np.int32]
) -> None:
    for gap in range(len(spans)):
        at, stop = spans[gap]
        lines = np.int32(0)
        first = stop
        for place in range(at, stop):
            if data[place] == 10:
                if lines == 0:
                    first = place
                lines += 1
        plain = first == at or (first == at + 1 and data[at] == 32)
        classes[gap] = _LINE * lines + (0 if plain else _TOKEN)


@compiled
def _count(
    ids: NDArray[np.uint32],
    pair_ends: NDArray[np.int64],
    ends: NDArray[np.int64],
    gap_ids: NDArray[np.uint32],
    of_word: NDArray[np.uint8],
    of_gap: NDArray[np.int32],
    of_long_gap: NDArray[np.int32],
    counts: NDArray[np.int64],
) -> None:
    pair = word = 0
    for document in range(len(counts)):
        sentences = np.int64(pair < ends[document])
        ended = False
        while pair < ends[document]:
            number = gap_ids[pair]
            gap = of_gap[number] if number < LONG else of_long_gap[number & np.uint32(LONG_INDEX)]
            if gap != 0:
                if gap & _TOKEN and ended:
                    sentences += 1
                    ended = False
                if gap >= _LINE:
                    sentences += gap // _LINE
                    ended = False
            for place in range(word, pair_ends[pair]):
                kind = of_word[ids[place]]
                if kind == _SENTENCE_END:
                    ended = True
                elif kind == _OTHER and ended:
                    sentences += 1
                    ended = False
            word = pair_ends[pair]
            pair += 1
        counts[document] = sentences
