"""Cut long texts into parts that the tokenizer never looks across, so that memory stays small.

A text of 30 MB without a space costs the library gigabytes. Nearly always its characters tell where
the pre-tokenizer must cut, whatever stands elsewhere:

    BERT     before and after punctuation and ideograms
    GPT-2    where the kind changes, letters to digits..., but not after white space, which looks
             ahead, nor an apostrophe, and not where the normalizer has something to do

Added tokens may reach across: with such, a cut needs a character that none of them holds.
What has no such place is one part, however long: one run of letters as a rule.
"""

import numpy as np
from numpy.typing import NDArray

from tokenmill.tokenizer.characters import BREAKS, IN_TOKEN, KIND, PLAIN, SPACE, UNKNOWN
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.pieces import APOSTROPHE, Rules, is_gap_byte, point_at

PART_BYTES = 256
"""A part ends at the first place after so many bytes."""


@compiled
def cut_apart(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], rules: Rules
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the parts of texts end, one after another, and (texts,) how many each has.

    Args:
        data, starts, ends: texts without a character that was never seen, none of them empty.
    """
    part_ends = np.empty((ends - starts).sum() // PART_BYTES + len(starts), np.int64)
    counts = np.empty(len(starts), np.int64)
    total = 0
    for text in range(len(starts)):
        first = total
        part, stop = np.uint64(starts[text]), np.uint64(ends[text])
        last, at = point_at(data, part)
        while at < stop:
            point, next_at = point_at(data, at)
            if at - part >= PART_BYTES and _is_apart(rules, last, point):
                part_ends[total] = at
                total += 1
                part = at
            last = point
            at = next_at
        part_ends[total] = stop
        total += 1
        counts[text] = total - first
    return part_ends[:total], counts


@compiled_inline
def _is_apart(rules: Rules, last: np.uint64, point: np.uint64) -> bool:
    """Whether the tokenizer never looks across the place between two characters."""
    before, after = rules.classes[last], rules.classes[point]
    if not rules.runs:
        return bool((before | after) & BREAKS)
    kind, next_kind = before & KIND, after & KIND
    return bool(
        kind != next_kind
        and kind != SPACE
        and kind != UNKNOWN
        and next_kind != UNKNOWN
        and last != APOSTROPHE
        and before & after & PLAIN
        and not before & after & IN_TOKEN
        and not (rules.gaps_apart and (_is_gap(last) or _is_gap(point)))
    )


@compiled_inline
def _is_gap(point: np.uint64) -> bool:
    return bool(point < 0x80 and is_gap_byte(np.uint8(point)))
