"""A shape in the words of transformers: EncoderConfig to config.json and back.

What a model is, is read from its fields and not from its preset's name, because a recipe may change
any of them. What no class of transformers can express is refused by its fields' names:

    rotary-interleaved   NeoBERT, by the modelling file that goes into the folder
    rotary-half          ModernBERT, Ettin
    learned              RoBERTa where positions begin after the padding's id, as its class has it;
                         BERT elsewhere. A table whose first rows are not used is cut to those used

Attention weights are never dropped in training, so config.json says 0 where BERT's says 0.1; those
who fine-tune with dropout set it there. transformers 4 reads theta by other names, which stand
beside the new ones; it cannot stretch ModernBERT's positions (YaRN) and finds null there, so that
it fails instead of reading them wrongly.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Literal

from tokenmill.errors import FormatError, RecipeError
from tokenmill.shards.run import TokenizerInfo
from tokenmill.training.encoder_config import EncoderConfig, RopeConfig
from tokenmill.training.presets import PRESETS

Architecture = Literal["neobert", "modernbert", "bert", "roberta"]
"""What transformers calls model_type."""

_PRESET = {
    "neobert": PRESETS["neobert"],
    "modernbert": PRESETS["modernbert-base"],
    "bert": PRESETS["bert-base"],
    "roberta": PRESETS["roberta-base"],
}
"""The fields that an architecture fixes are its preset's."""

_FREE = {"vocab_size", "width", "layers", "heads", "hidden", "pad_id", "norm_eps", "window",
         "initialisation", "init_range", "dropout", "attention_dropout", "rope"}  # fmt: skip
_FREE_TOO = {
    "neobert": set(),
    "modernbert": {"norm_bias", "linear_bias", "head_bias", "global_every"},
    "bert": {"max_positions", "first_position", "segments", "next_sentence"},
    "roberta": {"max_positions", "first_position", "segments"},
}
"""What may differ from it."""


def architecture_of(config: EncoderConfig) -> Architecture:
    """What transformers calls a model of this shape.

    Raises:
        RecipeError: none of its classes has it; names the fields.
    """
    found = _nearest(config)
    free = _FREE | _FREE_TOO[found]
    differ = [
        f"{field.name} {getattr(_PRESET[found], field.name)}, not {getattr(config, field.name)}"
        for field in fields(EncoderConfig)
        if field.name not in free
        and getattr(config, field.name) != getattr(_PRESET[found], field.name)
    ]
    if differ:
        raise RecipeError(
            f"training.model: no class of transformers has this shape. With positions: "
            f"{config.positions} the nearest is {found}, which has {'; '.join(differ)}."
        )
    if config.positions == "learned" and config.segments < 1:
        raise RecipeError(
            f"training.model.segments: 0 cannot be exported; a {found} of transformers has at "
            "least 1."
        )
    return found


def to_config(
    config: EncoderConfig, tokenizer: TokenizerInfo, *, max_length: int
) -> dict[str, Any]:
    """The content of config.json.

    Args:
        config: with the positions (rope) of the phase that the weights come from.
        max_length: tokens of the longest sequence that the model was trained on.

    Raises:
        RecipeError: no class of transformers has this shape.
    """
    architecture = architecture_of(config)
    common = {
        "model_type": architecture,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.hidden,
        "initializer_range": config.init_range,
        "max_position_embeddings": max_length,
        "tie_word_embeddings": config.tied,
        "pad_token_id": config.pad_id,
        "bos_token_id": next(iter(tokenizer.prefix), None),
        "eos_token_id": next(iter(tokenizer.suffix), None),
        "dtype": "float32",
    }
    if architecture == "neobert":
        return common | _neobert(config)
    if architecture == "modernbert":
        return common | _modernbert(config, tokenizer)
    return common | _bert(config, architecture)


def from_config(content: Mapping[str, Any], where: str) -> EncoderConfig:
    """The shape that a config.json describes, its dropout left out.

    Raises:
        FormatError: it is of another architecture, or says what our model cannot be.
    """
    architecture = content.get("model_type")
    if architecture not in _PRESET:
        raise FormatError(
            f"{where}: expected model_type {', '.join(_PRESET)}, found {architecture}."
        )
    try:
        config = replace(
            _PRESET[architecture],
            vocab_size=content["vocab_size"],
            width=content["hidden_size"],
            layers=content["num_hidden_layers"],
            heads=content["num_attention_heads"],
            hidden=content["intermediate_size"],
            pad_id=content["pad_token_id"],
            init_range=content.get("initializer_range", 0.02),
            dropout=0.0,
            attention_dropout=None,
        )
        if architecture == "neobert":
            return _from_neobert(config, content)
        for name in ("hidden_act", "hidden_activation", "classifier_activation"):
            if content.get(name, "gelu") != "gelu":
                raise RecipeError(f"{name} is {content[name]}, ours is gelu")
        if not content.get("tie_word_embeddings", True):
            raise RecipeError("tie_word_embeddings is false, ours are tied")
        if architecture == "modernbert":
            return _from_modernbert(config, content)
        return _from_bert(config, content)
    except (KeyError, RecipeError) as error:
        raise FormatError(f"{where}: no {architecture} that our model can be ({error}).") from None


def _nearest(config: EncoderConfig) -> Architecture:
    if config.positions == "rotary-interleaved":
        return "neobert"
    if config.positions == "rotary-half":
        return "modernbert"
    like_roberta = config.first_position == config.pad_id + 1 and not config.next_sentence
    return "roberta" if like_roberta else "bert"


