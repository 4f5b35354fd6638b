"""An order for shards that are far away: whole groups of shards at a time, shuffled inside.

    shards 0 1 2 3 4 5 6, cohorts of 3      keyed order of the shards   4 0 6 | 2 5 1 | 3
    positions of the first cohort           a keyed permutation of all rows of shards 4, 0 and 6

A permutation over all rows touches every shard all the time, and a cache would have to hold them
all. Here the rows of `cohort_shards` shards are read to their end before another shard is needed,
so each shard is fetched once a visit and a cache of two cohorts is enough. The price is mixing: a
row meets the rows of its cohort, not all rows. Shards are dealt by hash when they are packed, so a
cohort is a random sample of its bucket.

Both levels are the permutation of loader/order.py. Memory and the work for a new key are O(shards);
the latest keys are remembered, because a bucket is on one visit for many steps.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.loader.keys import extend_key
from tokenmill.loader.order import positions_of, rows_at

_KEYS_REMEMBERED = 4


class CohortOrder:
    """Keyed permutations of the rows of one bucket, cohort by cohort."""

    def __init__(self, shard_rows: NDArray[np.int64], cohort_shards: int) -> None:
        """
        Args:
            shard_rows: (shards,) rows of each shard, in the order in which rows are numbered.
            cohort_shards: shards that are read together; the last cohort may have fewer.
        """
        if cohort_shards < 1:
            raise RecipeError(f"loader.cohort_shards: need at least 1, got {cohort_shards}")
        self.cohort_shards = cohort_shards
        self._shard_rows = np.asarray(shard_rows, np.int64)
        self._shard_ends = np.cumsum(self._shard_rows)
        self._visit = functools.lru_cache(_KEYS_REMEMBERED)(self._new_visit)

    def rows_at(self, positions: NDArray[np.int64], key: int) -> NDArray[np.int64]:
        """(n,) the rows that stand at these positions of the key's permutation."""
        visit = self._visit(key)
        cohorts = np.searchsorted(visit.cohort_ends, positions, side="right")
        dealt = np.empty(len(positions), np.int64)
        for cohort in np.unique(cohorts).tolist():
            here = cohorts == cohort
            start, num_rows, inner = visit.cohort(cohort)
            dealt[here] = start + rows_at(positions[here] - start, num_rows, inner)
        places = np.searchsorted(visit.ends, dealt, side="right")
        return dealt + visit.shifts[places]

    def positions_of(self, rows: NDArray[np.int64], key: int) -> NDArray[np.int64]:
        """(n,) the positions at which these rows stand: the inverse of rows_at."""
        visit = self._visit(key)
        places = visit.places[np.searchsorted(self._shard_ends, rows, side="right")]
        dealt = rows - visit.shifts[places]
        positions = np.empty(len(rows), np.int64)
        for cohort in np.unique(places // self.cohort_shards).tolist():
            here = places // self.cohort_shards == cohort
            start, num_rows, inner = visit.cohort(cohort)
            positions[here] = start + positions_of(dealt[here] - start, num_rows, inner)
        return positions

    def shards_at(self, first: int, last: int, key: int) -> NDArray[np.int64]:
        """The shards of the cohorts that positions first to last - 1 are in, in keyed order."""
        visit = self._visit(key)
        cohorts = np.searchsorted(visit.cohort_ends, [first, last - 1], side="right")
        begin, end = cohorts[0] * self.cohort_shards, (cohorts[1] + 1) * self.cohort_shards
        return visit.shards[begin:end] if first < last else visit.shards[:0]

    def _new_visit(self, key: int) -> "_Visit":
        num_shards = len(self._shard_rows)
        shards = rows_at(np.arange(num_shards), num_shards, extend_key(key, "shards"))
        return _Visit(shards, self._shard_rows, self.cohort_shards, extend_key(key, "cohorts"))


class _Visit:
    """The shards in one key's order; rows in that order are called dealt."""

    def __init__(
        self,
        shards: NDArray[np.int64],
        shard_rows: NDArray[np.int64],
        cohort_shards: int,
        key: int,
    ) -> None:
        rows = shard_rows[shards]
        self.shards = shards
        self.ends = np.cumsum(rows)
        """(shards,) dealt rows up to and with each place."""
        self.shifts = (np.cumsum(shard_rows) - shard_rows)[shards] - (self.ends - rows)
        """(shards,) what a dealt row at each place is from its number."""
        last = np.arange(len(shards) + cohort_shards - 1)[cohort_shards - 1 :: cohort_shards]
        self.cohort_ends = self.ends[np.minimum(last, len(shards) - 1)]
        self._key = key

    @functools.cached_property
    def places(self) -> NDArray[np.int64]:
        """(shards,) the place of each shard in that order."""
        return np.argsort(self.shards)

    def cohort(self, number: int) -> tuple[int, int, int]:
        """The first position of a cohort, its rows, and its key."""
        start = int(self.cohort_ends[number - 1]) if number else 0
        return start, int(self.cohort_ends[number]) - start, extend_key(self._key, number)
