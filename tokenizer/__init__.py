"""Text to words to tokens, exactly as the `tokenizers` library does it; and training one."""

from tokenmill.tokenizer.counts import count_characters, count_words
from tokenmill.tokenizer.encoder import Encoder
from tokenmill.tokenizer.load import load_tokenizer
from tokenmill.tokenizer.train import TokenizerTrainingConfig, train_tokenizer
from tokenmill.tokenizer.words import Words

__all__ = [
    "Encoder",
    "TokenizerTrainingConfig",
    "Words",
    "count_characters",
    "count_words",
    "load_tokenizer",
    "train_tokenizer",
]
