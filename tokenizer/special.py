"""The special tokens of a tokenizer, and which tokens begin a word."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import TokenizerError
from tokenmill.shards.run import TokenizerInfo

NAMES = {
    "[CLS]": ("[CLS]", "<s>", "<|startoftext|>", "<bos>", "<|endoftext|>"),
    "[SEP]": ("[SEP]", "</s>", "<|endoftext|>", "<eos>"),
    "[PAD]": ("[PAD]", "<pad>", "<|padding|>", "<|pad|>"),
    "[MASK]": ("[MASK]", "<mask>", "<|mask|>"),
    "[UNK]": ("[UNK]", "<unk>"),
}
"""What special tokens are called, the usual name first."""


def find_special(
    name: str, settings: dict[str, Any], sha256: str, vocab_size: int
) -> TokenizerInfo:
    """The ids that rows and masks need: by the post-processor, else by the usual names.

    Args:
        name: what to call the tokenizer in an error.
        settings: the content of its tokenizer.json.

    Raises:
        TokenizerError: one of [CLS], [SEP], [PAD], [MASK] is missing.
    """
    vocabulary = _vocabulary(settings)
    found = {token: _first(vocabulary, names) for token, names in NAMES.items()}
    first, last = _around(settings["post_processor"])
    found["[CLS]"] = vocabulary.get(first or "", found["[CLS]"])
    found["[SEP]"] = vocabulary.get(last or "", found["[SEP]"])
    if settings["model"].get("unk_token"):
        found["[UNK]"] = vocabulary.get(settings["model"]["unk_token"])
    needed = ["[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    missing = [token for token in needed if found[token] is None]
    if missing:
        raise TokenizerError(
            f"{name}: masked pretraining needs {', '.join(needed)}; it has no "
            f"{', '.join(missing)}. Use another tokenizer, or train one."
        )
    special = {token["id"] for token in settings["added_tokens"] if token["special"]}
    special |= {number for number in found.values() if number is not None}
    return TokenizerInfo(
        sha256=sha256,
        vocab_size=vocab_size,
        pad_id=_known(found["[PAD]"]),
        mask_id=_known(found["[MASK]"]),
        prefix=(_known(found["[CLS]"]),),
        separator=(_known(found["[SEP]"]),),
        suffix=(_known(found["[SEP]"]),),
        unk_id=found["[UNK]"],
        special_ids=tuple(sorted(special)),
    )


def find_word_starts(settings: dict[str, Any], vocab_size: int) -> NDArray[np.bool_]:
    """(vocab_size,) which tokens begin a word.

    WordPiece: all but those inside a word (##). Byte-level: those that begin with white space or
    ASCII punctuation; so the first word of a text has no beginning here, and who needs one takes
    the text's first token. Special tokens begin no word, nor does a number that is no token.
    """
    starts = np.zeros(vocab_size, np.bool_)
    prefix = settings["model"].get("continuing_subword_prefix")
    for token, number in _vocabulary(settings).items():
        if prefix:
            starts[number] = not token.startswith(prefix)
        else:
            first = token[:1]
            starts[number] = first in "ĠĊĉč▁" or (first.isascii() and not first.isalnum())
    for token in settings["added_tokens"]:
        starts[token["id"]] = not token["special"]
    return starts


def _vocabulary(settings: dict[str, Any]) -> dict[str, int]:
    model = settings["model"]["vocab"]
    if isinstance(model, list):  # Unigram: pairs of a token and its weight
        model = {token: number for number, (token, _) in enumerate(model)}
    return {**model, **{token["content"]: token["id"] for token in settings["added_tokens"]}}


def _first(vocabulary: dict[str, int], names: tuple[str, ...]) -> int | None:
    return next((vocabulary[name] for name in names if name in vocabulary), None)


def _around(post_processor: dict[str, Any] | None) -> tuple[str | None, str | None]:
    """The tokens that a post-processor puts before and after a text."""
    kind = post_processor["type"] if post_processor else None
    if post_processor and kind in ("BertProcessing", "RobertaProcessing"):
        return post_processor["cls"][0], post_processor["sep"][0]
    if post_processor and kind == "Sequence":
        pairs = [_around(part) for part in post_processor["processors"]]
        return next((pair for pair in pairs if any(pair)), (None, None))
    if not post_processor or kind != "TemplateProcessing":
        return None, None
    parts = post_processor["single"]
    text = next((place for place, part in enumerate(parts) if "Sequence" in part), 0)
    before = [part["SpecialToken"]["id"] for part in parts[:text]]
    after = [part["SpecialToken"]["id"] for part in parts[text + 1 :]]
    return (before[0] if before else None), (after[-1] if after else None)


def _known(number: int | None) -> int:
    assert number is not None
    return number
