"""Which tokens of a row are hidden, and behind what: a pure function of the row's key.

    row          [CLS] the cat sat [SEP] [CLS] it ran [SEP] [PAD]     rate 0.4 of 5 tokens are 2
    hashes              7   3   9               6   5                 the 2 smallest are taken
    input_ids    [CLS] the [M] sat [SEP] [CLS] it [M] [SEP] [PAD]
    positions    2 7      targets    cat ran

Each token's hash comes from the row's key (seed, pack, bucket, row, visit) and its place in the row
alone, so a mask is the same on any rank, in any batch and after any resume, and the tokens of a
lower rate are among those of a higher one. The number taken is exact, so every row has the same
ceil(rate * row_tokens) slots; slots left over carry position 0 and the target NO_TARGET.

The first and the last token of a sequence are its special tokens and are never taken, nor is
padding. [UNK] stands for a word and may be taken, as in BERT's own code; a drawn replacement is
never special, [UNK] included.

The price is about 4 ns a token. The smallest are found without sorting: by counting the hashes'
high bits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokenmill.loader.compiled import compiled
from tokenmill.loader.masking_config import MaskingConfig
from tokenmill.loader.shares import exact_fraction
from tokenmill.shards.run import TokenizerInfo

NO_TARGET = -100
"""What torch's cross entropy leaves out (its ignore_index)."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_HIGH = np.uint64(0xFFFFFFFF00000000)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_BIN_BITS = 11
_BIN_SHIFT = np.uint64(64 - _BIN_BITS)


