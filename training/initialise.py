"""First weights by each recipe, from a seed.

    uniform      [-r, r]                                 NeoBERT (model.py)
    normal       deviation r; padding's row 0            RoBERTa (fairseq, init_bert_params)
    truncated    deviation r, cut off at 2 r             BERT (google-research/bert, modeling.py)
    megatron     the same, with deviation r / sqrt(2     ModernBERT, Ettin (AnswerDotAI/ModernBERT,
                 layers) for the matrices that write     initialization.py, full_megatron)
                 into the residual stream

Norms begin as 1, biases as 0; ModernBERT's code leaves the decoder's bias as torch draws it.
Matrices are drawn on the CPU, in the order of the state dict, so the weights depend on the seed
alone: not on the device, nor on how training will be distributed. The price is time: a billion
weights take ten seconds to a minute, by the number of threads.
"""

import math

import torch
from torch import nn

from tokenmill.training.model import MaskedLanguageModel

_INTO_RESIDUAL = ("wo.weight", "ffn_out.weight")


@torch.no_grad()
def initialise(model: MaskedLanguageModel, seed: int) -> None:
    """Set every weight."""
    config = model.config
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
            continue
        size = config.init_range
        if config.initialisation == "megatron" and name.endswith(_INTO_RESIDUAL):
            size /= math.sqrt(2 * config.layers)
        drawn = torch.empty(parameter.shape)
        if config.initialisation == "uniform":
            drawn.uniform_(-size, size, generator=generator)
        elif config.initialisation == "normal":
            drawn.normal_(0.0, size, generator=generator)
        else:
            nn.init.trunc_normal_(drawn, 0.0, size, -2 * size, 2 * size, generator=generator)
        parameter.copy_(drawn)
    if config.initialisation == "normal":
        model.encoder.embeddings.tokens.weight[config.pad_id] = 0.0
