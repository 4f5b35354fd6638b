"""Encode documents with the exact ids of the `tokenizers` library, at the speed of a gather.

A batch is split into words; each unit of the tokenizer (fast_path.py) that was never seen is cut
into pieces (pieces.py), the library answers for the new pieces together (reference.py), and what it
says is remembered. Then a document's tokens are those of its units, one after another.

Not remembered are units with a word or gap above 256 bytes: they go to the library each time. A
tokenizer without units goes to the library with every document; `fallback` says why.

Memory: the tables hold about two million words and start anew when they are full, a few hundred MB
at most; texts are worked off in slices of some MB. An encoder serves one thread at a time.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tokenmill.errors import TokenizerError
from tokenmill.shards.files import write_whole
from tokenmill.shards.run import TokenizerInfo
from tokenmill.tokenizer.fast_path import find_unit
from tokenmill.tokenizer.memory import NO_PAIRS, UnitMemory
from tokenmill.tokenizer.reference import Reference
from tokenmill.tokenizer.remembered import Ids, Tokens
from tokenmill.tokenizer.special import find_special, find_word_starts
from tokenmill.tokenizer.word_places import places_by_offsets
from tokenmill.tokenizer.word_table import WordTable
from tokenmill.tokenizer.words import MAX_WORDS, Splitter, Texts, Words, text_array, text_buffers

SLICE_BYTES = 4 << 20
"""About how much text is worked off at once; the arrays of a slice stay in the cache."""


class Encoder:
    """A tokenizer: texts to token ids, without special tokens."""

    def __init__(self, settings: dict[str, Any], name: str, *, max_words: int = MAX_WORDS) -> None:
        """Use load_tokenizer.

        Args:
            settings: the content of a tokenizer.json that the library accepts.
            name: what to call it in errors.
            max_words: how many words to remember before it starts anew.

        Raises:
            TokenizerError: the library refuses it, or it cannot encode every text.
        """
        self.name = name
        self._content = {**settings, "truncation": None, "padding": None}
        try:
            self._reference = Reference(self._content)
        except Exception as error:  # The library raises plain Exception.
            raise TokenizerError(f"{name}: no tokenizer ({error}). Use another file.") from None
        # What the library writes is complete: older files leave settings out.
        self._settings: dict[str, Any] = json.loads(self._reference.tokenizer.to_str())
        ids = self._reference.tokenizer.get_vocab(with_added_tokens=True).values()
        if not ids:
            raise TokenizerError(f"{name}: the vocabulary is empty. Use another file.")
        self.vocab_size = max(ids) + 1
        """One more than the largest token id."""
        self.dtype: type[np.uint16] | type[np.uint32] = (
            np.uint16 if self.vocab_size <= 1 << 16 else np.uint32
        )
        unknown = self._settings["model"].get("unk_token")
        needs_unknown = self._settings["model"]["type"] in ("WordPiece", "WordLevel")
        if needs_unknown and self._reference.tokenizer.token_to_id(unknown) is None:
            raise TokenizerError(
                f"{name}: the vocabulary lacks {unknown}, which stands for unknown words. Add it."
            )
        self._unit, reason = find_unit(self._reference.tokenizer, self._settings)
        self.fallback: str | None = reason or None
        """Why every text goes to the library, or None where words are remembered."""
        self._splitter = Splitter(max_words)
        self._memory: UnitMemory | None = None

    @cached_property
    def sha256(self) -> str:
        """Of the content of tokenizer.json, whatever the order of its keys."""
        text = json.dumps(self._content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def special(self) -> TokenizerInfo:
        """The ids that rows and masks need.

        Raises:
            TokenizerError: the tokenizer lacks a token that masked pretraining needs.
        """
        return find_special(self.name, self._reference.tokenizer, self._settings, self.sha256)

    def word_starts(self) -> NDArray[np.uint8]:
        """(vocab_size,) which tokens begin and end a word; see find_word_starts."""
        return find_word_starts(self._settings, self.vocab_size)

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and word_starts.npy; load_tokenizer reads the folder again."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._content, ensure_ascii=False, indent=1)
        write_whole(folder / "tokenizer.json", text.encode())
        array = io.BytesIO()
        np.save(array, self.word_starts())
        write_whole(folder / "word_starts.npy", array.getvalue())

    @property
    def words(self) -> WordTable:
        """The words that it has met."""
        return self._splitter.words

    def adopt(self, words: WordTable) -> None:
        """Start with the words that another one has met, instead of those met so far."""
        self._splitter.words = words

    def split(self, texts: Texts) -> Words:
        """The words and gaps of some texts, a batch that fits in memory a few times over.

        Raises:
            SourceError: a text is null or not UTF-8.
        """
        return self._splitter.split(texts)

    def encode(self, texts: Texts) -> Tokens:
        """The token ids of all texts one after another, and (documents,) where each text's end.

        Raises:
            SourceError: a text is null or not UTF-8.
        """
        offsets, data = text_buffers(texts)
        parts = [
            self.encode_words(self._splitter.split_bytes(offsets[rows], data))
            for rows in _slices(offsets)
        ]
        sizes = [len(ids) for ids, _ in parts]
        before = np.cumsum([0, *sizes])
        ids: Ids = np.concatenate([np.empty(0, self.dtype), *(ids for ids, _ in parts)])
        ends = [ends + start for (_, ends), start in zip(parts, before, strict=False)]
        return ids, np.concatenate([np.empty(0, np.int64), *ends])

    def encode_words(self, words: Words) -> Tokens:
        """As `encode`, for words of this encoder's `split`."""
        if self._unit is None:
            ids, counts = self._reference.encode(words.join().to_pylist())
            return ids.astype(self.dtype), np.cumsum(counts)
        return self._encode_units(words)[0]

    def encode_with_places(
        self, words: Words, pairs: NDArray[np.int64]
    ) -> tuple[Tokens, NDArray[np.int64]]:
        """As `encode_words`, and where some words begin.

        Args:
            pairs: (k,) which words, numbered over the batch, rising.

        Returns:
            The tokens; and (k,) the first token that reaches into each of those words, numbered
            over the batch. Where none does, the one after it.
        """
        if self._unit is None:
            texts = words.join().to_pylist()
            (ids, counts), character_ends = self._reference.encode_with_ends(texts)
            places = places_by_offsets(words, pairs, character_ends)
            return (ids.astype(self.dtype), np.cumsum(counts)), places
        return self._encode_units(words, pairs)

    def _encode_units(
        self, words: Words, pairs: NDArray[np.int64] = NO_PAIRS
    ) -> tuple[Tokens, NDArray[np.int64]]:
        assert self._unit is not None
        if self._memory is None or not self._memory.serves(words):
            self._memory = UnitMemory(
                self._reference, self._settings, self._unit, self.dtype, words
            )
        try:
            return self._memory.encode(words, pairs)
        except BaseException:
            # Stopped between a number and its answer, a unit would have no tokens for ever.
            self._memory = None
            raise

    def check(
        self, texts: Texts, *, num_documents: int = 16, num_characters: int = 1 << 16
    ) -> None:
        """The guard: encode a sample with the library too.

        Args:
            texts: the documents, of which evenly spread ones are taken.
            num_documents: the most documents to take.
            num_characters: the most characters to take of each, from its beginning.

        Raises:
            TokenizerError: a document gets other ids than the library gives.
        """
        array = text_array(texts)
        taken = np.unique(np.linspace(0, len(array) - 1, num_documents, dtype=np.int64))
        for document in taken if len(array) else []:
            text = array[int(document)].as_py()[:num_characters]
            ours, _ = self.encode([text])
            theirs, _ = self._reference.encode([text])
            if not np.array_equal(ours, theirs):
                raise TokenizerError(_difference(self, int(document), ours, theirs))

    @property
    def library(self) -> Tokenizer:
        """The library's tokenizer, set so that it gives the same ids; to compare with."""
        return self._reference.tokenizer

    def decode(self, ids: Ids) -> str:
        """The text of some tokens, special ones included."""
        text: str = self._reference.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
        return text


def _slices(offsets: NDArray[np.int64]) -> Iterator[slice]:
    """The bounds of texts in runs of about SLICE_BYTES; a longer text is a run of its own."""
    start, last = 0, len(offsets) - 1
    while start < last:
        stop = int(np.searchsorted(offsets, offsets[start] + SLICE_BYTES, side="right")) - 1
        stop = min(max(stop, start + 1), last)
        yield slice(start, stop + 1)
        start = stop


def _difference(encoder: Encoder, document: int, ours: Ids, theirs: Ids) -> str:
    """One line on where two encodings of a document part."""
    same = min(len(ours), len(theirs))
    at = int(np.argmin(np.append(ours[:same] == theirs[:same], False)))
    return (
        f"{encoder.name}: document {document} of the sample, token {at}: the tokenizers library "
        f"gives {theirs[at : at + 8].tolist()}, ours {ours[at : at + 8].tolist()}, after "
        f"{encoder.decode(ours[max(0, at - 8) : at])!r}. Please report it."
    )
