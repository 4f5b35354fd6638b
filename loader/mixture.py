"""Which bucket each row of a phase comes from, exactly and without a draw.

A subset's share is dealt to its buckets by their rows, which gives each bucket an integer weight.
The first n rows of a phase are then split over the buckets by a balanced binary tree:

    a node whose left buckets weigh A of its T sends ceil(n * A / T) of its n rows left
    counts(1..8, [3, 1, 4]): (1, 0, 0) (1, 1, 0) (2, 1, 0) ... (3, 1, 4)

From n to n + 1 exactly one count grows, by one, and none ever falls; at any n a count is off from
its share of n by no more than the depth of the tree. So step and bucket are tied by arithmetic:
there is nothing to keep in a state, and the mixture holds at every step, not on average.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import Literal

from tokenmill.errors import RecipeError
from tokenmill.loader.shares import exact_fraction


@dataclass(frozen=True, slots=True)
class BucketSize:
    """How much a pack holds of one bucket."""

    name: str
    rows: int
    tokens: int
    """Real tokens, without padding."""


def bucket_weights(
    mixture: Mapping[str, float | str],
    subsets: Mapping[str, Sequence[str]],
    buckets: Sequence[BucketSize],
    *,
    weights_by: Literal["rows", "tokens"],
    where: str,
) -> tuple[int, ...]:
    """The weight in rows of each bucket, in lowest terms.

    Args:
        mixture: the share of each subset.
        subsets: the names of the buckets that each subset is made of.
        weights_by: "tokens" means that the shares are of real tokens; the weights returned count
            rows all the same.
        where: the phase, for the error.

    Raises:
        RecipeError: a subset has no rows.
    """
    # A share s of a subset of size S gives a bucket of r rows the weight s * r / S, where S counts
    # rows or tokens.
    weights = [Fraction(0)] * len(buckets)
    for subset, share in mixture.items():
        members = [bucket for bucket in buckets if bucket.name in subsets[subset]]
        size = sum(getattr(bucket, weights_by) for bucket in members)
        if size == 0:
            raise RecipeError(_no_rows(where, subset, share, buckets))
        for index, bucket in enumerate(buckets):
            if bucket.name in subsets[subset]:
                weights[index] += exact_fraction(share) * bucket.rows / size
    whole = [int(weight * lcm(*(each.denominator for each in weights))) for weight in weights]
    return tuple(weight // gcd(*whole) for weight in whole)


def _no_rows(where: str, subset: str, share: float | str, buckets: Sequence[BucketSize]) -> str:
    have = ", ".join(f"{bucket.name}: {bucket.rows:,}" for bucket in buckets)
    return (
        f"{where}: the mixture takes {share} from the subset {subset}, which has no rows "
        f"(rows by bucket: {have}). Take {subset} out of the mixture, or build from more "
        "or longer documents."
    )


def counts(num_rows: int, weights: Sequence[int]) -> tuple[int, ...]:
    """How many of the first num_rows rows come from each bucket."""
    if len(weights) == 1:
        return (num_rows,)
    middle = len(weights) // 2
    total = sum(weights)
    left = -(-num_rows * sum(weights[:middle]) // total) if total else 0
    return counts(left, weights[:middle]) + counts(num_rows - left, weights[middle:])


def rows_until(count: int, bucket: int, weights: Sequence[int]) -> int | None:
    """The least n for which counts(n, weights)[bucket] reaches count; None if it never does."""
    if count <= 0:
        return 0
    if weights[bucket] == 0:
        return None
    low, high = 0, 1  # counts at low are below count, at high they are not
    while counts(high, weights)[bucket] < count:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if counts(middle, weights)[bucket] < count else (low, middle)
    return high
