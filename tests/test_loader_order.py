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
from tokenmill.loader.bucket_order import BucketOrder
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

WINDOW = 1024
GROUPS: dict[str, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {
    "neighbours": lambda rows: rows * 16 // len(rows),
    "small neighbourhoods": lambda rows: rows // 4096 % 16,
    "rows of the same last bits": lambda rows: rows % 16,
    "rows of the same remainder": lambda rows: rows % 17,
}


def variance_ratios(rows: NDArray[np.int64]) -> list[float]:
    return [variance_ratio(group_of(rows)) for group_of in GROUPS.values()]


def variance_ratio(groups: NDArray[np.int64]) -> float:
    """Over all whole windows and all groups: the measured variance over the hypergeometric."""
    num_rows, num_groups = len(groups), int(groups.max()) + 1
    share = np.bincount(groups) / num_rows
    whole = groups[: num_rows // WINDOW * WINDOW]
    cells = np.arange(len(whole)) // WINDOW * num_groups + whole
    counts = np.bincount(cells, minlength=len(whole) // WINDOW * num_groups)
    expected = WINDOW * share * (1 - share) * (num_rows - WINDOW) / (num_rows - 1)
    return float(((counts.reshape(-1, num_groups) - WINDOW * share) ** 2 / expected).mean())


def is_even(ratios: list[float]) -> bool:
    return all(0.95 < ratio < 1.05 for ratio in ratios)


@pytest.mark.parametrize("key", [0, 2**63])
@pytest.mark.parametrize("num_rows", [1 << 20, 1_000_003])
def test_windows_of_the_order_are_as_mixed_as_a_shuffle(num_rows, key):
    assert is_even(variance_ratios(rows_at(np.arange(num_rows), num_rows, key)))


def test_the_gate_lets_a_true_shuffle_pass():
    assert is_even(variance_ratios(np.random.default_rng(0).permutation(1 << 20)))


def test_the_gate_stops_the_order_with_two_rounds():
    sides = order._sides(1 << 20)
    weak = order._encrypt(np.arange(1 << 20), *sides, round_keys(1, num_rounds=2))
    assert not is_even(variance_ratios(weak))


@pytest.mark.parametrize("num_rows", [1 << 20, 1_000_003])
def test_the_gate_stops_levanters_network_by_far(num_rows):
    rows = levanters_rows(num_rows)
    assert np.array_equal(np.sort(rows), np.arange(num_rows))
    assert max(variance_ratios(rows)) > 100


def levanters_rows(num_rows: int) -> NDArray[np.int64]:
    """The permutation of levanter's data/_prp.py: five rounds on two halves of the bits of the next
    power of two, (right * odd + key) mod 2**half in each, walking on until below num_rows."""
    half = (num_rows - 1).bit_length() // 2
    rng = np.random.default_rng(0)
    odd, keys = rng.integers(1 << 30, size=5) | 1, rng.integers(1 << 30, size=5)
    x, walking = np.arange(num_rows), np.ones(num_rows, np.bool_)
    while walking.any():
        left, right = x[walking] >> half, x[walking] & (1 << half) - 1
        for multiplier, key in zip(odd, keys, strict=True):
            left, right = right, left ^ (right * multiplier + key) % (1 << half)
        x[walking] = left << half | right
        walking = x >= num_rows
    return x


# The order of a bucket, visit after visit, when rows join it.


def orders(cohort_shards):
    """A bucket's order, its rows from each join on as (position, number), and a number of
    positions."""

    @st.composite
    def draw_one(draw):
        few = st.lists(st.integers(1, 6), max_size=4)
        shards, position = draw(few.filter(any)), 0
        made = BucketOrder.new(draw(KEYS), np.array(shards), draw(cohort_shards))
        joins = [(0, sum(shards))]
        for _ in range(draw(st.integers(0, 3))):
            position += draw(st.integers(0, 30))
            shards = [*shards, *draw(few)]
            made = made.grown(position, np.array(shards))
            joins.append((position, sum(shards)))
        return made, joins, position + 2 * sum(shards)

    return draw_one()


FULL_SHUFFLE = orders(st.none())
ANY_ORDER = orders(st.sampled_from([None, 1, 2]))


def slow_order(key: int, joins: list[tuple[int, int]], num_positions: int):
    """Rows and visits in lists: the next rows of the visit under way stand in `waiting`."""
    found: list[tuple[int, int]] = []
    waiting: list[int] = []
    visit, num_rows = -1, 0
    for position in range(num_positions):
        for _, joined in (join for join in joins if join[0] == position):
            if joined > num_rows:
                mixed = waiting + list(range(num_rows, joined))
                visit_key = extend_key(key, max(visit, 0))
                join_key = extend_key(visit_key, num_rows) if num_rows else visit_key
                places = rows_at(np.arange(len(mixed)), len(mixed), join_key)
                waiting = [mixed[place] for place in places]
                visit, num_rows = max(visit, 0), joined
        if not waiting:
            visit += 1
            waiting = rows_at(np.arange(num_rows), num_rows, extend_key(key, visit)).tolist()
        found.append((waiting.pop(0), visit))
    return found


@given(made=FULL_SHUFFLE)
def test_rows_that_join_are_shuffled_with_what_the_visit_has_not_shown(made):
    bucket, joins, num_positions = made
    rows, visits = bucket.rows_at(0, num_positions)
    expected = slow_order(bucket.key, joins, num_positions)
    assert list(zip(rows.tolist(), visits.tolist(), strict=True)) == expected


@given(made=ANY_ORDER, data=st.data())
def test_a_bucket_s_order_is_read_in_any_pieces_and_has_an_inverse(made, data):
    bucket, _, num_positions = made
    rows, visits = bucket.rows_at(0, num_positions)
    cut = data.draw(st.integers(0, num_positions))
    parts = bucket.rows_at(0, cut)[0], bucket.rows_at(cut, num_positions)[0]
    assert np.array_equal(np.concatenate(parts), rows)
    for visit in range(visits[-1] + 1):
        positions = bucket.positions_of(np.arange(bucket.num_rows), visit)
        expected = np.full(bucket.num_rows, -1)
        expected[rows[visits == visit]] = np.flatnonzero(visits == visit)
        inside = positions < num_positions
        assert np.array_equal(positions[inside], expected[inside])
        assert (expected[~inside] == -1).all()


@given(made=ANY_ORDER)
def test_a_visit_ends_when_it_has_shown_each_row_there_is_then_once(made):
    bucket, joins, num_positions = made
    visit_of = np.full(bucket.num_rows, -1)
    rows, visits = bucket.rows_at(0, num_positions)
    for position, (row, visit) in enumerate(zip(rows, visits, strict=True)):
        if position and visit > visits[position - 1]:
            num_rows = [number for start, number in joins if start < position][-1]
            assert visit == visits[position - 1] + 1
            assert (visit_of[:num_rows] == visit - 1).all()
        assert visit_of[row] < visit
        visit_of[row] = visit


@given(made=ANY_ORDER)
def test_epochs_and_the_first_repeat_are_those_that_are_counted(made):
    bucket, joins, num_positions = made
    last = joins[-1][0]
    rows = bucket.rows_at(0, num_positions)[0].tolist()
    seen: set[int] = set(rows[:last])
    repeat = next(i for i in range(last, num_positions) if rows[i] in seen or seen.add(rows[i]))
    assert bucket.first_repeat(last) == repeat
    if len(joins) == 1:
        assert bucket.epochs_at(num_positions) == pytest.approx(num_positions / bucket.num_rows)


def test_rows_that_join_in_cohorts_need_few_shards_at_a_time():
    shards = np.full(100, 10)
    bucket = BucketOrder.new(7, shards[:60], cohort_shards=4).grown(310, shards)
    rows, _ = bucket.rows_at(0, 310 + 290 + 400 + 1000)
    at_once = [len(set(rows[first : first + 20] // 10)) for first in range(0, len(rows), 20)]
    assert max(at_once) <= 16  # two blocks, each of at most two cohorts of four
    assert set(rows[:1000].tolist()) == set(range(1000))
