"""A bidirectional encoder for masked language modelling on packed sequences.

    tokens -> embeddings -> blocks -> [norm] -> [matrix, GELU, norm] -> vocabulary, at masked tokens

One model for all presets; `encoder_config.py` says what differs between them. All sequences of a
batch lie in one run of tokens; cu_seqlens keeps them apart. The decoder sees the masked positions
only, and so does the last layer where that is exact (`masked_queries.py`): logits of all tokens
would cost a tenth to a quarter of all operations.

Weights are 32 bits, activations `compute_dtype`, norms and losses 32 bits. Dropout draws from
torch's generator, which the loop seeds for each micro-batch (`dropout.py`). Every shape follows
from the batch's shapes, and nothing is read from the device, so layers compile once.

Names in the state dict; {i} is a layer, (...) what only some presets have:

    encoder.embeddings.tokens.weight                  (vocab_size, width)
    (encoder.embeddings.positions.weight)             (max_positions, width)     BERT, RoBERTa
    (encoder.embeddings.segments.weight)              (segments, width)          BERT, RoBERTa
    (encoder.embeddings.norm.weight, .bias)           (width,)                   all but NeoBERT
    (encoder.blocks.{i}.attention_norm.weight, .bias) (width,)                   not ModernBERT's 0
    encoder.blocks.{i}.qkv.weight, (.bias)            (3 width, width)           see block.py
    encoder.blocks.{i}.wo.weight, (.bias)             (width, width)
    encoder.blocks.{i}.ffn_norm.weight, (.bias)       (width,)
    encoder.blocks.{i}.ffn_in.weight, (.bias)         (hidden or 2 hidden, width)
    encoder.blocks.{i}.ffn_out.weight, (.bias)        (width, hidden)
    (encoder.norm.weight, .bias)                      (width,)                   NeoBERT, ModernBERT
    (decoder.dense.weight, .bias)                     (width, width)             all but NeoBERT
    (decoder.norm.weight, .bias)                      (width,)                   all but NeoBERT
    (decoder.weight)                                  (vocab_size, width)        NeoBERT; else tied
    decoder.bias                                      (vocab_size,)
    (pooler.weight, .bias)                            (width, width)             BERT
    (next_sentence.weight, .bias)                     (2, width)                 BERT

A norm has a bias where norm_bias is set (BERT, RoBERTa), a matrix of a block where linear_bias is,
decoder.dense where head_bias is. tiny is a small NeoBERT.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tokenmill.errors import RecipeError
from tokenmill.loader import TorchBatch
from tokenmill.training.attention import backend, pin_backend
from tokenmill.training.block import Block, Linear, Norm, Sequences, dropout
from tokenmill.training.encoder_config import EncoderConfig, RopeConfig
from tokenmill.training.masked_queries import Queries, masked_queries
from tokenmill.training.rope import global_angles, local_angles


class Predictions(NamedTuple):
    """What the model makes of a batch."""

    logits: Tensor
    """(K, vocab_size) of the masked tokens. Those in use keep the batch's order; slots that are not
    may lie between them."""
    targets: Tensor
    """(K,) the batch's targets likewise, NO_TARGET where a slot is not in use."""
    next_sentence: Tensor | None
    """(S, 2) logits of the batch's next_sentence, 0 for another's text and 1 for one that goes on;
    None from a model without that head."""


class Embeddings(nn.Module):
    """Token ids to the first vectors."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.width, padding_idx=config.pad_id)
        self.positions = self.segments = None
        if config.max_positions:
            self.positions = nn.Embedding(config.max_positions, config.width)
        if config.segments:
            self.segments = nn.Embedding(config.segments, config.width)
        self.norm = Norm(config) if config.embedding_norm else nn.Identity()
        self.dropout = dropout(config.dropout)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        segment_ids: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor:
        """(tokens, width) in the given precision."""
        x = self.tokens(input_ids)
        if self.positions is not None:
            x = x + self.positions(position_ids + self.config.first_position)
        if self.segments is not None:
            # RoBERTa's only segment, and BERT's first where a batch has no pairs.
            one = segment_ids is None or self.config.segments == 1
            x = x + (self.segments.weight[0] if one else self.segments(segment_ids))
        embedded: Tensor = self.dropout(self.norm(x).to(dtype))
        return embedded


class Encoder(nn.Module):
    """Token ids to vectors."""

    def __init__(
        self, config: EncoderConfig, compute_dtype: torch.dtype, checkpoint_activations: bool
    ) -> None:
        super().__init__()
        self.config, self.rope = config, config.rope
        self.compute_dtype = compute_dtype
        self.checkpoint_activations = checkpoint_activations
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = Norm(config) if config.norm_place == "before" else nn.Identity()

    def forward(self, batch: TorchBatch, queries: Queries | None = None) -> Tensor:
        """(T, width) the vectors of all tokens, or (K, width) of the queries alone."""
        x = self.embeddings(
            batch.input_ids, batch.position_ids, batch.segment_ids, self.compute_dtype
        )
        angles = self.angles(batch.position_ids)
        sequences = Sequences(batch.cu_seqlens, batch.max_length)
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            asked = queries if layer == last else None
            inputs = x, angles[self.config.is_global(layer)], sequences, asked
            if self.checkpoint_activations and torch.is_grad_enabled():
                x = checkpoint(block, *inputs, use_reentrant=False)
            else:
                x = block(*inputs)
        normed: Tensor = self.norm(x)
        return normed

    def angles(self, position_ids: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Those of local layers and of global ones; None with learned positions."""
        if self.config.positions == "learned":
            return None, None
        pairs = self.config.width // self.config.heads // 2
        whole = global_angles(position_ids, pairs, self.rope)
        local = whole
        if self.config.global_every > 1:
            local = local_angles(position_ids, pairs, self.rope)
        return local, whole


