"""Masks for loaders that have none: transformers' collator, and the fastest one numpy allows.

Both choose each ordinary token with probability `rate` and put [MASK] over 80 % of the chosen and
a random token over 10 %. Theirs asks for the special tokens of each row in Python; ours looks them
up in a table, once a batch, which shows how fast a peer is behind its collator.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tokenmill.shards.run import TokenizerInfo

NO_TARGET = -100


def transformers_collator(tokenizer: TokenizerInfo, rate: float) -> Callable[..., Any]:
    """DataCollatorForLanguageModeling over a tokenizer with these special tokens."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

    names = [f"word{token}" for token in range(tokenizer.vocab_size)]
    words = {name: token for token, name in enumerate(names)}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token=names[tokenizer.unk_id or 0])),
        pad_token=names[tokenizer.pad_id],
        mask_token=names[tokenizer.mask_id],
        cls_token=names[tokenizer.prefix[0]],
        sep_token=names[tokenizer.suffix[0]],
    )
    return DataCollatorForLanguageModeling(fast, mlm_probability=rate)


def numpy_collator(
    tokenizer: TokenizerInfo, rate: float
) -> Callable[[Sequence[Any]], dict[str, torch.Tensor]]:
    """Rows of one length, as arrays or in dicts with `input_ids`, to input_ids and labels."""
    mask = NumpyMasks(tokenizer, rate)

    def collate(rows: Sequence[Any]) -> dict[str, torch.Tensor]:
        arrays = [row["input_ids"] if isinstance(row, dict) else row for row in rows]
        return mask(np.stack(arrays).astype(np.int64))

    return collate


class NumpyMasks:
    """Masks for batches of any shape, drawn one after the other from one generator."""

    def __init__(self, tokenizer: TokenizerInfo, rate: float) -> None:
        self._is_special = np.zeros(tokenizer.vocab_size, np.bool_)
        self._is_special[list(tokenizer.special_ids)] = True
        self._ordinary = np.flatnonzero(~self._is_special)
        self._mask_id = tokenizer.mask_id
        self._rate = rate
        self._generator = np.random.default_rng(0)

    def __call__(self, input_ids: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        draw = self._generator.random(input_ids.shape, np.float32)
        draw[self._is_special[input_ids]] = 1
        chosen = draw < self._rate
        labels = np.where(chosen, input_ids, NO_TARGET)
        # One draw decides both: below 0.8 of the rate [MASK], below 0.9 a random token.
        masked = np.where(draw < 0.8 * self._rate, self._mask_id, input_ids)
        is_random = (draw >= 0.8 * self._rate) & (draw < 0.9 * self._rate)
        masked[is_random] = self._generator.choice(self._ordinary, int(is_random.sum()))
        return {"input_ids": torch.from_numpy(masked), "labels": torch.from_numpy(labels)}
