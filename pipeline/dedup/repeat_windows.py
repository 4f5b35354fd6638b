"""Windows: all runs of so many consecutive tokens of a document, and the anchors to find them by.

The anchor of a window is the run of `anchor_tokens` tokens in it that has the smallest hash, the
first of equal ones. It depends on the window's tokens alone, so windows that are equal have equal
anchors, each at its own place in the corpus: where an anchor stands once, its windows do. And
neighbours mostly share their anchor, so there are few.

    tokens   a b c d e f g        windows of 4, anchors of 2: [c d] is the smallest hash
             a b[c d]
               b[c d]e            three windows, one anchor
                [c d]e f

A window itself is known by 96 bits of two polynomials over its hashed tokens: among 3e11 windows
the chance that any two different ones agree is about 1e-6.

Source of the anchors: winnowing, Schleimer et al. 2003 (doi:10.1145/872757.872770).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.compiled import compiled, compiled_inline

_ONE = np.uint64(1)
_HALF = np.uint64(32)
_UPPER = np.uint64(0xFFFFFFFF00000000)
_FACTOR, _OTHER_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1342543DE82EF95)
_MIX, _OTHER_MIX = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)


@dataclass(frozen=True, slots=True)
class Anchors:
    """The anchors of some tokens, in their order. One entry an anchor."""

    hashes: NDArray[np.uint64]
    """Spread evenly."""
    starts: NDArray[np.int64]
    """The first token of the first window of each."""
    stops: NDArray[np.int64]
    """One past the first token of its last window."""


def num_anchors(num_tokens: int, window_tokens: int) -> int:
    """About how many anchors ordinary text has."""
    return num_tokens // mean_windows(window_tokens)


def mean_windows(window_tokens: int) -> int:
    """About how many windows share an anchor: half of the places that it may have in one."""
    return (window_tokens - anchor_tokens(window_tokens) + 2) // 2


def anchor_tokens(window_tokens: int) -> int:
    """Longer ones are rarely repeated where their windows are not, but there are more of them."""
    return window_tokens // 2


def find_anchors(
    tokens: NDArray[Any],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    window_tokens: int,
) -> Anchors:
    """The anchors of all windows that lie in runs of tokens.

    Args:
        tokens: (tokens,) unsigned.
        starts: (runs,) where each run begins; none is shorter than a window.
        stops: (runs,) where it ends.
    """
    most = int((stops - starts - window_tokens + 1).sum())  # pages that are not used cost nothing
    hashes = np.empty(most, np.uint64)
    bounds = np.empty((2, most), np.int64)
    found = _anchors(
        tokens,
        starts.astype(np.uint64),
        stops.astype(np.uint64),
        np.uint64(anchor_tokens(window_tokens)),
        np.uint64(window_tokens),
        hashes,
        bounds,
    )
    return Anchors(*(values[:found].copy() for values in (hashes, *bounds)))


def hash_windows(
    tokens: NDArray[Any],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    window_tokens: int,
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(windows,) 64 and 32 bits of a hash of each window; the latter in the upper half.

    Args:
        starts: (ranges,) the first token of the first window of each range of windows.
        stops: (ranges,) one past the first token of its last window.
    """
    num = int((stops - starts).sum())
    low, high = np.empty(num, np.uint64), np.empty(num, np.uint64)
    size = np.uint64(window_tokens)
    _windows(tokens, starts.astype(np.uint64), stops.astype(np.uint64), size, low, high)
    return low, high


