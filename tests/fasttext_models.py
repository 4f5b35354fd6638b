"""Small fastText models with random weights, and texts that are hard on them.

The files are written as fastText 0.9.2 writes them; the package fasttext is the oracle of both.
"""

import random
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

WORDS = [
    "</s>", "the", "mill", "of", "grain", "a", "Zoë", "Straße", "мир", "日本語", "你好", "😀",
    "can't", "x", "don", "millers", "\x85", "\xa0x", "__label", "<b>", "é", "ab" * 140,
]  # fmt: skip
LABELS = ["__label__en", "__label__de", "__label__zh", "__label__hq", "__label__low", "odd label"]
PARTS = [
    *WORDS, "the mill", "unknown", "Mühle", "مرحبا", "👨‍👩‍👧", "한국어", "z" * 300, "ж" * 200,
    "</s>", "</s></s>", "a</s>", "__label__", "__label__en", "__label__xx", "x__label__en",
    "\x00", "\x0b", "\x0c", "\x00</s>\x0c", "the\x0bmill\x00of", "\x1c", "\u2028", "\u3000",
    "grain\x0b__label__de\x0bgrain", "\x0c" * 300, "of\x0c" * 90,
]  # fmt: skip
GAPS = [" ", " ", " ", "\n", "\r", "\t", "  \n\n", "", "\r\n"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a model file says."""

    loss: Literal["hs", "ns", "softmax", "ova"] = "softmax"
    dim: int = 5
    max_words: int = 1
    min_chars: int = 2
    max_chars: int = 4
    buckets: int = 97
    quantised: bool = False
    has_norms: bool = False
    has_output_codes: bool = False
    piece: int = 2
    kept: int = -1
    """Buckets that a pruned model kept; -1: all."""
    words: tuple[str, ...] = tuple(WORDS)
    labels: tuple[str, ...] = tuple(LABELS)
    version: int = 12
    kind: int = 3


def model_bytes(recipe: Recipe, seed: int = 0) -> bytes:
    """A model with random weights."""
    draw = np.random.default_rng(seed)
    num_words, num_labels = len(recipe.words), len(recipe.labels)
    has_runs = recipe.max_words > 1 or recipe.max_chars > 0
    buckets = recipe.buckets if has_runs else 0
    loss = {"hs": 1, "ns": 2, "softmax": 3, "ova": 4}[recipe.loss]
    out = struct.pack(
        "<2i12id", 793712314, recipe.version, recipe.dim, 5, 5, 1, 5, recipe.max_words, loss,
        recipe.kind, buckets, recipe.min_chars, recipe.max_chars, 100, 1e-4,
    )  # fmt: skip
    out += struct.pack("<3i2q", num_words + num_labels, num_words, num_labels, 9999, recipe.kept)
    counts = sorted(draw.choice([1, 2, 3, 5, 8, 8, 100], num_labels).tolist(), reverse=True)
    for word in recipe.words:
        out += word.encode() + b"\0" + struct.pack("<qb", 7, 0)
    for label, count in zip(recipe.labels, counts, strict=True):
        out += label.encode() + b"\0" + struct.pack("<qb", count, 1)
    num_runs = buckets
    if recipe.kept >= 0:
        num_runs = recipe.kept
        for place, bucket in enumerate(draw.permutation(buckets)[: recipe.kept].tolist()):
            out += struct.pack("<2i", bucket, place)
    out += _matrix(draw, num_words + num_runs, recipe, recipe.quantised)
    output_codes = recipe.quantised and recipe.has_output_codes
    return out + _matrix(draw, num_labels, recipe, output_codes, recipe.has_output_codes)


def _matrix(
    draw: np.random.Generator, rows: int, recipe: Recipe, quantised: bool, flag: bool | None = None
) -> bytes:
    dim, piece = recipe.dim, recipe.piece
    out = struct.pack("<?", quantised if flag is None else flag)
    if not quantised:
        weights = draw.normal(size=(rows, dim)).astype("<f4")
        return out + struct.pack("<2q", rows, dim) + weights.tobytes()
    pieces = -(-dim // piece)
    out += struct.pack("<?2qi", recipe.has_norms, rows, dim, rows * pieces)
    out += draw.integers(0, 256, rows * pieces, dtype=np.uint8).tobytes()
    out += struct.pack("<4i", dim, pieces, piece, dim % piece or piece)
    out += draw.normal(size=256 * dim).astype("<f4").tobytes()
    if recipe.has_norms:
        out += draw.integers(0, 256, rows, dtype=np.uint8).tobytes()
        out += struct.pack("<4i", 1, 1, 1, 1)
        out += draw.uniform(0.2, 2, 256).astype("<f4").tobytes()
    return out


def write_model(folder: Path, recipe: Recipe, seed: int = 0) -> Path:
    """Where the model was written."""
    path = folder / "model.bin"
    path.write_bytes(model_bytes(recipe, seed))
    return path


def hard_texts(count: int, seed: int) -> list[str]:
    """Parts one after another, with gaps between them or without."""
    draw = random.Random(seed)
    texts = ["", " ", "\n", "</s>", "\x00"]
    while len(texts) < count:
        parts = draw.choices(PARTS, k=draw.randrange(12))
        texts.append("".join(part + draw.choice(GAPS) for part in parts))
    return texts
