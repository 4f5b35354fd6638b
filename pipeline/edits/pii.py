"""Replace e-mail addresses and IP addresses, as datatrove's PIIFormatter does.

datatrove's own expressions decide, but are asked only about runs that may hold an address:

    write to <jane.doe@mill.org>, not 10.0.0.1;    the runs jane.doe@mill.org and 10.0.0.1

A run ends at white space and at other ASCII characters that no address holds and that are no
letters or digits. A match lies within one run, and begins there as it would in the whole text, for
the expressions look at no more than whether a word begins. A run is asked about if an `@` stands
between the right characters in it, or four numbers are joined by dots.

Where datatrove hands out its replacements in turn over all that a worker reads, here each document
begins with the first: what becomes of a document depends on nothing but the document.

The scan runs at some 2 GB a second; one word in 5,000 of English web text is asked about.
"""

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datatrove.pipeline.formatters.pii import PIIFormatter, PIIReplacer
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.pipeline.edits.edited import Edited
from tokenmill.pipeline.edits.splice import Change, splice
from tokenmill.pipeline.sources import Kind
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.words import text_buffers

ONE, TWO = np.uint64(1), np.uint64(2)
LOCAL_SIGNS = "!#$%&'*+/=?^_`{|}~-"
"""What may stand before the `@` besides letters, digits and dots (RFC 5322)."""
MAX_DIGITS = 3
"""A number of an address has no more."""

# Sets of bytes: those that a run may hold, that call for a closer look, and of the expressions.
_INSIDE, _CUE, _LOCAL, _LETTER_OR_DIGIT, _DIGIT = 1, 2, 4, 8, 16


@dataclass(frozen=True, kw_only=True, slots=True)
class PiiConfig:
    """Which personal data is replaced, and by what. Defaults are datatrove's."""

    emails: bool = True
    """Replace e-mail addresses."""
    ips: bool = True
    """Replace IPv4 addresses."""
    public_ips_only: bool = True
    """Leave the addresses of private networks and the like, which tell nothing of a person."""
    email_replacements: tuple[str, ...] = (
        "email@example.com",
        "firstname.lastname@example.org",
    )
    """Handed out in turn in each document. example.com and .org are kept free for such use."""
    ip_replacements: tuple[str, ...] = (
        "22.214.171.124",
        "126.96.36.199",
        "188.8.131.52",
        "184.108.40.206",
        "220.127.116.11",
        "18.104.22.168",
    )
    """Handed out in turn in each document. Addresses that answered no ping when datatrove drew
    them."""
    kinds: tuple[Kind, ...] = ("web", "code", "science")
    """The kinds of text in which they are replaced."""

    def __post_init__(self) -> None:
        for name in ("email_replacements", "ip_replacements"):
            if not getattr(self, name):
                raise RecipeError(f"{name}: expected at least one replacement, found none.")


def replace_pii(texts: pa.LargeStringArray, config: PiiConfig) -> Edited:
    """The texts with addresses replaced, and how many of each were."""
    offsets, data = text_buffers(texts)
    found = _find_runs(data, offsets, _BYTE_SETS, config.emails, config.ips)
    num_edits = np.zeros(len(texts), np.int32)
    return Edited(splice(texts, _changes(data, found, config, num_edits)), num_edits, {})


def _changes(
    data: NDArray[np.uint8],
    runs: NDArray[np.int64],
    config: PiiConfig,
    num_edits: NDArray[np.int32],
) -> Iterator[Change]:
    """The runs in which addresses were replaced, counted in `num_edits`; each document begins with
    the first replacements."""
    formatter = PIIFormatter(only_remove_public_ips=config.public_ips_only)
    replacers: list[_Replacer] = []
    last = -1
    for document, start, stop in map(np.ndarray.tolist, runs):
        if document != last:
            replacers = []
            if config.emails:
                replacers.append(_Replacer(formatter.emails_replacer, config.email_replacements))
            if config.ips:
                replacers.append(_Replacer(formatter.ip_replacer, config.ip_replacements))
            last = document
        run = data[start:stop].tobytes().decode()
        replaced = run
        for replacer in replacers:
            replaced = replacer.replace(replaced)
        num_edits[document] = sum(replacer.num_made for replacer in replacers)
        if replaced != run:
            yield document, start, stop, replaced.encode()


