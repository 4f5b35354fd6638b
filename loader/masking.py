"""Which tokens of a row are hidden, and behind what: a pure function of the row's key and tokens.

    row          [CLS] the cat sat [SEP] [CLS] it ran [SEP] [PAD]     rate 0.4 of 5 tokens are 2
    hashes              7   3   9               6   5                 the 2 smallest are taken
    input_ids    [CLS] the [M] sat [SEP] [CLS] it [M] [SEP] [PAD]
    positions    2 7      targets    cat ran

Each token's hash comes from the row's key (seed, pack, bucket, row, visit) and its place in the row
alone, so a mask is the same on any rank, in any batch and after any resume, and the tokens of a
lower rate are among those of a higher one. How many are taken is known before (target_counts.py);
slots left over carry position 0 and the target NO_TARGET. Words and spans of words are taken by
the same hashes (word_masks.py); what then stands in their place is decided here for all.

Special tokens are known by their ids, wherever they stand, and are never taken, nor is padding.
[UNK] stands for a word and may be taken, as in BERT's own code; a drawn replacement is never
special, [UNK] included. Replacements are drawn evenly from the vocabulary, as in BERT's code;
SpanBERT draws them from the tokens of its corpus.

The price is about 4 ns a token. The smallest are found without sorting: by counting the hashes'
high bits. device_masks.py does the same, to the bit, with torch.
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import FormatError, RecipeError
from tokenmill.loader.compiled import compiled
from tokenmill.loader.keys import GOLDEN, MIX_1, MIX_2
from tokenmill.loader.masking_config import MaskingConfig
from tokenmill.loader.shares import exact_fraction
from tokenmill.loader.target_counts import TargetCounts
from tokenmill.loader.word_masks import FIXED, choose_spans, choose_words
from tokenmill.shards.run import TokenizerInfo, read_word_starts

NO_TARGET = -100
"""What torch's cross entropy leaves out (its ignore_index)."""

_GOLDEN = np.uint64(GOLDEN)
_MIX_1 = np.uint64(MIX_1)
_MIX_2 = np.uint64(MIX_2)
_HIGH = np.uint64(0xFFFFFFFF00000000)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_BIN_BITS = 11
_BIN_SHIFT = np.uint64(64 - _BIN_BITS)


@dataclass(frozen=True, slots=True)
class Masking:
    """A masking configuration made ready for one tokenizer."""

    config: MaskingConfig
    counts: TargetCounts
    mask_below: int
    """A chosen token whose 32 action bits are below this becomes [MASK]; 2**32 is always."""
    random_below: int
    """One below this, but not below mask_below, becomes a random ordinary token."""
    mask_id: int
    ordinary_ids: NDArray[np.int32]
    """(ordinary,) the ids that may be drawn."""
    is_fixed: NDArray[np.bool_]
    """(vocab_size,) ids that no document's own text has: the special ones, [UNK] excepted."""
    word_flags: NDArray[np.uint8]
    """(vocab_size,) read_word_starts of the run, and FIXED; where the unit is no token."""
    length_bounds: NDArray[np.uint64]
    """(max_span_words - 1,) 32 bits below the first stand for a span of one word, and so on."""

    def refuse_other_than_tokens(self) -> None:
        """Raises RecipeError where a device cannot mask: words and spans are found on the host."""
        if self.config.unit != "token":
            raise RecipeError(
                "masks: only single tokens are masked on a device, got unit "
                f"{self.config.unit}. Use masks='host'."
            )


@dataclass(frozen=True, slots=True)
class MaskedRows:
    """What was taken of some rows: slots for masked tokens, as many in each row."""

    positions: NDArray[np.int64]
    """(slots,) places in input_ids of the tokens taken, rising in each row; 0 if unused."""
    targets: NDArray[np.int64]
    """(slots,) their own ids; NO_TARGET if unused."""
    span_ends: NDArray[np.int64] | None
    """(slots, 2) see Batch.span_ends; None where the unit is no span."""


