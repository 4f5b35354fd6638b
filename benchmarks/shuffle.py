"""How well orders mix, ours and peers', and what an index of them costs.

    pip install -r benchmarks/peers/requirements.txt && pip install --no-deps -e .
    python benchmarks/shuffle.py                   2**20 rows in 256 shards
    python benchmarks/shuffle.py --json out.json   and the figures as JSON

In a true shuffle the rows of a window of 1,024 positions are a draw without replacement: how many
of them belong to a group has the variance of the hypergeometric distribution. Printed is the
variance over that, the mean over all windows, groups and keys: 1 is a shuffle, more means windows
that are each of few groups, less that they are too even. Groups are 16 neighbourhoods of rows,
small ones (4,096 rows, every sixteenth in one group), and the remainders mod 16 and mod 17.
Nanoseconds are of a whole order in one call where there is such a call; one core. An order that is
not installed is named and left out.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from tokenmill.loader.cohorts import CohortOrder
from tokenmill.loader.order import rows_at
from tokenmill.shards.table import table

WINDOW = 1024
SHARD_ROWS = 4096
COHORT_SHARDS = 32
Rows = NDArray[np.int64]
Order = Callable[[int, int], Rows]
"""(rows,) what stands at each position, from the number of rows and a key."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    name: str
    ratios: dict[str, float]
    """Of each kind of group."""
    ns_per_index: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1 << 20, help="a multiple of 4096")
    parser.add_argument("--keys", type=int, default=8, help="orders that are averaged")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    orders = {
        "numpy, permutation": lambda rows, key: np.random.default_rng(key).permutation(rows),
        "ours": lambda rows, key: rows_at(np.arange(rows), rows, key),
        f"ours, cohorts of {COHORT_SHARDS} shards": cohort_order,
        "grain, index_shuffle": grain_order,
        "streaming, py1e": streaming_order,
        "Levanter, Feistel": levanter_order,
        "chunks, then inside each": chunk_order,
    }
    results = []
    for name, order in orders.items():
        try:
            results.append(measure(name, order, options.rows, options.keys))
        except ImportError as error:
            print(f"SKIPPED {name}: {error}", file=sys.stderr)
    print(
        table(
            ("order", *groups(options.rows), "ns an index"),
            [
                (name, *(f"{ratio:.3f}" for ratio in ratios), f"{nanoseconds:,.0f}")
                for name, ratios, nanoseconds in (
                    (each.name, each.ratios.values(), each.ns_per_index) for each in results
                )
            ],
        )
    )
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n")


def groups(num_rows: int) -> dict[str, Callable[[Rows], Rows]]:
    """Name to the function from rows to their groups."""
    return {
        "neighbourhoods": lambda rows: rows * 16 // num_rows,
        "small ones": lambda rows: rows // 4096 % 16,
        "mod 16": lambda rows: rows % 16,
        "mod 17": lambda rows: rows % 17,
    }


def measure(name: str, order: Order, num_rows: int, num_keys: int) -> Quality:
    ratios: dict[str, list[float]] = {kind: [] for kind in groups(num_rows)}
    seconds = []
    order(num_rows, 0)  # what is compiled or mapped at the first call
    for key in range(1, num_keys + 1):
        start = perf_counter()
        rows = order(num_rows, key)
        seconds.append(perf_counter() - start)
        assert np.array_equal(np.sort(rows), np.arange(num_rows)), f"{name} is no permutation"
        for kind, group_of in groups(num_rows).items():
            ratios[kind].append(variance_ratio(group_of(rows)))
    return Quality(
        name=name,
        ratios={kind: float(np.mean(values)) for kind, values in ratios.items()},
        ns_per_index=float(np.median(seconds)) / num_rows * 1e9,
    )


def variance_ratio(group: Rows) -> float:
    """The variance of windows' counts over the hypergeometric one, from each position's group."""
    num_rows, num_groups = len(group), int(group.max()) + 1
    num_windows = num_rows // WINDOW
    cells = np.arange(num_windows * WINDOW) // WINDOW * num_groups + group[: num_windows * WINDOW]
    counts = np.bincount(cells, minlength=num_windows * num_groups).reshape(num_windows, num_groups)
    share = np.bincount(group) / num_rows
    expected = WINDOW * share * (1 - share) * (num_rows - WINDOW) / (num_rows - 1)
    return float(((counts - WINDOW * share) ** 2 / expected).mean())


def cohort_order(num_rows: int, key: int) -> Rows:
    shards = np.full(num_rows // SHARD_ROWS, SHARD_ROWS)
    return CohortOrder(shards, COHORT_SHARDS).rows_at(np.arange(num_rows), key)


def grain_order(num_rows: int, key: int) -> Rows:
    from grain.experimental import index_shuffle

    shuffled = (index_shuffle(row, num_rows - 1, key, 4) for row in range(num_rows))
    return np.fromiter(shuffled, np.int64, num_rows)


def streaming_order(num_rows: int, key: int) -> Rows:
    from peers.no_torchvision import allow_no_torchvision

    allow_no_torchvision()
    from streaming.base.shuffle.py1e import get_shuffle_py1e

    return get_shuffle_py1e(np.full(num_rows // SHARD_ROWS, SHARD_ROWS), 1, key, 0)


def levanter_order(num_rows: int, key: int) -> Rows:
    """Its network written anew: five rounds of right * odd + key, modulo a power of two, over the
    next power of four; what lands at num_rows or above goes through again."""
    half = np.uint64(((num_rows - 1).bit_length() + 1) // 2)
    low = np.uint64((1 << int(half)) - 1)
    keys = np.random.default_rng(key).integers(0, 1 << 30, (5, 2)).astype(np.uint64)
    rows = np.arange(num_rows, dtype=np.uint64)
    outside = np.ones(num_rows, np.bool_)
    while outside.any():
        left, right = rows[outside] >> half, rows[outside] & low
        for factor, summand in keys:
            left, right = right, left ^ ((right * (factor | np.uint64(1)) + summand) & low)
        rows[outside] = left << half | right
        outside = rows >= num_rows
    return rows.astype(np.int64)


def chunk_order(num_rows: int, key: int) -> Rows:
    """litData's full shuffle in words: chunks in a random order, each drained before the next, its
    rows in a random order."""
    generator = np.random.default_rng(key)
    chunks = generator.permutation(num_rows // SHARD_ROWS)[:, None]
    inside = generator.permuted(np.tile(np.arange(SHARD_ROWS), (len(chunks), 1)), axis=1)
    return (chunks * SHARD_ROWS + inside).ravel()


if __name__ == "__main__":
    main()
