"""What of an article becomes text, beside its title, abstract, sections and captions."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal

LIBRARIES = {"jats": "lxml", "latex": "pylatexenc"}
"""What decides on an article's text besides the settings, by the source's format."""

Policy = Literal["keep", "drop"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArticleConfig:
    """What is kept of JATS XML and LaTeX; captions of figures and tables always are."""

    formulas: Policy = "keep"
    """keep: the author's TeX between dollar signs; MathML that comes without TeX as its characters
    on one line. drop: nothing stands in a formula's place."""
    references: Policy = "drop"
    """The list of references; markers in the text stay, but for superscript numbers."""
    tables: Policy = "drop"
    """The cells of tables: a line for each row, with tabs between them."""

    def reading(self, format: str) -> list[Any]:
        """All that decides on the text of an article, the version of the library too."""
        return [asdict(self), f"{LIBRARIES[format]} {version(LIBRARIES[format])}"]
