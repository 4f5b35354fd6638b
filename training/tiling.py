"""First weights of a model from those of a smaller one: its matrices repeated from the middle.

    layers     layer i of n comes from layer round(i m / n) of the small model's m ("Gopher layer
               scaling", arXiv:2112.11446, appendix G.3.3)
    an axis    of 7 from 3 numbers a b c:    b c [a b c] a b    the small one stands in the middle
               and goes on to both sides

Query, key and value are tiled apart, and so are the branches of a gated feed-forward network, which
would otherwise end up in one another; heads are tiled whole. ModernBERT-large began so, from base
(arXiv:2412.13663, section 2; AnswerDotAI/ModernBERT, src/bert_layers/initialization.py and
model.py). As there, a global layer may come from a local one, and the other way round.
"""

from dataclasses import asdict

import torch
from torch import Tensor

from tokenmill.errors import RecipeError
from tokenmill.training.block import split_qkv
from tokenmill.training.encoder_config import EncoderConfig
from tokenmill.training.model import MaskedLanguageModel

_SIZES = ("width", "layers", "heads", "head_dim", "hidden")
_KIND = ("vocab_size", "positions", "max_positions", "segments", "norm", "norm_bias", "norm_place",
         "embedding_norm", "first_attention_norm", "linear_bias", "feed_forward", "head",
         "head_bias", "tied", "next_sentence")  # fmt: skip


@torch.no_grad()
def tile(model: MaskedLanguageModel, small: MaskedLanguageModel) -> None:
    """Set a model's weights from a smaller one's.

    What the small model lacks keeps its value, the norm of a later layer that comes from
    ModernBERT's first: call `initialise` before.

    Raises:
        RecipeError: the small one is larger somewhere, or of another kind or vocabulary.
    """
    _refuse_another_kind(model.config, small.config)
    weights = dict(small.named_parameters())
    for name, parameter in model.named_parameters():
        source = weights.get(_source(name, model.config.layers, small.config.layers))
        if source is not None:
            tiled = _by_axes(name, source, small.config)
            target = _by_axes(name, parameter, model.config)
            for axis, size in enumerate(target.shape):
                tiled = tiled.index_select(axis, _places(size, tiled.shape[axis], tiled.device))
            target.copy_(tiled)


def _places(size: int, small: int, device: torch.device) -> Tensor:
    """(size,) which number of the small axis stands at each place of the large one."""
    return (torch.arange(size, device=device) - (size - small) // 2) % small


def _source(name: str, layers: int, small_layers: int) -> str:
    """The parameter of the small model from which this one comes."""
    if not name.startswith("encoder.blocks."):
        return name
    encoder, blocks, layer, rest = name.split(".", 3)
    # Rounding gives one more than there are where the small one has less than half the layers.
    source = min(round(int(layer) * small_layers / layers), small_layers - 1)
    return f"{encoder}.{blocks}.{source}.{rest}"


def _by_axes(name: str, rows: Tensor, config: EncoderConfig) -> Tensor:
    """A view with an axis for each thing that is tiled by itself."""
    if ".qkv." in name:
        return split_qkv(rows, config)
    if ".wo.weight" in name:
        return torch.unflatten(rows, 1, (config.heads, -1))
    if ".ffn_in." in name:
        return torch.unflatten(rows, 0, (-1, config.hidden))  # the branches
    return rows


def _refuse_another_kind(config: EncoderConfig, small: EncoderConfig) -> None:
    ours, theirs = asdict(config), asdict(small)
    for name in _KIND:
        if ours[name] != theirs[name]:
            raise RecipeError(
                f"tile_from: {name}: expected {ours[name]}, as in training.model, found "
                f"{theirs[name]}. Only a model of the same kind and vocabulary can be tiled."
            )
    for sizes in (ours, theirs):
        sizes["head_dim"] = sizes["width"] // sizes["heads"]
    for name in _SIZES:
        if theirs[name] > ours[name]:
            raise RecipeError(
                f"tile_from: {name}: expected at most {ours[name]}, as in training.model, found "
                f"{theirs[name]}."
            )