NO_MASKS = MaskedRows(np.empty(0, np.int64), np.empty(0, np.int64), None)
"""No slots: for rows that are masked elsewhere."""


def prepare_masking(
    config: MaskingConfig, tokenizer: TokenizerInfo, word_starts: NDArray[np.uint8] | None = None
) -> Masking:
    """The numbers that mask_rows needs.

    Args:
        word_starts: (vocab_size,) read_word_starts of the run; needed where the unit is no token.
    """
    special = np.zeros(tokenizer.vocab_size, np.bool_)
    special[list(tokenizer.special_ids)] = True
    is_fixed = special.copy()
    if tokenizer.unk_id is not None:
        is_fixed[tokenizer.unk_id] = False
    word_flags = np.zeros(0, np.uint8)
    if config.unit != "token":
        assert word_starts is not None
        word_flags = np.where(is_fixed, FIXED, word_starts)
    mask_below = round(exact_fraction(config.mask_share) * 2**32)
    return Masking(
        config=config,
        # A millionth is far finer than one token in a row, and keeps the products within 64 bits.
        counts=TargetCounts(
            exact_fraction(config.rate).limit_denominator(1_000_000), config.count == "bernoulli"
        ),
        mask_below=mask_below,
        random_below=mask_below + round(exact_fraction(config.random_share) * 2**32),
        mask_id=tokenizer.mask_id,
        ordinary_ids=np.flatnonzero(~special).astype(np.int32),
        is_fixed=is_fixed,
        word_flags=word_flags,
        length_bounds=_length_bounds(exact_fraction(config.span_p), config.max_span_words),
    )


def read_masking(run: Path, config: MaskingConfig, tokenizer: TokenizerInfo) -> Masking:
    """prepare_masking, with the run's words where the unit needs them.

    Raises:
        FormatError: it does not know the words of its tokenizer.
    """
    if config.unit == "token":
        return prepare_masking(config, tokenizer)
    word_starts = read_word_starts(run)
    if len(word_starts) != tokenizer.vocab_size:
        raise FormatError(
            f"{run}/tokenizer/word_starts.npy: expected flags of {tokenizer.vocab_size} tokens, "
            f"found {len(word_starts)}. Build the run again."
        )
    return prepare_masking(config, tokenizer, word_starts)


def find_damaged(
    masking: Masking,
    input_ids: NDArray[np.int32],
    num_maskable: NDArray[np.int64],
    *,
    row_tokens: int,
) -> int | None:
    """The first row whose ids are not what its shard says, which is damage.

    Args:
        input_ids: (tokens,) whole rows; there may be more than are looked at.
        num_maskable: (rows,) tokens that are not special, by the shard.

    Returns:
        The row; None where each has ids of the vocabulary and as many special ones as it should.
    """
    bad_row = _find_damaged(input_ids, num_maskable, row_tokens, masking.is_fixed)
    return None if bad_row < 0 else bad_row


