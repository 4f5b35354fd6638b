"""Names of weights: ours (model.py lists them) to those of transformers, and back.

The numbers are the same, with three exceptions. BERT and RoBERTa have a matrix each for query, key
and value, where ours holds the rows of the three in this order. BERT counts "goes on with the first
text" as class 0 of next sentences, the loader as class 1: the two rows change places. And rows of
learned positions that no token uses are left out where transformers' class has no place for them.
A tied decoder stands once, as the embedding.

Of what others' folders hold beside, transformers' copies of tied weights and heads that our model
does not have are left out by name; any other tensor is an error.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tokenmill.errors import FormatError
from tokenmill.training.encoder_config import EncoderConfig
from tokenmill.training.hf.architecture import architecture_of, unused_positions

_NOT_OURS = ("position_ids", "pooler.dense.weight", "pooler.dense.bias", "decoder.weight",
             "decoder.bias")  # fmt: skip
"""Ends of names that a published folder may hold and our model does without."""


class _Names(NamedTuple):
    """One tensor of ours and what it is called there; three names: cut into three by rows."""

    ours: str
    theirs: tuple[str, ...]


def to_hugging_face(state: Mapping[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    """A model's state dict by the names of transformers' class for masked language modelling, or
    for pretraining where there is a head for next sentences.

    Raises:
        RecipeError: no class of transformers has this shape.
    """
    renamed: dict[str, Tensor] = {}
    for ours, theirs in _names(config):
        tensor = state[ours]
        if ours == "encoder.embeddings.positions.weight":
            tensor = tensor[unused_positions(config) :]
        if ours.startswith("next_sentence."):
            tensor = tensor.flip(0)
        for name, part in zip(theirs, tensor.chunk(len(theirs)), strict=True):
            renamed[name] = part.contiguous()
    assert state.keys() == {names.ours for names in _names(config)}, "a weight would be lost"
    return renamed


def from_hugging_face(tensors: Mapping[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    """The state dict of our model from the tensors of transformers' class; the way back.

    Raises:
        RecipeError: no class of transformers has this shape.
        FormatError: a tensor is missing, or one is left that our model has no place for.
    """
    left = dict(tensors)
    state: dict[str, Tensor] = {}
    for ours, theirs in _names(config):
        missing = [name for name in theirs if name not in left]
        if missing:
            raise FormatError(
                f"{missing[0]}: missing among the weights. Is this a folder with the head for "
                "masked language modelling?"
            )
        tensor = torch.cat([left.pop(name) for name in theirs])
        if ours == "encoder.embeddings.positions.weight":
            unused = tensor.new_zeros(unused_positions(config), tensor.shape[1])
            tensor = torch.cat([unused, tensor])
        if ours.startswith("next_sentence."):
            tensor = tensor.flip(0)
        state[ours] = tensor
    unknown = [name for name in left if not name.endswith(_NOT_OURS)]
    if unknown:
        raise FormatError(f"{unknown[0]}: a weight that a model of this shape does not have.")
    return state


def _names(config: EncoderConfig) -> Iterator[_Names]:
    """All tensors of a model, in the order of its layers."""
    tables: dict[str, Callable[[EncoderConfig], Iterator[_Names]]] = {
        "neobert": _neobert,
        "modernbert": _modernbert,
        "bert": _bert,
        "roberta": _roberta,
    }
    return tables[architecture_of(config)](config)


def _neobert(config: EncoderConfig) -> Iterator[_Names]:
    yield _Names("encoder.embeddings.tokens.weight", ("model.encoder.weight",))
    for layer in range(config.layers):
        ours, theirs = f"encoder.blocks.{layer}", f"model.transformer_encoder.{layer}"
        yield from _both(f"{ours}.attention_norm", f"{theirs}.attention_norm")
        yield from _both(f"{ours}.qkv", f"{theirs}.qkv")
        yield from _both(f"{ours}.wo", f"{theirs}.wo")
        yield from _both(f"{ours}.ffn_norm", f"{theirs}.ffn_norm")
        yield from _both(f"{ours}.ffn_in", f"{theirs}.ffn.w12")
        yield from _both(f"{ours}.ffn_out", f"{theirs}.ffn.w3")
    yield from _both("encoder.norm", "model.layer_norm")
    yield from _both("decoder", "decoder", bias=True)


def _modernbert(config: EncoderConfig) -> Iterator[_Names]:
    norm, linear = config.norm_bias, config.linear_bias
    yield from _both("encoder.embeddings.tokens", "model.embeddings.tok_embeddings")
    yield from _both("encoder.embeddings.norm", "model.embeddings.norm", bias=norm)
    for layer in range(config.layers):
        ours, theirs = f"encoder.blocks.{layer}", f"model.layers.{layer}"
        if layer:
            yield from _both(f"{ours}.attention_norm", f"{theirs}.attn_norm", bias=norm)
        yield from _both(f"{ours}.qkv", f"{theirs}.attn.Wqkv", bias=linear)
        yield from _both(f"{ours}.wo", f"{theirs}.attn.Wo", bias=linear)
        yield from _both(f"{ours}.ffn_norm", f"{theirs}.mlp_norm", bias=norm)
        yield from _both(f"{ours}.ffn_in", f"{theirs}.mlp.Wi", bias=linear)
        yield from _both(f"{ours}.ffn_out", f"{theirs}.mlp.Wo", bias=linear)
    yield from _both("encoder.norm", "model.final_norm", bias=norm)
    yield from _both("decoder.dense", "head.dense", bias=config.head_bias)
    yield from _both("decoder.norm", "head.norm", bias=norm)
    yield _Names("decoder.bias", ("decoder.bias",))


def _bert(config: EncoderConfig) -> Iterator[_Names]:
    yield from _bert_encoder(config, "bert")
    yield from _both("decoder.dense", "cls.predictions.transform.dense", bias=True)
    yield from _both("decoder.norm", "cls.predictions.transform.LayerNorm", bias=True)
    yield _Names("decoder.bias", ("cls.predictions.bias",))
    if config.next_sentence:
        yield from _both("pooler", "bert.pooler.dense", bias=True)
        yield from _both("next_sentence", "cls.seq_relationship", bias=True)


def _roberta(config: EncoderConfig) -> Iterator[_Names]:
    yield from _bert_encoder(config, "roberta")
    yield from _both("decoder.dense", "lm_head.dense", bias=True)
    yield from _both("decoder.norm", "lm_head.layer_norm", bias=True)
    yield _Names("decoder.bias", ("lm_head.bias",))


def _bert_encoder(config: EncoderConfig, prefix: str) -> Iterator[_Names]:
    for ours, theirs in (("tokens", "word"), ("positions", "position"), ("segments", "token_type")):
        name = f"{prefix}.embeddings.{theirs}_embeddings"
        yield from _both(f"encoder.embeddings.{ours}", name)
    yield from _both("encoder.embeddings.norm", f"{prefix}.embeddings.LayerNorm", bias=True)
    for layer in range(config.layers):
        ours, theirs = f"encoder.blocks.{layer}", f"{prefix}.encoder.layer.{layer}"
        parts = [f"{theirs}.attention.self.{part}" for part in ("query", "key", "value")]
        yield from _both(f"{ours}.qkv", *parts, bias=True)
        yield from _both(f"{ours}.wo", f"{theirs}.attention.output.dense", bias=True)
        # "After": a layer's norms stand behind attention and behind the feed-forward network.
        yield from _both(
            f"{ours}.attention_norm", f"{theirs}.attention.output.LayerNorm", bias=True
        )
        yield from _both(f"{ours}.ffn_in", f"{theirs}.intermediate.dense", bias=True)
        yield from _both(f"{ours}.ffn_out", f"{theirs}.output.dense", bias=True)
        yield from _both(f"{ours}.ffn_norm", f"{theirs}.output.LayerNorm", bias=True)


def _both(ours: str, *theirs: str, bias: bool = False) -> Iterator[_Names]:
    """A weight, and its bias where there is one."""
    for kind in ("weight", "bias") if bias else ("weight",):
        yield _Names(f"{ours}.{kind}", tuple(f"{name}.{kind}" for name in theirs))
