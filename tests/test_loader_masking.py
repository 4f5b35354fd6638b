"""Masks of tokens, words and spans: exact numbers, against slow references and published ones."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_runs import TOKENIZER

from tokenmill.errors import RecipeError
from tokenmill.loader.keys import GOLDEN, extend_key, splitmix64
from tokenmill.loader.masking import NO_TARGET, find_damaged, mask_rows, prepare_masking
from tokenmill.loader.masking_config import MaskingConfig
from tokenmill.loader.target_counts import TargetCounts, binomial_quantiles
from tokenmill.shards.run import BEGINS_WORD, ENDS_WORD

ROW_TOKENS = 48
# What SpanBERT's algorithm gives with draws of numpy in 6,000 sequences of 510 tokens in words of
# 1, 1, 1 or 2: tokens in a span, touching ones together; how often the first places are masked.
PUBLISHED_SPAN = 4.99
PUBLISHED_FIRST_PLACES = [0.044, 0.068, 0.088, 0.107, 0.12]
# By scipy.stats.binom.ppf of (draw + 0.5) / 2**32, at 16,384 and 0.15.
QUANTILES = {0: 2173, 2**16: 2269, 2**31: 2457, 2**32 - 1: 2752}
FIXED_IDS = set(TOKENIZER.special_ids) - {TOKENIZER.unk_id}
# Of ids 5 to 99 half begin a word, every tenth ends one; [UNK] is a word of its own.
WORD_STARTS = np.array([i % 2 * BEGINS_WORD + (i % 10 == 0) * ENDS_WORD for i in range(100)])
WORD_STARTS = WORD_STARTS.astype(np.uint8)
WORD_STARTS[TOKENIZER.unk_id] = BEGINS_WORD | ENDS_WORD
BEGINNING = np.flatnonzero(WORD_STARTS[5:] == BEGINS_WORD) + 5
INSIDE = np.flatnonzero(WORD_STARTS[5:] == 0) + 5


def mask(config, input_ids, keys, piece_starts=(), row_tokens=ROW_TOKENS):
    """The masked ids, and the slots."""
    masking = prepare_masking(config, TOKENIZER, WORD_STARTS)
    masked = np.array(input_ids, np.int32)
    maskable = (~np.isin(masked.reshape(-1, row_tokens), list(FIXED_IDS))).sum(1)[: len(keys)]
    assert find_damaged(masking, masked, maskable, row_tokens=row_tokens) is None
    keys = np.array(keys, np.uint64)
    num_targets = masking.counts.num_targets(maskable, keys)
    starts = np.array(piece_starts, np.int64)
    return masked, mask_rows(masking, masked, keys, num_targets, starts, row_tokens=row_tokens)


def sentence_rows(num_rows, word_lengths, row_tokens, seed=0):
    """Rows of [CLS] words [SEP], the words of lengths drawn from these; and keys."""
    generator = np.random.default_rng(seed)
    shape = (num_rows, row_tokens)
    begins = np.zeros(shape, bool)
    for row in begins:
        ends = np.cumsum(generator.choice(word_lengths, row_tokens))
        row[1 + ends[ends < row_tokens - 2]] = True
    begins[:, 1] = True
    rows = np.where(begins, generator.choice(BEGINNING, shape), generator.choice(INSIDE, shape))
    rows[:, 0], rows[:, -1] = TOKENIZER.prefix[0], TOKENIZER.suffix[0]
    return rows.ravel(), [splitmix64(row) for row in range(num_rows)]


def token_hash(key, place):
    return splitmix64((key + place * GOLDEN) % 2**64)


def plain_count(config, maskable, key):
    rate = Fraction(str(config.rate))
    if config.count == "fixed":
        return int(rate * maskable + Fraction(1, 2))
    wanted = Fraction(2 * (extend_key(key, 2**64 - 1) >> 32) + 1, 2**33)
    below = Fraction(0)
    for count in range(maskable + 1):
        below += comb(maskable, count) * rate**count * (1 - rate) ** (maskable - count)
        if below > wanted:
            return count
    return maskable


def plain_words(row, starts):
    """The places of each word, and whether it goes on in the stretch of the word before it."""
    words, before = [], None
    for place, token in enumerate(row):
        if token in FIXED_IDS:
            before = None
            continue
        linked = before is not None and place not in starts
        if linked and not WORD_STARTS[before] & ENDS_WORD and not WORD_STARTS[token] & BEGINS_WORD:
            words[-1][0].append(place)
        else:
            words.append(([place], linked))
        before = token
    return words


def take_tokens(config, row, starts, key, count):
    places = [place for place, token in enumerate(row) if token not in FIXED_IDS]
    places.sort(key=lambda place: (token_hash(key, place) >> 32, place))
    return [[place] for place in sorted(places[:count])]


def take_words(config, row, starts, key, count):
    """As google-research/bert with do_whole_word_mask, hashes in the place of a shuffle."""
    words = sorted(
        (word for word, _ in plain_words(row, starts)),
        key=lambda word: (token_hash(key, word[0]) >> 32, word[0]),
    )
    taken = []
    for word in words:
        if len(taken) + len(word) <= count:
            taken += word
    if len(taken) < count:
        skipped = next(word for word in words if word[0] not in taken)
        taken += skipped[: count - len(taken)]
    return [[place] for place in sorted(taken)]


def take_spans(config, row, starts, key, count):
    """As SpanBERT's PairWithSpanMaskingScheme, hashes in the place of its draws."""
    words = plain_words(row, starts)
    shares = [(1 - config.span_p) ** k for k in range(config.max_span_words)]
    anchors = [place for word, _ in words for place in word]
    anchors.sort(key=lambda place: (token_hash(key, place) >> 32, place))
    taken = set()
    for anchor in anchors:
        if anchor in taken:
            continue
        draw = token_hash(key, anchor) % 2**32 / 2**32
        length = sum(draw >= sum(shares[: k + 1]) / sum(shares) for k in range(len(shares))) + 1
        number = next(i for i, (word, _) in enumerate(words) if anchor in word)
        for word, linked in words[number : number + length]:
            if word is not words[number][0] and not linked:
                break
            for place in word:
                if len(taken) < count:
                    taken.add(place)
    linked_places = {word[0] for word, linked in words if linked}
    linked_places |= {place for word, _ in words for place in word[1:]}
    spans = []
    for place in sorted(taken):
        if spans and spans[-1][-1] + 1 == place and place in linked_places:
            spans[-1].append(place)
        else:
            spans.append([place])
    return spans


