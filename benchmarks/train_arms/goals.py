"""What is asked of the bundled loop, and what a run found of it.

    one H200, 1,024 tokens      tokens/s of the published presets, 2.5 times the padded loop and
                                1.25 times FlexBERT's way in the same run, hardly a wait for data,
                                nothing compiled after the third step
    CPU                         1.5 times transformers' ModernBERT of the same size

Tokens are those that are not padding; "ours" is the faster arm of those that the loop can be.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tokenmill.shards.table import table
from train_arms.measure import ArmResult
from train_arms.report import best_of, wait_shares

TOKENS_PER_SECOND = {
    "neobert": (250_000, 300_000),
    "modernbert-base": (430_000, 480_000),
    "modernbert-large": (180_000, 195_000),
}
"""Of an H200 at 1,024 tokens: what it must be, and what is aimed at."""
LENGTH = 1024
OVER_PADDED = 2.5
OVER_FLEXBERT = 1.25
OVER_TRANSFORMERS = 1.5
WAIT_P95 = 0.01
"""Of a step."""


class Goal(NamedTuple):
    """One thing that is asked, and what was found."""

    what: str
    asked: str
    found: str
    met: bool | None
    """None where it was not measured."""


def goals(preset: str, results: Sequence[ArmResult], max_length: int) -> list[Goal]:
    """What is asked of this preset on this device.

    Args:
        max_length: of the measured sequences; speeds are asked at 1,024 tokens alone.
    """
    if not any(each.setup.compile for each in results):
        return [_times("transformers, padded", best_of(results, "DF"), best_of(results, ["C"]),
                       OVER_TRANSFORMERS)]  # fmt: skip
    ours = best_of(results, "EF")
    found = []
    if max_length == LENGTH and preset in TOKENS_PER_SECOND:
        found.append(_speed(ours, *TOKENS_PER_SECOND[preset]))
    found.append(_times("the padded loop", ours, best_of(results, ["A"]), OVER_PADDED))
    found.append(_times("FlexBERT's way", ours, best_of(results, ["B"]), OVER_FLEXBERT))
    return [*found, _wait(ours), _graphs(ours)]


def goal_table(found: Sequence[Goal]) -> str:
    """A line a goal."""
    verdicts = {True: "reached", False: "MISSED", None: "not measured"}
    lines = [(each.what, each.asked, each.found, verdicts[each.met]) for each in found]
    return table(("asked of ours", "at least", "found", ""), lines)


def _speed(ours: ArmResult | None, least: int, aim: int) -> Goal:
    speed = ours.tokens_per_second if ours else None
    return Goal(
        what="tokens/s",
        asked=f"{least:,} (aim {aim:,})",
        found="" if speed is None else f"{speed:,.0f}",
        met=None if speed is None else speed >= least,
    )


def _times(what: str, ours: ArmResult | None, other: ArmResult | None, least: float) -> Goal:
    ratio = ours.tokens_per_second / other.tokens_per_second if ours and other else None
    return Goal(
        what=f"times {what}",
        asked=f"{least:.2f} x",
        found="" if ratio is None else f"{ratio:.2f} x",
        met=None if ratio is None else ratio >= least,
    )


def _wait(ours: ArmResult | None) -> Goal:
    share = None
    if ours:
        share = float(np.quantile([s for each in ours.windows for s in wait_shares(each)], 0.95))
    return Goal(
        what="wait for data, p95 of steps",
        asked=f"below {WAIT_P95:.0%}",
        found="" if share is None else f"{share:.2%}",
        met=None if share is None else share < WAIT_P95,
    )


def _graphs(ours: ArmResult | None) -> Goal:
    rebuilt = ours.windows[-1].recompilations if ours else None
    return Goal(
        what="graphs compiled after step 3",
        asked="none",
        found="" if rebuilt is None else str(rebuilt),
        met=None if rebuilt is None else rebuilt == 0,
    )
