"""The models by name. docs/training.md has their exact parameter counts; tests hold them."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokenmill.errors import RecipeError
from tokenmill.shards.settings import read_settings, to_mapping
from tokenmill.training.encoder_config import EncoderConfig

_NEOBERT = EncoderConfig(vocab_size=30_522, width=768, layers=28, heads=12, hidden=2048)
"""arXiv:2502.19587, table 1, and the released checkpoint's shapes."""

_MODERNBERT = EncoderConfig(
    vocab_size=50_368,
    width=768,
    layers=22,
    heads=12,
    hidden=1152,
    pad_id=50_283,
    positions="rotary-half",
    norm="layer",
    embedding_norm=True,
    first_attention_norm=False,
    feed_forward="geglu",
    global_every=3,
    window=64,
    head="dense",
    tied=True,
    initialisation="megatron",
    attention_dropout=0.1,
)
"""arXiv:2412.13663, table 4; AnswerDotAI/ModernBERT, yamls/modernbert."""

_BERT = EncoderConfig(
    vocab_size=30_522,
    width=768,
    layers=12,
    heads=12,
    hidden=3072,
    positions="learned",
    max_positions=512,
    segments=2,
    norm="layer",
    norm_eps=1e-12,
    norm_bias=True,
    norm_place="after",
    embedding_norm=True,
    linear_bias=True,
    feed_forward="gelu",
    head="dense",
    head_bias=True,
    tied=True,
    next_sentence=True,
    initialisation="truncated",
    dropout=0.1,
)
"""arXiv:1810.04805; google-research/bert, modeling.py."""

_ROBERTA = replace(
    _BERT,
    vocab_size=50_265,
    pad_id=1,
    max_positions=514,
    first_position=2,
    segments=1,
    norm_eps=1e-5,
    next_sentence=False,
    initialisation="normal",
)
"""arXiv:1907.11692; facebookresearch/fairseq, examples/roberta."""

_TINY = EncoderConfig(vocab_size=8_192, width=128, layers=2, heads=4, hidden=344, init_range=0.15)
"""For demonstrations and tests, no published model. Its larger first weights let attention depend
on position from the start, which with NeoBERT's takes longer than a demonstration lasts. On
8,192-word WordPiece text it passes the unigram entropy after 0.4 M tokens and lies 0.5 nat below it
after 1.2 M (learning rate 2e-3, steps of 2,048)."""


def _ettin(layers: int, width: int, hidden: int, heads: int) -> EncoderConfig:
    """JHU-CLSP/ettin-encoder-vs-decoder, pretraining/configs: ModernBERT in other sizes."""
    return replace(_MODERNBERT, layers=layers, width=width, hidden=hidden, heads=heads)


PRESETS = {
    "neobert": _NEOBERT,
    "modernbert-base": _MODERNBERT,
    "modernbert-large": _ettin(28, 1024, 2624, 16),
    "ettin-17m": _ettin(7, 256, 384, 4),
    "ettin-32m": _ettin(10, 384, 576, 6),
    "ettin-68m": _ettin(19, 512, 768, 8),
    "ettin-150m": _MODERNBERT,
    "ettin-400m": _ettin(28, 1024, 2624, 16),
    "ettin-1b": _ettin(28, 1792, 3840, 28),
    "bert-base": _BERT,
    "bert-large": replace(_BERT, layers=24, width=1024, heads=16, hidden=4096),
    "roberta-base": _ROBERTA,
    "roberta-large": replace(_ROBERTA, layers=24, width=1024, heads=16, hidden=4096),
    "tiny": _TINY,
}


def encoder_config(
    name: str, changes: dict[str, Any] | None = None, **tokenizer: int
) -> EncoderConfig:
    """A preset with changes to its fields laid over it.

    Args:
        name: a key of PRESETS.
        changes: what a recipe has below `training.model`.
        tokenizer: vocab_size and pad_id, where they are not the preset's own. A vocab_size among
            the changes may be larger than the tokenizer's: a multiple of 64 is faster.

    Raises:
        RecipeError: there is no such preset or field, the shape cannot be, or the tokenizer has
            more tokens. Its message begins below `training`.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise RecipeError(f"preset: expected one of {', '.join(PRESETS)}, found {name}.{hint}")
    mapping = to_mapping(PRESETS[name])
    given = {**tokenizer, **(changes or {})}
    if isinstance(given.get("rope"), Mapping):
        given["rope"] = {**mapping["rope"], **given["rope"]}
    config = read_settings(EncoderConfig, {**mapping, **given}, "model")
    least = tokenizer.get("vocab_size", 0)
    if config.vocab_size < least:
        raise RecipeError(
            f"model.vocab_size: expected at least the tokenizer's {least}, "
            f"found {config.vocab_size}. Set it to that, or a little more."
        )
    return config
