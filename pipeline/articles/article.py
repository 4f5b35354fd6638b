"""An article on its way to becoming a document."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Article:
    """What a file says, and what it says of itself; None where it says nothing."""

    text: str
    """Blocks (title, headings, paragraphs, list items, captions) with an empty line between."""
    id: str | None = None
    url: str | None = None
    licence: str | None = None
    """An SPDX identifier where one fits, else the statement's address, else NOASSERTION."""
    language: str | None = None


class BadArticle(ValueError):
    """The bytes are not what the format asks for; the message says what they are."""