@dataclass(slots=True)
class _Replacer:
    """Puts replacements in turn where one of datatrove's expressions matches."""

    found: PIIReplacer
    replacements: tuple[str, ...]
    num_made: int = 0

    def replace(self, run: str) -> str:
        replaced: str = self.found.regex.sub(self._next, run)
        return replaced

    def _next(self, match: re.Match[str]) -> str:
        if self.found.validator and not self.found.validator(match[0]):
            return match[0]
        replacement = self.replacements[self.num_made % len(self.replacements)]
        self.num_made += 1
        return replacement


def _byte_sets() -> NDArray[np.uint8]:
    """(256,) a bit for each set that holds the byte."""
    sets = np.zeros(256, np.uint8)
    sets[0x80:] = _INSIDE  # some are letters, before which no word begins
    for characters, bits in (
        (string.ascii_letters, _INSIDE | _LOCAL | _LETTER_OR_DIGIT),
        (string.digits, _INSIDE | _LOCAL | _LETTER_OR_DIGIT | _DIGIT),
        (LOCAL_SIGNS, _INSIDE | _LOCAL),
        ("[]:", _INSIDE),
        ("@.", _INSIDE | _CUE),
    ):
        sets[list(characters.encode())] = bits
    return sets


_BYTE_SETS = _byte_sets()


@compiled
def _find_runs(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    sets: NDArray[np.uint8],
    emails: bool,
    ips: bool,
) -> NDArray[np.int64]:
    """(k, 3) document, start and stop of each run that may hold an address."""
    found = np.empty((64, 3), np.int64)
    count = 0
    for document in range(len(offsets) - 1):
        begin, end = np.uint64(offsets[document]), np.uint64(offsets[document + 1])
        at = begin + ONE  # what decides has something before it
        while True:
            while at < end and not sets[data[at]] & _CUE:
                at += ONE
            if at >= end:
                break
            before = sets[data[at - ONE]]
            if data[at] == 64:  # "@"
                suspect = emails and before & _LOCAL and _is_domain(data, at, end, sets)
            else:
                suspect = ips and before & _DIGIT and _is_quad(data, at, end, sets)
            if not suspect:
                at += ONE
                continue
            start = at
            while start > begin and sets[data[start - ONE]] & _INSIDE:
                start -= ONE
            while at < end and sets[data[at]] & _INSIDE:
                at += ONE
            found = _added(found, count, document, start, at)
            count += 1
    return found[:count]


@compiled_inline
def _is_domain(
    data: NDArray[np.uint8], at: np.uint64, end: np.uint64, sets: NDArray[np.uint8]
) -> np.bool_:
    """Whether what follows an `@` begins as a domain of two labels does, or is a bracket and a
    digit."""
    at += ONE
    start = at
    if at < end and data[at] == 91:  # "["
        return at + ONE < end and sets[data[at + ONE]] & _DIGIT != 0
    while at < end and (sets[data[at]] & _LETTER_OR_DIGIT or data[at] == 45):  # "-"
        at += ONE
    if at == start or at + ONE >= end or data[at] != 46 or data[start] == 45:  # "."
        return np.bool_(False)
    both_sides = sets[data[at - ONE]] & sets[data[at + ONE]]
    return np.bool_(both_sides & _LETTER_OR_DIGIT != 0)


@compiled_inline
def _is_quad(
    data: NDArray[np.uint8], at: np.uint64, end: np.uint64, sets: NDArray[np.uint8]
) -> np.bool_:
    """Whether two numbers between dots and a digit follow, the first dot at `at`."""
    for _ in range(2):
        start = at + ONE
        at = start
        while at < end and sets[data[at]] & _DIGIT:
            at += ONE
        if at in (start, end) or at - start > MAX_DIGITS or data[at] != 46:  # "."
            return np.bool_(False)
    return at + ONE < end and sets[data[at + ONE]] & _DIGIT != 0


@compiled
def _added(
    found: NDArray[np.int64], count: int, document: int, start: np.uint64, stop: np.uint64
) -> NDArray[np.int64]:
    """With one more row, in a new array where the old one is full."""
    if count == len(found):
        grown = np.empty((2 * count, 3), np.int64)
        grown[:count] = found
        found = grown
    found[count, 0] = document
    found[count, 1] = start
    found[count, 2] = stop
    return found
