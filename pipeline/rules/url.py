"""Refuse pages by their address: domains and words of the lists that datatrove ships.

The decisions are those of datatrove 0.10.1's URLFilter, but case does not matter: it keeps /PORN/
and drops /porn/, here both go. A page is dropped for, in this order:

    listed_domain      mill.co.uk of http://www.mill.co.uk/porn is on the list of domains
    listed_subdomain   www.mill.co.uk is
    listed_url         the whole address is on the list of addresses
    banned_word        porn, a run of letters and digits, is a banned word
    max_soft_words     it holds more different words that are bad in company
    banned_subword     its letters and digits, all in a row, hold a banned word anywhere

A document without an address is kept; datatrove would stop the run. All addresses of a batch are
read in one compiled pass, about a microsecond each. Hosts that are not plain ASCII names, which are
rare, go to tldextract itself.
"""

import hashlib
import re
import string
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.pipeline.rules.blocklist import (
    Blocklist,
    asset_sha256,
    assets,
    blocklist,
    hash_lines,
    hash_of,
    lowered,
    shipped_blocklists,
)
from tokenmill.pipeline.rules.checks import Breaks, Check, Signals
from tokenmill.pipeline.rules.hosts import (
    SuffixTable,
    extractor,
    host_of,
    is_odd,
    registered_start,
    suffix_table,
)
from tokenmill.pipeline.sources import Kind
from tokenmill.tokenizer.compiled import compiled
from tokenmill.tokenizer.words import text_buffers

ONE = np.uint64(1)
WORD_LISTS = ("banned_words.txt", "soft_banned_words.txt", "banned_subwords.txt")
NO_LETTER = 36
"""The class of bytes that are no letters or digits; those have 0 to 35."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UrlRule:
    """Which addresses are refused. The defaults are those of datatrove's URLFilter, after
    RefinedWeb (arXiv:2306.01116)."""

    listed_domain: bool = True
    """Drop a page whose registered domain is listed."""
    listed_subdomain: bool = True
    """Drop a page whose host is listed."""
    listed_url: bool = True
    """Drop a page whose whole address is listed."""
    banned_word: bool = True
    """Drop a page with a banned word in its address."""
    max_soft_words: int | None = 1
    """Most different words in an address that are bad only in company."""
    banned_subword: bool = True
    """Drop a page with a banned word inside the letters and digits of its address."""
    shipped_lists: bool = True
    """Use the lists in datatrove: 4.56 million domains, 19,587 addresses, 425 words."""
    extra_domains: tuple[str, ...] | Path = ()
    """More domains and hosts: a list, or a file of lines in which # begins a comment."""
    extra_urls: tuple[str, ...] | Path = ()
    """More addresses, likewise."""
    extra_words: tuple[str, ...] | Path = ()
    """More banned words, likewise."""
    kinds: tuple[Kind, ...] = ("web",)
    """The kinds of text it judges."""

    checks: ClassVar[tuple[Check, ...]] = (
        Check("listed_domain", "url_listed_domain", Breaks.SET),
        Check("listed_subdomain", "url_listed_subdomain", Breaks.SET),
        Check("listed_url", "url_listed_url", Breaks.SET),
        Check("banned_word", "url_banned_word", Breaks.SET),
        Check("max_soft_words", "url_soft_words", Breaks.ABOVE),
        Check("banned_subword", "url_banned_subword", Breaks.SET),
    )


def measure_urls(urls: pa.StringArray, rule: UrlRule) -> Signals:
    """What the lists say of each address: url_soft_words counts, the others are 0 or 1.

    Args:
        urls: (documents,) null or empty where a document has none: then all signals are 0.

    Raises:
        RecipeError: a file of extra lines cannot be read.
        RunError: the compiled lists cannot be kept.
    """
    lists = _lists(rule)
    hashes, words = _read(pc.fill_null(urls, "").cast(pa.large_string()), lists)
    domain, subdomain, url = (
        _listed(hashes[row], lists.urls if row == 2 else lists.domains) for row in range(3)
    )
    return {
        "url_listed_domain": domain,
        "url_listed_subdomain": subdomain,
        "url_listed_url": url,
        "url_banned_word": words[:, 0],
        "url_soft_words": words[:, 1],
        "url_banned_subword": words[:, 2],
    }


