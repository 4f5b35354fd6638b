"""Read a fastText model of labels, .bin or .ftz, without copying its matrices.

    magic, version | settings | words, labels, pruned buckets | input matrix | output matrix

The file stays mapped, read-only, and stands once in memory for all processes that read it; a row
comes from disk when it is first used. Every size is checked against the file before it is believed.
Refused are models of word vectors, which have no labels, and pruned ones that are not quantised,
whose buckets fastText does not trust either.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import RecipeError, SourceError
from tokenmill.pipeline.fasttext.matrix import (
    CENTROIDS,
    Matrix,
    decode,
    dense_matrix,
    no_numbers,
    read_only,
)
from tokenmill.pipeline.fasttext.output import NO_TREE, Loss, Output, huffman_tree
from tokenmill.pipeline.fasttext.vocabulary import Runs, index_vocabulary
from tokenmill.pipeline.fasttext.word_vectors import LABEL_PREFIX, Input
from tokenmill.tokenizer.compiled import compiled

MAGIC = 793712314
VERSIONS = (11, 12)
"""Models of version 11 with labels have no runs of characters, whatever their settings say."""
SUPERVISED = 3
LONGEST_RUN = 1 << 12
"""Characters or words; real models have up to six."""
AFTER_NAME = 10
"""Bytes of an entry behind its name: a zero, how often it came in training (8), its kind."""


@dataclass(frozen=True, slots=True)
class FastTextModel:
    """A model of labels."""

    path: Path
    labels: tuple[str, ...]
    """Without __label__, in the order of the output."""
    input: Input
    output: Output


def load_model(path: Path) -> FastTextModel:
    """Map a model.

    Raises:
        RecipeError: there is no such file, or it is no model of labels.
        SourceError: the file is damaged.

    Source: what fastText 0.9.2 reads (facebookresearch/fastText: src/fasttext.cc, loadModel).
    """
    file = _File(path)
    settings = _read_settings(file)
    entries = _read_entries(file, settings.buckets)
    is_quantised = file.flag("the input matrix")
    matrix = _read_matrix(file, "the input matrix", settings.dim, is_quantised)
    if entries.pruned is not None and not is_quantised:
        raise file.damaged("a pruned model is quantised, this one is not")
    has_codes = file.flag("the output matrix") and is_quantised
    weights = decode(_read_matrix(file, "the output matrix", settings.dim, has_codes))

    runs, num_rows = _runs(settings, entries)
    if num_rows > matrix.num_rows:
        raise file.damaged(f"the input matrix has {matrix.num_rows} rows, {num_rows} are named")
    if len(weights) != len(entries.counts):
        raise file.damaged(f"{len(entries.counts)} labels have {len(weights)} rows in the output")
    is_tree = settings.loss is Loss.HIERARCHICAL_SOFTMAX
    return FastTextModel(
        path=path,
        labels=entries.labels,
        input=Input(
            index_vocabulary(file.data, entries.starts, entries.ends, entries.is_label),
            runs,
            matrix,
        ),
        output=Output(settings.loss, weights, huffman_tree(entries.counts) if is_tree else NO_TREE),
    )


class _Settings(NamedTuple):
    """What is used of the thirteen that training had."""

    dim: int
    max_words: int
    loss: Loss
    buckets: int
    min_chars: int
    max_chars: int


class _Entries(NamedTuple):
    """The words and labels of a model."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    """(entries,) where each stands in the file."""
    is_label: NDArray[np.bool_]
    """(entries,) words come first."""
    num_words: int
    labels: tuple[str, ...]
    counts: NDArray[np.int64]
    """(labels,) how often each came in training."""
    pruned: NDArray[np.int32] | None
    """(kept, 2) buckets that were kept, and their places behind the words; None: all were."""


class _File:
    """A mapped file that is read from its start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0
        try:
            # A map of nothing is an error of the system.
            is_empty = path.stat().st_size == 0
            data = np.zeros(0, np.uint8) if is_empty else np.memmap(path, np.uint8, "r")
        except OSError as error:
            raise RecipeError(
                f"{path}: expected a fastText model, found none ({error.strerror}). "
                "Correct the path."
            ) from None
        self.data: NDArray[np.uint8] = np.asarray(data)

    def damaged(self, fact: str) -> SourceError:
        return SourceError(f"{self.path}: {fact}. Copy or download the model again.")

    def take(self, num_bytes: int, part: str) -> NDArray[np.uint8]:
        """The next bytes, which belong to this part of the file."""
        end = self._at + num_bytes
        if not self._at <= end <= len(self.data):
            raise self.damaged(f"{part} should end at byte {end}, the file has {len(self.data)}")
        taken = self.data[self._at : end]
        self._at = end
        return taken

    def numbers(self, kinds: str, part: str) -> tuple[Any, ...]:
        """The next numbers, by the letters of the module struct."""
        return struct.unpack(f"<{kinds}", self.take(struct.calcsize(f"<{kinds}"), part).data)

    def flag(self, part: str) -> bool:
        """Whether the next byte is set."""
        return bool(self.take(1, part)[0])

    def names(self, count: int, part: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(count,) where the next names start and (count,) where they end; entries are skipped."""
        if not 0 <= count * AFTER_NAME <= len(self.data):
            raise self.damaged(f"{part}: the file cannot hold {count}")
        starts, ends = np.zeros((2, count), np.int64)
        end = _find_names(self.data, self._at, starts, ends)
        self.take(end - self._at, part)
        return starts, ends


@compiled
def _find_names(
    data: NDArray[np.uint8], at: int, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> int:
    """Where the last entry ends, beyond the file if it is cut."""
    for entry in range(len(starts)):
        starts[entry] = at
        while at < len(data) and data[at] != 0:
            at += 1
        ends[entry] = at
        at += AFTER_NAME
    return at


def _read_settings(file: _File) -> _Settings:
    if len(file.data) < 4 or file.numbers("i", "the magic number") != (MAGIC,):
        raise RecipeError(
            f"{file.path}: expected a fastText model (.bin or .ftz), found another file. "
            "Correct the path."
        )
    (version,) = file.numbers("i", "the version")
    if version not in VERSIONS:
        raise RecipeError(
            f"{file.path}: expected a fastText model of version 11 or 12, found {version}. "
            "Save it with fastText 0.9.2."
        )
    dim, _, _, _, _, max_words, loss, kind, buckets, min_chars, max_chars, _, _ = file.numbers(
        "12id", "the settings"
    )
    if kind != SUPERVISED:
        raise RecipeError(
            f"{file.path}: expected a model that was trained with labels (fasttext supervised), "
            "found one of word vectors. Give another."
        )
    longest = max(max_words, max_chars)
    if loss not in tuple(Loss) or dim < 1 or buckets < 0 or longest > LONGEST_RUN:
        raise file.damaged(
            f"loss {loss}, dimension {dim}, {buckets} buckets or runs of {longest} cannot be"
        )
    if version == VERSIONS[0]:
        max_chars = 0
    return _Settings(dim, max_words, Loss(loss), buckets, min_chars, max_chars)


def _read_entries(file: _File, num_buckets: int) -> _Entries:
    part = "the dictionary"
    num_entries, num_words, num_labels, _, num_pruned = file.numbers("3i2q", part)
    if num_labels < 1 or num_words < 0 or num_words + num_labels != num_entries:
        raise file.damaged(f"{num_words} words and {num_labels} labels are no dictionary")
    starts, ends = file.names(num_entries, part)
    is_label = file.data[ends + AFTER_NAME - 1] == 1
    if is_label[:num_words].any() or not is_label[num_words:].all():
        raise file.damaged(f"{part} has labels among its words")
    places = ends[num_words:, None] + np.arange(1, 9)  # (labels, 8)
    return _Entries(
        starts, ends, is_label, num_words,
        labels=tuple(
            file.data[start:end].tobytes().decode(errors="replace").removeprefix(LABEL_PREFIX)
            for start, end in zip(starts[num_words:], ends[num_words:], strict=True)
        ),
        counts=file.data[places].view(np.int64)[:, 0],
        pruned=_read_pruned(file, num_pruned, num_buckets) if num_pruned >= 0 else None,
    )  # fmt: skip


def _read_pruned(file: _File, count: int, num_buckets: int) -> NDArray[np.int32]:
    pruned = file.take(8 * count, "the kept buckets").view(np.int32).reshape(count, 2)
    if count and (pruned.min() < 0 or pruned[:, 0].max() >= num_buckets):
        raise file.damaged(f"the kept buckets are not all among {num_buckets}")
    return pruned


def _runs(settings: _Settings, entries: _Entries) -> tuple[Runs, int]:
    """Which runs have rows, and how many rows the model names in all."""
    num_words, num_buckets, pruned = entries.num_words, settings.buckets, entries.pruned
    runs = Runs(
        settings.min_chars, max(settings.max_chars, 0), max(settings.max_words, 1), num_buckets,
        num_words, bucket_rows=no_numbers(np.int32), has_row=no_numbers(np.uint8),
    )  # fmt: skip
    has_runs = num_buckets > 0 and (runs.max_chars > 0 or runs.max_words > 1)
    if not has_runs or (pruned is not None and not len(pruned)):
        return runs._replace(max_chars=0, max_words=1), num_words
    if pruned is None:
        return runs, num_words + num_buckets
    buckets, places = pruned.T
    bucket_rows = np.zeros(num_buckets, np.int32)
    bucket_rows[buckets] = num_words + places
    has_row = np.zeros(num_buckets // 8 + 1, np.uint8)
    np.bitwise_or.at(has_row, buckets >> 3, (1 << (buckets & 7)).astype(np.uint8))
    runs = runs._replace(bucket_rows=read_only(bucket_rows), has_row=read_only(has_row))
    return runs, num_words + int(places.max()) + 1


def _read_matrix(file: _File, part: str, dim: int, is_quantised: bool) -> Matrix:
    has_norms = is_quantised and file.flag(part)
    num_rows, columns = file.numbers("2q", part)
    if columns != dim or num_rows < 0:
        raise file.damaged(f"{part} is {num_rows} x {columns}, the dimension is {dim}")
    if not is_quantised:
        dense = file.take(4 * num_rows * dim, part).view(np.float32)
        return dense_matrix(dense.reshape(num_rows, dim))
    (num_codes,) = file.numbers("i", part)
    codes = file.take(num_codes, part)
    piece, centroids = _read_quantizer(file, part, dim)
    if num_codes != num_rows * math.ceil(dim / piece):
        raise file.damaged(f"{part} has {num_codes} codes for {num_rows} rows")
    norm_codes, norms = no_numbers(np.uint8), no_numbers(np.float32)
    if has_norms:
        norm_codes = file.take(num_rows, part)
        _, norms = _read_quantizer(file, part, 1)
    return Matrix(
        no_numbers(np.float32, 0, dim), codes.reshape(num_rows, -1), centroids, piece,
        norm_codes, norms,
    )  # fmt: skip


def _read_quantizer(file: _File, part: str, dim: int) -> tuple[int, NDArray[np.float32]]:
    """Numbers in a piece, and (dim * 256,) the centroids."""
    columns, _, piece, _ = file.numbers("4i", part)
    if columns != dim or not 1 <= piece <= dim:
        raise file.damaged(f"{part} has pieces of {piece} numbers for {columns}, not {dim}")
    return piece, file.take(4 * CENTROIDS * dim, part).view(np.float32)