def mask_rows(
    masking: Masking,
    input_ids: NDArray[np.int32],
    row_keys: NDArray[np.uint64],
    num_targets: NDArray[np.int64],
    piece_starts: NDArray[np.int64],
    *,
    row_tokens: int,
) -> MaskedRows:
    """Mask rows in place.

    Args:
        input_ids: (tokens,) whole rows, one after the other, hidden documents already padding;
            there may be more rows than keys, which stay as they are.
        row_keys: (rows,) of rows that are not damaged.
        num_targets: (rows,) how many to take; see TargetCounts.
        piece_starts: (pieces,) where each piece begins in input_ids; no word or span goes on there.
    """
    num_slots = masking.counts.num_slots(row_tokens)
    positions = np.zeros(len(input_ids) // row_tokens * num_slots, np.int64)
    heads, span_ends = positions, None
    if masking.config.unit == "token":
        _choose_tokens(
            input_ids, row_keys, num_targets, row_tokens, num_slots, masking.is_fixed, positions
        )
    else:
        hashes = np.empty(len(row_keys) * row_tokens, np.uint64)
        _hash_rows(row_keys, row_tokens, hashes)
        begins_piece = np.zeros(len(hashes), np.bool_)
        begins_piece[piece_starts] = True
        words = (input_ids, hashes, begins_piece, masking.word_flags, num_targets)
    if masking.config.unit == "word":
        choose_words(*words, row_tokens, num_slots, positions)
    if masking.config.unit == "span":
        heads, span_ends = np.zeros_like(positions), np.zeros((len(positions), 2), np.int64)
        bounds = masking.length_bounds
        choose_spans(*words, bounds, row_tokens, num_slots, positions, heads, span_ends)
    targets = np.full(len(positions), NO_TARGET)
    _hide(
        input_ids,
        row_keys,
        num_targets,
        row_tokens,
        num_slots,
        positions,
        heads,
        span_ends is not None,
        masking.mask_id,
        masking.mask_below,
        masking.random_below,
        masking.ordinary_ids,
        targets,
    )
    return MaskedRows(positions, targets, span_ends)


def _length_bounds(span_p: Fraction, max_span_words: int) -> NDArray[np.uint64]:
    """(max_span_words - 1,) shares of 2**32 up to which a span has at most 1, 2, ... words."""
    shares = [(1 - span_p) ** words for words in range(max_span_words)]
    bounds = [round(upto / sum(shares) * 2**32) for upto in accumulate(shares)]
    return np.array(bounds[:-1], np.uint64)


@compiled("uint64(uint64, uint64)")
def _token_hash(row_key: np.uint64, position: np.uint64) -> np.uint64:
    """splitmix64 of the row's key, `position` steps on. The high half ranks, the low half acts."""
    mixed = row_key + (position + np.uint64(1)) * _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return mixed ^ (mixed >> np.uint64(31))


@compiled("int64(int32[::1], int64[::1], int64, boolean[::1])")
def _find_damaged(
    input_ids: NDArray[np.int32],
    num_maskable: NDArray[np.int64],
    row_tokens: int,
    is_fixed: NDArray[np.bool_],
) -> int:
    """The first row whose ids are not what the shard says, or -1."""
    for row in range(len(num_maskable)):
        found = 0
        for token in input_ids[row * row_tokens : (row + 1) * row_tokens]:
            if token < 0 or token >= len(is_fixed):
                return row
            found += not is_fixed[token]
        if found != num_maskable[row]:
            return row
    return -1


@compiled("void(uint64, uint64[::1])")
def _hash_row(row_key: np.uint64, hashes: NDArray[np.uint64]) -> None:
    """Fill hashes (row_tokens,). Alone in its loop it runs on several tokens at once."""
    for place in range(len(hashes)):
        hashes[place] = _token_hash(row_key, np.uint64(place))


@compiled("void(uint64[::1], int64, uint64[::1])")
def _hash_rows(row_keys: NDArray[np.uint64], row_tokens: int, hashes: NDArray[np.uint64]) -> None:
    """Fill hashes (tokens,)."""
    for row in range(len(row_keys)):
        _hash_row(row_keys[row], hashes[row * row_tokens : (row + 1) * row_tokens])


@compiled("int64(int32[::1], uint64[::1], boolean[::1], uint64[::1], int64[::1])")
def _rank_row(
    tokens: NDArray[np.int32],
    hashes: NDArray[np.uint64],
    is_fixed: NDArray[np.bool_],
    ranks: NDArray[np.uint64],
    bins: NDArray[np.int64],
) -> int:
    """Fill ranks, half hash and half position, so all different; bins count them by high bits.

    Returns:
        The number of maskable tokens, and so of ranks.
    """
    bins[:] = 0
    found = 0
    for position in range(len(tokens)):
        rank = (hashes[position] & _HIGH) | np.uint64(position)
        ranks[found] = rank
        is_maskable = not is_fixed[tokens[position]]
        found += is_maskable
        bins[np.int64(rank >> _BIN_SHIFT)] += is_maskable
    return found


@compiled("uint64(uint64[::1], int64[::1], int64, uint64[::1])")
def _largest_taken(
    ranks: NDArray[np.uint64], bins: NDArray[np.int64], num_taken: int, close: NDArray[np.uint64]
) -> np.uint64:
    """The num_taken-th smallest rank. Only the few ranks of the bin that it is in are sorted."""
    below = 0
    cut = 0
    while below + bins[cut] < num_taken:
        below += bins[cut]
        cut += 1
    num_close = 0
    for rank in ranks:
        close[num_close] = rank
        num_close += np.int64(rank >> _BIN_SHIFT) == cut
    in_bin = close[:num_close]
    in_bin.sort()
    largest: np.uint64 = in_bin[num_taken - below - 1]
    return largest


@compiled("void(int32[::1], uint64[::1], int64[::1], int64, int64, boolean[::1], int64[::1])")
def _choose_tokens(
    input_ids: NDArray[np.int32],
    row_keys: NDArray[np.uint64],
    num_targets: NDArray[np.int64],
    row_tokens: int,
    num_slots: int,
    is_fixed: NDArray[np.bool_],
    positions: NDArray[np.int64],
) -> None:
    """Fill positions with those of the smallest hashes."""
    hashes = np.empty(row_tokens, np.uint64)
    # One more than a row: what is written last may be dropped after.
    ranks = np.empty(row_tokens + 1, np.uint64)
    scratch = np.empty(row_tokens + 1, np.uint64)
    bins = np.empty(1 << _BIN_BITS, np.int64)
    for row in range(len(row_keys)):
        if num_targets[row] == 0:
            continue
        tokens = input_ids[row * row_tokens : (row + 1) * row_tokens]
        _hash_row(row_keys[row], hashes)
        num_ranks = _rank_row(tokens, hashes, is_fixed, ranks, bins)
        largest = _largest_taken(ranks[:num_ranks], bins, num_targets[row], scratch)
        num_taken = 0
        for rank in ranks[:num_ranks]:
            scratch[num_taken] = rank & _LOW
            num_taken += rank <= largest
        for i in range(num_taken):
            positions[row * num_slots + i] = row * row_tokens + np.int64(scratch[i])


@compiled(
    "void(int32[::1], uint64[::1], int64[::1], int64, int64, int64[::1], int64[::1], boolean,"
    " int32, uint64, uint64, int32[::1], int64[::1])"
)
def _hide(
    input_ids: NDArray[np.int32],
    row_keys: NDArray[np.uint64],
    num_targets: NDArray[np.int64],
    row_tokens: int,
    num_slots: int,
    positions: NDArray[np.int64],
    heads: NDArray[np.int64],
    is_span: bool,
    mask_id: int,
    mask_below: int,
    random_below: int,
    ordinary_ids: NDArray[np.int32],
    targets: NDArray[np.int64],
) -> None:
    """Put [MASK], a random token or nothing else in the place of each token taken.

    A span's first token, its head, draws for all of it; the low half of its hash may have said how
    long the span is, so it draws once more.
    """
    for row in range(len(row_keys)):
        key, first = row_keys[row], row * row_tokens
        for slot in range(row * num_slots, row * num_slots + num_targets[row]):
            position = positions[slot]
            targets[slot] = input_ids[position]
            place = np.uint64(position - first)
            bits = _token_hash(key, place)
            acting = bits
            if is_span:
                head = np.uint64(heads[slot] - first)
                acting = _token_hash(_token_hash(key, head), head)
            action = acting & _LOW
            if action < mask_below:
                input_ids[position] = mask_id
            elif action < random_below:
                draw = _token_hash(bits, place) >> _32
                chosen = (draw * np.uint64(len(ordinary_ids))) >> _32
                input_ids[position] = ordinary_ids[np.int64(chosen)]
