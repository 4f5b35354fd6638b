"""Train a tokenizer on the corpus that it will serve: BERT's WordPiece, or byte-level BPE.

The merging is the `tokenizers` library's. The same texts give the same file, in whatever batches
and order they come: the library numbers characters inside words in the order of a hash table that
is seeded anew each time, so we count them first and give it their order.

Either kind is served by remembered words (fast_path.py) and has what masked pretraining needs:
[PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, and [CLS] ... [SEP] around a text. All texts are held
in memory: train on a few GB.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tokenmill.errors import RecipeError, TokenizerError
from tokenmill.tokenizer.bert import BERT_SPECIAL, add_bert_parts, add_bert_template
from tokenmill.tokenizer.encoder import Encoder
from tokenmill.tokenizer.find_words import LONG
from tokenmill.tokenizer.words import Splitter, text_array

BATCH_DOCUMENTS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerTrainingConfig:
    """What kind of tokenizer to train, and how large."""

    kind: Literal["wordpiece", "byte_bpe"] = "wordpiece"
    """BERT's, or GPT-2's as in ModernBERT."""
    vocab_size: int
    """Tokens at most, the five special ones included. Below 65,536 a token takes two bytes."""
    min_frequency: int = 2
    """A pair seen less often is not merged. 2 is Hugging Face's for BERT (bert_wordpiece.py)."""
    lowercase: bool = True
    """WordPiece only: lower-case, and strip accents, as bert-base-uncased. Byte BPE keeps both."""
    max_characters: int = 1000
    """WordPiece only: most characters that get a token of their own. The same source."""

    def __post_init__(self) -> None:
        least = len(BERT_SPECIAL) + (256 if self.kind == "byte_bpe" else 1)
        if self.vocab_size < least:
            raise RecipeError(
                f"vocab_size: need at least {least} for {self.kind}, got {self.vocab_size}."
            )
        if self.min_frequency < 1:
            raise RecipeError(f"min_frequency: need at least 1, got {self.min_frequency}.")
        if self.max_characters < 1:
            raise RecipeError(f"max_characters: need at least 1, got {self.max_characters}.")


def train_tokenizer(
    texts: Iterable[pa.Array], config: TokenizerTrainingConfig, folder: Path
) -> Encoder:
    """Train on arrays of strings and write tokenizer.json into the folder.

    Raises:
        TokenizerError: the texts hold no word.
        SourceError: a text is null or not UTF-8.
    """
    arrays = [text_array(array) for array in texts]
    if config.kind == "wordpiece":
        tokenizer = _train_wordpiece(arrays, config)
    else:
        tokenizer = _train_bpe(arrays, config)
    if tokenizer.get_vocab_size() <= len(BERT_SPECIAL):
        raise TokenizerError(f"{folder}: no word in the texts to train on. Check the sources.")
    add_bert_template(tokenizer)
    encoder = Encoder(json.loads(tokenizer.to_str()), str(folder / "tokenizer.json"))
    encoder.save(folder)
    return encoder


def _train_wordpiece(arrays: list[pa.Array], config: TokenizerTrainingConfig) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    add_bert_parts(tokenizer, lowercase=config.lowercase)
    at_start, inside = _count_characters(arrays, tokenizer)
    total = at_start + inside
    characters = sorted(total, key=lambda character: (-total[character], character))
    alphabet = characters[: config.max_characters]
    tokenizer.train_from_iterator(
        _batches(arrays),
        trainers.WordPieceTrainer(
            vocab_size=config.vocab_size,
            min_frequency=config.min_frequency,
            # Numbered first, in this order; they are made ordinary tokens again below.
            special_tokens=[*BERT_SPECIAL, *sorted(f"##{c}" for c in alphabet if c in inside)],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        ),
    )
    settings = json.loads(tokenizer.to_str())
    settings["added_tokens"] = settings["added_tokens"][: len(BERT_SPECIAL)]
    return Tokenizer.from_str(json.dumps(settings))


def _train_bpe(arrays: list[pa.Array], config: TokenizerTrainingConfig) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        _batches(arrays),
        trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            min_frequency=config.min_frequency,
            special_tokens=list(BERT_SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def _batches(arrays: list[pa.Array]) -> Iterator[list[str]]:
    for array in arrays:
        for start in range(0, len(array), BATCH_DOCUMENTS):
            yield array.slice(start, BATCH_DOCUMENTS).to_pylist()


def _count_characters(
    arrays: list[pa.Array], tokenizer: Tokenizer
) -> tuple[Counter[str], Counter[str]]:
    """How often each character begins a pre-token, and how often it stands inside one."""
    at_start: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for word, count in _count_words(arrays).items():
        normal = tokenizer.normalizer.normalize_str(word)
        for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
            at_start[piece[0]] += count
            for character in piece[1:]:
                inside[character] += count
    return at_start, inside


def _count_words(arrays: list[pa.Array]) -> Counter[str]:
    counts: Counter[str] = Counter()
    splitter = Splitter()
    for array in arrays:
        for start in range(0, len(array), BATCH_DOCUMENTS):
            words = splitter.split(array.slice(start, BATCH_DOCUMENTS))
            numbers, seen = np.unique(words.word_ids[words.word_ids < LONG], return_counts=True)
            texts = words.words.texts(numbers.astype(np.int64))
            counts.update(dict(zip(texts, seen.tolist(), strict=True)))
            counts.update(words.data[a:b].tobytes().decode() for a, b in words.long_words)
    return counts
