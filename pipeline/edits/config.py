"""Which edits a recipe makes."""

from dataclasses import dataclass

from tokenmill.pipeline.edits.pii import PiiConfig
from tokenmill.pipeline.edits.repair import RepairConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class EditConfig:
    """Changes to texts besides the lines that rules cut; one left out is not made."""

    repair: RepairConfig | None = None
    """Mend encodings before anything else looks at a text."""
    pii: PiiConfig | None = None
    """Replace addresses, after the rules have judged."""
