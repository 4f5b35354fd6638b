"""The index: which runs of words are an item's, as hashes that a scan asks for.

    item of 15 words, runs of 13     3 runs       | of 9 words     the whole item
    item of 5 words, min_words 8     none: too short to look for, and reported

An item is indexed in two forms, because copies come in both: as it is, where punctuation lies
between words ("don't" is two), and with punctuation taken out ("dont"). A run that both have is
one. Documents are read in the first form only.

    filter     32 to 64 bits a run; it answers for nearly every place of the corpus, from cache
    slots      open addressing: the hash of a run, and its number; the runs of a number's items

Runs of 64-bit hashes: a corpus of 1e12 words and an index of 1e7 runs meet by chance 0.5 times.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.errors import FormatError
from tokenmill.pipeline.decontaminate.words import (
    WORD_FACTOR,
    TokenTable,
    power,
    run_hash,
    token_table,
    words_of,
)
from tokenmill.shards.array_file import open_arrays, save_arrays
from tokenmill.tokenizer.compiled import compiled, compiled_inline
from tokenmill.tokenizer.encoder import Encoder

PREFIX = np.int32(-1)
"""The number of a run that only begins an item of fewer words than a full run."""
ITEMS_OF_RUN = 16
"""The most items that a run names: more have it from a template, or are one text many times."""
FILTER_BITS = 32
"""At least so many for each run."""
_NOTHING, _ONE = np.uint64(0), np.uint64(1)
_LOW_SIX = np.uint64(63)
_SIX = np.uint64(6)


class RunIndex(NamedTuple):
    """Runs of words, to be found by their hashes."""

    filter: NDArray[np.uint64]
    """(power of two,) bits, by the lowest bits of a hash."""
    slots: NDArray[np.uint64]
    """(power of two,) hashes from their highest bits on; 0: free."""
    numbers: NDArray[np.int32]
    """(slots,) the run's number, or PREFIX."""
    lengths: NDArray[np.int64]
    """(lengths,) how many words a run may have, rising; the last is the full length."""
    min_words: NDArray[np.int64]
    """(1,) words of a prefix, or 0 where no item is shorter than a full run."""
    run_starts: NDArray[np.int64]
    """(runs + 1,) where a run's items start."""
    run_items: NDArray[np.int32]
    """The items of each run, rising."""
    item_words: NDArray[np.int32]
    """(items,) words of each."""

    @property
    def num_runs(self) -> int:
        return len(self.run_starts) - 1


def build_index(
    texts: Sequence[str], encoder: Encoder, words: int, min_words: int
) -> tuple[TokenTable, RunIndex]:
    """The tokenizer's table, and the runs of items, numbered as they are given.

    Args:
        words: of a run.
        min_words: items of fewer are in no run.
    """
    table = token_table(encoder.library, encoder.vocab_size)
    hashes, items, lengths, prefixes = [], [], [], []
    item_words = np.zeros(len(texts), np.int32)
    for form in (list(texts), [without_punctuation(text) for text in texts]):
        ids, ends = encoder.encode(pa.array(form, pa.large_string()))
        for item, (start, stop) in enumerate(pairwise([0, *ends])):
            polynomials, _ = words_of(table, ids[start:stop])
            count = len(polynomials) - 1
            item_words[item] = item_words[item] or count
            if count < min_words:
                continue
            length = min(words, count)
            found = runs_of(polynomials, length)
            hashes.append(found)
            items.append(np.full(len(found), item, np.int32))
            lengths.append(length)
            if min_words < count < words:
                prefixes.append(runs_of(polynomials[: min_words + 1], min_words))
    index = _index(
        np.concatenate([np.zeros(0, np.uint64), *hashes]),
        np.concatenate([np.zeros(0, np.int32), *items]),
        np.concatenate([np.zeros(0, np.uint64), *prefixes]),
        np.array(sorted({words, *lengths}), np.int64),
        min_words,
        item_words,
    )
    return table, index


def save_index(path: Path, table: TokenTable, index: RunIndex) -> None:
    arrays = {f"table.{name}": array for name, array in table._asdict().items()}
    save_arrays(path, arrays | {f"index.{name}": array for name, array in index._asdict().items()})


