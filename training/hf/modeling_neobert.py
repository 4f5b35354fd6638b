"""NeoBERT (arXiv:2502.19587) for transformers: padded batches, SDPA attention.

    AutoModelForMaskedLM.from_pretrained(FOLDER, trust_remote_code=True)

A pre-norm encoder: RMSNorm, rotary positions on pairs (2i, 2i + 1) of a head, SwiGLU, no biases but
the decoder's, embedding and decoder untied. Weights bear the names of the published model. This
file stands alone: it needs torch and transformers (4.40 or newer), and nothing else.
"""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutput,
    MaskedLMOutput,
    SequenceClassifierOutput,
)


class NeoBertConfig(PretrainedConfig):
    """The shape; intermediate_size is the width of one branch of SwiGLU."""

    model_type = "neobert"

    def __init__(
        self,
        vocab_size: int = 30_522,
        hidden_size: int = 768,
        num_hidden_layers: int = 28,
        num_attention_heads: int = 12,
        intermediate_size: int = 2048,
        norm_eps: float = 1e-5,
        max_position_embeddings: int = 4096,
        rope_parameters: dict[str, Any] | None = None,
        initializer_range: float = 0.02,
        classifier_dropout: float = 0.0,
        pad_token_id: int = 0,
        tie_word_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.norm_eps = norm_eps
        self.max_position_embeddings = max_position_embeddings
        self.rope_parameters = rope_parameters or {"rope_type": "default", "rope_theta": 10_000.0}
        self.initializer_range = initializer_range
        self.classifier_dropout = classifier_dropout
        super().__init__(
            pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **kwargs
        )


class SwiGLU(nn.Module):
    def __init__(self, config: NeoBertConfig) -> None:
        super().__init__()
        self.w12 = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.w3 = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.w12(x).chunk(2, dim=-1)
        out: Tensor = self.w3(F.silu(gate) * up)
        return out


class NeoBertLayer(nn.Module):
    def __init__(self, config: NeoBertConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.attention_norm = nn.RMSNorm(config.hidden_size, config.norm_eps)
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.wo = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.ffn_norm = nn.RMSNorm(config.hidden_size, config.norm_eps)
        self.ffn = SwiGLU(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """x (batch, length, width); cos and sin (batch, 1, length, head / 2)."""
        # Query, key and value lie side by side in each head.
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        query, key, value = qkv.chunk(3, dim=-1)  # (batch, heads, length, head)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.wo(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + self.ffn(self.ffn_norm(x))
        return out


class NeoBertPreTrainedModel(PreTrainedModel):
    config_class = NeoBertConfig
    base_model_prefix = "model"
    _no_split_modules: ClassVar[list[str]] = ["NeoBertLayer"]
    # The loss is a mean over one batch; Trainer then divides by accumulation steps itself.
    accepts_loss_kwargs = False
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        limit = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.uniform_(module.weight, -limit, limit)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.RMSNorm):
            nn.init.ones_(module.weight)


class NeoBertModel(NeoBertPreTrainedModel):
    """Token ids to vectors."""

    def __init__(self, config: NeoBertConfig) -> None:
        super().__init__(config)
        self.encoder = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.transformer_encoder = nn.ModuleList(
            NeoBertLayer(config) for _ in range(config.num_hidden_layers)
        )
        self.layer_norm = nn.RMSNorm(config.hidden_size, config.norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.encoder = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput | tuple[Tensor, ...]:
        """input_ids and position_ids (batch, length); attention_mask (batch, length), 0 for
        padding."""
        x = self.encoder(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            position_ids = torch.arange(x.shape[1], device=x.device)[None]
        cos, sin = rotary_angles(position_ids, self.config)
        mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        hidden_states: tuple[Tensor, ...] | None = (x,) if output_hidden_states else None
        for layer in self.transformer_encoder:
            x = layer(x, cos, sin, mask)
            if hidden_states is not None:
                hidden_states += (x,)
        x = self.layer_norm(x)
        if hidden_states is not None:
            hidden_states = (*hidden_states[:-1], x)
        output = BaseModelOutput(last_hidden_state=x, hidden_states=hidden_states)
        return output if return_dict is not False else output.to_tuple()


class NeoBertForMaskedLM(NeoBertPreTrainedModel):
    """Logits of every token."""

    def __init__(self, config: NeoBertConfig) -> None:
        super().__init__(config)
        self.model = NeoBertModel(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.decoder = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput | tuple[Tensor, ...]:
        """labels (batch, length), -100 where there is nothing to predict."""
        inner = self.model(input_ids, return_dict=True, **kwargs)
        logits = self.decoder(inner.last_hidden_state)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        output = MaskedLMOutput(loss=loss, logits=logits, hidden_states=inner.hidden_states)
        return output if return_dict is not False else output.to_tuple()


class NeoBertForSequenceClassification(NeoBertPreTrainedModel):
    """Classes of a text from its first token, as BERT has it: matrix, tanh, matrix. New weights."""

    def __init__(self, config: NeoBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = NeoBertModel(config)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """labels (batch,): classes, or numbers where there is one label."""
        inner = self.model(input_ids, return_dict=True, **kwargs)
        pooled = self.dropout(torch.tanh(self.dense(inner.last_hidden_state[:, 0])))
        logits = self.classifier(self.dropout(pooled))
        loss = None
        if labels is not None and self.num_labels == 1:
            loss = F.mse_loss(logits[:, 0].float(), labels.float())
        elif labels is not None:
            loss = F.cross_entropy(logits.float(), labels)
        output = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=inner.hidden_states
        )
        return output if return_dict is not False else output.to_tuple()


def rotary_angles(position_ids: Tensor, config: NeoBertConfig) -> tuple[Tensor, Tensor]:
    """Two of (batch, 1, length, head / 2): cosines and sines, in 32 bits.

    They are computed anew in each call: a buffer would be lost where a model is built without
    memory and then loaded.
    """
    inverse, scale = inverse_wavelengths(config, position_ids.device)
    turns = position_ids[:, None, :, None].float() * inverse
    return turns.cos() * scale, turns.sin() * scale


def inverse_wavelengths(config: NeoBertConfig, device: torch.device) -> tuple[Tensor, float]:
    """(head / 2,) radians a token, and what cosines and sines are multiplied with.

    YaRN: arXiv:2309.00071, section 3.2 and equation 22.
    """
    rope = config.rope_parameters
    theta, pairs = rope["rope_theta"], config.hidden_size // config.num_attention_heads // 2
    inverse = theta ** -(torch.arange(pairs, device=device).float() / pairs)
    if rope["rope_type"] == "default":
        return inverse, 1.0
    factor, length = rope["factor"], rope["original_max_position_embeddings"]

    def pair_that_turns(times: int) -> float:
        turned: float = pairs * math.log(length / (times * 2 * math.pi)) / math.log(theta)
        return turned

    first = max(math.floor(pair_that_turns(32)), 0)
    last = min(math.ceil(pair_that_turns(1)), 2 * pairs - 1)
    ramp = (torch.arange(pairs, device=device) - first) / max(last - first, 0.001)
    stretched = ramp.clamp(0, 1)
    inverse = inverse * (1 - stretched) + inverse / factor * stretched
    return inverse, 0.1 * math.log(factor) + 1


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(batch, heads, length, head) each pair (2i, 2i + 1) turned by its angle, in 32 bits."""
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)
