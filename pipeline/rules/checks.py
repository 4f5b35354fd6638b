"""A check is a signal, a setting, and which side of it a document must not be on.

    Check("max_dup_line_fraction", "gopher_dup_line_fraction", Breaks.ABOVE)

Signals are measured once for every document and stored with the decision; a verdict is a
comparison, so other settings can be tried on what is stored, and the reason for a decision is the
name of the setting that made it: `gopher.max_dup_line_fraction`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.sources import Kind

Signals: TypeAlias = dict[str, NDArray[Any]]
"""By the name of its column in the decisions: one number a document; NaN where it has none."""


class Breaks(StrEnum):
    """On which side of its setting a signal breaks a rule."""

    ABOVE = "above"
    BELOW = "below"
    SET = "set"
    """The setting is a switch; while it is on, a signal of 1 breaks the rule."""


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison of a rule."""

    setting: str
    """The field of the rule that holds the threshold; None there leaves the check out."""
    signal: str
    breaks: Breaks

    def broken(self, signals: Mapping[str, NDArray[Any]], setting: Any) -> NDArray[np.bool_]:
        """(documents,) which ones break it; NaN never does."""
        compare = {Breaks.ABOVE: np.greater, Breaks.BELOW: np.less, Breaks.SET: np.equal}
        broken: NDArray[np.bool_] = compare[self.breaks](signals[self.signal], setting)
        return broken


class Rule(Protocol):
    """The settings of a family of checks, a frozen dataclass."""

    @property
    def checks(self) -> tuple[Check, ...]:
        """In the order in which they decide."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of text it judges."""


class Verdict:
    """Why each document of a batch leaves; the first reason counts."""

    def __init__(self, num_documents: int) -> None:
        self.codes = np.zeros(num_documents, np.int32)
        """(documents,) the place of each one's reason in `reasons`; 0: kept."""
        self.reasons = [""]

    @property
    def kept(self) -> NDArray[np.bool_]:
        return np.equal(self.codes, 0)

    def drop(self, documents: NDArray[np.bool_], reason: str) -> None:
        """Let those of these documents go that were kept so far."""
        chosen = documents & self.kept
        if chosen.any():
            self.codes[chosen] = len(self.reasons)
            self.reasons.append(reason)


def judge(rules: Mapping[str, Rule], signals: Mapping[str, NDArray[Any]], verdict: Verdict) -> None:
    """Drop what breaks a check, with the first such check as its reason."""
    for name, check, setting in active_checks(rules):
        verdict.drop(check.broken(signals, setting), reason_name(name, check))


def active_checks(rules: Mapping[str, Rule]) -> Iterator[tuple[str, Check, Any]]:
    """(rule, check, setting) of every check that is on, in the order in which they decide."""
    for name, rule in rules.items():
        for check in rule.checks:
            setting = getattr(rule, check.setting)
            if setting is not None and setting is not False:
                yield name, check, setting


def reason_name(rule: str, check: Check) -> str:
    """What stands in the decisions and in the waterfall."""
    return f"{rule}.{check.setting}"
