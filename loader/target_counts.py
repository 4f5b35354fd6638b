"""How many tokens of a row are hidden: known from its key and lengths, before a token is read.

    fixed        round(rate * maskable), a half rounded up
    bernoulli    a number drawn from the binomial distribution of (maskable, rate)

Taking the tokens with the smallest hashes, as many as a binomial draw says, is a throw for each
token: the number has that distribution, and given the number all choices are equally likely. So
every rank knows the masked tokens of the whole step without reading it, and the tokens taken at a
lower rate, or in a row of which a document was hidden, are among those taken without.

A draw is 32 bits of the row's key, turned into the quantile that they stand for. What would come
less than once in 2**32 rows is never drawn, so the quantile of the largest draw, 6.2 standard
deviations above the mean, bounds the slots, and no token goes without. The quantile is made of sums
and products alone, which are the same to the bit on any machine. It costs 2 to 5 us a row.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tokenmill.loader.compiled import compiled
from tokenmill.loader.keys import extend_keys

_COUNT = -1
"""The part that makes a row's key the key of its draw; visits, its last part, are at least 0."""
_LARGEST_DRAW = np.uint64((1 << 32) - 1)
_NEGLIGIBLE = 2.0**-80
"""Of the largest probability; far below what 32 bits see."""


@dataclass(frozen=True, slots=True)
class TargetCounts:
    """The numbers of a rate, with a draw for each row or without."""

    rate: Fraction
    is_drawn: bool

    def num_slots(self, row_tokens: int) -> int:
        """Slots for masked tokens that each row has; no row ever needs more."""
        if not self.is_drawn:
            return -(-self.rate.numerator * row_tokens // self.rate.denominator)
        largest = np.array([_LARGEST_DRAW]), np.array([row_tokens])
        return int(binomial_quantiles(*largest, *self.rate.as_integer_ratio())[0])

    def num_targets(
        self, num_maskable: NDArray[np.int64], row_keys: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """(rows,) how many tokens are taken of rows with so many maskable ones."""
        numerator, denominator = self.rate.as_integer_ratio()
        if not self.is_drawn:
            return (2 * numerator * num_maskable + denominator) // (2 * denominator)
        draws = extend_keys(row_keys, np.full(len(row_keys), _COUNT)) >> np.uint64(32)
        return binomial_quantiles(draws, num_maskable, numerator, denominator)


@compiled("int64[::1](uint64[::1], int64[::1], int64, int64)")
def binomial_quantiles(
    draws: NDArray[np.uint64], trials: NDArray[np.int64], numerator: int, denominator: int
) -> NDArray[np.int64]:
    """(n,) the least k whose distribution function is above (draw + 1/2) / 2**32.

    Probabilities follow from each other, w[k + 1] = w[k] * (n - k) / (k + 1) * p / (1 - p), from
    the largest one outward; what they add up to takes the place of the factor they lack.
    """
    quantiles = np.zeros(len(draws), np.int64)
    if numerator == 0:
        return quantiles
    if numerator == denominator:
        quantiles[:] = trials
        return quantiles
    odds = numerator / (denominator - numerator)
    for i in range(len(draws)):
        n = trials[i]
        mode = (n + 1) * numerator // denominator
        lowest, weight = mode, 1.0
        while lowest > 0 and weight > _NEGLIGIBLE:
            weight *= lowest / ((n - lowest + 1) * odds)
            lowest -= 1
        first, total = weight, weight
        k = lowest
        while k < n and (k < mode or weight > _NEGLIGIBLE):
            weight *= (n - k) / (k + 1) * odds
            k += 1
            total += weight
        wanted = (np.float64(draws[i]) + 0.5) / 4294967296.0 * total
        k, weight, below = lowest, first, first
        while k < n and below <= wanted:
            weight *= (n - k) / (k + 1) * odds
            k += 1
            below += weight
        quantiles[i] = k
    return quantiles
