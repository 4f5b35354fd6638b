"""The models by name, with exact parameter counts.

    name       layers x width   heads  hidden        encoder    with decoder  (vocab_size)
    neobert    28 x 768         12     2,048     221,665,536     245,136,954      (30,522)
    tiny        2 x 128          4       344       1,444,480       2,501,248       (8,192)

neobert is the model of arXiv:2502.19587. tiny learns on two CPU cores within two minutes; it is
for demonstrations and tests, and no published model.
"""

from dataclasses import replace

import torch

from tokenmill.errors import RecipeError
from tokenmill.training.model import EncoderConfig, MaskedLanguageModel

NEOBERT = EncoderConfig(vocab_size=30_522, width=768, layers=28, heads=12, hidden=2048)
"""arXiv:2502.19587, table 1, and the released checkpoint's shapes."""

TINY = EncoderConfig(vocab_size=8_192, width=128, layers=2, heads=4, hidden=344, init_range=0.15)
"""Its larger first weights let attention depend on position from the start, which with NeoBERT's
takes longer than a demonstration lasts. On 8,192-word WordPiece text it passes the unigram entropy
after 0.4 M tokens and lies 0.5 nat below it after 1.2 M (learning rate 2e-3, steps of 2,048)."""

PRESETS = {"neobert": NEOBERT, "tiny": TINY}


def build(
    name: str,
    device: str = "meta",
    vocab_size: int | None = None,
    *,
    pad_id: int = 0,
    compute_dtype: torch.dtype = torch.float32,
) -> MaskedLanguageModel:
    """A preset's model; its weights are not set yet (MaskedLanguageModel.initialise sets them).

    Args:
        name: a key of PRESETS.
        device: "meta" takes no memory and is enough to count parameters.
        vocab_size: the tokenizer's, where it is not the preset's own.
        pad_id: the tokenizer's padding token.
        compute_dtype: the activations' precision; weights are always 32 bits.

    Raises:
        RecipeError: there is no such preset.
    """
    if name not in PRESETS:
        raise RecipeError(f"preset {name}: unknown. Presets: {', '.join(PRESETS)}.")
    config = replace(PRESETS[name], pad_id=pad_id)
    if vocab_size is not None:
        config = replace(config, vocab_size=vocab_size)
    with torch.device("meta"):
        model = MaskedLanguageModel(config, compute_dtype)
    return model if device == "meta" else model.to_empty(device=device)


def num_parameters(module: torch.nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in module.parameters())
