"""Masks: exact numbers, the same anywhere, against a slow reference; special tokens left alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_runs import TOKENIZER

from tokenmill.errors import RecipeError
from tokenmill.loader import MaskingConfig
from tokenmill.loader.keys import GOLDEN, splitmix64
from tokenmill.loader.masking import NO_TARGET, mask_rows, prepare_masking

ROW_TOKENS = 50


def random_batch(lengths_of_rows, seed=0):
    """input_ids, lengths and row_ends of rows of such sequences, ordinary ids inside them."""
    generator = np.random.default_rng(seed)
    input_ids = np.full((len(lengths_of_rows), ROW_TOKENS), TOKENIZER.pad_id, np.int32)
    for row, lengths in zip(input_ids, lengths_of_rows, strict=True):
        start = 0
        for length in lengths:
            text = generator.integers(4, TOKENIZER.vocab_size, length - 2)
            row[start : start + length] = [TOKENIZER.prefix[0], *text, TOKENIZER.suffix[0]]
            start += length
    lengths = np.array([length for row in lengths_of_rows for length in row], np.int32)
    return input_ids.ravel(), lengths, np.cumsum([len(row) for row in lengths_of_rows])


def mask(config, input_ids, lengths, row_ends, keys):
    masking = prepare_masking(config, TOKENIZER)
    ends = np.concatenate([[0], np.cumsum(lengths)])[row_ends]
    maskable = np.diff(ends, prepend=0) - 2 * np.diff(row_ends, prepend=0)
    num_targets = masking.num_targets(maskable)
    slots = masking.num_slots(ROW_TOKENS) * (len(input_ids) // ROW_TOKENS)
    positions, targets = np.zeros(slots, np.int64), np.full(slots, NO_TARGET)
    masked = input_ids.copy()
    bad_row = mask_rows(
        masking,
        masked,
        np.array(keys, np.uint64),
        lengths,
        row_ends,
        num_targets,
        row_tokens=ROW_TOKENS,
        positions=positions,
        targets=targets,
    )
    return masked, positions, targets, bad_row


def plain_mask(config, input_ids, lengths, row_ends, keys):
    """The module's header in plain Python: sort all hashes, take the smallest."""
    ordinary = [i for i in range(TOKENIZER.vocab_size) if i not in TOKENIZER.special_ids]
    num_slots = -(-round(config.rate * 100) * ROW_TOKENS // 100)
    masked, positions, targets = input_ids.tolist(), [], []
    for row, key in enumerate(keys):
        hashes, start = [], 0
        for length in lengths[row_ends[row - 1] if row else 0 : row_ends[row]].tolist():
            for place in range(start + 1, start + length - 1):
                token_hash = splitmix64((key + place * GOLDEN) % 2**64)
                hashes.append((token_hash >> 32, place, token_hash))
            start += length
        taken = sorted(hashes)[: int(round(config.rate * 100) * len(hashes) / 100 + 0.5)]
        for _, place, token_hash in sorted(taken, key=lambda item: item[1]):
            position = row * ROW_TOKENS + place
            positions.append(position)
            targets.append(masked[position])
            action = token_hash % 2**32 / 2**32
            if action < config.mask_share:
                masked[position] = TOKENIZER.mask_id
            elif action < config.mask_share + config.random_share:
                draw = splitmix64((token_hash + place * GOLDEN) % 2**64) >> 32
                masked[position] = ordinary[draw * len(ordinary) >> 32]
        positions += [0] * ((row + 1) * num_slots - len(positions))
        targets += [NO_TARGET] * ((row + 1) * num_slots - len(targets))
    return masked, positions, targets


ROWS = st.lists(
    st.lists(st.integers(2, 25), max_size=8).filter(lambda lengths: sum(lengths) <= ROW_TOKENS),
    min_size=1,
    max_size=4,
)
CONFIGS = st.builds(
    MaskingConfig,
    rate=st.sampled_from([0.0, 0.15, 0.2, 0.5, 1.0]),
    mask_share=st.sampled_from([0.0, 0.5, 0.8]),
    random_share=st.sampled_from([0.0, 0.1, 0.2]),
) | st.just(MaskingConfig())


@settings(deadline=None)
@given(rows=ROWS, config=CONFIGS, data=st.data())
def test_masks_equal_the_slow_reference(rows, config, data):
    size = len(rows)
    keys = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=size, max_size=size))
    batch = random_batch(rows)
    masked, positions, targets, bad_row = mask(config, *batch, keys)
    assert bad_row is None
    expected = plain_mask(config, *batch, keys)
    assert (masked.tolist(), positions.tolist(), targets.tolist()) == expected


