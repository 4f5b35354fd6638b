"""Make texts ready to be cut: normalized where that is known, whole where it is not.

    plain        each character stays as it is, but for the case of ASCII letters
    rewritten    what becomes of each character is known (characters.py)
    whole        an UNKNOWN character or an added token: the library answers for the raw text

Most texts are plain, and normalized by a look at each byte; the others all at once by Python.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.characters import KIND, NEVER_SEEN, PLAIN, SPACE, UNKNOWN, Characters
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.fast_path import AddedTokens
from tokenmill.tokenizer.pieces import Texts, is_gap_byte, point_at
from tokenmill.tokenizer.word_table import ONE

_IS_PLAIN, _IS_REWRITTEN, _IS_WHOLE = range(3)
_LOWER = np.arange(256, dtype=np.uint8)
_LOWER[ord("A") : ord("Z") + 1] += ord("a") - ord("A")


class Forms(NamedTuple):
    """The forms in which added tokens can stand in a text, lower-cased."""

    data: NDArray[np.uint8]
    """One after another."""
    ends: NDArray[np.int64]
    """Where each ends."""
    begins: NDArray[np.bool_]
    """(256,) which bytes one begins with."""
    in_gaps: bool
    """Whether there are others, of white space."""


def find_forms(added: AddedTokens) -> Forms:
    """The forms of a tokenizer's added tokens."""
    forms = [form.encode() for form in added.in_words]
    begins = np.zeros(256, np.bool_)
    begins[[form[0] for form in forms]] = True
    return Forms(
        data=np.frombuffer(b"".join(forms), np.uint8),
        ends=np.cumsum([len(form) for form in forms], dtype=np.int64),
        begins=begins,
        in_gaps=bool(added.in_gaps),
    )


def prepare(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    gap_kinds: NDArray[np.uint8],
    characters: Characters,
    forms: Forms,
) -> Texts:
    """Texts to cut, (texts,) where each starts and ends in the data."""
    learn_characters(data, starts, ends, characters)
    kinds = _sort(data, starts, ends, characters.classes, forms)
    normal = [_LOWER[data] if characters.lower else data]
    starts, ends = starts.copy(), ends.copy()
    rows = np.flatnonzero(kinds == _IS_REWRITTEN)
    if len(rows):
        written, written_ends = _rewrite(data, starts[rows], ends[rows], characters)
        gap = len(characters.separator.encode())
        written_starts = np.concatenate([[0], written_ends[:-1] + gap])
        learn_characters(written, written_starts, written_ends, characters)
        kinds[rows] = _sort(written, written_starts, written_ends, characters.classes, forms)
        known = kinds[rows] != _IS_WHOLE
        starts[rows[known]] = len(data) + written_starts[known]
        ends[rows[known]] = len(data) + written_ends[known]
        normal.append(written)
    rows = np.flatnonzero(kinds == _IS_WHOLE)
    if len(rows) and characters.lower:
        shift = sum(len(part) for part in normal)
        normal.append(data)
        starts[rows] += shift
        ends[rows] += shift
    joined = np.concatenate(normal) if len(normal) > 1 else normal[0]
    return Texts(joined, starts, ends, kinds == _IS_WHOLE, gap_kinds)


def learn_characters(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    characters: Characters,
) -> None:
    """Have the library asked about each character that was never seen."""
    points = _never_seen(data, starts, ends, characters.classes)
    if len(points):
        characters.learn(np.unique(points).tolist())


def _rewrite(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    characters: Characters,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """What the normalizer makes of texts, separators between them, and where each ends."""
    separator = characters.separator.encode()
    text = separator.join(
        [data[start:end].tobytes() for start, end in zip(starts, ends, strict=True)]
    )
    written = characters.rewrite(text.decode()).encode()
    sizes = [len(part) + len(separator) for part in written.split(separator)]
    return np.frombuffer(written, np.uint8), np.cumsum(sizes) - len(separator)


@compiled
def _never_seen(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    classes: NDArray[np.uint8],
) -> NDArray[np.uint32]:
    """The code points without a class, as often as they come."""
    found = np.empty((ends - starts).sum(), np.uint32)
    count = 0
    for text in range(len(starts)):
        at, stop = np.uint64(starts[text]), np.uint64(ends[text])
        while at < stop:
            if data[at] < 0x80:
                at += ONE
                continue
            point, at = point_at(data, at)
            if classes[point] & KIND == NEVER_SEEN:
                found[count] = point
                count += 1
    return found[:count]


@compiled
def _sort(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    classes: NDArray[np.uint8],
    forms: Forms,
) -> NDArray[np.uint8]:
    """(texts,) which are plain, which are rewritten and which are left whole."""
    kinds = np.full(len(starts), _IS_PLAIN, np.uint8)
    for text in range(len(starts)):
        start, stop = np.uint64(starts[text]), np.uint64(ends[text])
        at = start
        while at < stop and is_gap_byte(data[at]):
            at += ONE
        gap_end = at
        while at < stop:
            is_gap = is_gap_byte(data[at])
            is_first = at == gap_end and at > start
            point, at = point_at(data, at)
            kind = classes[point]
            # With a gap before it, or in it, white space may belong to an added token there.
            is_hard = forms.in_gaps and (is_gap or (is_first and kind & KIND == SPACE))
            if kind & KIND == UNKNOWN or is_hard:
                kinds[text] = _IS_WHOLE
                break
            if not kind & PLAIN:
                kinds[text] = _IS_REWRITTEN
        if len(forms.data) and _holds_form(data, start, stop, forms):
            kinds[text] = _IS_WHOLE
    return kinds


@compiled
def _holds_form(data: NDArray[np.uint8], start: np.uint64, stop: np.uint64, forms: Forms) -> bool:
    """Whether an added token stands in data[start:stop], upper and lower case being the same."""
    for at in range(start, stop):
        if not forms.begins[_lower(data[at])]:
            continue
        begin = 0
        for end in forms.ends:
            size = end - begin
            if size <= np.int64(stop - at):
                same = 0
                while same < size and _lower(data[at + same]) == forms.data[begin + same]:
                    same += 1
                if same == size:
                    return True
            begin = end
    return False


@compiled_inline
def _lower(byte: np.uint8) -> int:
    return int(byte + 32 if 65 <= byte <= 90 else byte)