def lists_key(rule: UrlRule) -> str:
    """Names everything beside the rule itself that decides: the lists, and what is a suffix."""
    parts = [str(rule.shipped_lists), *sorted(extractor().tlds)]
    if rule.shipped_lists:
        parts += [asset_sha256(), *((assets() / name).read_text() for name in WORD_LISTS)]
    for extra in (rule.extra_domains, rule.extra_urls, rule.extra_words):
        parts += ["", *_lines(extra)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class WordTable(NamedTuple):
    """Words to be found whole."""

    hashes: NDArray[np.uint64]
    """Sorted."""
    banned: NDArray[np.bool_]
    soft: NDArray[np.bool_]


class Automaton(NamedTuple):
    """Finds words inside others (Aho and Corasick): from each state, by class of byte, the next."""

    next_states: NDArray[np.int16]
    """(states, 36)"""
    ends: NDArray[np.bool_]
    """(states,) whether a word ends there."""


class _Lists(NamedTuple):
    domains: tuple[Blocklist, ...]
    urls: tuple[Blocklist, ...]
    words: WordTable
    subwords: Automaton


@lru_cache(maxsize=4)
def _lists(rule: UrlRule) -> _Lists:
    domains, urls = [blocklist(_lines(rule.extra_domains))], [blocklist(_lines(rule.extra_urls))]
    words: list[list[str]] = [[], [], []]
    if rule.shipped_lists:
        shipped = shipped_blocklists()
        domains.append(shipped["domains"])
        urls.append(shipped["urls"])
        words = [_lines(assets() / name) for name in WORD_LISTS]
    banned, soft, subwords = ([_letters(word) for word in listed] for listed in words)
    banned += [_letters(word) for word in _lines(rule.extra_words)]
    return _Lists(tuple(domains), tuple(urls), _word_table(banned, soft), _automaton(subwords))


def _read(urls: pa.LargeStringArray, lists: _Lists) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """(3, documents) hashes of registered domain, host and address, 0 for none; and (documents, 3)
    a banned word, the number of soft ones, a banned subword."""
    offsets, data = text_buffers(urls)
    hashes = np.zeros((3, len(urls)), np.uint64)
    words = np.zeros((len(urls), 3), np.uint8)
    odd = np.zeros(len(urls), np.bool_)
    _scan(
        lowered(data), offsets, _CLASSES, suffix_table(), lists.words, lists.subwords,
        hashes, words, odd,
    )  # fmt: skip
    for row in np.flatnonzero(odd).tolist():
        found = extractor()(urls[row].as_py())
        hashes[0, row] = _hash(found.top_domain_under_public_suffix)
        hashes[1, row] = _hash(found.fqdn)
    return hashes, words


def _lines(listed: tuple[str, ...] | Path) -> list[str]:
    """The entries of a list, without comments and empty ones."""
    if isinstance(listed, Path):
        try:
            listed = tuple(listed.read_text("utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"{listed}: cannot read this list ({error}). Correct the path in the recipe."
            ) from None
    return [line.strip() for line in listed if line.strip() and not line.startswith("#")]


def _letters(word: str) -> str:
    """Its letters and digits, in lower case, as datatrove compares words."""
    return re.sub("[^a-z0-9]", "", word.lower())


def _word_table(banned: list[str], soft: list[str]) -> WordTable:
    words = sorted({*banned, *soft} - {""})
    hashes = hash_lines("\n".join(words).encode())
    order = np.argsort(hashes)
    is_banned = np.array([word in banned for word in words], np.bool_)
    is_soft = np.array([word in soft for word in words], np.bool_)
    return WordTable(hashes[order], is_banned[order], is_soft[order])


def _automaton(words: Iterable[str]) -> Automaton:
    children: list[dict[int, int]] = [{}]
    ends = [False]
    for word in words:
        state = 0
        for byte in word.encode():
            letter = int(_CLASSES[byte])
            if letter not in children[state]:
                children[state][letter] = len(children)
                children.append({})
                ends.append(False)
            state = children[state][letter]
        ends[state] = state > 0
    next_states = np.zeros((len(children), NO_LETTER), np.int16)
    queue, longest_end = deque([0]), [0] * len(children)
    while queue:
        state = queue.popleft()
        shorter = longest_end[state]  # the longest end of what was read that begins a word
        ends[state] |= ends[shorter]
        if state:
            next_states[state] = next_states[shorter]
        for letter, child in children[state].items():
            longest_end[child] = int(next_states[state, letter])
            next_states[state, letter] = child
            queue.append(child)
    return Automaton(next_states, np.array(ends))


def _classes() -> NDArray[np.uint8]:
    """(256,) 0 to 35 for digits and lower-case letters, NO_LETTER for the rest."""
    classes = np.full(256, NO_LETTER, np.uint8)
    for number, letter in enumerate(string.digits + string.ascii_lowercase):
        classes[ord(letter)] = number
    return classes


_CLASSES = _classes()


def _hash(name: str) -> np.uint64:
    """As the scan gives it: 0 for no name."""
    return hash_lines(name.encode())[0] if name else np.uint64(0)


def _listed(hashes: NDArray[np.uint64], lists: Iterable[Blocklist]) -> NDArray[np.uint8]:
    found = np.zeros(len(hashes), np.bool_)
    for listed in lists:
        found |= listed.holds(hashes)
    return np.asarray(found & (hashes != 0), np.uint8)


@compiled
def _scan(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint8],
    suffixes: SuffixTable,
    words: WordTable,
    subwords: Automaton,
    hashes: NDArray[np.uint64],
    found: NDArray[np.uint8],
    odd: NDArray[np.bool_],
) -> None:
    """Read addresses in lower case; see _read. `odd` is set where tldextract must read the host."""
    word_hashes, banned, soft = words
    next_states, ends = subwords
    last_seen = np.full(len(soft), -1, np.int64)  # the address in which a soft word came last
    for row in range(len(offsets) - 1):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        if begin == end:
            continue
        hashes[2, row] = hash_of(data, begin, end)
        start, stop = host_of(data, begin, end)
        odd[row] = is_odd(data, start, stop)
        if start < stop and not odd[row]:
            domain = registered_start(data, start, stop, suffixes)
            if domain < stop:
                hashes[0, row] = hash_of(data, domain, stop)
                hashes[1, row] = hash_of(data, start, stop)
        state = np.int16(0)
        word = at = begin
        while at <= end:
            letter = classes[data[at]] if at < end else np.uint8(NO_LETTER)
            if letter < NO_LETTER:
                state = next_states[state, letter]
                found[row, 2] |= ends[state]
                at += ONE
                continue
            if at > word:
                value = hash_of(data, word, at)
                place = np.searchsorted(word_hashes, value)
                if place < len(word_hashes) and word_hashes[place] == value:
                    found[row, 0] |= banned[place]
                    if soft[place] and last_seen[place] != row:
                        last_seen[place] = row
                        found[row, 1] += 1
            at += ONE
            word = at
