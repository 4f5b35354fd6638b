"""One pre-norm encoder for masked language modelling on packed sequences.

    tokens -> embedding -> layers x (RMSNorm, attention, RMSNorm, SwiGLU) -> RMSNorm -> decoder

It is NeoBERT's (arXiv:2502.19587): fused qkv with the three side by side in every head, rotary
positions on interleaved pairs over the whole head, no biases but the decoder's, embedding and
decoder untied. All sequences of a batch lie in one run of tokens; cu_seqlens keeps them apart, and
the decoder sees only the masked positions: full logits would cost a tenth of all operations.

Weights stay in 32 bits. The activations' precision is the caller's (`compute_dtype`): each matrix
is cast where it is used, and norms take their statistics in 32 bits. There is no dropout, so no
random state belongs to a checkpoint.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmill.training.attention import packed_attention


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """The shape of an encoder. Defaults are NeoBERT's (chandar-lab/NeoBERT, model.py)."""

    vocab_size: int
    """Rows of the embedding and of the decoder, as many as the tokenizer has ids."""
    width: int
    """Numbers in a token's vector."""
    layers: int
    heads: int
    """Attention heads; they divide the width into parts of an even size."""
    hidden: int
    """Width inside SwiGLU, of one of its two branches."""
    pad_id: int = 0
    """The token whose embedding is not trained."""
    rope_theta: float = 10_000.0
    """The base of the rotary wavelengths, in tokens."""
    norm_eps: float = 1e-5
    init_range: float = 0.02
    """Matrices begin uniform in [-init_range, init_range]."""

    def __post_init__(self) -> None:
        assert self.width % (2 * self.heads) == 0, "a head holds whole pairs"


class Linear(nn.Linear):
    """A linear layer that computes in the precision of its input."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class RMSNorm(nn.RMSNorm):
    """A norm that computes in the precision of its input, its statistics in 32 bits."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Block(nn.Module):
    """One layer: attention within each sequence, then SwiGLU, both on normed input and added."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.qkv = Linear(config.width, 3 * config.width, bias=False)
        self.wo = Linear(config.width, config.width, bias=False)
        self.ffn_norm = RMSNorm(config.width, config.norm_eps)
        self.w12 = Linear(config.width, 2 * config.hidden, bias=False)
        self.w3 = Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor, angles: Tensor, cu_seqlens: Tensor, max_length: int) -> Tensor:
        """(tokens, width) to (tokens, width)."""
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (self.heads, -1))
        query, key, value = qkv.chunk(3, dim=-1)  # each (tokens, heads, head_dim)
        query, key = rotate(query, angles), rotate(key, angles)
        attended = packed_attention(query, key, value, cu_seqlens, max_length)
        x = x + self.wo(attended.flatten(1))
        gate, up = self.w12(self.ffn_norm(x)).chunk(2, dim=-1)  # each (tokens, hidden)
        out: Tensor = x + self.w3(F.silu(gate) * up)
        return out


class Encoder(nn.Module):
    """Token ids to vectors."""

    def __init__(self, config: EncoderConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = compute_dtype
        self.embedding = nn.Embedding(config.vocab_size, config.width, padding_idx=config.pad_id)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, cu_seqlens: Tensor, max_length: int
    ) -> Tensor:
        """(tokens, width) the vectors of packed tokens.

        Args:
            input_ids: (tokens,) integers.
            position_ids: (tokens,) integers, from 0 in every sequence.
            cu_seqlens: (sequences + 1,) int32, from 0 to tokens.
            max_length: at least the longest sequence.
        """
        x = self.embedding(input_ids).to(self.compute_dtype)
        angles = rotary_angles(position_ids, self.config)
        for block in self.blocks:
            x = block(x, angles, cu_seqlens, max_length)
        normed: Tensor = self.norm(x)
        return normed


class MaskedLanguageModel(nn.Module):
    """An encoder and a decoder from its vectors to the vocabulary."""

    def __init__(self, config: EncoderConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.encoder = Encoder(config, compute_dtype)
        self.decoder = Linear(config.width, config.vocab_size)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        cu_seqlens: Tensor,
        max_length: int,
        masked_positions: Tensor,
    ) -> Tensor:
        """(masked positions, vocab_size) logits of the hidden tokens, in the given order."""
        vectors = self.encoder(input_ids, position_ids, cu_seqlens, max_length)
        logits: Tensor = self.decoder(vectors.index_select(0, masked_positions))
        return logits

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Set every weight: matrices uniform, norms to 1, the bias to 0. The same on any device."""
        generator = torch.Generator().manual_seed(seed)
        limit = self.encoder.config.init_range
        for parameter in self.parameters():
            if parameter.dim() == 2:
                weights = torch.empty(parameter.shape).uniform_(-limit, limit, generator=generator)
                parameter.copy_(weights)
            else:
                parameter.fill_(1.0)
        self.decoder.bias.zero_()


def rotary_angles(position_ids: Tensor, config: EncoderConfig) -> Tensor:
    """(2, tokens, 1, head_dim / 2) cosines and sines, computed once for all layers.

    They come from the positions themselves, so there is no table that a longer phase outgrows.
    """
    pairs = config.width // config.heads // 2
    exponents = torch.arange(pairs, device=position_ids.device) / pairs
    turns = position_ids[:, None].float() * config.rope_theta**-exponents  # (tokens, pairs)
    return torch.stack([turns.cos(), turns.sin()])[:, :, None]


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """(tokens, heads, head_dim) each pair (2i, 2i + 1) turned by its angle.

    Source: RoFormer, arXiv:2104.09864, equation 15; the pairs are GPT-J's.
    """
    cos, sin = angles.to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
