"""A verdict is the first check that a document breaks, in the order of the rules."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokenmill.pipeline.rules.checks import Breaks, Check, Verdict, judge


@dataclass(frozen=True, kw_only=True)
class FlourRule:
    """Three checks, one of each side."""

    max_bran: float | None = 0.3
    min_fineness: int | None = 2
    drop_wet: bool = True
    kinds: tuple[str, ...] = ("web",)

    checks: ClassVar[tuple[Check, ...]] = (
        Check("max_bran", "bran", Breaks.ABOVE),
        Check("min_fineness", "fineness", Breaks.BELOW),
        Check("drop_wet", "wet", Breaks.SET),
    )


SIGNALS = {
    "bran": np.array([0.3, 3 / 10, 0.31, 0.5, np.nan, 0.0]),
    "fineness": np.array([2, 2, 2, 1, 1, 2]),
    "wet": np.array([0, 0, 0, 1, 0, 1], np.uint8),
}


def reasons(**rules):
    verdict = Verdict(6)
    judge(rules, SIGNALS, verdict)
    assert np.array_equal(verdict.kept, verdict.codes == 0)
    return [verdict.reasons[code] for code in verdict.codes]


def test_the_first_broken_check_gives_the_reason_and_a_bound_itself_is_kept():
    assert reasons(flour=FlourRule()) == [
        "", "", "flour.max_bran", "flour.max_bran", "flour.min_fineness", "flour.drop_wet",
    ]  # fmt: skip


def test_a_check_whose_setting_is_none_or_false_is_off():
    rule = FlourRule(max_bran=None, drop_wet=False)
    assert reasons(flour=rule)[2:] == ["", "flour.min_fineness", "flour.min_fineness", ""]


def test_rules_decide_in_their_order():
    strict, loose = FlourRule(max_bran=0.1, min_fineness=None, drop_wet=False), FlourRule()
    assert reasons(a=loose, b=strict)[3:] == ["a.max_bran", "a.min_fineness", "a.drop_wet"]
    assert reasons(b=strict, a=loose)[3:] == ["b.max_bran", "a.min_fineness", "a.drop_wet"]
