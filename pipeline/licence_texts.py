"""Which licence a text is, as an SPDX identifier, by phrases that only that licence has.

A text may hold several; they are listed with commas, which rules/licence.py reads as all of them.
What a GPL text cannot tell, whether a later version may be chosen, is left open: "GPL-2.0", as
GitHub and The Stack write it. A text that is none of these is NOASSERTION.
"""

import re
from dataclasses import dataclass

from tokenmill.pipeline.articles.creative_commons import creative_commons

NOASSERTION = "NOASSERTION"
TITLE_CHARACTERS = 1000
"""Where a Creative Commons licence is named; others speak of them further down."""


@dataclass(frozen=True, slots=True)
class KnownLicence:
    """A licence and how it is known. Phrases are lower case, words with one space between."""

    spdx: str
    phrase: str
    also: str = ""
    """Another phrase that it has."""
    but_not: str = ""
    """A phrase that another licence with the first one has."""


_MIT = "permission is hereby granted free of charge to any person obtaining a copy of this software"
_ISC = "this software for any purpose with or without fee is hereby granted"
_BSD = (
    "redistribution and use in source and binary forms with or without modification are permitted"
)
_ENDORSE = "to endorse or promote products derived from this software"
_ADVERTISE = "all advertising materials mentioning features or use of this software"
_NOTICE = "shall be included in all copies or substantial portions"
_APPEAR = "copyright notice and this permission notice appear in all copies"

KNOWN_LICENCES = (
    KnownLicence("MIT", _MIT, also=_NOTICE),
    KnownLicence("MIT-0", _MIT, but_not="shall be included"),
    KnownLicence("ISC", _ISC, also=_APPEAR),
    KnownLicence("0BSD", _ISC, but_not=_APPEAR),
    KnownLicence("BSD-4-Clause", _BSD, also=_ADVERTISE),
    KnownLicence("BSD-3-Clause", _BSD, also=_ENDORSE, but_not=_ADVERTISE),
    KnownLicence("BSD-2-Clause", _BSD, but_not=_ENDORSE),
    KnownLicence("Apache-2.0", "apache license version 2 0"),
    KnownLicence("Zlib", "altered source versions must be plainly marked as such and must not be"),
    KnownLicence("Unlicense", "this is free and unencumbered software released into the public"),
    KnownLicence("CC0-1.0", "cc0 1 0 universal"),
    KnownLicence("BSL-1.0", "boost software license version 1 0"),
    KnownLicence("MPL-1.1", "mozilla public license version 1 1 1 definitions"),
    KnownLicence("MPL-2.0", "mozilla public license version 2 0"),
    KnownLicence("MPL-2.0", "mozilla public license v 2 0"),
    KnownLicence("EPL-1.0", "eclipse public license v 1 0"),
    KnownLicence("EPL-2.0", "eclipse public license v 2 0"),
    KnownLicence("GPL-2.0", "gnu general public license version 2 june 1991"),
    KnownLicence("GPL-3.0", "gnu general public license version 3 29 june 2007"),
    KnownLicence("LGPL-2.0", "gnu library general public license version 2 june 1991"),
    KnownLicence("LGPL-2.1", "gnu lesser general public license version 2 1 february 1999"),
    KnownLicence("LGPL-3.0", "gnu lesser general public license version 3 29 june 2007"),
    KnownLicence("AGPL-3.0", "gnu affero general public license version 3 19 november 2007"),
    KnownLicence("PSF-2.0", "python software foundation license version 2"),
    KnownLicence("Artistic-2.0", "the artistic license 2 0"),
    KnownLicence("WTFPL", "do what the fuck you want to public license"),
)  # fmt: skip


def known_licences(text: str) -> str:
    """The identifiers of all licences in a text, with commas; NOASSERTION if there is none."""
    plain = " ".join(re.findall(r"[a-z0-9]+", text.lower()))
    found = [
        licence.spdx
        for licence in KNOWN_LICENCES
        if licence.phrase in plain
        and licence.also in plain
        and not (licence.but_not and licence.but_not in plain)
    ]
    title = text[:TITLE_CHARACTERS]
    return ", ".join(dict.fromkeys(found)) or creative_commons(title) or NOASSERTION
