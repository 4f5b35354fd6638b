"""What a banding finds: the probability that two documents are linked, by their similarity.

Of n entries m are equal, each with the probability of the similarity s; which ones they are is
left to chance. No band is whole in a share of all choices that inclusion and exclusion counts, and
the estimate is what links.py makes of the m. The tests and docs/duplicates.md hold the stages
against this.
"""

from functools import cache
from math import comb

from tokenmill.pipeline.dedup.config import Bands
from tokenmill.pipeline.dedup.links import CHANCE


def probability_linked(similarity: float, bands: Bands, num_hashes: int | None = None) -> float:
    """That two documents of a Jaccard similarity agree in a band and are estimated similar enough.

    Args:
        num_hashes: entries of a signature; by default those of the bands.
    """
    n = num_hashes or bands.num_hashes
    return sum(_binomial(n, equal, similarity) * p for equal, p in enumerate(_linked(n, bands)))


@cache
def _linked(n: int, bands: Bands) -> tuple[float, ...]:
    """(n + 1,) the probability to be linked with so many equal entries."""
    return tuple(
        _some_band(n, equal, bands) * _estimated(n, equal, bands.min_similarity)
        for equal in range(n + 1)
    )


def _some_band(n: int, equal: int, bands: Bands) -> float:
    """That some band is whole, if so many entries are equal."""
    none = 0
    for whole in range(min(bands.num, equal // bands.rows) + 1):
        entries = whole * bands.rows
        choices = comb(bands.num, whole) * comb(n - entries, equal - entries)
        none += -choices if whole % 2 else choices
    return 1 - none / comb(n, equal)


def _estimated(n: int, equal: int, min_similarity: float) -> float:
    """That the estimate is high enough, if so many entries are equal: others look so by chance."""
    by_chance = n - equal
    return sum(
        _binomial(by_chance, more, CHANCE)
        for more in range(by_chance + 1)
        if max(0.0, ((equal + more) / n - CHANCE) / (1 - CHANCE)) >= min_similarity
    )


def _binomial(n: int, k: int, p: float) -> float:
    return comb(n, k) * p**k * (1 - p) ** (n - k)
