"""The rules of a recipe, in the order in which they decide."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from tokenmill.pipeline.rules.checks import Rule, active_checks, reason_name
from tokenmill.pipeline.rules.length import LengthRule
from tokenmill.pipeline.rules.symbols import SymbolRule
from tokenmill.pipeline.sources import Kind

EDITING = ("c4", "refinedweb")
"""Rules that also cut lines: without them the text is another."""
NO_TOKENS = "no_tokens"
"""The reason of a document of which nothing is left."""
EXACT_DUPLICATE = "exact_duplicate"
"""The reason of a document whose text is another's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """The rules of a recipe; one left out is neither measured nor applied.

    The fields stand in the order in which the rules decide.
    """

    length: LengthRule | None = None
    symbols: SymbolRule | None = None


def rules_of(filters: FilterConfig, kind: Kind | None = None) -> dict[str, Rule]:
    """The rules that are on, by name, in the order in which they decide.

    Args:
        kind: only those that judge this kind of text.
    """
    rules = {field.name: getattr(filters, field.name) for field in fields(filters)}
    return {
        name: rule
        for name, rule in rules.items()
        if rule is not None and (kind is None or kind in rule.kinds)
    }


def waterfall_order(filters: FilterConfig, found: Sequence[str]) -> list[str]:
    """All reasons that a run can give, in the order in which they decide; those found besides come
    before the last two."""
    known = [reason_name(name, check) for name, check, _ in active_checks(rules_of(filters))]
    last = [NO_TOKENS, EXACT_DUPLICATE]
    return [*known, *sorted(set(found) - {*known, *last}), *last]