class Decoder(nn.Module):
    """Vectors of masked tokens to logits."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = self.norm = self.weight = None
        if config.head == "dense":
            self.dense = Linear(config.width, config.width, bias=config.head_bias)
            self.norm = Norm(config)
        if not config.tied:
            self.weight = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.bias = nn.Parameter(torch.empty(config.vocab_size))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(masked, vocab_size) by the decoder's own matrix, or by the embedding where it has none.

        Args:
            x: (masked, width).
            embedding: (vocab_size, width) of the tokens.
        """
        if self.dense is not None and self.norm is not None:
            x = self.norm(F.gelu(self.dense(x)))
        weight = embedding if self.weight is None else self.weight
        return F.linear(x, weight.to(x.dtype), self.bias.to(x.dtype))


class MaskedLanguageModel(nn.Module):
    """An encoder, a decoder to the vocabulary, and BERT's next-sentence head where it has one."""

    def __init__(
        self,
        config: EncoderConfig,
        compute_dtype: torch.dtype,
        *,
        masked_queries_only: bool,
        checkpoint_activations: bool,
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, compute_dtype, checkpoint_activations)
        self.decoder = Decoder(config)
        self.pooler = self.next_sentence = None
        if config.next_sentence:
            self.pooler = Linear(config.width, config.width)
            self.next_sentence = Linear(config.width, 2)
        # Keys of a window are counted from the query's place, and pairs are told from first tokens.
        exact = config.is_global(config.layers - 1) and not config.next_sentence
        self.masked_queries_only = masked_queries_only and exact

    def forward(self, batch: TorchBatch) -> Predictions:
        """The logits of a batch's masked tokens: the one way to call a model."""
        if self.masked_queries_only and len(batch.targets):
            queries = masked_queries(batch)
            vectors, targets = self.encoder(batch, queries), queries.targets
            masked = vectors
        else:
            vectors, targets = self.encoder(batch), batch.targets
            masked = vectors.index_select(0, batch.masked_positions)
        logits = self.decoder(masked, self.encoder.embeddings.tokens.weight)
        next_sentence = None
        if self.pooler is not None and self.next_sentence is not None:
            # The slots of sequences that are not there start behind the last token.
            starts = batch.cu_seqlens[:-1].clamp(max=len(vectors) - 1)
            pooled = self.pooler(vectors.index_select(0, starts)).tanh()
            next_sentence = self.next_sentence(pooled)
        return Predictions(logits, targets, next_sentence)

    def set_rope(self, rope: RopeConfig) -> None:
        """Change rotary positions, as a phase begins. Nothing is compiled anew."""
        self.encoder.rope = rope

    def compile(self, **options: Any) -> None:
        """Compile layers and decoder in place, each whole and for the shapes that come.

        Layers of one kind share their code; kinds are the first without a norm, local, global, the
        last at masked tokens. Each shape, and training and evaluation, have their own.

        Args:
            options: of torch.compile, e.g. backend.

        Raises:
            RecipeError: a GPU's kernel for packed sequences is for 16 bits, and without it compiled
                attention is quadratic in all tokens of a batch.
        """
        device, dtype = self.decoder.bias.device, self.encoder.compute_dtype
        if device.type == "cuda" and backend(device, dtype) != "varlen":
            raise RecipeError(
                f"training.dtype: expected bfloat16, found {str(dtype).removeprefix('torch.')}: on "
                "a GPU compiled layers need 16 bits. Set it, or training.compile to false."
            )
        # Of one function: kinds of layers x shapes x training or not. torch's 8 is too few.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        encoder = self.encoder
        for part in (encoder.embeddings, *encoder.blocks, encoder.norm, self.decoder):
            if not isinstance(part, nn.Identity):
                part.compile(fullgraph=True, dynamic=False, **options)


def build_model(
    config: EncoderConfig,
    device: torch.device | str = "meta",
    compute_dtype: torch.dtype = torch.float32,
    *,
    masked_queries_only: bool = True,
    checkpoint_activations: bool = False,
) -> MaskedLanguageModel:
    """A model whose weights are not set yet; `initialise` or load_state_dict sets them.

    Args:
        device: "meta" takes no memory and is enough to count parameters.
        compute_dtype: the activations' precision; weights are always 32 bits.
        masked_queries_only: compute the last layer at masked tokens only, where that is exact.
        checkpoint_activations: compute layers again in the backward pass, for memory.
    """
    if torch.device(device).type == "cuda":
        pin_backend()
    with torch.device("meta"):
        model = MaskedLanguageModel(
            config,
            compute_dtype,
            masked_queries_only=masked_queries_only,
            checkpoint_activations=checkpoint_activations,
        )
    return model if torch.device(device).type == "meta" else model.to_empty(device=device)


def num_parameters(module: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in module.parameters())
