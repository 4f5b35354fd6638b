"""Texts that are hard on tokenizers, and small tokenizers of both kinds to try them on."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from tokenmill.tokenizer import Encoder, TokenizerTrainingConfig, train_tokenizer

PROSE = (
    """The miller's daughter re-read "Tokens & Sons" (1912), didn't she? It's 12 o'clock.
    def mill(grain: list[str]) -> dict:\n\treturn {word: len(word) for word in grain}
Ça va, naïve Zoë? Straße, façade; Привет, мир. 你好世界 and so on... and on, and on!
"""
    * 8
)

HARD_PARTS = [
    " ", "  ", "   ", "\n", "\t", "\r", "\r\n", " \n ", "\xa0", "\u3000", "\u2003", "\u2028",
    "\x85", "\x1c", "\x1f", "\x0b", "\x0c", "\x00", "\u200b", "\ufeff", "\u180e", "\u1680",
    "'s", "'S", "'ll", "'", "\u2019s", "'ve", "'re", "'d", "'t", "'m",
    "\xf7", "\xff", "n't", "abc", "The", "Ab9", "12", "\xe9", "e\u0301",
    "\u0301", "\xf6", "\xdf", "\u0130", "\u212a", "\xc5", "\xd7", "\u4e2d", "\u65e5\u672c\u8a9e",
    "\uac00", "\u1100", "\u1161", "\u0939\u093f\u0902", "\u0627", "\u044f", "\u0439",
    "\u0438\u0306", "\u0451", "\U0001f600", "\U0001f468\u200d\U0001f469", "\U0010fffe", "\u2026",
    "\u2014", "\u201c", "\u201d", "\u2022", "\u202f", "-", "_", "#", "##a", "$", "|||", "|||IP|||",
    "|||ip|||", "[unused0]", "[UNUSED0]", "[MASK]", "[CLS]", "[PAD]", "<|endoftext|>", "(", ".",
    "http://", "\ufb01", "\xbd", "\u2168", "x" * 120, "y" * 270, " " * 30, " " * 300, "z1" * 140,
    "-" * 50, "`", "^", "\u037e", "\u2126", "\u0958", "\U0001d7d8", "mill", "ers", "\u044f,\xe9",
]  # fmt: skip


def hard_texts(count: int, seed: int) -> list[str]:
    """Hard parts one after another, up to 13 of them, and some texts of any characters."""
    draw = random.Random(seed)
    texts = []
    for number in range(count):
        if number % 10:
            texts.append("".join(draw.choices(HARD_PARTS, k=draw.randrange(14))))
        else:
            tops = draw.choices([0x250, 0x3000, 0xD800, 0x110000], k=12)
            points = [draw.randrange(0xE000 if top > 0xE000 else 0, top) for top in tops]
            texts.append("".join(map(chr, points)))
    return texts


def small_encoder(kind: Any, folder: Path) -> Encoder:
    """A tokenizer of a few hundred tokens, trained on PROSE."""
    config = TokenizerTrainingConfig(kind=kind, vocab_size=400)
    return train_tokenizer([pa.array([PROSE])], config, folder)


def pair_encoder() -> Encoder:
    """A byte BPE that merges any two bytes, so that each wrong cut or missed one shows."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=True)
    shown = [letter for letter in letters if letter not in "\xc0\xc1\xf5\xf6\xf7\xf8\xf9\xfa"]
    tokens = [*letters, *(first + second for first in shown for second in shown)]
    merges = [(first, second) for first in shown for second in shown]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return Encoder(json.loads(tokenizer.to_str()), "pairs")


def with_added_tokens(encoder: Encoder) -> dict[str, Any]:
    """The settings of an encoder with ordinary added tokens, as in GPT-NeoX: in words and gaps."""
    tokenizer = Tokenizer.from_str(encoder.library.to_str())
    tokenizer.add_tokens([AddedToken("|||IP|||", normalized=True), AddedToken("[unused0]")])
    if tokenizer.token_to_id("\u0120") is not None:
        tokenizer.add_tokens([AddedToken(" " * size, normalized=True) for size in range(12, 1, -1)])
    settings: dict[str, Any] = json.loads(tokenizer.to_str())
    return settings


def assert_same_as_library(encoder: Encoder, texts: list[str]) -> None:
    """Every document gets the library's ids, all of a batch at once and with its own end."""
    ids, ends = encoder.encode(texts)
    encodings = encoder.library.encode_batch_fast(texts, add_special_tokens=False)
    starts = np.concatenate([[0], ends])[:-1]
    assert ids.dtype == encoder.dtype
    for text, encoding, start, end in zip(texts, encodings, starts, ends, strict=True):
        assert ids[start:end].tolist() == encoding.ids, ascii(text)
