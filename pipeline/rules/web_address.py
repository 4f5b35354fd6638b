"""Web addresses as spaCy knows them: it cuts nothing inside of one.

    scheme://  user@  host.tld or IP address  :port  /path?query#fragment

A scan over code points that finds what `spacy.lang.tokenizer_exceptions.URL_PATTERN` matches, in
time that grows with the length alone. Names with dots end in two small letters or more; addresses
of private networks are none.
"""

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.rules.spacy_english import DIGIT, TLD, WORD
from tokenmill.tokenizer.compiled import compiled_inline

_0, _1, _2, _3, _4, _5, _6, _7, _8, _9 = range(0x30, 0x3A)
_DOT, _COLON, _SLASH, _AT, _HYPHEN, _PLUS, _LOW_LINE = (ord(sign) for sign in ".:/@-+_")
_QUESTION, _HASH = ord("?"), ord("#")
MAX_LABEL, MAX_TLD, MAX_PORT = 64, 63, 5


@compiled_inline
def is_web_address(
    points: NDArray[np.int32], start: int, stop: int, kinds: NDArray[np.uint16]
) -> bool:
    """Whether code points without white space are an address as a whole.

    Args:
        kinds: as in EnglishPatterns.
    """
    if _begins_host(points, start, stop, kinds):
        return True
    at = start
    while at < stop and _is_of_scheme(points[at], kinds):
        at += 1
    if (
        at - start >= 2
        and at + 2 < stop
        and points[at] == _COLON
        and points[at + 1] == _SLASH
        and points[at + 2] == _SLASH
        and _begins_host(points, at + 3, stop, kinds)
    ):
        return True
    for at in range(start + 1, stop):
        if points[at] == _AT and _begins_host(points, at + 1, stop, kinds):
            return True
    return False


@compiled_inline
def _is_of_scheme(point: int, kinds: NDArray[np.uint16]) -> bool:
    return kinds[point] & WORD != 0 or point in (_PLUS, _HYPHEN, _DOT)


@compiled_inline
def _begins_host(
    points: NDArray[np.int32], start: int, stop: int, kinds: NDArray[np.uint16]
) -> bool:
    """Whether what follows is a host, and after it nothing but a port and a path."""
    return _begins_name(points, start, stop, kinds) or _begins_ip(points, start, stop, kinds)


@compiled_inline
def _begins_name(
    points: NDArray[np.int32], start: int, stop: int, kinds: NDArray[np.uint16]
) -> bool:
    label = at = start
    while True:
        if label > start:
            at = label
            while at < stop and kinds[points[at]] & TLD:
                at += 1
            if 2 <= at - label <= MAX_TLD and _ends_host(points, at, stop, kinds):
                return True
        at = label
        while at < stop and (
            _is_of_label(points[at]) or points[at] == _LOW_LINE or points[at] == _HYPHEN
        ):
            at += 1
        if at == stop or points[at] != _DOT or not 1 <= at - label <= MAX_LABEL:
            return False
        if not (_is_of_label(points[label]) and _is_of_label(points[at - 1])):
            return False
        label = at + 1


@compiled_inline
def _is_of_label(point: int) -> bool:
    if point < 0x80:
        return (_0 <= point <= _9) or (0x41 <= (point & ~0x20) <= 0x5A)
    return 0xA1 <= point <= 0xFFFF


@compiled_inline
def _begins_ip(points: NDArray[np.int32], start: int, stop: int, kinds: NDArray[np.uint16]) -> bool:
    at = start
    for part in range(4):
        end = at
        while end < stop and end - at <= 3 and kinds[points[end]] & DIGIT:
            end += 1
        size = end - at
        if not 1 <= size <= 3 or (size == 3 and not _is_number(points, at, part)):
            return False
        if part in (0, 3) and not _1 <= points[at] <= _9:
            return False
        if part < 3:
            if end == stop or points[end] != _DOT:
                return False
            at = end + 1
    return not _is_private(points, start, kinds) and _ends_host(points, end, stop, kinds)


@compiled_inline
def _is_number(points: NDArray[np.int32], at: int, part: int) -> bool:
    """Whether three digits are a number of the first, a middle or the last part of an address."""
    first, second, third = points[at], points[at + 1], points[at + 2]
    if first == _1:
        return True
    if first != _2:
        return False
    if part == 0:
        return bool(_0 <= second <= _1 or (second == _2 and _0 <= third <= _3))
    if _0 <= second <= _4:
        return True
    return bool(second == _5 and _0 <= third <= (_4 if part == 3 else _5))


@compiled_inline
def _is_private(points: NDArray[np.int32], at: int, kinds: NDArray[np.uint16]) -> bool:
    """Whether an address is of a network that nobody else sees: 10., 127., 169.254. and so on."""
    first, second, third, dot = points[at], points[at + 1], points[at + 2], points[at + 3]
    if first != _1:
        return False
    if (second == _0 and third == _DOT) or (second == _2 and third == _7 and dot == _DOT):
        return True
    if dot != _DOT:
        return False
    if second == _7 and third == _2:
        ten, one, end = points[at + 4], points[at + 5], points[at + 6]
        if end != _DOT or not kinds[one] & DIGIT:
            return False
        return bool((ten == _1 and _6 <= one <= _9) or ten == _2 or (ten == _3 and one in (_0, _1)))
    hundred, ten, one, end = points[at + 4], points[at + 5], points[at + 6], points[at + 7]
    if end != _DOT:
        return False
    if second == _6 and third == _9:
        return bool(hundred == _2 and ten == _5 and one == _4)
    return bool(second == _9 and third == _2 and hundred == _1 and ten == _6 and one == _8)


@compiled_inline
def _ends_host(points: NDArray[np.int32], at: int, stop: int, kinds: NDArray[np.uint16]) -> bool:
    """Whether a host may end here: at a port, a path or the end."""
    if at < stop and points[at] == _COLON:
        at += 1
        port = at
        while at < stop and kinds[points[at]] & DIGIT:
            at += 1
        if not 2 <= at - port <= MAX_PORT:
            return False
    return at == stop or points[at] in (_SLASH, _QUESTION, _HASH)
