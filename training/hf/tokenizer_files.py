"""The tokenizer of a run as AutoTokenizer reads it: tokenizer.json and tokenizer_config.json.

The class is transformers' general one, which takes tokenizer.json as it is, in transformers 4 and
5; a class by the model's name would build the tokenizer anew from its vocabulary, with rules of its
own. What a model saw around texts is put around them here too: where tokenizer.json does not say
it (rows were given [CLS] and [SEP] because masked pretraining needs them), it is added.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from tokenmill.shards.files import read_json, write_json, write_whole
from tokenmill.shards.run import TokenizerInfo


def write_tokenizer(
    source: Path, info: TokenizerInfo, folder: Path, *, max_length: int, segments: int
) -> None:
    """Write both files.

    Args:
        source: RUN/tokenizer.
        max_length: longer texts are cut to so many tokens where a caller asks for truncation.
        segments: the model's token types; with two of them the tokenizer gives them.

    Raises:
        FormatError: the run's tokenizer is missing or damaged.
    """
    settings = read_json(source / "tokenizer.json")
    tokenizer = Tokenizer.from_str(json.dumps(settings))
    around = [*info.prefix, *info.suffix]
    around_two = [*info.prefix, *info.separator, *info.suffix]
    if tokenizer.encode("").ids != around or tokenizer.encode("", "").ids != around_two:
        tokenizer.post_processor = _template(tokenizer, info)
        settings = json.loads(tokenizer.to_str())
    content = json.dumps(settings, ensure_ascii=False, indent=1)
    write_whole(folder / "tokenizer.json", content.encode())
    write_json(folder / "tokenizer_config.json", _config(tokenizer, info, max_length, segments))


def _config(
    tokenizer: Tokenizer, info: TokenizerInfo, max_length: int, segments: int
) -> dict[str, Any]:
    first, last = next(iter(info.prefix), None), next(iter(info.suffix), None)
    special = {"cls_token": first, "bos_token": first, "sep_token": last, "eos_token": last,
               "pad_token": info.pad_id, "mask_token": info.mask_id,
               "unk_token": info.unk_id}  # fmt: skip
    inputs = ["input_ids", *(["token_type_ids"] if segments > 1 else []), "attention_mask"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": inputs,
        "clean_up_tokenization_spaces": False,
        **{
            name: tokenizer.id_to_token(number)
            for name, number in special.items()
            if number is not None
        },
    }


def _template(tokenizer: Tokenizer, info: TokenizerInfo) -> processors.TemplateProcessing:
    tokens = {
        number: tokenizer.id_to_token(number)
        for number in (*info.prefix, *info.separator, *info.suffix)
    }
    before, between, after = (
        [tokens[number] for number in part] for part in (info.prefix, info.separator, info.suffix)
    )
    return processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *between, "$B:1", *(f"{token}:1" for token in after)],
        special_tokens=[(token, number) for number, token in tokens.items()],
    )
