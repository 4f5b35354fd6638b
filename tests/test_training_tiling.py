"""Tiling: a larger model begins with the weights of a smaller one, number by number."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from small_models import KINDS, make_model
from torch import nn

from tokenmill.errors import RecipeError
from tokenmill.training.encoder_config import EncoderConfig
from tokenmill.training.tiling import tile


def middle_tiled(small: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Number by number: the small one in the middle, repeated to all sides."""
    large = torch.empty(shape)
    for place in product(*map(range, shape)):
        source = (
            (index - (size - old) // 2) % old
            for index, size, old in zip(place, shape, small.shape, strict=True)
        )
        large[place] = small[tuple(source)]
    return large


def single_matrices(name: str, rows: torch.Tensor, config: EncoderConfig) -> list[torch.Tensor]:
    """Query, key and value of a qkv, the branches of a gated feed-forward, or the thing itself."""
    if ".qkv." in name and config.positions == "rotary-interleaved":
        return [part.flatten(0, 1) for part in rows.unflatten(0, (config.heads, 3, -1)).unbind(1)]
    if ".qkv." in name:
        return list(rows.chunk(3))
    return list(rows.chunk(2) if ".ffn_in." in name and config.feed_forward != "gelu" else [rows])


@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_model_is_tiled_from_the_middle_of_a_smaller_one(kind):
    small = make_model(replace(KINDS[kind], layers=2))
    torch.manual_seed(0)
    for parameter in small.parameters():
        nn.init.normal_(parameter)
    model = make_model(replace(KINDS[kind], layers=5, width=32, heads=4, hidden=31))
    tile(model, small)
    layer_of = {f"blocks.{i}.": f"blocks.{source}." for i, source in enumerate([0, 0, 1, 1, 1])}
    weights = small.state_dict()
    for name, rows in model.state_dict().items():
        layer = next((layer for layer in layer_of if layer in name), "")
        source = weights.get(name.replace(layer, layer_of.get(layer, "")))
        if source is None:  # ModernBERT's first layer has no norm for the second to come from
            assert name == "encoder.blocks.1.attention_norm.weight"
            assert (rows == 1).all()
            continue
        for ours, theirs in zip(
            single_matrices(name, rows, model.config),
            single_matrices(name, source, small.config),
            strict=True,
        ):
            assert torch.equal(ours, middle_tiled(theirs, ours.shape)), name


def test_a_model_that_is_no_smaller_one_of_the_kind_cannot_be_tiled():
    config = KINDS["neobert"]
    with pytest.raises(RecipeError, match=r"tile_from: layers: expected at most 2, .* found 3"):
        tile(make_model(config), make_model(replace(config, layers=3)))
    with pytest.raises(RecipeError, match=r"tile_from: vocab_size: expected 50, .* found 60"):
        tile(make_model(config), make_model(replace(config, vocab_size=60)))
