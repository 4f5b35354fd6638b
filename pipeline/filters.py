"""The rules of a recipe, in the order in which they decide."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from tokenmill.pipeline.rules.c4 import C4Rule
from tokenmill.pipeline.rules.checks import Rule, active_checks, reason_name
from tokenmill.pipeline.rules.classifier import ClassifierRule
from tokenmill.pipeline.rules.code import CodeRule
from tokenmill.pipeline.rules.datatrove import DatatroveRule
from tokenmill.pipeline.rules.fineweb import FineWebRule
from tokenmill.pipeline.rules.gopher import GopherRule
from tokenmill.pipeline.rules.language import LanguageRule
from tokenmill.pipeline.rules.length import LengthRule
from tokenmill.pipeline.rules.refinedweb import RefinedWebRule
from tokenmill.pipeline.rules.science import ScienceRule
from tokenmill.pipeline.rules.symbols import SymbolRule
from tokenmill.pipeline.rules.url import UrlRule
from tokenmill.pipeline.sources import Kind

EDITING = ("c4", "refinedweb")
"""Rules that also cut lines: without them the text is another."""
NO_TOKENS = "no_tokens"
"""The reason of a document of which nothing is left."""
EXACT_DUPLICATE = "exact_duplicate"
"""The reason of a document whose text is another's."""
URL_DUPLICATE = "url_duplicate"
"""The reason of a document whose address is an earlier one's."""
NEAR_DUPLICATE = "near_duplicate"
"""The reason of a document that is nearly another's text."""
REPEATED_TEXT = "repeated_text"
"""The reason of a document of which spans that stand elsewhere leave too little."""
EVALUATION_TEXT = "evaluation_text"
"""The reason of a document that holds an item of an evaluation set."""
RETRACTED = "retracted"
"""The reason of a document that was taken back after a build, or whose duplicate was."""
DUPLICATES = (EXACT_DUPLICATE, URL_DUPLICATE, NEAR_DUPLICATE)
STEP_REASONS = (
    *DUPLICATES,
    REPEATED_TEXT,
    EVALUATION_TEXT,
    RETRACTED,
)
"""What comes after the mill, in the order in which it decides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """The rules of a recipe; one left out is neither measured nor applied.

    The fields stand in the order in which the rules decide.
    """

    url: UrlRule | None = None
    language: LanguageRule | None = None
    classifiers: dict[str, ClassifierRule] = field(default_factory=dict)
    """By a name of the recipe's choice."""
    length: LengthRule | None = None
    symbols: SymbolRule | None = None
    gopher: GopherRule | None = None
    c4: C4Rule | None = None
    refinedweb: RefinedWebRule | None = None
    fineweb: FineWebRule | None = None
    code: CodeRule | None = None
    science: ScienceRule | None = None
    datatrove: tuple[DatatroveRule, ...] = ()
    """Filters of datatrove that run as they are, on what the rules above keep."""

    def __post_init__(self) -> None:
        named = {name: replace(rule, name=name) for name, rule in self.classifiers.items()}
        object.__setattr__(self, "classifiers", named)


def rules_of(filters: FilterConfig, kind: Kind | None = None) -> dict[str, Rule]:
    """The rules that are on, by name, in the order in which they decide.

    Args:
        kind: only those that judge this kind of text.
    """
    rules: dict[str, Rule | None] = {}
    for setting in fields(filters):
        value = getattr(filters, setting.name)
        if setting.name == "classifiers":
            rules |= {f"classifiers.{name}": rule for name, rule in value.items()}
        elif setting.name != "datatrove":
            rules[setting.name] = value
    return {
        name: rule
        for name, rule in rules.items()
        if rule is not None and (kind is None or kind in rule.kinds)
    }


def waterfall_order(filters: FilterConfig, found: Sequence[str]) -> list[str]:
    """All reasons that a run can give, in the order in which they decide; those found besides come
    before those that follow the mill."""
    known = [reason_name(name, check) for name, check, _ in active_checks(rules_of(filters))]
    last = [NO_TOKENS, *STEP_REASONS]
    return [*known, *sorted(set(found) - {*known, *last}), *last]