@settings(deadline=None)
@given(rows=ROWS, config=CONFIGS, key=st.integers(0, 2**64 - 1))
def test_special_tokens_are_never_masked_and_never_drawn(rows, config, key):
    input_ids, lengths, row_ends = random_batch(rows)
    masked, positions, targets, _ = mask(config, input_ids, lengths, row_ends, [key] * len(rows))
    used = targets != NO_TARGET
    assert not np.isin(targets[used], [0, 1, 2, 3]).any()
    assert np.array_equal(input_ids[positions[used]], targets[used])
    untouched = np.ones(len(masked), bool)
    untouched[positions[used]] = False
    assert np.array_equal(masked[untouched], input_ids[untouched])
    drawn = masked[(masked != input_ids) & (masked != TOKENIZER.mask_id)]
    assert not np.isin(drawn, TOKENIZER.special_ids).any()


def test_a_row_alone_has_the_masks_it_has_among_others():
    rows = [[20, 9], [3, 25, 17], [2]]
    input_ids, lengths, row_ends = random_batch(rows)
    together, *_ = mask(MaskingConfig(), input_ids, lengths, row_ends, [1, 2, 3])
    alone, *_ = mask(MaskingConfig(), input_ids[50:100], lengths[2:5], np.array([3]), [2])
    assert np.array_equal(together[50:100], alone)


def test_tokens_masked_at_a_lower_rate_are_masked_at_a_higher_one():
    batch = random_batch([[25, 25]] * 4)
    taken = []
    for rate in (0.1, 0.15, 0.3, 0.9):
        _, positions, targets, _ = mask(MaskingConfig(rate=rate), *batch, [1, 2, 3, 4])
        taken.append(set(positions[targets != NO_TARGET].tolist()))
    assert [len(each) for each in taken] == [4 * 5, 4 * 7, 4 * 14, 4 * 41]  # of 46; 4.6, 6.9, ...
    assert taken[0] < taken[1] < taken[2] < taken[3]


def test_every_place_is_masked_equally_often_and_actions_have_their_shares():
    config = MaskingConfig(rate=0.2, mask_share=0.8, random_share=0.1)
    input_ids, lengths, row_ends = random_batch([[50]] * 5000)
    keys = [splitmix64(row) for row in range(5000)]
    masked, positions, targets, _ = mask(config, input_ids, lengths, row_ends, keys)
    used = targets != NO_TARGET
    per_place = np.bincount(positions[used] % ROW_TOKENS, minlength=50)
    expected = 5000 * 10 / 48  # round(0.2 * 48) of 48 places
    assert per_place[[0, 49]].tolist() == [0, 0]
    assert ((per_place[1:49] - expected) ** 2 / expected).sum() < 85  # 47 degrees of freedom
    now = masked[positions[used]]
    assert np.mean(now == TOKENIZER.mask_id) == pytest.approx(0.8, abs=0.01)
    assert np.mean(now == targets[used]) == pytest.approx(0.1, abs=0.01)
    drawn = now[(now != TOKENIZER.mask_id) & (now != targets[used])]
    assert len(set(drawn.tolist())) == 95  # every ordinary id


def test_a_special_id_inside_a_sequence_is_reported_with_its_row():
    input_ids, lengths, row_ends = random_batch([[25, 25]] * 2)
    input_ids[50 + 7] = TOKENIZER.suffix[0]
    *_, bad_row = mask(MaskingConfig(rate=1.0), input_ids, lengths, row_ends, [1, 2])
    assert bad_row == 1
    input_ids[50 + 7] = TOKENIZER.vocab_size
    *_, bad_row = mask(MaskingConfig(rate=1.0), input_ids, lengths, row_ends, [1, 2])
    assert bad_row == 1


def test_masks_are_frozen():
    input_ids = np.full(ROW_TOKENS, 50, np.int32)
    lengths, row_ends = np.array([30, 20], np.int32), np.array([2])
    config = MaskingConfig(rate=0.3, mask_share=0.5, random_share=0.4)
    masked, positions, *_ = mask(config, input_ids, lengths, row_ends, [2**63])
    assert positions.tolist() == [2, 3, 4, 5, 14, 15, 17, 18, 24, 28, 36, 41, 44, 45, 0]
    assert masked[positions].tolist() == [31, 70, 3, 33, 3, 3, 3, 3, 3, 3, 35, 3, 3, 91, 50]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 1.2}, "masking.rate: need a share of 0 to 1, got 1.2"),
        ({"random_share": -1.0}, "masking.random_share: need a share of 0 to 1, got -1.0"),
        (
            {"mask_share": 0.9, "random_share": 0.2},
            "masking: mask_share and random_share together must not be above 1, got 0.9 + 0.2",
        ),
    ],
)
def test_impossible_shares_are_refused(settings, message):
    with pytest.raises(RecipeError) as refusal:
        MaskingConfig(**settings)
    assert str(refusal.value) == message
