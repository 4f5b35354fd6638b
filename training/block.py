"""One layer: attention within each sequence, then a feed-forward network, both added to x.

    before (NeoBERT, ModernBERT)    x + attention(norm(x)), then x + feed_forward(norm(x))
    after (BERT, RoBERTa)           norm(x + attention(x)), then norm(x + feed_forward(x))

Weights stay in 32 bits. Each is cast where it is used to the precision of the vectors; norms
compute in 32 bits. Query, key and value are one matrix, whose rows are (heads, 3, head_dim) with
interleaved rotary pairs, as NeoBERT is released, and (3, heads, head_dim) otherwise, as ModernBERT
is; gated feed-forward networks have their two branches in one matrix, the activated one first.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmill.training.attention import packed_attention
from tokenmill.training.encoder_config import EncoderConfig
from tokenmill.training.masked_queries import Queries
from tokenmill.training.rope import pairs_to_halves, rotate


class Sequences(NamedTuple):
    """Where the sequences of a batch begin and end, as TorchBatch has it."""

    cu_seqlens: Tensor
    max_length: int


class Linear(nn.Linear):
    """A linear layer that computes in the precision of its input."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class Norm(nn.Module):
    """RMSNorm or LayerNorm over a vector, in 32 bits at least."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.rms, self.eps = config.norm == "rms", config.norm_eps
        self.weight = nn.Parameter(torch.empty(config.width))
        self.bias = nn.Parameter(torch.empty(config.width)) if config.norm_bias else None

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        weight = self.weight.to(wide)
        if self.rms:
            return F.rms_norm(x.to(wide), weight.shape, weight, self.eps).to(x.dtype)
        bias = None if self.bias is None else self.bias.to(wide)
        return F.layer_norm(x.to(wide), weight.shape, weight, bias, self.eps).to(x.dtype)


def split_qkv(rows: Tensor, config: EncoderConfig) -> Tensor:
    """(3, heads, head_dim, ...) a view of the rows of a qkv matrix, or of its bias."""
    if config.positions == "rotary-interleaved":
        return torch.unflatten(rows, 0, (config.heads, 3, -1)).movedim(1, 0)
    return torch.unflatten(rows, 0, (3, config.heads, -1))


def dropout(share: float) -> nn.Module:
    """What drops this share in training; nothing at all for 0."""
    return nn.Dropout(share) if share else nn.Identity()


class Block(nn.Module):
    """One layer."""

    def __init__(self, config: EncoderConfig, layer: int) -> None:
        super().__init__()
        width, bias = config.width, config.linear_bias
        self.config = config
        self.window = 0 if config.is_global(layer) else config.window
        has_norm = layer > 0 or config.first_attention_norm
        self.attention_norm = Norm(config) if has_norm else nn.Identity()
        self.qkv = Linear(width, 3 * width, bias=bias)
        self.wo = Linear(width, width, bias=bias)
        self.attention_dropout = dropout(
            config.dropout if config.attention_dropout is None else config.attention_dropout
        )
        self.ffn_norm = Norm(config)
        branches = 1 if config.feed_forward == "gelu" else 2
        self.ffn_in = Linear(width, branches * config.hidden, bias=bias)
        self.ffn_out = Linear(config.hidden, width, bias=bias)
        self.ffn_dropout = dropout(config.dropout)

    def forward(
        self, x: Tensor, angles: Tensor | None, sequences: Sequences, queries: Queries | None = None
    ) -> Tensor:
        """(tokens, width), or (queries, width) where only those are asked for.

        Args:
            x: (tokens, width).
            angles: (2, tokens, 1, head_dim / 2) of rotary positions; None with learned ones.
            sequences: where they begin and end.
            queries: the places whose vectors are wanted; None for all.
        """
        asked = x if queries is None else x.index_select(0, queries.places)
        if self.config.norm_place == "before":
            asked = asked + self.attend(self.attention_norm(x), angles, sequences, queries)
            asked = asked + self.feed_forward(self.ffn_norm(asked))
        else:
            asked = self.attention_norm(asked + self.attend(x, angles, sequences, queries))
            asked = self.ffn_norm(asked + self.feed_forward(asked))
        return asked

    def attend(
        self, x: Tensor, angles: Tensor | None, sequences: Sequences, queries: Queries | None
    ) -> Tensor:
        """(tokens, width), or (queries, width): what attention adds."""
        cu_seqlens, max_length = cu_queries, max_queries = sequences
        asked_angles = angles
        if queries is None:
            query, key, value = self.project(x, 0, 3)
        else:
            (query,) = self.project(x.index_select(0, queries.places), 0, 1)
            key, value = self.project(x, 1, 2)
            cu_queries, max_queries = queries.cu_seqlens, queries.max_length
            if angles is not None:
                asked_angles = angles.index_select(1, queries.places)
        if angles is not None and asked_angles is not None:
            query, key = rotate(query, asked_angles), rotate(key, angles)
        attended = packed_attention(
            query, key, value, cu_queries, cu_seqlens, max_queries, max_length, self.window
        )
        added: Tensor = self.attention_dropout(self.wo(attended.flatten(1)))
        return added

    def project(self, x: Tensor, first: int, count: int) -> tuple[Tensor, ...]:
        """`count` of query, key and value from the `first` on, each (tokens, heads, head_dim)."""

        def these(rows: Tensor) -> Tensor:
            parts = list(split_qkv(rows, self.config).unbind())
            if self.config.positions == "rotary-interleaved":
                parts[:2] = [pairs_to_halves(part) for part in parts[:2]]
            return torch.cat(parts[first : first + count]).flatten(0, 1).to(x.dtype)

        bias = None if self.qkv.bias is None else these(self.qkv.bias)
        projected = F.linear(x, these(self.qkv.weight), bias)
        return torch.unflatten(projected, -1, (count, self.config.heads, -1)).unbind(1)

    def feed_forward(self, x: Tensor) -> Tensor:
        """(tokens, width): what the feed-forward network adds."""
        inside = self.ffn_in(x)
        if self.config.feed_forward == "gelu":
            inside = F.gelu(inside)
        else:
            gate, up = inside.chunk(2, dim=-1)  # each (tokens, hidden)
            inside = (F.silu(gate) if self.config.feed_forward == "swiglu" else F.gelu(gate)) * up
        added: Tensor = self.ffn_dropout(self.ffn_out(inside))
        return added