@lru_cache(maxsize=1)
def open_index(path: Path, sha256: str) -> tuple[TokenTable, RunIndex]:
    """What save_index wrote, mapped: the tasks of a process and of its neighbours share it.

    Args:
        sha256: of the file, so that one process never takes an index for the one before.

    Raises:
        FormatError: the file is missing or damaged.
    """
    arrays = open_arrays(path)
    if arrays is None:
        raise FormatError(
            f"{path}: the index of the evaluation sets is missing or damaged. "
            "Delete it and run the same command again; what is whole is kept."
        )
    table = TokenTable(**{name: arrays[f"table.{name}"] for name in TokenTable._fields})
    return table, RunIndex(**{name: arrays[f"index.{name}"] for name in RunIndex._fields})


def without_punctuation(text: str) -> str:
    """What is left when whatever is neither letter, digit nor white space is taken out."""
    return "".join(character for character in text if character.isalnum() or character.isspace())


@compiled
def runs_of(polynomials: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """The hashes of all runs of so many words."""
    factor = power(WORD_FACTOR, length)
    hashes = np.empty(len(polynomials) - length, np.uint64)
    for start in range(len(hashes)):
        hashes[start] = run_hash(polynomials, start, start + length, factor)
    return hashes


@compiled_inline
def find_run(index: RunIndex, value: np.uint64, shift: np.uint64) -> tuple[bool, np.int32]:
    """Whether a hash is in the index, and its number; shift: slot_shift."""
    place = (value >> _SIX) & np.uint64(len(index.filter) - 1)
    if not (index.filter[place] >> (value & _LOW_SIX)) & _ONE:
        return False, PREFIX
    slot = value >> shift
    while index.slots[slot] != _NOTHING:
        if index.slots[slot] == value:
            return True, index.numbers[slot]
        slot = (slot + _ONE) & np.uint64(len(index.slots) - 1)
    return False, PREFIX


@compiled
def slot_shift(num_slots: int) -> np.uint64:
    """How far a hash is shifted to give one of so many slots, a power of two above 1."""
    shift = np.uint64(64)
    while num_slots > 1:
        num_slots >>= 1
        shift -= _ONE
    return shift


def _index(
    hashes: NDArray[np.uint64],
    items: NDArray[np.int32],
    prefixes: NDArray[np.uint64],
    lengths: NDArray[np.int64],
    min_words: int,
    item_words: NDArray[np.int32],
) -> RunIndex:
    order = np.lexsort((items, hashes))
    hashes, items = hashes[order], items[order]
    new_run = np.diff(hashes, prepend=~hashes[:1]) != 0
    new_pair = new_run | (np.diff(items, prepend=-1) != 0)
    hashes, items, new_run = hashes[new_pair], items[new_pair], new_run[new_pair]
    run = np.cumsum(new_run) - 1
    starts = np.flatnonzero(new_run)
    kept = np.arange(len(run)) - starts[run] < ITEMS_OF_RUN
    counts = np.bincount(run[kept], minlength=len(starts))
    keys = hashes[starts]
    prefixes = np.setdiff1d(prefixes, keys)
    total = max(1, len(keys) + len(prefixes))
    slots = np.zeros(1 << (2 * total - 1).bit_length(), np.uint64)
    numbers = np.full(len(slots), PREFIX)
    bits = np.zeros(max(64, 1 << (total * FILTER_BITS // 64 - 1).bit_length()), np.uint64)
    _insert(keys, np.arange(len(keys), dtype=np.int32), slots, numbers, bits)
    _insert(prefixes, np.full(len(prefixes), PREFIX), slots, numbers, bits)
    return RunIndex(
        filter=bits,
        slots=slots,
        numbers=numbers,
        lengths=lengths,
        min_words=np.array([min_words if len(lengths) > 1 else 0], np.int64),
        run_starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        run_items=items[kept],
        item_words=item_words,
    )


@compiled
def _insert(
    keys: NDArray[np.uint64],
    key_numbers: NDArray[np.int32],
    slots: NDArray[np.uint64],
    numbers: NDArray[np.int32],
    bits: NDArray[np.uint64],
) -> None:
    shift = slot_shift(len(slots))
    for index in range(len(keys)):
        value = keys[index]
        bits[(value >> _SIX) & np.uint64(len(bits) - 1)] |= _ONE << (value & _LOW_SIX)
        slot = value >> shift
        while slots[slot] != _NOTHING:
            slot = (slot + _ONE) & np.uint64(len(slots) - 1)
        slots[slot] = value
        numbers[slot] = key_numbers[index]