TAKE = {"token": take_tokens, "word": take_words, "span": take_spans}


def plain_mask(config, input_ids, keys, piece_starts):
    """The module's header in plain Python, token by token."""
    ordinary = [i for i in range(TOKENIZER.vocab_size) if i not in TOKENIZER.special_ids]
    masked, positions, targets, ends = list(input_ids), [], [], []
    for row, key in enumerate(keys):
        first = row * ROW_TOKENS
        tokens = input_ids[first : first + ROW_TOKENS]
        maskable = [place for place, token in enumerate(tokens) if token not in FIXED_IDS]
        count = plain_count(config, len(maskable), key)
        starts = {start - first for start in piece_starts}
        spans = TAKE[config.unit](config, tokens, starts, key, count)
        for span in spans:
            draw = token_hash(key, span[0])
            if config.unit == "span":
                draw = token_hash(draw, span[0])
            action = Fraction(draw % 2**32, 2**32)
            around = (span[0] - 1, span[-1] + 1)
            inside = set(around) <= set(maskable) and not starts & set(
                range(span[0], around[1] + 1)
            )
            for place in span:
                positions.append(first + place)
                targets.append(tokens[place])
                ends.append([first + around[0], first + around[1]] if inside else [0, 0])
                if action < Fraction(str(config.mask_share)):
                    masked[first + place] = TOKENIZER.mask_id
                elif action < Fraction(str(config.mask_share)) + Fraction(str(config.random_share)):
                    drawn = token_hash(token_hash(key, place), place) >> 32
                    masked[first + place] = ordinary[drawn * len(ordinary) >> 32]
        unused = (row + 1) * num_slots(config) - len(positions)
        positions += [0] * unused
        targets += [NO_TARGET] * unused
        ends += [[0, 0]] * unused
    return masked, positions, targets, ends if config.unit == "span" else None


