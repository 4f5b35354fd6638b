"""What a run costs, by its receipts: seconds, memory, disk; and what that makes for a larger one.

Seconds are those of one worker, added up, so that they do not depend on how many there were nor on
how often the build was stopped. They do depend on the machine and on what else it did.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenmill.pipeline.estimate import Estimate
from tokenmill.pipeline.receipts import Receipt

TABLE_BYTES = 512 << 20
"""What a worker's tables may still grow by: two million words take a few hundred MB."""
FEW_UNITS = 4
"""Of fewer units the rates may be alike by chance; then double is the slowest."""


def mill_seconds(receipts: Sequence[Receipt], factor: float, text_bytes: float) -> Estimate:
    """Seconds to mill a source without the start of workers.

    The range is that of the units' rates, the fastest taken twice: workers that have met the words
    of a sample only are slower than later ones.

    Args:
        receipts: of the units that were milled.
        factor: how many times as much there is to read.
        text_bytes: how much text there is to mill, of all units.
    """
    seconds = 0.0
    rates = []
    batch_seconds = batch_bytes = 0.0
    for receipt in receipts:
        of = receipt.details
        spent = of["batch_seconds"]
        seconds += receipt.seconds - of["start_seconds"] - spent  # reading, opening, closing
        num_bytes = receipt.counts.get("bytes", 0) - of["start_bytes"]
        if num_bytes > 0:
            rates.append(spent / num_bytes)
            batch_seconds, batch_bytes = batch_seconds + spent, batch_bytes + num_bytes
        elif of["start_bytes"]:
            rates.append(of["start_seconds"] / of["start_bytes"])
    if not rates:
        return Estimate(seconds * factor, seconds * factor, seconds * factor)
    rate = batch_seconds / batch_bytes if batch_bytes else min(rates)
    low, high = (min(rates), max(rates)) if len(rates) >= FEW_UNITS else (rate, 2 * rate)
    low /= 2
    fixed = seconds * factor
    return Estimate(fixed + rate * text_bytes, fixed + low * text_bytes, fixed + high * text_bytes)


def start_seconds(receipts: Iterable[Receipt]) -> Estimate | None:
    """What a worker's first batch took, over the workers; None if none began."""
    starts = [receipt.details["start_seconds"] for receipt in receipts]
    starts = [seconds for seconds in starts if seconds > 0]
    if not starts:
        return None
    return Estimate(sum(starts) / len(starts), min(starts) / 2, 2 * max(starts))


def peak_memory(receipts: Iterable[Receipt]) -> Estimate:
    """Bytes that a worker takes at most; a larger run fills its tables of words further."""
    peak = max((receipt.details["peak_bytes"] for receipt in receipts), default=0)
    return Estimate(peak, 0.8 * peak, peak + TABLE_BYTES)


def other_seconds(run: Path) -> float:
    """Seconds of all stages but the mill, by the receipts that stand in a run."""
    return sum(
        float(json.loads(path.read_bytes())["seconds"])
        for path in (run / "receipts").rglob("*.json")
        if path.relative_to(run / "receipts").parts[0] != "mill"
    )


def disk_bytes(run: Path, folder: str) -> int:
    """Bytes of the files of a folder of a run."""
    return sum(path.stat().st_size for path in (run / folder).rglob("*") if path.is_file())