def first_of_equal(low: NDArray[np.uint64], high: NDArray[np.uint64]) -> NDArray[np.int32]:
    """(windows,) the place of the first window that has the same hash."""
    first = np.empty(len(low), np.int32)
    _first_of_equal(low, high, np.full(len(low) * 3 // 2 + 1, -1, np.int32), first)
    return first


@compiled_inline
def _mixed(value: np.uint64) -> np.uint64:
    """MurmurHash3's last step: every bit depends on every bit."""
    value = (value ^ (value >> np.uint64(33))) * _MIX
    value = (value ^ (value >> np.uint64(33))) * _OTHER_MIX
    return value ^ (value >> np.uint64(33))


@compiled_inline
def _of_token(token: np.uint64) -> np.uint64:
    value = (token + _ONE) * _MIX
    return (value ^ (value >> _HALF)) * _OTHER_MIX


@compiled_inline
def _power(factor: np.uint64, exponent: np.uint64) -> np.uint64:
    value = _ONE
    for _ in range(exponent):
        value *= factor
    return value


@compiled
def _anchors(
    tokens: NDArray[Any],
    starts: NDArray[np.uint64],
    stops: NDArray[np.uint64],
    length: np.uint64,
    window_tokens: np.uint64,
    hashes: NDArray[np.uint64],
    bounds: NDArray[np.int64],
) -> np.uint64:
    first_factor = _power(_FACTOR, length - _ONE)
    places = window_tokens - length + _ONE  # of an anchor in a window
    ring = np.empty(places, np.uint64)  # the hashes of those in the present window
    found = np.uint64(0)
    for run in range(len(starts)):
        start, stop = starts[run], stops[run]
        value = np.uint64(0)
        for at in range(start, start + length - _ONE):
            value = value * _FACTOR + _of_token(np.uint64(tokens[at]))
        slot = place = best = best_place = np.uint64(0)
        chosen = places  # none yet
        for at in range(start + length - _ONE, stop):
            value = value * _FACTOR + _of_token(np.uint64(tokens[at]))
            hashed = _mixed(value)
            value -= first_factor * _of_token(np.uint64(tokens[at + _ONE - length]))
            ring[slot] = hashed
            slot = slot + _ONE if slot + _ONE < places else np.uint64(0)
            if place == 0 or hashed < best:
                best, best_place = hashed, place
            elif best_place + places <= place:  # it has left the window
                best, best_place = ring[slot], place + _ONE - places
                for later in range(_ONE, places):
                    other = slot + later if slot + later < places else slot + later - places
                    if ring[other] < best:
                        best, best_place = ring[other], place + _ONE - places + later
            place += _ONE
            if place < places:
                continue
            window = start + place - places
            if place == places or best_place != chosen:
                if place > places:
                    bounds[1, found - _ONE] = window
                hashes[found], bounds[0, found] = _mixed(best), window
                chosen = best_place
                found += _ONE
        bounds[1, found - _ONE] = stop - window_tokens + _ONE
    return found


@compiled
def _windows(
    tokens: NDArray[Any],
    starts: NDArray[np.uint64],
    stops: NDArray[np.uint64],
    window_tokens: np.uint64,
    low: NDArray[np.uint64],
    high: NDArray[np.uint64],
) -> None:
    first_factor = _power(_FACTOR, window_tokens - _ONE)
    other_first_factor = _power(_OTHER_FACTOR, window_tokens - _ONE)
    out = np.uint64(0)
    for i in range(len(starts)):
        value = other = np.uint64(0)
        for at in range(starts[i], starts[i] + window_tokens - _ONE):
            token = _of_token(np.uint64(tokens[at]))
            value, other = value * _FACTOR + token, other * _OTHER_FACTOR + token
        for window in range(starts[i], stops[i]):
            token = _of_token(np.uint64(tokens[window + window_tokens - _ONE]))
            value, other = value * _FACTOR + token, other * _OTHER_FACTOR + token
            low[out], high[out] = _mixed(value), _mixed(other) & _UPPER
            leaving = _of_token(np.uint64(tokens[window]))
            value -= first_factor * leaving
            other -= other_first_factor * leaving
            out += _ONE


@compiled
def _first_of_equal(
    low: NDArray[np.uint64],
    high: NDArray[np.uint64],
    table: NDArray[np.int32],
    first: NDArray[np.int32],
) -> None:
    size = np.uint64(len(table))
    for window in range(len(low)):
        slot = ((high[window] >> _HALF) * size) >> _HALF
        while True:
            known = table[slot]
            if known < 0:
                table[slot] = first[window] = window
                break
            if low[known] == low[window] and high[known] == high[window]:
                first[window] = known
                break
            slot = slot + _ONE if slot + _ONE < size else np.uint64(0)
