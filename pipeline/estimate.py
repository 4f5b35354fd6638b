"""What a sample says of the whole: totals with 90 % intervals. Pure arrays, no files.

Two things are random. Inside the drawn units documents were left out: how long they are is known,
so those that were milled stand for the others of about their length (a ratio estimator in each
class of a factor of two). And units were left out: those drawn stand for all by their bytes as
stored (a ratio estimator over clusters).

    total = bytes / drawn bytes  x  sum over classes of  seen / milled  x  what was measured

The variances of both are added: between clusters as in Cochran, Sampling Techniques (3rd edition,
9A.1 and 6.4); inside by prediction (Royall 1970), which takes the lengths of the very documents
that were left out, so that one book among pages counts for what it is. A total cannot be negative
and a few long documents may hold much of it, so the interval is that of a gamma distribution
with this mean and variance, which for counts is the usual one of rare events. A total to which no
document of the sample adds is between 0 and what three times one's weight adds.

Not seen: what is rarer than the sample can show, how the corpus differs from its drawn units other
than by chance, and anything that grows faster than the corpus, such as duplicates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Z = 1.645
"""Half of the 90 % of a normal distribution on each side."""
RARE = 3.0
"""Documents of a kind that 95 % of samples would show one of, in units of the weight of one."""
MIN_IN_CLASS = 12
"""Milled documents in a class of length; classes with fewer join the next."""

By = Literal["documents", "bytes"]
"""What a total grows with: the number of documents, or their length."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A total, and between what it lies in nine samples of ten."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """The sample of one source."""

    cluster_bytes: NDArray[np.int64]
    """(clusters,) as stored, of the units (or files) that were drawn."""
    total_bytes: int
    """The same of all."""
    seen: NDArray[np.int64]
    """(documents,) the length in bytes of each document in them."""
    milled: NDArray[np.int64]
    """(milled,) that of each document that was milled."""
    cluster: NDArray[np.int64]
    """(milled,) the number of its unit or file among those drawn."""

    @property
    def factor(self) -> float:
        """How many times the drawn clusters the source is."""
        return self.total_bytes / max(int(self.cluster_bytes.sum()), 1)


@dataclass(frozen=True, slots=True)
class Total:
    """A total over a source, its variance, and the most that one document stands for."""

    value: float
    variance: float
    weight: float


def total(drawn: Drawn, values: NDArray[np.float64], by: By) -> Total:
    """The sum of a value over all documents of a source.

    Args:
        values: (milled,) what each milled document adds.
    """
    if not len(drawn.milled):
        return Total(0.0, 0.0, 0.0)
    classes = _length_classes(drawn.milled)
    groups = np.searchsorted(classes, drawn.milled, side="right")
    seen_groups = np.searchsorted(classes, drawn.seen, side="right")
    size, all_sizes = (
        np.maximum(lengths, 1) ** float(by == "bytes") for lengths in (drawn.milled, drawn.seen)
    )
    num = len(classes) + 1

    def sums(of: NDArray[np.int64], what: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(of, what, num).astype(np.float64)

    n, all_of_class = np.bincount(groups, minlength=num), np.bincount(seen_groups, minlength=num)
    known = np.maximum(sums(groups, size), 1e-9)
    left_out = np.maximum(sums(seen_groups, all_sizes) - known, 0)
    rate = sums(groups, values) / known
    # (milled,) what each adds, and what its share of those left out does
    scaled = values * (1 + left_out / known)[groups]
    # How far a document's own rate is from that of its class; long ones that are left out weigh as
    # much as they are long, whether the sample has such or not.
    spread = sums(groups, (values / size - rate[groups]) ** 2) / np.maximum(n - 1, 1)
    squares = sums(groups, size**2)
    squares_left_out = np.maximum(sums(seen_groups, all_sizes**2) - squares, 0)
    inside = float((spread * (squares_left_out + (left_out / known) ** 2 * squares)).sum())
    weight = float((all_of_class / np.maximum(n, 1)).max())
    return _over_clusters(drawn, scaled, inside, weight)


def add(totals: Sequence[Total]) -> Total:
    """The same total over several sources, drawn apart."""
    return Total(
        sum(part.value for part in totals),
        sum(part.variance for part in totals),
        max((part.weight for part in totals), default=0.0),
    )


def interval(total: Total, *, of_one: float = 1.0) -> Estimate:
    """A total with its interval.

    Args:
        of_one: what one more document may add, for a total to which none of the sample does.
    """
    value, variance = total.value, total.variance
    if value <= 0:
        return Estimate(0.0, 0.0, RARE * max(total.weight - 1, 0) * of_one)
    if variance <= 0:
        return Estimate(value, value, value)
    # Wilson and Hilferty's cube of a normal for the quantiles of a gamma distribution; the total
    # counts as that of `shape` documents, each of which adds `scale`.
    shape, scale = value**2 / variance, variance / value
    low = shape * (1 - 1 / (9 * shape) - Z / (3 * shape**0.5)) ** 3
    more = shape + 1
    high = more * (1 - 1 / (9 * more) + Z / (3 * more**0.5)) ** 3
    return Estimate(value, max(low * scale, 0.0), high * scale)


def _over_clusters(
    drawn: Drawn, scaled: NDArray[np.float64], inside: float, weight: float
) -> Total:
    """The total over all units or files from that over those drawn."""
    m, factor, sizes = len(drawn.cluster_bytes), drawn.factor, drawn.cluster_bytes
    sums = np.bincount(drawn.cluster, scaled, m)
    between = 0.0
    if factor > 1 and m > 1:
        rest = ((sums - sums.sum() / sizes.sum() * sizes) ** 2).sum() / (m - 1)
        # Student's quantile in place of the normal one: few clusters tell little of their variance.
        student = 1 + (Z**2 + 1) / (4 * (m - 1))
        between = m * factor * (factor - 1) * rest * student**2
    return Total(float(sums.sum()) * factor, between + inside * factor, weight * factor)


def _length_classes(milled: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rising lengths at which classes of a factor of two or more begin, each with enough milled."""
    edges: list[int] = []
    ordered = np.sort(milled)
    begun = 0
    for edge in (1 << power for power in range(1, 62)):
        below = int(np.searchsorted(ordered, edge))
        if below - begun >= MIN_IN_CLASS and len(ordered) - below >= MIN_IN_CLASS:
            edges.append(edge)
            begun = below
    return np.array(edges, np.int64)
