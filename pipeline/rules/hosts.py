"""The host of an address, and which part of it somebody registered: mill.co.uk of www.mill.co.uk.

The Public Suffix List says under which names domains are registered. tldextract brings a copy of
it; the network is never asked, so that an answer depends on installed versions alone. A host is
looked up from its right, one label more at a time, among the hashes of all the ends of all rules:

    www.mill.co.uk    uk: known, a suffix; co.uk: known, a suffix; mill.co.uk: not known

Rules with a star take one label more, unless an exception names it. All is as in tldextract, which
also knows what only some hosts need (brackets, Unicode, Punycode): `is_odd` says which those are.
"""

from collections import defaultdict
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tldextract import TLDExtract

from tokenmill.pipeline.rules.blocklist import hash_lines, hash_of
from tokenmill.tokenizer.compiled import compiled_inline

ONE = np.uint64(1)
KNOWN, SUFFIX, STAR, EXCEPTION = 1, 2, 4, 8
"""What an end of a rule is: part of a rule, a whole one, one with any label before it, and an
exception to that."""
_AT, _COLON, _DOT, _SLASH, _QUESTION, _HASH = 64, 58, 46, 47, 63, 35
_HYPHEN, _UNDERSCORE, _PLUS = 45, 95, 43


class SuffixTable(NamedTuple):
    """The ends of the rules."""

    hashes: NDArray[np.uint64]
    """Sorted."""
    marks: NDArray[np.uint8]
    """What each is."""


@cache
def extractor() -> TLDExtract:
    """tldextract with its own copy of the list: no cache on disk, no network."""
    return TLDExtract(cache_dir=None, suffix_list_urls=())


@cache
def suffix_table() -> SuffixTable:
    """The ends of the rules for public suffixes; those of private registries are left out, as
    tldextract does if nothing is said."""
    marks: defaultdict[str, int] = defaultdict(int)
    for rule in extractor().tlds:
        labels = rule.split(".")
        if labels[0] == "*":
            marks[rule[2:]] |= STAR
        elif rule[0] == "!":
            marks[rule[1:]] |= EXCEPTION
        else:
            marks[rule] |= SUFFIX
        for first in range(labels[0] == "*" or rule[0] == "!", len(labels)):
            marks[".".join(labels[first:])] |= KNOWN
    hashes = hash_lines("\n".join(marks).encode())
    order = np.argsort(hashes)
    return SuffixTable(hashes[order], np.array(list(marks.values()), np.uint8)[order])


@compiled_inline
def host_of(
    data: NDArray[np.uint8], begin: np.uint64, end: np.uint64
) -> tuple[np.uint64, np.uint64]:
    """Where the host of an address is, as tldextract reads addresses: after the scheme, if there
    is one, and after a user's name, up to a port, without dots at its end."""
    start = begin
    at = begin
    while at + ONE < end and not (data[at] == _SLASH and data[at + ONE] == _SLASH):
        at += ONE
    if at + ONE < end and (at == begin or _is_scheme(data, begin, at)):
        start = at + ONE + ONE
    stop = start
    while stop < end and not (
        data[stop] == _SLASH or data[stop] == _QUESTION or data[stop] == _HASH
    ):
        stop += ONE
    at = start
    while at < stop:
        if data[at] == _AT:
            start = at + ONE
        at += ONE
    at = start
    while at < stop and data[at] != _COLON:
        at += ONE
    while at > start and data[at - ONE] == _DOT:
        at -= ONE
    return start, at


@compiled_inline
def is_odd(data: NDArray[np.uint8], start: np.uint64, stop: np.uint64) -> np.bool_:
    """Whether a host is anything but labels of ASCII letters, digits, - and _, or has one in
    Punycode."""
    odd: np.bool_ = np.bool_(False)
    label = at = start
    while at < stop:
        byte = data[at]
        odd |= not (_is_letter_or_digit(byte) or byte in (_DOT, _HYPHEN, _UNDERSCORE))
        if byte == _DOT:
            odd |= at == label
            label = at + ONE
        elif at == label + ONE + ONE + ONE:
            odd |= (
                data[label] == 120 and data[label + ONE] == 110  # "xn"
                and data[at - ONE] == _HYPHEN and byte == _HYPHEN
            )  # fmt: skip
        at += ONE
    return odd


@compiled_inline
def registered_start(
    data: NDArray[np.uint8], start: np.uint64, stop: np.uint64, table: SuffixTable
) -> np.uint64:
    """Where the registered domain of a host begins, or `stop` where it has none.

    Args:
        start, stop: a host of lower-case ASCII without empty labels.
    """
    hashes, marks = table
    suffix = known = label = stop
    mark = np.uint8(0)
    while label > start:
        end = label if label == stop else label - ONE
        label = end
        while label > start and data[label - ONE] != _DOT:
            label -= ONE
        value = hash_of(data, label, stop)
        place = np.searchsorted(hashes, value)
        found = place < len(hashes) and hashes[place] == value
        here = marks[place] if found else np.uint8(0)
        if not here & KNOWN:
            if mark & STAR:
                suffix = known if here & EXCEPTION else label
            break
        known, mark = label, here
        if here & SUFFIX:
            suffix = label
    if suffix in (start, stop):
        return stop
    domain = suffix - ONE
    while domain > start and data[domain - ONE] != _DOT:
        domain -= ONE
    return domain


@compiled_inline
def _is_scheme(data: NDArray[np.uint8], begin: np.uint64, slashes: np.uint64) -> np.bool_:
    """Whether letters, digits, +, - and . and a colon stand before the slashes."""
    colon = slashes - ONE
    plain: np.bool_ = np.bool_(slashes - begin > ONE and data[colon] == _COLON)
    at = begin
    while at < colon:
        byte = data[at]
        plain &= _is_letter_or_digit(byte) or byte in (_DOT, _HYPHEN, _PLUS)
        at += ONE
    return plain


@compiled_inline
def _is_letter_or_digit(byte: np.uint8) -> np.bool_:
    return 97 <= byte <= 122 or 48 <= byte <= 57