def num_slots(config):
    if config.count == "fixed":
        return -(-Fraction(str(config.rate)) * ROW_TOKENS // 1)
    return prepare_masking(config, TOKENIZER).counts.num_slots(ROW_TOKENS)


CONFIGS = st.builds(
    MaskingConfig,
    rate=st.sampled_from([0.0, 0.15, 0.2, 0.5, 1.0]),
    mask_share=st.sampled_from([0.0, 0.5, 0.8]),
    random_share=st.sampled_from([0.0, 0.1, 0.2]),
    unit=st.sampled_from(["token", "word", "span"]),
    max_span_words=st.sampled_from([1, 3, 10]),
    span_p=st.sampled_from([0.2, 1.0]),
) | st.builds(MaskingConfig, rate=st.sampled_from([0.15, 0.9, 0.001]), count=st.just("bernoulli"))
KEYS = st.integers(0, 2**64 - 1)


@st.composite
def rows_and_starts(draw):
    """Rows of ordinary tokens, special ones anywhere, and padding; and where pieces begin."""
    num_rows = draw(st.integers(1, 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = generator.integers(4, 100, (num_rows, ROW_TOKENS))
    rows = np.where(generator.random(rows.shape) < generator.choice([0, 0.1, 0.4]), 2, rows)
    rows[np.arange(ROW_TOKENS) >= generator.integers(0, ROW_TOKENS + 9, (num_rows, 1))] = 0
    starts = np.flatnonzero(generator.random(rows.size) < 0.1)
    return rows.ravel().tolist(), starts.tolist()


@settings(deadline=None, max_examples=200)
@given(rows=rows_and_starts(), config=CONFIGS, keys=st.tuples(KEYS, KEYS, KEYS))
def test_masks_equal_the_slow_reference(rows, config, keys):
    input_ids, starts = rows
    keys = keys[: len(input_ids) // ROW_TOKENS]
    masked, slots = mask(config, input_ids, keys, starts)
    ends = None if slots.span_ends is None else slots.span_ends.tolist()
    found = (masked.tolist(), slots.positions.tolist(), slots.targets.tolist(), ends)
    assert found == plain_mask(config, input_ids, keys, starts)


@settings(deadline=None)
@given(
    rows=rows_and_starts(),
    count=st.sampled_from(["fixed", "bernoulli"]),
    rates=st.tuples(*[st.integers(0, 100)] * 2).map(sorted),
    key=KEYS,
)
def test_tokens_masked_at_a_lower_rate_are_masked_at_a_higher_one(rows, count, rates, key):
    input_ids, _ = rows
    keys = [key] * (len(input_ids) // ROW_TOKENS)
    low, high = (
        mask(MaskingConfig(rate=rate / 100, count=count), input_ids, keys)[1] for rate in rates
    )
    taken = [set(slots.positions[slots.targets != NO_TARGET].tolist()) for slots in (low, high)]
    assert taken[0] <= taken[1]


@pytest.mark.parametrize("count", ["fixed", "bernoulli"])
def test_every_place_is_masked_equally_often_and_actions_have_their_shares(count):
    config = MaskingConfig(rate=0.2, mask_share=0.8, random_share=0.1, count=count)
    input_ids, keys = sentence_rows(5000, [1], 48)
    masked, slots = mask(config, input_ids, keys)
    used = slots.targets != NO_TARGET
    positions, targets = slots.positions[used], slots.targets[used]
    per_place = np.bincount(positions % 48, minlength=48)
    expected = len(positions) / 46
    assert expected == pytest.approx(5000 * (9 / 46 if count == "fixed" else 0.2), rel=0.01)
    assert per_place[[0, 47]].tolist() == [0, 0]
    assert ((per_place[1:47] - expected) ** 2 / expected).sum() < 83  # 45 degrees of freedom
    per_row = np.bincount(positions // 48, minlength=5000)
    assert per_row.var() == pytest.approx(0 if count == "fixed" else 46 * 0.2 * 0.8, rel=0.1)
    now = masked[positions]
    assert np.mean(now == TOKENIZER.mask_id) == pytest.approx(0.8, abs=0.01)
    assert np.mean(now == targets) == pytest.approx(0.1, abs=0.01)
    drawn = now[(now != TOKENIZER.mask_id) & (now != targets)]
    assert len(set(drawn.tolist())) == 95  # every ordinary id


def test_a_binomial_draw_never_asks_for_more_slots_than_there_are():
    counts = TargetCounts(Fraction(3, 20), True)
    rows = np.arange(1025)
    largest = binomial_quantiles(np.full(1025, 2**32 - 1, np.uint64), rows, 3, 20)
    assert (np.diff(largest) >= 0).all()
    assert counts.num_slots(1024) == largest[-1] == 230  # 6.7 standard deviations above 153.6
    draws = np.array(list(QUANTILES), np.uint64)
    found = binomial_quantiles(draws, np.full(len(draws), 16_384), 3, 20)
    assert found.tolist() == list(QUANTILES.values())


def test_words_are_masked_whole_and_long_ones_as_often_as_short_ones():
    config = MaskingConfig(rate=0.15, unit="word", mask_share=0.8, random_share=0.1)
    rows, keys = sentence_rows(200, [1, 1, 2, 3, 6], 1024)
    masked, slots = mask(config, rows, keys, row_tokens=1024)
    taken = np.zeros(len(rows), bool)
    taken[slots.positions[slots.targets != NO_TARGET]] = True
    assert (taken.reshape(200, -1).sum(1) == 153).all()  # 0.15 * 1022, exactly
    begins = np.isin(rows, BEGINNING) | np.isin(rows, list(FIXED_IDS))
    words = np.cumsum(begins) - 1
    lengths, hidden = np.bincount(words), np.bincount(words, taken)
    assert (hidden[hidden > 0] == lengths[hidden > 0]).all()
    for length in (1, 2, 3, 6):
        share = np.mean(hidden[lengths == length][2:] > 0)
        assert share == pytest.approx(0.15, abs=0.01), length
    # 80/10/10 for each token, as in BERT's code: most words of 6 are not all [MASK].
    six = [np.flatnonzero(words == word) for word in np.flatnonzero((hidden == 6) & (lengths == 6))]
    all_masked = np.mean([(masked[places] == TOKENIZER.mask_id).all() for places in six])
    assert all_masked == pytest.approx(0.8**6, abs=0.03)


def test_a_word_is_cut_only_where_nothing_fits():
    config = MaskingConfig(rate=0.5, unit="word")
    six, five = [5, 6, 8, 12, 14, 16], [7, 6, 8, 12, 14]
    rows = [1, *six, *six, 2] + [0] * 34  # 6 of 12 tokens: one word
    _, slots = mask(config, rows, [1])
    assert slots.positions[:6].tolist() in ([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12])
    rows = [1, *five, *five, *five, 2] + [0] * 31  # 8 of 15: one word, and 3 tokens of another
    _, slots = mask(config, rows, [1])
    taken = [np.count_nonzero((slots.positions - 1) // 5 == word) for word in range(3)]
    assert np.count_nonzero(slots.targets != NO_TARGET) == 8
    taken = np.bincount((slots.positions[:8] - 1) // 5, minlength=3)
    assert sorted(taken.tolist()) == [0, 3, 5]


def test_spans_are_as_long_and_act_as_published():
    bounds = prepare_masking(MaskingConfig(), TOKENIZER).length_bounds / 2**32
    shares = np.diff(bounds, prepend=0, append=1)
    assert shares @ np.arange(1, 11) == pytest.approx(3.797, abs=0.0005)
    assert shares[1:] / shares[:-1] == pytest.approx(np.full(9, 0.8), abs=1e-6)
    config = MaskingConfig(rate=0.15, unit="span", mask_share=0.8, random_share=0.1)
    rows, keys = sentence_rows(1000, [1, 1, 1, 2], 512)
    masked, slots = mask(config, rows, keys, row_tokens=512)
    used = slots.targets != NO_TARGET
    positions, targets, ends = slots.positions[used], slots.targets[used], slots.span_ends[used]
    assert len(positions) == 1000 * 77  # round(0.15 * 510); SpanBERT's budget is the ceiling
    spans = np.split(np.arange(len(positions)), np.flatnonzero(np.diff(positions) > 1) + 1)
    actions = [action_of(masked[positions[span]], targets[span]) for span in spans]
    assert np.mean([len(span) for span in spans]) == pytest.approx(PUBLISHED_SPAN, abs=0.1)
    places = np.bincount(positions % 512, minlength=512) / 1000
    assert places[1:6] == pytest.approx(PUBLISHED_FIRST_PLACES, abs=0.03)
    assert places[150:350].mean() == pytest.approx(0.1535, abs=0.003)
    shares = [actions.count(action) / len(actions) for action in ("mask", "keep", "random")]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.015)
    for span in spans:
        left, right = positions[span[0]] - 1, positions[span[-1]] + 1
        at_edge = rows[left] in FIXED_IDS or rows[right] in FIXED_IDS
        assert (ends[span] == ([0, 0] if at_edge else [left, right])).all()


def action_of(now, before):
    if (now == TOKENIZER.mask_id).all():
        return "mask"
    return "keep" if (now == before).all() else "random"


@pytest.mark.parametrize(("place", "token"), [(7, 2), (0, 50), (7, TOKENIZER.vocab_size), (7, -1)])
def test_ids_that_are_not_what_the_shard_says_are_found_with_their_row(place, token):
    masking = prepare_masking(MaskingConfig(), TOKENIZER)
    input_ids = np.array([1, *range(5, 51), 2] * 3, np.int32)
    maskable = np.array([46, 46])
    assert find_damaged(masking, input_ids, maskable, row_tokens=ROW_TOKENS) is None
    input_ids[ROW_TOKENS + place] = token
    assert find_damaged(masking, input_ids, maskable, row_tokens=ROW_TOKENS) == 1


@pytest.mark.parametrize(
    ("unit", "count", "places", "ids"),
    [
        (
            "token",
            "fixed",
            [2, 3, 4, 5, 14, 15, 17, 18, 24, 28, 36, 41, 44, 45],
            [31, 70, 3, 33, 3, 3, 3, 3, 3, 3, 35, 3, 3, 91],
        ),
        (
            "token",
            "bernoulli",
            [4, 5, 14, 17, 18, 24, 28, 36, 41, 44, 45],
            [3, 33, 3, 3, 3, 3, 3, 35, 3, 3, 91],
        ),
        (
            "word",
            "fixed",
            [4, 5, 14, 15, 18, 19, 24, 25, 28, 36, 37, 44, 45, 48],
            [3, 33, 3, 3, 3, 23, 3, 52, 3, 35, 3, 3, 91, 3],
        ),
        (
            "span",
            "fixed",
            [4, 5, 6, 7, 24, 25, 26, 27, 36, 37, 38, 39, 40, 41],
            [3, 3, 3, 3, 17, 52, 46, 32, 3, 3, 3, 3, 3, 3],
        ),
    ],
)
def test_masks_are_frozen(unit, count, places, ids):
    config = MaskingConfig(
        rate=0.3, mask_share=0.5, random_share=0.4, unit=unit, count=count, max_span_words=4
    )
    input_ids = [1, *range(40, 68), 2, 1, *range(10, 28), 2]
    masked, slots = mask(config, input_ids, [2**63], row_tokens=50)
    positions = slots.positions[slots.targets != NO_TARGET]
    assert positions.tolist() == places
    assert masked[positions].tolist() == ids


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 1.2}, "masking.rate: need a share of 0 to 1, got 1.2"),
        ({"random_share": -1.0}, "masking.random_share: need a share of 0 to 1, got -1.0"),
        (
            {"mask_share": 0.9, "random_share": 0.2},
            "masking: mask_share and random_share together must not be above 1, got 0.9 + 0.2",
        ),
        (
            {"unit": "word", "count": "bernoulli"},
            "masking.count: only single tokens are drawn one by one; with unit word the count is "
            "fixed, got bernoulli",
        ),
        ({"max_span_words": 0}, "masking.max_span_words: need at least 1, got 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(RecipeError) as refusal:
        MaskingConfig(**settings)
    assert str(refusal.value) == message
