"""Which tokens are taken where words are hidden whole, or spans of words.

    tokens    [CLS] the un ##believ ##able cat sat . [SEP]     the | unbelievable | cat | sat | .
    word      3 tokens are wanted: words in the order of their hashes, none that is too long
    span      an anchor, back to where its word begins, on for as many words as were drawn

A word begins where the tokenizer's flags say so (shards/run.py), after a special token, and where a
piece begins; it ends before the next word, before a special token, and with its piece. Its hash is
that of its first token.

Both take exactly the tokens that a row is to give, which is known without reading it:

- Words, as in google-research/bert: in the order of their hashes, skipping each that is longer than
  what is left to take. Where nothing that is left fits (no text that we know of does that), the
  first skipped word is taken in part, where BERT's code takes less.
- Spans, as in SpanBERT: the anchor is a token drawn evenly from those not yet taken, which is the
  next one in the order of hashes; the length in words is geometric, cut off at a largest one; the
  last span ends where the number is reached, if need be within a word. A span ends at a special
  token and at the end of its piece. Spans that touch are one.

The number is one of the row, where both codes give each sequence its own: a row of one sequence has
their numbers to within rounding, in a row of many each has as many as it happens to get.

The price is about 11 ns a token, thrice that of single tokens. Hashes are put into bins, and a bin
is sorted when its turn comes.
"""

import numpy as np
from numpy.typing import NDArray

from tokenmill.loader.compiled import compiled
from tokenmill.shards.run import BEGINS_WORD, ENDS_WORD

FIXED = 4
"""Flag of an id that is never taken; beside BEGINS_WORD and ENDS_WORD."""

_HIGH = np.uint64(0xFFFFFFFF00000000)
_LOW = np.uint64(0xFFFFFFFF)