def _neobert(config: EncoderConfig) -> dict[str, Any]:
    return {
        "architectures": ["NeoBertForMaskedLM"],
        "auto_map": {
            "AutoConfig": "modeling_neobert.NeoBertConfig",
            "AutoModel": "modeling_neobert.NeoBertModel",
            "AutoModelForMaskedLM": "modeling_neobert.NeoBertForMaskedLM",
            "AutoModelForSequenceClassification": (
                "modeling_neobert.NeoBertForSequenceClassification"
            ),
        },
        "norm_eps": config.norm_eps,
        "rope_parameters": _rope_parameters(config.rope),
    }


def _from_neobert(config: EncoderConfig, content: Mapping[str, Any]) -> EncoderConfig:
    # The published folder has no rope_parameters; and its intermediate_size is 3/2 of the width
    # inside its SwiGLU, which read.py takes from the weights.
    rope = _rope(content.get("rope_parameters") or {"rope_theta": 10_000.0})
    return replace(config, norm_eps=content["norm_eps"], rope=rope)


def _modernbert(config: EncoderConfig, tokenizer: TokenizerInfo) -> dict[str, Any]:
    rope = config.rope
    local_theta = rope.local_theta if rope.local_theta is not None else rope.theta
    kinds = ("sliding_attention", "full_attention")
    stretched = rope.yarn_factor > 1
    return {
        "architectures": ["ModernBertForMaskedLM"],
        "norm_eps": config.norm_eps,
        "norm_bias": config.norm_bias,
        "attention_bias": config.linear_bias,
        "mlp_bias": config.linear_bias,
        "classifier_bias": config.head_bias,
        "decoder_bias": True,
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "attention_dropout": 0.0,
        "embedding_dropout": config.dropout,
        "mlp_dropout": config.dropout,
        "cls_token_id": next(iter(tokenizer.prefix), None),
        "sep_token_id": next(iter(tokenizer.suffix), None),
        "local_attention": 2 * config.window,
        "layer_types": [kinds[config.is_global(layer)] for layer in range(config.layers)],
        "rope_parameters": {
            "full_attention": _rope_parameters(rope),
            "sliding_attention": _rope_parameters(RopeConfig(theta=local_theta)),
        },
        # transformers 4's names.
        "global_attn_every_n_layers": config.global_every,
        "global_rope_theta": None if stretched else rope.theta,
        "local_rope_theta": local_theta,
    }


def _from_modernbert(config: EncoderConfig, content: Mapping[str, Any]) -> EncoderConfig:
    given = content.get("rope_parameters") or {
        "full_attention": {"rope_theta": content.get("global_rope_theta", 160_000.0)},
        "sliding_attention": {"rope_theta": content.get("local_rope_theta", 10_000.0)},
    }
    biases = {bool(content.get(name)) for name in ("attention_bias", "mlp_bias")}
    if len(biases) > 1:
        raise RecipeError("attention_bias and mlp_bias differ")
    kinds = ("sliding_attention", "full_attention")
    types = content.get("layer_types") or []
    every = types.index("full_attention", 1) if "full_attention" in types[1:] else 3
    local_theta = float(given["sliding_attention"]["rope_theta"])
    config = replace(
        config,
        norm_eps=content.get("norm_eps", 1e-5),
        norm_bias=bool(content.get("norm_bias")),
        linear_bias=biases.pop(),
        head_bias=bool(content.get("classifier_bias")),
        global_every=content.get("global_attn_every_n_layers", every),
        window=content.get("local_attention", 128) // 2,
        rope=replace(_rope(given["full_attention"]), local_theta=local_theta),
    )
    if types and types != [kinds[config.is_global(layer)] for layer in range(config.layers)]:
        raise RecipeError(f"layer_types is not one global layer in {config.global_every}")
    return config


def _bert(config: EncoderConfig, architecture: str) -> dict[str, Any]:
    name = "RobertaForMaskedLM" if architecture == "roberta" else "BertForMaskedLM"
    return {
        "architectures": ["BertForPreTraining" if config.next_sentence else name],
        "max_position_embeddings": config.max_positions - unused_positions(config),
        "unused_positions": unused_positions(config),  # only we read it
        "type_vocab_size": config.segments,
        "layer_norm_eps": config.norm_eps,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": 0.0,
    }


def _from_bert(config: EncoderConfig, content: Mapping[str, Any]) -> EncoderConfig:
    unused = content.get("unused_positions", 0)
    is_roberta = content["model_type"] == "roberta"
    return replace(
        config,
        max_positions=content["max_position_embeddings"] + unused,
        first_position=config.pad_id + 1 if is_roberta else unused,
        segments=content["type_vocab_size"],
        norm_eps=content["layer_norm_eps"],
        next_sentence=content.get("architectures") == ["BertForPreTraining"],
    )


def unused_positions(config: EncoderConfig) -> int:
    """Rows at the start of the table of positions that transformers' class has no place for."""
    return config.first_position if architecture_of(config) == "bert" else 0


def _rope_parameters(rope: RopeConfig) -> dict[str, Any]:
    """As transformers 5 has them."""
    if rope.yarn_factor == 1:
        return {"rope_type": "default", "rope_theta": rope.theta}
    return {
        "rope_type": "yarn",
        "rope_theta": rope.theta,
        "factor": rope.yarn_factor,
        "original_max_position_embeddings": rope.original_length,
    }


def _rope(parameters: Mapping[str, Any]) -> RopeConfig:
    kind = parameters.get("rope_type", "default")
    if kind not in ("default", "yarn"):
        raise RecipeError(f"rope_type {kind}: our positions are default or yarn")
    return RopeConfig(
        theta=float(parameters["rope_theta"]),
        yarn_factor=float(parameters.get("factor", 1.0)),
        original_length=parameters.get("original_max_position_embeddings"),
    )
