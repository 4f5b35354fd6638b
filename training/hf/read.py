"""Weights to start from: a folder of `tokenmill export`, or a published one that was downloaded.

    config, state = read_hugging_face(Path("ModernBERT-base"))

NeoBERT, ModernBERT and Ettin, BERT, RoBERTa. Everything comes as float32 and under our names.
"""

from dataclasses import fields, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tokenmill.errors import FormatError, RecipeError
from tokenmill.shards.files import read_json
from tokenmill.training.encoder_config import EncoderConfig
from tokenmill.training.hf.architecture import from_config
from tokenmill.training.hf.weights import from_hugging_face
from tokenmill.training.model import MaskedLanguageModel

_MAY_DIFFER = {
    "rope", "window", "dropout", "attention_dropout", "initialisation", "init_range",
}  # fmt: skip
"""Fields that decide nothing about the weights."""


def read_hugging_face(folder: Path) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The shape and the state dict of a model's folder.

    Args:
        folder: holds config.json and one or more *.safetensors.

    Raises:
        FormatError: a file is missing or damaged, or the model is none that we have.
    """
    if not (folder / "config.json").exists():
        raise FormatError(f"{folder}: no config.json. Give a folder of `tokenmill export`.")
    content = read_json(folder / "config.json")
    if not isinstance(content, dict):
        raise FormatError(f"{folder / 'config.json'}: expected a mapping.")
    config = from_config(content, str(folder / "config.json"))
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FormatError(f"{folder}: no *.safetensors. Give a folder of `tokenmill export`.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= {_newer(name): tensor for name, tensor in load_file(file).items()}
        except (OSError, SafetensorError) as error:
            raise FormatError(f"{file}: cannot be read ({error}).") from None
    config = _with_weights(config, tensors)
    try:
        state = from_hugging_face(tensors, config)
    except FormatError as error:
        raise FormatError(f"{folder}: {error}") from None
    return config, {name: tensor.float() for name, tensor in state.items()}


def start_from(model: MaskedLanguageModel, folder: Path) -> None:
    """Give a model the weights of a folder.

    Positions, windows and dropout may differ, as they do from phase to phase.

    Raises:
        FormatError: as read_hugging_face.
        RecipeError: the folder's model has another shape; names the field.
    """
    there, state = read_hugging_face(folder)
    for field in fields(EncoderConfig):
        ours, theirs = getattr(model.config, field.name), getattr(there, field.name)
        if field.name not in _MAY_DIFFER and ours != theirs:
            raise RecipeError(
                f"initial_weights: {folder} has {field.name} {theirs}, and the model {ours}."
            )
    model.load_state_dict(state)


def _newer(name: str) -> str:
    """bert-base-uncased still has the names of Google's code in its norms."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def _with_weights(config: EncoderConfig, tensors: dict[str, Tensor]) -> EncoderConfig:
    """What config.json does not say, or says otherwise in published folders."""
    inner = tensors.get("model.transformer_encoder.0.ffn.w3.weight")
    if inner is not None:
        config = replace(config, hidden=inner.shape[1])
    if config.positions == "learned":
        config = replace(config, next_sentence="cls.seq_relationship.weight" in tensors)
    return config
