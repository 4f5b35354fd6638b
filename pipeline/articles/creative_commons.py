"""Which Creative Commons licence a statement names, as an SPDX identifier.

An address decides, wherever it stands; without one the licence's spelled-out name does. A licence
adapted to a country's law (by/3.0/us) stands as the international one of its version. A version
that is not stated is not guessed: "CC-BY".
"""

import re

_ADDRESS = re.compile(
    r"creativecommons\.org/(?:licen[sc]es?/(by[a-z-]*)|publicdomain/(zero|mark))"
    r"(?:/([1-4])(?:\.(\d))?)?",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"Creative Commons (?:(CC0|Zero)|Attribution"
    r"((?:(?:[\s,/\u2013-]|and)+(?:Non[ -]?Commercial|No[ -]?Deriv\w*|Share[ -]?Alike))*))"
    r"(?:\s*([1-4]\.\d))?",
    re.IGNORECASE,
)
_SHORT_NAME = re.compile(r"\bCC[ -]?BY((?:[ -](?:NC|ND|SA))*)\b(?:[ -]([1-4]\.\d))?", re.IGNORECASE)
_TERMS = {
    "noncommercial": "NC",
    "nc": "NC",
    "noderiv": "ND",
    "nd": "ND",
    "sharealike": "SA",
    "sa": "SA",
}


def creative_commons(statement: str) -> str | None:
    """The licence that a statement, its addresses included, names first; None if it names none."""
    if found := _ADDRESS.search(statement):
        terms, domain, major, minor = found.groups()
        if domain:
            return "CC0-1.0" if domain.lower() == "zero" else "CC-PDM-1.0"
        return f"CC-{terms.upper()}" + (f"-{major}.{minor or 0}" if major else "")
    long_name, short_name = _NAME.search(statement), _SHORT_NAME.search(statement)
    if long_name and long_name.group(1):
        return "CC0-1.0"
    if not (long_name or short_name):
        return None
    # A name may be without the terms that its abbreviation behind it has.
    named = f"{long_name.group(2) if long_name else ''} {short_name.group(1) if short_name else ''}"
    words = re.sub(r"(non?|share)[ -]", r"\1", named.lower())
    terms = {short for term, short in _TERMS.items() if re.search(rf"\b{term}", words)}
    versions = [name.groups()[-1] for name in (long_name, short_name) if name]
    version = next(filter(None, versions), None)
    return "-".join(["CC", "BY", *sorted(terms), *([version] if version else [])])
