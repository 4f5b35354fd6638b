"""Load a tokenizer from wherever it is: a file, a folder, a model hub."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tokenmill.errors import TokenizerError
from tokenmill.tokenizer.bert import BERT_SPECIAL, add_bert_parts, add_bert_template
from tokenmill.tokenizer.encoder import Encoder
from tokenmill.tokenizer.words import MAX_WORDS


def load_tokenizer(path: str | Path, *, max_words: int = MAX_WORDS) -> Encoder:
    """The tokenizer at a path, or of a model hub.

    Args:
        path: a tokenizer.json; a vocab.txt of BERT; a folder with one of them, or with vocab.json
            and merges.txt of GPT-2; or "organisation/name" on the hub of Hugging Face.
        max_words: how many words to remember before the encoder starts anew.

    Raises:
        TokenizerError: there is none, or it is broken; the message names the file.
    """
    file = _find(Path(path), str(path))
    settings = _read_vocab_txt(file) if file.suffix == ".txt" else _read_json(file)
    return Encoder(settings, str(file), max_words=max_words)


def _find(path: Path, name: str) -> Path:
    """The file to read; for GPT-2's pair it is vocab.json."""
    if path.is_file():
        return path
    if path.is_dir():
        for found in ("tokenizer.json", "vocab.txt", "vocab.json"):
            if (path / found).is_file():
                return path / found
        raise TokenizerError(
            f"{name}: no tokenizer.json, vocab.txt, or vocab.json with merges.txt in this folder."
        )
    is_path = name.startswith((".", "/", "~")) or name.endswith((".json", ".txt"))
    if name.count("/") == 1 and not is_path:
        return _download(name)
    raise TokenizerError(f"{name}: no such file or folder, and no organisation/name of a hub.")


def _download(name: str) -> Path:
    from huggingface_hub import hf_hub_download  # slow to import, and seldom needed

    try:
        return Path(hf_hub_download(name, "tokenizer.json"))
    except Exception as error:
        # Many kinds, by version: offline, no such repository, no such file, refused.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise TokenizerError(
            f"{name}: no such file or folder, and no tokenizer.json from the hub ({lines[0]}). "
            "Check the name and the network, or give a folder that holds the tokenizer."
        ) from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, OSError) as error:
        raise TokenizerError(f"{file}: no JSON ({error}). Use another file.") from None
    if file.name == "vocab.json":
        return _byte_bpe(file, content)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise TokenizerError(f"{file}: JSON, but no tokenizer: it has no model. Use another file.")
    return content


def _byte_bpe(file: Path, vocabulary: Any) -> dict[str, Any]:
    """GPT-2's files: byte-level BPE that puts no space before a text."""
    merges = file.with_name("merges.txt")
    if not merges.is_file():
        raise TokenizerError(f"{file}: merges.txt is missing beside it.")
    try:
        tokenizer = Tokenizer(models.BPE.from_file(str(file), str(merges)))
    except Exception as error:  # The library raises plain Exception.
        raise TokenizerError(f"{merges}: does not fit {file} ({error}).") from None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token in ("<|endoftext|>",) if token in vocabulary]
    tokenizer.add_special_tokens(special)
    return _settings(tokenizer)


def _read_vocab_txt(file: Path) -> dict[str, Any]:
    """BERT's file, one token a line, with BERT's settings; lower-cased unless a config says no."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{file}: not UTF-8 ({error}). Use another file.") from None
    tokens = [line.removesuffix("\r") for line in text.split("\n")]
    while tokens and not tokens[-1]:
        tokens.pop()
    if not tokens:
        raise TokenizerError(f"{file}: the vocabulary is empty. Use another file.")
    vocabulary: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if not token:
            raise TokenizerError(f"{file}: line {number + 1} is empty; each line is a token.")
        if token in vocabulary:
            raise TokenizerError(
                f"{file}: {token!r} stands on line {vocabulary[token] + 1} and on line "
                f"{number + 1}; ids would be ambiguous. Use another file."
            )
        vocabulary[token] = number
    config_file = file.with_name("tokenizer_config.json")
    config = _read_config(config_file) if config_file.is_file() else {}
    unknown = config.get("unk_token", "[UNK]")
    if unknown not in vocabulary:
        raise TokenizerError(
            f"{file}: the vocabulary lacks {unknown}, which stands for unknown words. Add it."
        )
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    add_bert_parts(
        tokenizer,
        lowercase=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
    )
    tokenizer.add_special_tokens(
        [token for token in BERT_SPECIAL if tokenizer.token_to_id(token) is not None]
    )
    add_bert_template(tokenizer)
    return _settings(tokenizer)


def _read_config(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise TokenizerError(f"{file}: no JSON ({error}). Repair or remove it.") from None
    return content if isinstance(content, dict) else {}


def _settings(tokenizer: Tokenizer) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(tokenizer.to_str())
    return settings
