"""Which extractor turns a page into text, and with which of its options."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from tokenmill.errors import RecipeError

LIBRARIES = {
    "resiliparse": ("fastwarc", "resiliparse"),
    "trafilatura": ("fastwarc", "resiliparse", "trafilatura", "lxml"),
}
"""What decides on a page's text besides the settings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionConfig:
    """How pages of HTML become text. docs/extraction.md has both extractors side by side."""

    extractor: Literal["resiliparse", "trafilatura"] = "resiliparse"
    """resiliparse is some ten times as fast; trafilatura leaves out more of what is no text."""
    main_content: bool = True
    """Leave out navigation, headers, footers. false is all text of a page, as in WET files;
    trafilatura knows main content only."""
    favour: Literal["precision", "balance", "recall"] = "balance"
    """What trafilatura leans to in doubt; FineWeb took precision."""
    comments: bool = False
    """Keep what readers wrote below an article."""
    links: bool = False
    """Keep the addresses of links in the text."""
    seconds: float = 1.0
    """Processor time for a page, as in datatrove's Trafilatura; a page that needs more is tried
    once with ten times as much, then set aside."""

    def __post_init__(self) -> None:
        if self.extractor == "trafilatura" and not self.main_content:
            raise RecipeError("main_content: trafilatura has no other; take resiliparse")
        if self.extractor == "resiliparse" and self.favour != "balance":
            raise RecipeError("favour: resiliparse leans to nothing; take trafilatura")
        if not 0.001 <= self.seconds <= 3600:
            raise RecipeError(f"seconds must lie between 0.001 and 3600, got {self.seconds}")

    def reading(self) -> list[Any]:
        """All that decides on the text of a page, the versions of the libraries too."""
        from importlib.metadata import version  # slow to import, and no child needs it

        return [asdict(self), [f"{name} {version(name)}" for name in LIBRARIES[self.extractor]]]
