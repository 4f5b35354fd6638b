"""Which row of a bucket stands at each position of its order, and on which of its visits.

    order = BucketOrder.new(key, shard_rows)
    rows, visits = order.rows_at(first=0, last=8)
    order.positions_of(rows, visit)                   the inverse

Position j of a bucket of N rows is visit j // N, and there the row at place j % N of that visit's
own permutation; so no row comes again before the bucket was seen whole.

When the corpus has grown, a later phase sees more rows. They join where it begins: what the visit
under way has not shown yet and all new rows are shuffled together and make up its rest.

    rows 0 to 4, at position 7 rows 5 to 7 join:
    visit  0 0 0 0 0   1 1|1 1 1 1 1 1   2 2 2 2 2 2 2 2
    row    3 0 4 1 2   2 0|6 4 1 7 5 3   5 0 ...

So the order before the join stays as it was, and a visit ends when it has shown every row that
there is by then. All of it is arithmetic in a position: a row is looked up in time that depends on
the number of joins alone. With cohorts, each visit is one order of cohorts.py; at a join, blocks as
large as a cohort are shuffled, so that a cache that holds a few cohorts is enough there too.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tokenmill.loader import order
from tokenmill.loader.cohorts import CohortOrder
from tokenmill.loader.keys import extend_key

_SCANNED = 1 << 16


class Permutation(Protocol):
    """Of a fixed number of rows, one for each key."""

    def rows_at(self, positions: NDArray[np.int64], key: int) -> NDArray[np.int64]: ...

    def positions_of(self, rows: NDArray[np.int64], key: int) -> NDArray[np.int64]: ...


@dataclass(frozen=True, slots=True)
class BucketOrder:
    """The order of one bucket for ever, with what joined it so far."""

    key: int
    cohort_shards: int | None
    eras: tuple["_Era", ...]

    @staticmethod
    def new(
        key: int, shard_rows: NDArray[np.int64], cohort_shards: int | None = None
    ) -> "BucketOrder":
        """The order of a bucket from position 0 on.

        Args:
            shard_rows: (shards,) rows of each, in the order in which rows are numbered.
            cohort_shards: shards that are read together; None shuffles all rows.
        """
        rows = int(shard_rows.sum())
        whole = _permutation(shard_rows, cohort_shards)
        first = _Era(position=0, visit=0, rest=0, old_rows=0, rows=rows, whole=whole, joined=whole)
        return BucketOrder(key, cohort_shards, (first,))

    def grown(self, position: int, shard_rows: NDArray[np.int64]) -> "BucketOrder":
        """The same order up to a position, where rows of new shards join.

        Args:
            position: at or behind that of an earlier join.
            shard_rows: (shards,) rows of all shards, the old ones first.
        """
        last = self.eras[-1]
        rows = int(shard_rows.sum())
        if rows == last.rows:
            return self
        visit, rest = last.under_way(position)
        new_rows = shard_rows[np.cumsum(shard_rows) > last.rows]
        era = _Era(
            position=position,
            visit=visit,
            rest=rest,
            old_rows=last.rows,
            rows=rows,
            whole=_permutation(shard_rows, self.cohort_shards),
            joined=_Joined.of(rest, new_rows, self.cohort_shards),
        )
        return replace(self, eras=(*self.eras, era))

    @property
    def num_rows(self) -> int:
        return self.eras[-1].rows

    def rows_at(self, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(positions,) the rows at the positions first to last - 1, and the visit of each."""
        rows, visits = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        while first < last:
            era = bisect_right(self.eras, first, key=lambda era: era.position) - 1
            visit, end = self.eras[era].visit_at(first)
            if era + 1 < len(self.eras):
                end = min(end, self.eras[era + 1].position)
            end = min(end, last)
            rows.append(self._rows(era, visit, np.arange(first, end)))
            visits.append(np.full(end - first, visit))
            first = end
        return np.concatenate(rows), np.concatenate(visits)

    def positions_of(self, rows: NDArray[np.int64], visit: int) -> NDArray[np.int64]:
        """(n,) where these rows stand on a visit, -1 for a row that joins on a later one."""
        era = bisect_right(self.eras, visit, key=lambda era: era.visit) - 1
        known = rows < self.eras[era].rows
        positions = np.full(len(rows), -1)
        positions[known] = self._positions(era, visit, rows[known])
        return positions

    def visit_at(self, position: int) -> int:
        """The visit that a position belongs to."""
        return self._era(position).visit_at(position)[0]

    def epochs_at(self, position: int) -> float:
        """How often the bucket was seen before a position: whole visits, and the seen share of the
        one under way."""
        era = self._era(position)
        visit, end = era.visit_at(position)
        return visit + 1 - (end - position) / era.rows if era.rows else 0.0

    def first_repeat(self, position: int) -> int:
        """The first position, from this one on, at which a row comes that has come before. The
        position is behind the last join."""
        visit, end = self.eras[-1].visit_at(position)
        earlier = [era for era in self.eras if era.visit < visit]
        if not earlier or visit > self.eras[-1].visit:
            return position if earlier else end
        # Some rows of this visit joined it, and were not there on the one before.
        for first in range(position, end, _SCANNED):
            rows, _ = self.rows_at(first, min(end, first + _SCANNED))
            repeats = np.flatnonzero(rows < earlier[-1].rows)
            if len(repeats):
                return first + int(repeats[0])
        return end

    def _era(self, position: int) -> "_Era":
        return self.eras[bisect_right(self.eras, position, key=lambda era: era.position) - 1]

    def _rows(self, era: int, visit: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows at positions of one visit, as if nothing had joined after this era."""
        here = self.eras[era]
        if era == 0 or visit > here.visit:
            key = extend_key(self.key, visit)
            return here.whole.rows_at(positions - here.start_of(visit), key)
        mixed = here.joined.rows_at(positions - here.position, self._join_key(here))
        rows = here.old_rows + mixed - here.rest
        is_old = mixed < here.rest
        rows[is_old] = self._rows(era - 1, visit, here.position + mixed[is_old])
        return rows

    def _positions(self, era: int, visit: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The inverse of _rows, for rows that the era has."""
        here = self.eras[era]
        if era == 0 or visit > here.visit:
            key = extend_key(self.key, visit)
            return here.start_of(visit) + here.whole.positions_of(rows, key)
        mixed = here.rest + rows - here.old_rows
        is_old = rows < here.old_rows
        before = self._positions(era - 1, visit, rows[is_old])
        mixed[is_old] = before - here.position  # below 0: was seen before the others joined
        joins = mixed >= 0
        positions = here.position + mixed
        places = here.joined.positions_of(mixed[joins], self._join_key(here))
        positions[joins] = here.position + places
        return positions

    def _join_key(self, era: "_Era") -> int:
        return extend_key(extend_key(self.key, era.visit), era.old_rows)


@dataclass(frozen=True, slots=True)
class _Era:
    """The order from one join of rows to the next."""

    position: int
    """Where it begins."""
    visit: int
    """The visit under way there."""
    rest: int
    """Old rows which that visit has not shown yet."""
    old_rows: int
    rows: int
    """All of them, old and new."""
    whole: Permutation
    """Of all rows."""
    joined: Permutation
    """Of the rest and the new rows, in this order."""

    def start_of(self, visit: int) -> int:
        """The position at which a visit after the first one begins; of the first era, any visit."""
        first_whole = self.position + self.rest + self.rows - self.old_rows
        return first_whole + (visit - self.visit - 1) * self.rows

    def visit_at(self, position: int) -> tuple[int, int]:
        """The visit that a position of this era belongs to, and where the next one begins."""
        first_whole = self.start_of(self.visit + 1)
        if position < first_whole or not self.rows:
            return self.visit, first_whole
        visit = self.visit + 1 + (position - first_whole) // self.rows
        return visit, self.start_of(visit + 1)

    def under_way(self, position: int) -> tuple[int, int]:
        """The visit of which rows were read last before a position, and how many of its rows are
        still to come."""
        visit, end = self.visit_at(max(position - 1, self.position))
        return visit, end - position


@dataclass(frozen=True, slots=True)
class _Shuffle:
    """The permutation of all rows."""

    num_rows: int

    def rows_at(self, positions: NDArray[np.int64], key: int) -> NDArray[np.int64]:
        return order.rows_at(positions, self.num_rows, key)

    def positions_of(self, rows: NDArray[np.int64], key: int) -> NDArray[np.int64]:
        return order.positions_of(rows, self.num_rows, key)


@dataclass(frozen=True, slots=True)
class _Joined:
    """The rest of a visit in its own order and new rows in cohorts, shuffled block by block."""

    rest: int
    new: CohortOrder
    blocks: CohortOrder

    @staticmethod
    def of(rest: int, new_rows: NDArray[np.int64], cohort_shards: int | None) -> Permutation:
        if cohort_shards is None:
            return _Shuffle(rest + int(new_rows.sum()))
        block = cohort_shards * int(new_rows.max())
        blocks = [*_cut(rest, block), *_cut(int(new_rows.sum()), block)]
        new = CohortOrder(new_rows, cohort_shards)
        return _Joined(rest, new, CohortOrder(np.array(blocks), cohort_shards=1))

    def rows_at(self, positions: NDArray[np.int64], key: int) -> NDArray[np.int64]:
        mixed = self.blocks.rows_at(positions, key)
        is_new = mixed >= self.rest
        mixed[is_new] = self.rest + self.new.rows_at(mixed[is_new] - self.rest, key)
        return mixed

    def positions_of(self, rows: NDArray[np.int64], key: int) -> NDArray[np.int64]:
        mixed = rows.copy()
        is_new = rows >= self.rest
        mixed[is_new] = self.rest + self.new.positions_of(rows[is_new] - self.rest, key)
        return self.blocks.positions_of(mixed, key)


def _permutation(shard_rows: NDArray[np.int64], cohort_shards: int | None) -> Permutation:
    if cohort_shards is None:
        return _Shuffle(int(shard_rows.sum()))
    return CohortOrder(shard_rows, cohort_shards)


def _cut(total: int, size: int) -> Iterator[int]:
    """Pieces of one size and a last one that may be smaller."""
    for start in range(0, total, size):
        yield min(size, total - start)
