"""Which bucket each row of a phase comes from, exactly and without a draw.

A subset's share is dealt to its buckets by their rows, which gives each bucket an integer weight.
The first n rows are then split over the buckets by a binary tree, the Huffman tree of the weights:

    a node of weight T sends ceil(n * A / T) of its n rows to its heavier child, of weight A
    counts of the first 1, 2, ... 8 rows by [3, 1, 4]:
    (1, 0, 0) (1, 0, 1) (2, 0, 1) (2, 0, 2) (3, 0, 2) (3, 0, 3) (3, 1, 3) (3, 1, 4)

From n to n + 1 exactly one count grows, by one, and none ever falls. At any n a count is off from
its share of n by less than 4 rows, however many buckets there are: each node on the way down adds
less than 1, and of what was off above it keeps its share; in a Huffman tree a grandchild weighs at
most half, so the sum is below 1 + 1 + 1/2 + 1/2 + 1/4 + 1/4 + ... So step and bucket are tied by
arithmetic: there is nothing to keep in a state, and the mixture holds at every step, not on
average.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
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
    number = {bucket.name: index for index, bucket in enumerate(buckets)}
    parts = []
    for subset, share in mixture.items():
        members = [number[name] for name in subsets[subset]]
        size = sum(getattr(buckets[index], weights_by) for index in members)
        if size == 0:
            raise RecipeError(_no_rows(where, subset, share, buckets))
        parts.append((members, exact_fraction(share) / size))
    denominator = lcm(*(part.denominator for _, part in parts))
    weights = [0] * len(buckets)
    for members, part in parts:
        numerator = part.numerator * (denominator // part.denominator)
        for index in members:
            weights[index] += numerator * buckets[index].rows
    common = gcd(*weights)
    return tuple(weight // common for weight in weights)


def _no_rows(where: str, subset: str, share: float | str, buckets: Sequence[BucketSize]) -> str:
    have = ", ".join(f"{bucket.name}: {bucket.rows:,}" for bucket in buckets)
    return (
        f"{where}: the mixture takes {share} from the subset {subset}, which has no rows "
        f"(rows by bucket: {have}). Take {subset} out of the mixture, or build from more "
        "or longer documents."
    )


class RowMixture:
    """Deals rows to buckets by integer weights."""

    def __init__(self, weights: Sequence[int]) -> None:
        """
        Args:
            weights: (buckets,) at least 0, one of them above; a bucket of weight 0 gets nothing.
        """
        self.weights = tuple(weights)
        nodes = [(weight, bucket) for bucket, weight in enumerate(weights) if weight]
        node_weights = list(weights)
        self._forks: list[_Fork] = []
        """Of the tree, those nearest to its leaves first."""
        heapify(nodes)
        while len(nodes) > 1:
            light, right = heappop(nodes)
            heavy, left = heappop(nodes)
            self._forks.append(_Fork(len(node_weights), left, right, heavy, light))
            heappush(nodes, (heavy + light, len(node_weights)))
            node_weights.append(heavy + light)
        self._root = nodes[0][1]

    def counts(self, num_rows: int) -> tuple[int, ...]:
        """(buckets,) how many of the first num_rows rows come from each."""
        given = [0] * (len(self.weights) + len(self._forks))
        given[self._root] = num_rows
        for fork in reversed(self._forks):
            rows = given[fork.node]
            given[fork.left] = -(-rows * fork.heavy // (fork.heavy + fork.light))
            given[fork.right] = rows - given[fork.left]
        return tuple(given[: len(self.weights)])

    def rows_until(self, count: int, bucket: int) -> int | None:
        """The least number of rows of which the bucket gives so many; None if it never does."""
        if count <= 0:
            return 0
        if self.weights[bucket] == 0:
            return None
        node, rows = bucket, count
        for fork in self._forks:  # from the leaf up: the least n whose split gives that much
            total = fork.heavy + fork.light
            if node == fork.left:
                node, rows = fork.node, (rows - 1) * total // fork.heavy + 1
            elif node == fork.right:
                node, rows = fork.node, -(-rows * total // fork.light)
        return rows


@dataclass(frozen=True, slots=True)
class _Fork:
    """A node of the tree; nodes and leaves are numbered, the buckets first."""

    node: int
    left: int
    right: int
    heavy: int
    """The left child's weight, at least the right one's."""
    light: int
