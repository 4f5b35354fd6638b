"""A keyed permutation of 0 to n - 1, computed where it is needed: no list of all rows is built.

    rows_at([0, 1, 2], 5, key)        the rows that stand first, second and third
    positions_of([4], 5, key)         where row 4 stands: the inverse

A generalised Feistel network. The index is split as x = left * b + right, left < a and right < b,
where a * b is just above n; eight rounds add a keyed hash of one half to the other:

    left  = (left  + hash(right, key_i)     * a / 2**32) mod a
    right = (right + hash(left,  key_i + 1) * b / 2**32) mod b

Each round can be undone, so the whole is a permutation of a * b. An index that lands at n or above
is sent through again until it lands below; fewer than 1 in sqrt(n) does. The hash gives the high
bits of a product: the low bits of a product depend on the low bits of its factors alone, and a
network of those keeps neighbours together. Below 4,096 rows a Feistel network is not uniform enough
over all orders, so there a Fisher-Yates table is drawn from the key.

The price is 50 to 80 ns an index, or 4 ns a row of the table for a call on a small n. Constants,
rounds and the key schedule are frozen as ORDER_VERSION; the golden vectors in the tests hold them.
"""

from math import isqrt

import numpy as np
from numpy.typing import NDArray

from tokenmill.loader.compiled import compiled
from tokenmill.loader.keys import extend_key

ORDER_VERSION = "order-1"
NUM_ROUNDS = 8
_TABLE_BELOW = 4096

_C1 = np.uint64(0xD6E8FEB86659FD93)
_C2 = np.uint64(0xA0761D6478BD642F)
_32 = np.uint64(32)


def rows_at(positions: NDArray[np.int64], num_rows: int, key: int) -> NDArray[np.int64]:
    """(n,) the rows that stand at these positions, all below num_rows, of the key's permutation."""
    if num_rows < _TABLE_BELOW:
        return _shuffled(num_rows, np.uint64(key))[positions]
    return _encrypt(positions, *_sides(num_rows), round_keys(key))


def positions_of(rows: NDArray[np.int64], num_rows: int, key: int) -> NDArray[np.int64]:
    """(n,) the positions at which these rows stand: the inverse of rows_at."""
    if num_rows < _TABLE_BELOW:
        return np.argsort(_shuffled(num_rows, np.uint64(key)))[rows]
    return _decrypt(rows, *_sides(num_rows), round_keys(key))


def round_keys(key: int, num_rounds: int = NUM_ROUNDS) -> NDArray[np.uint64]:
    """(rounds,) one key a round. Fewer rounds than NUM_ROUNDS are for tests that must see them
    fail."""
    return np.array([extend_key(key, round_) for round_ in range(num_rounds)], np.uint64)


def _sides(num_rows: int) -> tuple[np.uint64, np.uint64, np.uint64]:
    """num_rows, the least a with a * a >= num_rows, the least b with a * b >= num_rows."""
    a = isqrt(num_rows - 1) + 1
    return np.uint64(num_rows), np.uint64(a), np.uint64(-(-num_rows // a))


@compiled("uint64(uint64, uint64, uint64)")
def _hash_below(half: np.uint64, round_key: np.uint64, side: np.uint64) -> np.uint64:
    """A number below side, which is below 2**32, from the high bits of two products."""
    mixed = (half ^ round_key) * _C1
    mixed = (mixed ^ (mixed >> _32)) * _C2
    return ((mixed >> _32) * side) >> _32


@compiled("int64[::1](int64[::1], uint64, uint64, uint64, uint64[::1])")
def _encrypt(
    positions: NDArray[np.int64],
    num_rows: np.uint64,
    a: np.uint64,
    b: np.uint64,
    keys: NDArray[np.uint64],
) -> NDArray[np.int64]:
    rows = np.empty(len(positions), np.int64)
    for i in range(len(positions)):
        x = np.uint64(positions[i])
        while True:
            left, right = x // b, x % b
            for k in range(0, len(keys), 2):
                left += _hash_below(right, keys[k], a)
                if left >= a:
                    left -= a
                right += _hash_below(left, keys[k + 1], b)
                if right >= b:
                    right -= b
            x = left * b + right
            if x < num_rows:
                break
        rows[i] = np.int64(x)
    return rows


@compiled("int64[::1](int64[::1], uint64, uint64, uint64, uint64[::1])")
def _decrypt(
    rows: NDArray[np.int64],
    num_rows: np.uint64,
    a: np.uint64,
    b: np.uint64,
    keys: NDArray[np.uint64],
) -> NDArray[np.int64]:
    positions = np.empty(len(rows), np.int64)
    for i in range(len(rows)):
        x = np.uint64(rows[i])
        while True:
            left, right = x // b, x % b
            for k in range(len(keys) - 2, -1, -2):
                back = _hash_below(left, keys[k + 1], b)
                right = right - back if right >= back else right + b - back
                back = _hash_below(right, keys[k], a)
                left = left - back if left >= back else left + a - back
            x = left * b + right
            if x < num_rows:
                break
        positions[i] = np.int64(x)
    return positions


@compiled("int64[::1](int64, uint64)")
def _shuffled(num_rows: int, key: np.uint64) -> NDArray[np.int64]:
    """(num_rows,) a Fisher-Yates shuffle; its draws are uniform to within 2**-20."""
    table = np.arange(num_rows)
    for last in range(num_rows - 1, 0, -1):
        chosen = np.int64(_hash_below(np.uint64(last), key, np.uint64(last + 1)))
        table[last], table[chosen] = table[chosen], table[last]
    return table
