"""The `tokenizers` library, which gives every answer that is remembered.

Special tokens that stand in a text are text, none are added, nothing is cut off or padded.

A call of the library costs 11 to 16 microseconds a text, so new pieces are asked for together. What
the pre-tokenizer would not cut any more goes straight to the library's model, joined by line feeds,
at 1 (WordPiece) to 3 (BPE) microseconds a piece; other strings are joined by an added token that no
text of them holds, at 5.
"""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer
from tokenizers.pre_tokenizers import WhitespaceSplit

from tokenmill.tokenizer.fast_path import Unit, byte_letters

SEPARATOR = "\U0010fffe"
"""A code point that Unicode promises never to make a character."""
JOINED_BYTES = 1 << 14
"""About how much text is joined into one."""

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
        """What the library says, text by text in one call."""
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        counts = np.array([len(encoding) for encoding in encodings], np.int64)
        flat = np.empty(counts.sum(), np.uint32)
        end = 0
        for encoding, count in zip(encodings, counts, strict=True):
            flat[end : end + count] = encoding.ids
            end += count
        return flat, counts

    def encode_short(self, texts: list[str]) -> Answers:
        """The same for many short texts, joined by a separator that is not in any of them."""
        if self._separating is None:
            self._separating = _quiet(Tokenizer.from_str(json.dumps(self._settings)))
            self._separating.add_tokens([AddedToken(SEPARATOR, normalized=False)])
            self._separator_id = self._separating.token_to_id(SEPARATOR) or -1
        taken = self.tokenizer.id_to_token(self._separator_id) is not None
        if taken or any(SEPARATOR in text for text in texts):
            return self.encode(texts)
        batches = _batches(texts)
        encodings = self._separating.encode_batch_fast(
            [SEPARATOR.join(batch) + SEPARATOR for batch in batches], add_special_tokens=False
        )
        ids = _ids(encodings)
        ends = np.flatnonzero(ids == self._separator_id)
        assert len(ends) == len(texts)
        counts = np.diff(ends, prepend=-1) - 1
        return np.delete(ids, ends), counts


class PieceModel:
    """The library's model alone, for pieces that its pre-tokenizer would leave whole."""

    def __init__(self, tokenizer: Tokenizer, settings: dict[str, Any], unit: Unit) -> None:
        self._unit = unit
        self._model = Tokenizer(tokenizer.model)
        self._model.pre_tokenizer = WhitespaceSplit()
        vocabulary: dict[str, int] = settings["model"]["vocab"]
        self._widths = np.zeros(max(vocabulary.values(), default=0) + 1, np.int64)
        """By id: bytes of a byte-level token; for WordPiece 1 where a token begins a word."""
        if unit is Unit.WORD:
            prefix = settings["model"]["continuing_subword_prefix"]
            for token, number in vocabulary.items():
                self._widths[number] = not token.startswith(prefix)
            self.letters = [bytes([byte]) for byte in range(256)]
            if (settings["normalizer"] or {}).get("lowercase"):
                self.letters[65:91] = self.letters[97:123]
        else:
            for token, number in vocabulary.items():
                self._widths[number] = len(token)
            self.letters = [letter.encode() for letter in byte_letters()]

    def encode(self, joined: bytes, lengths: NDArray[np.int64]) -> Answers:
        """What the model says to each piece.

        Args:
            joined: the pieces in the model's letters, a line feed after each.
            lengths: (pieces,) bytes of each before they were turned into letters.
        """
        encodings = self._model.encode_batch_fast(
            _cut_lines(joined.decode()), add_special_tokens=False
        )
        ids = _ids(encodings)
        widths = np.cumsum(self._widths[ids])
        # A WordPiece answer ends before the next beginning, a byte-level one with the last byte.
        if self._unit is Unit.WORD:
            ends = np.searchsorted(widths, np.arange(1, len(lengths) + 1), side="right")
        else:
            ends = np.searchsorted(widths, np.cumsum(lengths)) + 1
            assert np.array_equal(widths[ends - 1], np.cumsum(lengths))
        assert len(ids) == (ends[-1] if len(ends) else 0)
        return ids, np.diff(ends, prepend=0)


def _quiet(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _ids(encodings: list[Any]) -> NDArray[np.uint32]:
    parts = [np.array(encoding.ids, np.uint32) for encoding in encodings]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint32)


def _batches(texts: list[str]) -> list[list[str]]:
    batches: list[list[str]] = []
    room = 0
    for text in texts:
        if room <= 0:
            batches.append([])
            room = JOINED_BYTES
        batches[-1].append(text)
        room -= len(text)
    return batches


def _cut_lines(text: str) -> list[str]:
    """The text in parts of about JOINED_BYTES, cut at line feeds."""
    parts = []
    start = 0
    while start < len(text):
        end = text.find("\n", start + JOINED_BYTES) + 1 or len(text)
        parts.append(text[start:end])
        start = end
    return parts