@dataclass(frozen=True, slots=True)
class Masking:
    """A masking configuration made ready for one tokenizer."""

    rate_numerator: int
    rate_denominator: int
    mask_below: int
    """A chosen token whose 32 action bits are below this becomes [MASK]; 2**32 is always."""
    random_below: int
    """One below this, but not below mask_below, becomes a random ordinary token."""
    mask_id: int
    ordinary_ids: NDArray[np.int32]
    """(ordinary,) the ids that may be drawn."""
    is_fixed: NDArray[np.bool_]
    """(vocab_size,) ids that no document's own text has: the special ones, [UNK] excepted."""

    def num_slots(self, row_tokens: int) -> int:
        """Slots for masked tokens that each row has: ceil(rate * row_tokens)."""
        return -(-self.rate_numerator * row_tokens // self.rate_denominator)

    def num_targets(self, maskable: NDArray[np.int64]) -> NDArray[np.int64]:
        """(rows,) how many tokens are taken of rows with so many maskable ones; a half is rounded
        up."""
        doubled = 2 * self.rate_numerator * maskable + self.rate_denominator
        return doubled // (2 * self.rate_denominator)


def prepare_masking(config: MaskingConfig, tokenizer: TokenizerInfo) -> Masking:
    """The numbers that mask_rows needs."""
    # A millionth is far finer than one token in a row, and keeps the products within 64 bits.
    rate = exact_fraction(config.rate).limit_denominator(1_000_000)
    special = np.zeros(tokenizer.vocab_size, np.bool_)
    special[list(tokenizer.special_ids)] = True
    is_fixed = special.copy()
    if tokenizer.unk_id is not None:
        is_fixed[tokenizer.unk_id] = False
    mask_below = round(exact_fraction(config.mask_share) * 2**32)
    return Masking(
        rate_numerator=rate.numerator,
        rate_denominator=rate.denominator,
        mask_below=mask_below,
        random_below=mask_below + round(exact_fraction(config.random_share) * 2**32),
        mask_id=tokenizer.mask_id,
        ordinary_ids=np.flatnonzero(~special).astype(np.int32),
        is_fixed=is_fixed,
    )


def mask_rows(
    masking: Masking,
    input_ids: NDArray[np.int32],
    row_keys: NDArray[np.uint64],
    lengths: NDArray[np.int32],
    row_ends: NDArray[np.int64],
    num_targets: NDArray[np.int64],
    *,
    row_tokens: int,
    positions: NDArray[np.int64],
    targets: NDArray[np.int64],
    is_hidden: NDArray[np.bool_] | None = None,
) -> int | None:
    """Mask rows in place and fill their slots.

    Args:
        input_ids: (tokens,) whole rows, one after the other; there may be more rows than keys,
            which stay as they are.
        row_keys: (rows,).
        lengths: (sequences,) tokens of each sequence, special tokens counted.
        row_ends: (rows,) sequences up to and with each row.
        num_targets: (rows,) Masking.num_targets of the row's maskable tokens.
        positions: (slots,) zeros; gets the places in input_ids of the tokens taken, rising.
        targets: (slots,) NO_TARGET; gets their own ids.
        is_hidden: (sequences,) those of which nothing is taken; None: there are none.

    Returns:
        None, or the row in which a special or impossible id stands inside a sequence, which is
        damage.
    """
    bad_row = _mask_rows(
        input_ids,
        row_keys,
        lengths,
        np.zeros(len(lengths), np.bool_) if is_hidden is None else is_hidden,
        row_ends,
        num_targets,
        row_tokens,
        masking.num_slots(row_tokens),
        masking.mask_id,
        masking.mask_below,
        masking.random_below,
        masking.ordinary_ids,
        masking.is_fixed,
        positions,
        targets,
    )
    return None if bad_row < 0 else bad_row


@compiled("uint64(uint64, uint64)")
def _token_hash(row_key: np.uint64, position: np.uint64) -> np.uint64:
    """splitmix64 of the row's key, `position` steps on. The high half ranks, the low half acts."""
    mixed = row_key + (position + np.uint64(1)) * _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return mixed ^ (mixed >> np.uint64(31))


@compiled("int64(uint64, int32[::1], boolean[::1], uint64[::1], int64[::1])")
def _rank_row(
    row_key: np.uint64,
    lengths: NDArray[np.int32],
    is_hidden: NDArray[np.bool_],
    ranks: NDArray[np.uint64],
    bins: NDArray[np.int64],
) -> int:
    """Fill ranks, half hash and half position, so all different; bins count them by high bits.

    Returns:
        The number of maskable tokens, and so of ranks.
    """
    bins[:] = 0
    num_maskable = 0
    start = 0
    for sequence in range(len(lengths)):
        length = int(lengths[sequence])
        stop = start if is_hidden[sequence] else start + length - 1
        for position in range(start + 1, stop):
            place = np.uint64(position)
            rank = (_token_hash(row_key, place) & _HIGH) | place
            ranks[num_maskable] = rank
            num_maskable += 1
            bins[np.int64(rank >> _BIN_SHIFT)] += 1
        start += length
    return num_maskable


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


@compiled(
    "int64(int32[::1], uint64[::1], int32[::1], boolean[::1], int64[::1], int64[::1], int64, int64,"
    " int32, uint64, uint64, int32[::1], boolean[::1], int64[::1], int64[::1])"
)
def _mask_rows(
    input_ids: NDArray[np.int32],
    row_keys: NDArray[np.uint64],
    lengths: NDArray[np.int32],
    is_hidden: NDArray[np.bool_],
    row_ends: NDArray[np.int64],
    num_targets: NDArray[np.int64],
    row_tokens: int,
    num_slots: int,
    mask_id: int,
    mask_below: int,
    random_below: int,
    ordinary_ids: NDArray[np.int32],
    is_fixed: NDArray[np.bool_],
    positions: NDArray[np.int64],
    targets: NDArray[np.int64],
) -> int:
    ranks = np.empty(row_tokens, np.uint64)
    scratch = np.empty(row_tokens + 1, np.uint64)  # one more: a rank is written before it is judged
    bins = np.empty(1 << _BIN_BITS, np.int64)
    first_sequence = 0
    for row in range(len(row_keys)):
        sequences = slice(first_sequence, row_ends[row])
        first_sequence = row_ends[row]
        if num_targets[row] == 0:
            continue
        num_maskable = _rank_row(
            row_keys[row], lengths[sequences], is_hidden[sequences], ranks, bins
        )
        largest = _largest_taken(ranks[:num_maskable], bins, num_targets[row], scratch)
        num_taken = 0
        for rank in ranks[:num_maskable]:
            scratch[num_taken] = rank & _LOW
            num_taken += rank <= largest
        slot = row * num_slots
        for place in scratch[:num_taken]:
            position = row * row_tokens + np.int64(place)
            token = input_ids[position]
            if token < 0 or token >= len(is_fixed) or is_fixed[token]:
                return row
            positions[slot] = position
            targets[slot] = token
            slot += 1
            bits = _token_hash(row_keys[row], place)
            action = bits & _LOW
            if action < mask_below:
                input_ids[position] = mask_id
            elif action < random_below:
                draw = _token_hash(bits, place) >> _32
                chosen = (draw * np.uint64(len(ordinary_ids))) >> _32
                input_ids[position] = ordinary_ids[np.int64(chosen)]
    return -1
