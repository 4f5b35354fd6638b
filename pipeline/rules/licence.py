"""Whether a stated licence is on an allow-list.

A licence is an SPDX expression ("MIT OR Apache-2.0", "GPL-2.0-only WITH Classpath-exception-2.0",
parentheses), or a list of them with commas, as datasets give the licences found in a repository:

    MIT                     allowed if MIT is listed
    MIT OR GPL-2.0-only     allowed if one of the two is: the user chooses
    MIT AND BSL-1.1         allowed if both are
    MIT, GPL-2.0-only       as AND: nobody says which part of the repository a file is
    X WITH an-exception     allowed if X is, or the whole: an exception only permits more

Case does not matter; an old "MIT/Apache-2.0" is an OR. Nothing stated, NOASSERTION, and what is no
such expression are unknown.
"""

import re
from collections.abc import Set
from enum import IntEnum

UNKNOWN_NAMES = {"", "noassertion", "none", "unknown", "null", "other", "unlicensed"}
_TOKEN = re.compile(r"[()]|[^\s()]+")


class Standing(IntEnum):
    """What an allow-list says of a licence, from worst to best."""

    REFUSED = 0
    UNKNOWN = 1
    ALLOWED = 2


def licence_standing(licence: str, allowed: Set[str]) -> Standing:
    """What the allow-list says.

    Args:
        allowed: identifiers or whole expressions, in lower case.
    """
    licence = licence.lower().strip()
    if licence in allowed:
        return Standing.ALLOWED
    try:
        return min(_expression(part, allowed) for part in licence.split(","))
    except _NoExpression:
        return Standing.UNKNOWN


class _NoExpression(Exception):
    """The text is no SPDX expression."""


def _expression(text: str, allowed: Set[str]) -> Standing:
    tokens = _TOKEN.findall(text.replace("/", " or "))
    if not tokens:
        return Standing.UNKNOWN
    standing = _either(tokens, allowed)
    if tokens:
        raise _NoExpression
    return standing


# Each reads its part from the front of `tokens` and takes it away.


def _either(tokens: list[str], allowed: Set[str]) -> Standing:
    standings = [_both(tokens, allowed)]
    while tokens and tokens[0] == "or":
        del tokens[0]
        standings.append(_both(tokens, allowed))
    return max(standings)


def _both(tokens: list[str], allowed: Set[str]) -> Standing:
    standings = [_one(tokens, allowed)]
    while tokens and tokens[0] == "and":
        del tokens[0]
        standings.append(_one(tokens, allowed))
    return min(standings)


def _one(tokens: list[str], allowed: Set[str]) -> Standing:
    name = _next(tokens)
    if name == "(":
        standing = _either(tokens, allowed)
        if _next(tokens) != ")":
            raise _NoExpression
        return standing
    names = [name]
    if tokens and tokens[0] == "with":
        del tokens[0]
        names.append(f"{name} with {_next(tokens)}")
    if any(name in allowed for name in names):
        return Standing.ALLOWED
    return Standing.UNKNOWN if name in UNKNOWN_NAMES else Standing.REFUSED


def _next(tokens: list[str]) -> str:
    if not tokens or tokens[0] in ("or", "and", "with"):
        raise _NoExpression
    return tokens.pop(0)
