"""The special tokens of a tokenizer, what it puts around texts, and which tokens begin a word."""

import json
import unicodedata
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from tokenmill.errors import TokenizerError
from tokenmill.shards.run import BEGINS_WORD, ENDS_WORD, TokenizerInfo
from tokenmill.tokenizer.fast_path import byte_letters

NAMES = {
    "[CLS]": ("[CLS]", "<s>", "<|startoftext|>", "<bos>", "<|endoftext|>"),
    "[SEP]": ("[SEP]", "</s>", "<|endoftext|>", "<eos>"),
    "[PAD]": ("[PAD]", "<pad>", "<|padding|>", "<|pad|>"),
    "[MASK]": ("[MASK]", "<mask>", "<|mask|>"),
    "[UNK]": ("[UNK]", "<unk>"),
}
"""What special tokens are called, the usual name first."""
Template = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Ids before a text, between two, and after."""


def find_special(
    name: str, tokenizer: Tokenizer, settings: dict[str, Any], sha256: str
) -> TokenizerInfo:
    """The ids that rows and masks need.

    Args:
        name: what to call the tokenizer in an error.
        tokenizer: the library's, with special tokens in a text as text.
        settings: the content of its tokenizer.json.

    Raises:
        TokenizerError: [PAD] or [MASK] is missing, or [CLS] or [SEP] where nothing else stands
            around a text; or its post-processor does more than put tokens around.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    found = {token: _first(vocabulary, names) for token, names in NAMES.items()}
    if settings["model"].get("unk_token"):
        found["[UNK]"] = vocabulary.get(settings["model"]["unk_token"])
    around = _ask_template(name, tokenizer)
    needed = ["[PAD]", "[MASK]"] if around else ["[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    missing = [token for token in needed if found[token] is None]
    if missing:
        raise TokenizerError(
            f"{name}: masked pretraining needs {', '.join(needed)}; it has no "
            f"{', '.join(missing)}. Use another tokenizer, or train one."
        )
    if not around:
        first, last = (_known(found["[CLS]"]),), (_known(found["[SEP]"]),)
        around = first, last, last
    prefix, separator, suffix = around
    special = {token["id"] for token in settings["added_tokens"] if token["special"]}
    special |= {number for number in found.values() if number is not None}
    return TokenizerInfo(
        sha256=sha256,
        vocab_size=max(vocabulary.values()) + 1,
        pad_id=_known(found["[PAD]"]),
        mask_id=_known(found["[MASK]"]),
        prefix=prefix,
        separator=separator,
        suffix=suffix,
        unk_id=found["[UNK]"],
        special_ids=tuple(sorted(special.union(*around))),
    )


def find_word_starts(settings: dict[str, Any], vocab_size: int) -> NDArray[np.uint8]:
    """(vocab_size,) which tokens begin and end a word; see tokenmill.shards.run.read_word_starts.

    A word is a run of letters and digits, or one token of punctuation. WordPiece says it itself:
    all tokens but those inside a word (##) begin one. Elsewhere a token's own characters say it:
    white space, punctuation and signs begin a word where they stand first, and end one where they
    stand last:

        "The"  "\\u0120cat"  "\\u0120("  "it"  ")"  "\\u010a"  "It"
               begins       both          both    both          and so "it" and "It" begin words

    A token that holds a part of a character begins and ends none there. An added token is a word.
    A number that is no token has no flag.
    """
    flags = np.zeros(vocab_size, np.uint8)
    model = settings["model"]
    inside, at_end = model.get("continuing_subword_prefix"), model.get("end_of_word_suffix")
    is_bytes = _is_byte_level(settings)
    bytes_of = {letter: byte for byte, letter in enumerate(byte_letters())}
    for token, number in _model_vocabulary(model).items():
        if inside or model["type"] in ("WordPiece", "WordLevel"):
            flags[number] = 0 if inside and token.startswith(inside) else BEGINS_WORD
            continue
        text = token.removesuffix(at_end or "").replace("\u2581", " ")
        if is_bytes and all(letter in bytes_of for letter in token):
            raw = bytes(bytes_of[letter] for letter in token)
            text = raw.decode("utf-8", "surrogateescape")
        if text and _parts_words(text[0]):
            flags[number] |= BEGINS_WORD
        if text and (_parts_words(text[-1]) or (at_end and token.endswith(at_end))):
            flags[number] |= ENDS_WORD
    for token in settings["added_tokens"]:
        flags[token["id"]] = BEGINS_WORD | ENDS_WORD
    return flags


def _ask_template(name: str, tokenizer: Tokenizer) -> Template | None:
    """What the library puts around texts; None: nothing.

    Where it puts other tokens around two texts than around one, as a template that was written for
    one alone does, the separator is what comes after one text.
    """
    text = _some_text(tokenizer)
    single, pair = tokenizer.encode(text), tokenizer.encode(text, text)
    body = tokenizer.encode(text, add_special_tokens=False).ids
    prefix, suffix = _outside(single)
    if single.ids != [*prefix, *body, *suffix]:
        raise TokenizerError(
            f"{name}: expected a post-processor that puts tokens before and after a text; it makes "
            f"{single.ids} of {body}. Use another tokenizer, or remove its post_processor."
        )
    between = len(pair.ids) - len(prefix) - len(suffix) - 2 * len(body)
    start = len(prefix) + len(body)
    separator = tuple(pair.ids[start : start + between]) if between >= 0 else ()
    if pair.ids != [*prefix, *body, *separator, *body, *suffix] or not separator:
        separator = suffix
    return (prefix, separator, suffix) if prefix or suffix else None


def _outside(encoding: Encoding) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before the first and after the last token of a text."""
    own = [place for place, text in enumerate(encoding.sequence_ids) if text is not None]
    return tuple(encoding.ids[: own[0]]), tuple(encoding.ids[own[-1] + 1 :])


def _some_text(tokenizer: Tokenizer) -> str:
    """A text that has tokens."""
    for number in sorted(tokenizer.get_vocab().values()):
        text: str = tokenizer.decode([number], skip_special_tokens=False)
        if tokenizer.encode(text, add_special_tokens=False).ids:
            return text
    raise AssertionError("a vocabulary that is not empty encodes one of its tokens")


def _model_vocabulary(model: dict[str, Any]) -> dict[str, int]:
    vocabulary: dict[str, int] | list[list[Any]] = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pairs of a token and its weight
        return {token: number for number, (token, _) in enumerate(vocabulary)}
    return vocabulary


def _is_byte_level(settings: dict[str, Any]) -> bool:
    """Whether its vocabulary writes bytes as letters (GPT-2's table)."""
    return '"ByteLevel"' in json.dumps([settings["pre_tokenizer"], settings["decoder"]])


def _parts_words(character: str) -> bool:
    """White space, punctuation, and signs: what GPT-2's pattern keeps apart from words."""
    return character.isspace() or unicodedata.category(character)[0] in "PS"


def _first(vocabulary: dict[str, int], names: tuple[str, ...]) -> int | None:
    return next((vocabulary[name] for name in names if name in vocabulary), None)


def _known(number: int | None) -> int:
    assert number is not None
    return number
