"""The `tokenizers` library, which answers for all that is not known to be simple.

Special tokens that stand in a text are text, none are added, nothing is cut off or padded.

A call of the library costs 11 to 16 microseconds a text, so short texts are asked for together,
joined by an added token that none of them holds, at 5. It needs about 200 bytes of memory for each
byte of a text, so it gets about a megabyte at once.
"""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer

SEPARATOR = "\U0010fffe"
"""A code point that Unicode promises never to make a character."""
JOINED_CHARACTERS = 1 << 14
"""About how much text is joined into one."""
CALL_CHARACTERS = 1 << 20
"""About how much text the library gets at once."""

Answers = tuple[NDArray[np.uint32], NDArray[np.int64]]
"""Token ids of all texts one after another, and (texts,) how many each has."""


class Reference:
    """The library's tokenizer, and ways to ask it for many short texts at once."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.tokenizer = _quiet(Tokenizer.from_str(json.dumps(settings)))
        self._settings = settings
        self._separating: Tokenizer | None = None
        self._separator_id = -1

    def encode(self, texts: list[str]) -> Answers:
        """What the library says, text by text."""
        parts = [np.zeros(0, np.uint32)]
        counts = []
        for batch in _batches(texts, CALL_CHARACTERS):
            encodings = self.tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            parts += [np.array(encoding.ids, np.uint32) for encoding in encodings]
            counts += [len(encoding) for encoding in encodings]
        return np.concatenate(parts), np.array(counts, np.int64)

    def encode_with_ends(self, texts: list[str]) -> tuple[Answers, NDArray[np.int64]]:
        """What the library says, and (tokens,) where each token ends: in characters, counted over
        all texts."""
        ids, ends = [np.zeros(0, np.uint32)], [np.zeros(0, np.int64)]
        counts, before = [], 0
        for batch in _batches(texts, CALL_CHARACTERS):
            encodings = self.tokenizer.encode_batch(batch, add_special_tokens=False)
            for text, encoding in zip(batch, encodings, strict=True):
                ids.append(np.array(encoding.ids, np.uint32))
                ends.append(np.array([end for _, end in encoding.offsets], np.int64) + before)
                counts.append(len(encoding))
                before += len(text)
        answers = np.concatenate(ids), np.array(counts, np.int64)
        return answers, np.concatenate(ends)

    def encode_short(self, texts: list[str]) -> Answers:
        """The same for many short texts, joined by a separator that is not in any of them."""
        if self._separating is None:
            self._separating = _quiet(Tokenizer.from_str(json.dumps(self._settings)))
            self._separating.add_tokens([AddedToken(SEPARATOR, normalized=False)])
            self._separator_id = self._separating.token_to_id(SEPARATOR) or -1
        taken = self.tokenizer.id_to_token(self._separator_id) is not None
        if taken or any(SEPARATOR in text for text in texts):
            return self.encode(texts)
        batches = _batches(texts, JOINED_CHARACTERS)
        encodings = self._separating.encode_batch_fast(
            [SEPARATOR.join(batch) + SEPARATOR for batch in batches], add_special_tokens=False
        )
        ids = _ids(encodings)
        ends = np.flatnonzero(ids == self._separator_id)
        assert len(ends) == len(texts)
        counts = np.diff(ends, prepend=-1) - 1
        return np.delete(ids, ends), counts


def _quiet(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _ids(encodings: list[Any]) -> NDArray[np.uint32]:
    parts = [np.array(encoding.ids, np.uint32) for encoding in encodings]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint32)


def _batches(texts: list[str], num_characters: int) -> list[list[str]]:
    """The texts in runs of about so many characters."""
    batches: list[list[str]] = []
    room = 0
    for text in texts:
        if room <= 0:
            batches.append([])
            room = num_characters
        batches[-1].append(text)
        room -= len(text)
    return batches
