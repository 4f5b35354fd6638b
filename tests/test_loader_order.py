"""The permutation "order-1": bijective, invertible, frozen, and as even as a shuffle."""

from collections import Counter
from collections.abc import Callable
from math import isqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tokenmill.loader import order
from tokenmill.loader.keys import derive_key, extend_key, extend_keys
from tokenmill.loader.order import positions_of, round_keys, rows_at

KEYS = st.integers(0, 2**64 - 1)


@settings(max_examples=60, deadline=None)
@given(num_rows=st.integers(1, 20_000), key=KEYS)
def test_every_row_stands_at_exactly_one_position(num_rows, key):
    rows = rows_at(np.arange(num_rows), num_rows, key)
    assert np.array_equal(np.sort(rows), np.arange(num_rows))
    assert np.array_equal(positions_of(rows, num_rows, key), np.arange(num_rows))


@given(num_rows=st.integers(4096, 2**40), key=KEYS, part=st.floats(0, 1, exclude_max=True))
@settings(deadline=None)
def test_the_inverse_finds_a_position_in_any_number_of_rows(num_rows, key, part):
    position = np.array([int(num_rows * part)])
    row = rows_at(position, num_rows, key)
    assert 0 <= row[0] < num_rows
    assert positions_of(row, num_rows, key) == position


@pytest.mark.parametrize("num_rows", [1, 2, 3, 4095, 4096, 4097, 4160, 10_007, 2**20, 2**33 + 5])
def test_the_compiled_order_equals_the_formula_in_plain_integers(num_rows):
    positions = np.unique(np.linspace(0, num_rows - 1, 50).astype(np.int64))
    expected = [plain_row_at(int(position), num_rows, key=7) for position in positions]
    assert rows_at(positions, num_rows, 7).tolist() == expected


def plain_row_at(position: int, num_rows: int, key: int) -> int:
    """The module's header, word for word."""

    def hash_below(half: int, round_key: int, side: int) -> int:
        mixed = (half ^ round_key) * 0xD6E8FEB86659FD93 % 2**64
        mixed = (mixed ^ mixed >> 32) * 0xA0761D6478BD642F % 2**64
        return (mixed >> 32) * side >> 32

    if num_rows < 4096:
        table = list(range(num_rows))
        for last in range(num_rows - 1, 0, -1):
            chosen = hash_below(last, key, last + 1)
            table[last], table[chosen] = table[chosen], table[last]
        return table[position]
    a = isqrt(num_rows - 1) + 1
    b = (num_rows + a - 1) // a
    keys = [extend_key(key, i) for i in range(8)]
    while True:
        left, right = divmod(position, b)
        for i in range(0, 8, 2):
            left = (left + hash_below(right, keys[i], a)) % a
            right = (right + hash_below(left, keys[i + 1], b)) % b
        position = left * b + right
        if position < num_rows:
            return position


@pytest.mark.parametrize(
    ("num_rows", "key", "rows"),
    [
        (10, 1, [5, 4, 3, 8, 6, 1, 0, 7]),
        (4095, 1, [1296, 2083, 1310, 3697, 4093, 3264, 106, 2086]),
        (4096, 1, [4045, 3943, 1351, 3490, 2698, 1747, 1475, 142]),
        (1_000_003, 5, [274419, 713267, 891255, 885648, 268988, 148444, 625548, 245002]),
        (
            2**33 + 5,
            2**64 - 1,
            [
                6501369963,
                391286485,
                1090110699,
                5220608001,
                2842555765,
                3722522856,
                52019050,
                3808738025,
            ],
        ),
    ],
)
def test_order_1_is_frozen(num_rows, key, rows):
    assert rows_at(np.arange(8), num_rows, key).tolist() == rows


def test_keys_are_frozen():
    assert derive_key() == 0
    assert derive_key(0) == 16294208416658607535
    assert derive_key(17, "order", "short", "0-1023", 3) == 1470527662667735913


@given(key=KEYS, parts=st.lists(st.integers(0, 2**63 - 1), min_size=1))
def test_keys_are_extended_alike_one_by_one_and_as_arrays(key, parts):
    keys = extend_keys(np.full(len(parts), key, np.uint64), np.array(parts))
    assert keys.tolist() == [extend_key(key, part) for part in parts]


def test_keys_of_other_parts_or_another_order_of_parts_differ():
    parts = [(1, 2), (2, 1), (1,), (1, 2, 0), ("1", 2), (1, "2"), ("12",)]
    assert len({derive_key(*each) for each in parts}) == len(parts)


def test_a_small_number_of_rows_takes_every_order_equally_often():
    keys = [derive_key(seed) for seed in range(24_000)]
    seen = Counter(tuple(rows_at(np.arange(4), 4, key).tolist()) for key in keys)
    assert len(seen) == 24
    chi_squared = sum((count - 1000) ** 2 / 1000 for count in seen.values())
    assert chi_squared < 49.7  # 23 degrees of freedom, one in a thousand


# Shuffle quality. In a good shuffle the rows of a window of positions are a draw without
# replacement, so the number of them that belong to a group has a known (hypergeometric) variance.
# A weak network keeps neighbours together or spreads them too evenly: the ratio leaves 1.

NUM_ROWS = 1 << 20
WINDOW = 1024
GROUPS: dict[str, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {
    "neighbours": lambda rows: rows * 16 // NUM_ROWS,
    "small neighbourhoods": lambda rows: rows // 4096 % 16,
    "rows of the same last bits": lambda rows: rows % 16,
    "rows of the same remainder": lambda rows: rows % 17,
}


def variance_ratios(rows: NDArray[np.int64]) -> list[float]:
    return [variance_ratio(group_of(rows)) for group_of in GROUPS.values()]


def variance_ratio(groups: NDArray[np.int64]) -> float:
    num_groups = int(groups.max()) + 1
    cells = np.arange(NUM_ROWS) // WINDOW * num_groups + groups
    counts = np.bincount(cells, minlength=NUM_ROWS // WINDOW * num_groups).reshape(-1, num_groups)
    share = np.bincount(groups) / NUM_ROWS
    expected = WINDOW * share * (1 - share) * (NUM_ROWS - WINDOW) / (NUM_ROWS - 1)
    return float(((counts - WINDOW * share) ** 2 / expected).mean())


def is_even(ratios: list[float]) -> bool:
    return all(0.95 < ratio < 1.05 for ratio in ratios)


@pytest.mark.parametrize("key", [0, 1, 2**63])
def test_windows_of_the_order_are_as_mixed_as_a_shuffle(key):
    assert is_even(variance_ratios(rows_at(np.arange(NUM_ROWS), NUM_ROWS, key)))


def test_the_gate_lets_a_true_shuffle_pass():
    assert is_even(variance_ratios(np.random.default_rng(0).permutation(NUM_ROWS)))


def test_the_gate_stops_the_order_with_two_rounds():
    sides = order._sides(NUM_ROWS)
    weak = order._encrypt(np.arange(NUM_ROWS), *sides, round_keys(1, num_rounds=2))
    assert not is_even(variance_ratios(weak))


def test_the_gate_stops_a_network_that_takes_the_low_bits_of_a_product():
    left, right = np.divmod(np.arange(NUM_ROWS, dtype=np.uint64), np.uint64(1024))
    for key in round_keys(1).tolist():
        product = right * np.uint64(key | 1) + np.uint64(key >> 32)
        left, right = right, left ^ (product % np.uint64(1024))
    weak = (left * np.uint64(1024) + right).astype(np.int64)
    assert len(np.unique(weak)) == NUM_ROWS
    assert not is_even(variance_ratios(weak))