@compiled(
    "int64(int32[::1], boolean[::1], uint8[::1], int64[::1], boolean[::1], int64[::1], int64[::1])"
)
def _find_words(
    tokens: NDArray[np.int32],
    begins_piece: NDArray[np.bool_],
    flags: NDArray[np.uint8],
    word_of: NDArray[np.int64],
    linked: NDArray[np.bool_],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> int:
    """Find the words of one row.

    Args:
        word_of: (tokens,) gets the word of each token, -1 for a fixed one.
        linked: (tokens,) gets whether the token and the one before it are ordinary ones of one
            piece.
        starts, stops: (tokens,) get the bounds of each word.

    Returns:
        The number of words.
    """
    num_words = 0
    before = np.uint8(FIXED)
    for place in range(len(tokens)):
        flag = flags[tokens[place]]
        linked[place] = (flag | before) & FIXED == 0 and not begins_piece[place]
        if flag & FIXED:
            word_of[place] = -1
        else:
            if not linked[place] or before & ENDS_WORD or flag & BEGINS_WORD:
                starts[num_words] = place
                num_words += 1
            word_of[place] = num_words - 1
            stops[num_words - 1] = place + 1
        before = flag
    return num_words


@compiled("void(uint64[::1], uint64[::1], int64[::1])")
def _into_bins(
    ranks: NDArray[np.uint64], ordered: NDArray[np.uint64], bin_ends: NDArray[np.int64]
) -> None:
    """Sort ranks by their high bits alone; bin_ends get where each bin ends in ordered."""
    num_bins = np.uint64(len(bin_ends))
    bin_ends[:] = 0
    for rank in ranks:
        bin_ends[np.int64(((rank >> np.uint64(32)) * num_bins) >> np.uint64(32))] += 1
    before = 0
    for i in range(len(bin_ends)):
        before, bin_ends[i] = before + bin_ends[i], before
    for rank in ranks:
        its_bin = np.int64(((rank >> np.uint64(32)) * num_bins) >> np.uint64(32))
        ordered[bin_ends[its_bin]] = rank
        bin_ends[its_bin] += 1


@compiled("void(uint64[::1])")
def _sort(ranks: NDArray[np.uint64]) -> None:
    """Sort a few ranks in place, by insertion."""
    for i in range(1, len(ranks)):
        rank = ranks[i]
        place = i
        while place > 0 and ranks[place - 1] > rank:
            ranks[place] = ranks[place - 1]
            place -= 1
        ranks[place] = rank


@compiled(
    "void(int32[::1], uint64[::1], boolean[::1], uint8[::1], int64[::1], int64, int64, int64[::1])"
)
def choose_words(
    input_ids: NDArray[np.int32],
    hashes: NDArray[np.uint64],
    begins_piece: NDArray[np.bool_],
    flags: NDArray[np.uint8],
    num_targets: NDArray[np.int64],
    row_tokens: int,
    num_slots: int,
    positions: NDArray[np.int64],
) -> None:
    """Fill the slots of each row with the positions of whole words, rising.

    Args:
        hashes: (tokens,)
        begins_piece: (tokens,)
        flags: (vocab_size,) BEGINS_WORD, ENDS_WORD and FIXED.
        num_targets: (rows,) at most the row's tokens that are not FIXED.
        positions: (rows * num_slots,) zeros.
    """
    word_of, linked = np.empty(row_tokens, np.int64), np.empty(row_tokens, np.bool_)
    starts, stops = np.empty(row_tokens, np.int64), np.empty(row_tokens, np.int64)
    ranks, ordered = np.empty(row_tokens, np.uint64), np.empty(row_tokens, np.uint64)
    bin_ends = np.empty(row_tokens // 8 + 1, np.int64)
    taken = np.empty(row_tokens, np.bool_)
    for row in range(len(num_targets)):
        here = slice(row * row_tokens, (row + 1) * row_tokens)
        num_words = _find_words(
            input_ids[here], begins_piece[here], flags, word_of, linked, starts, stops
        )
        for number in range(num_words):
            ranks[number] = (hashes[here.start + starts[number]] & _HIGH) | np.uint64(number)
        _into_bins(ranks[:num_words], ordered, bin_ends)
        taken[:] = False
        left, skipped, first = int(num_targets[row]), -1, 0
        for end in bin_ends:
            if left == 0:
                break
            _sort(ordered[first:end])
            for rank in ordered[first:end]:
                word = np.int64(rank & _LOW)
                if stops[word] - starts[word] <= left:
                    taken[starts[word] : stops[word]] = True
                    left -= int(stops[word] - starts[word])
                elif skipped < 0:
                    skipped = int(word)
            first = int(end)
        if left > 0:
            taken[starts[skipped] : starts[skipped] + left] = True
        slot = row * num_slots
        for place in range(row_tokens):
            if taken[place]:
                positions[slot] = here.start + place
                slot += 1


@compiled("void(boolean[::1], boolean[::1], int64, int64, int64[::1], int64[::1], int64[:, ::1])")
def _describe_spans(
    taken: NDArray[np.bool_],
    linked: NDArray[np.bool_],
    row_start: int,
    slot: int,
    positions: NDArray[np.int64],
    heads: NDArray[np.int64],
    span_ends: NDArray[np.int64],
) -> None:
    """Write the spans of a row from its first slot on: runs of tokens that are taken and linked."""
    head = 0
    while head < len(taken):
        if not taken[head]:
            head += 1
            continue
        end = head + 1
        while end < len(taken) and taken[end] and linked[end]:
            end += 1
        is_inside = linked[head] and end < len(taken) and linked[end]
        for place in range(head, end):
            positions[slot] = row_start + place
            heads[slot] = row_start + head
            if is_inside:
                span_ends[slot, 0], span_ends[slot, 1] = row_start + head - 1, row_start + end
            slot += 1
        head = end


@compiled(
    "void(int32[::1], uint64[::1], boolean[::1], uint8[::1], int64[::1], uint64[::1], int64, int64,"
    " int64[::1], int64[::1], int64[:, ::1])"
)
def choose_spans(
    input_ids: NDArray[np.int32],
    hashes: NDArray[np.uint64],
    begins_piece: NDArray[np.bool_],
    flags: NDArray[np.uint8],
    num_targets: NDArray[np.int64],
    length_bounds: NDArray[np.uint64],
    row_tokens: int,
    num_slots: int,
    positions: NDArray[np.int64],
    heads: NDArray[np.int64],
    span_ends: NDArray[np.int64],
) -> None:
    """Fill the slots of each row with the positions of spans, rising, and what belongs to them.

    Args: as choose_words, and
        length_bounds: (max_span_words - 1,) the low half of an anchor's hash is below the first for
            a span of one word, and so on.
        heads: (rows * num_slots,) gets the first position of the span that each is in.
        span_ends: (rows * num_slots, 2) zeros; gets the positions before and after the span, where
            both are ordinary tokens of its piece.
    """
    word_of, linked = np.empty(row_tokens, np.int64), np.empty(row_tokens, np.bool_)
    starts, stops = np.empty(row_tokens, np.int64), np.empty(row_tokens, np.int64)
    ranks, ordered = np.empty(row_tokens, np.uint64), np.empty(row_tokens, np.uint64)
    bin_ends = np.empty(row_tokens // 8 + 1, np.int64)
    taken = np.empty(row_tokens, np.bool_)
    for row in range(len(num_targets)):
        here = slice(row * row_tokens, (row + 1) * row_tokens)
        num_words = _find_words(
            input_ids[here], begins_piece[here], flags, word_of, linked, starts, stops
        )
        num_ranks = 0
        for place in range(row_tokens):
            if word_of[place] >= 0:
                ranks[num_ranks] = (hashes[here.start + place] & _HIGH) | np.uint64(place)
                num_ranks += 1
        _into_bins(ranks[:num_ranks], ordered, bin_ends)
        taken[:] = False
        left, first = int(num_targets[row]), 0
        for end in bin_ends:
            if left == 0:
                break
            _sort(ordered[first:end])
            for rank in ordered[first:end]:
                anchor = np.int64(rank & _LOW)
                if taken[anchor]:
                    continue
                draw = hashes[here.start + anchor] & _LOW
                last = word_of[anchor]
                for bound in length_bounds:
                    goes_on = last + 1 < num_words and linked[starts[last + 1]]
                    if draw < bound or not goes_on:
                        break
                    last += 1
                for place in range(starts[word_of[anchor]], stops[last]):
                    if left > 0 and not taken[place]:
                        taken[place] = True
                        left -= 1
            first = int(end)
        _describe_spans(taken, linked, here.start, row * num_slots, positions, heads, span_ends)
