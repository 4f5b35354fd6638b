"""The shape of an encoder: everything that differs between NeoBERT, ModernBERT, BERT and RoBERTa.

One model (`model.py`) reads it. Nothing here needs torch, so that a recipe is checked, scaled and
counted without importing it.
"""

from dataclasses import dataclass
from typing import Literal

from tokenmill.errors import RecipeError


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeConfig:
    """Rotary positions; a phase may change them as sequences grow."""

    theta: float = 10_000.0
    """The base of the wavelengths, in tokens, in layers that see the whole sequence."""
    local_theta: float | None = None
    """The base in layers that see a window; None: theta. ModernBERT: 10,000 in every phase."""
    yarn_factor: float = 1.0
    """YaRN (arXiv:2309.00071): wavelengths above original_length are stretched by this, e.g. 4 from
    1,024 to 4,096 tokens, in layers that see the whole sequence. 1 stretches nothing."""
    original_length: int | None = None
    """The length that the model was trained on before; YaRN needs it."""

    def __post_init__(self) -> None:
        for name in ("theta", "local_theta"):
            value = getattr(self, name)
            if value is not None and not value > 1:
                raise RecipeError(f"{name}: expected above 1, found {value}.")
        if not self.yarn_factor >= 1:
            raise RecipeError(f"yarn_factor: expected at least 1, found {self.yarn_factor}.")
        if self.yarn_factor > 1 and (self.original_length is None or self.original_length < 1):
            raise RecipeError(
                "original_length: missing. yarn_factor needs the length trained on before."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Defaults are NeoBERT's (chandar-lab/NeoBERT, model.py)."""

    vocab_size: int
    """Rows of the embedding and of the decoder, as many as the tokenizer has ids."""
    width: int
    """Numbers in a token's vector."""
    layers: int
    heads: int
    """Attention heads; they divide the width into parts of an even size."""
    hidden: int
    """Width inside the feed-forward network, of one of its two branches where it is gated."""
    pad_id: int = 0
    """The token whose embedding is not trained."""
    positions: Literal["rotary-interleaved", "rotary-half", "learned"] = "rotary-interleaved"
    """Rotary on pairs (2i, 2i + 1) (GPT-J, NeoBERT) or (i, i + half) (GPT-NeoX, ModernBERT), or a
    table of vectors (BERT)."""
    max_positions: int = 0
    """Rows of that table; 0 with rotary positions. RoBERTa: 514, the first two of which are not
    used."""
    first_position: int = 0
    """The table's row for a sequence's first token. RoBERTa: pad_id + 1 = 2."""
    segments: int = 0
    """Rows of the table of segments (token types): BERT 2, RoBERTa 1, others none."""
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-5
    norm_bias: bool = False
    norm_place: Literal["before", "after"] = "before"
    """Before attention and feed-forward, with a last norm at the end, or after each sum (BERT)."""
    embedding_norm: bool = False
    first_attention_norm: bool = True
    """False: the first layer's attention takes the embeddings as they are (ModernBERT)."""
    linear_bias: bool = False
    """Of attention's and the feed-forward network's matrices."""
    feed_forward: Literal["swiglu", "geglu", "gelu"] = "swiglu"
    global_every: int = 1
    """Layer i sees the whole sequence where i divides by it, else a window."""
    window: int = 0
    """Tokens that a local layer sees to each side. ModernBERT: 64."""
    head: Literal["plain", "dense"] = "plain"
    """What stands between the vectors and the decoder: nothing, or matrix, GELU and norm."""
    head_bias: bool = False
    """Of that matrix."""
    tied: bool = False
    """The decoder's matrix is the embedding; its bias is its own."""
    next_sentence: bool = False
    """BERT's pooler and its two logits, trained on the pairs of `packing.sequences: pairs`."""
    initialisation: Literal["uniform", "normal", "truncated", "megatron"] = "uniform"
    """Of matrices: uniform in [-init_range, init_range]; normal with that deviation; the same cut
    off at two of it; and that with init_range / sqrt(2 layers) for the matrices that write into the
    residual stream."""
    init_range: float = 0.02
    dropout: float = 0.0
    """Of embeddings and of what attention and feed-forward add. Attention's own weights are never
    dropped: fused kernels for packed sequences cannot."""
    attention_dropout: float | None = None
    """Of what attention adds, where it differs; ModernBERT: 0.1 there and 0 elsewhere."""
    rope: RopeConfig = RopeConfig()

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "layers", "heads", "hidden", "global_every"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name}: expected at least 1, found {getattr(self, name)}.")
        if self.width % (2 * self.heads):
            raise RecipeError(
                f"width: expected a multiple of 2 x heads = {2 * self.heads}, found {self.width}."
            )
        for name in ("dropout", "attention_dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise RecipeError(f"{name}: expected at least 0 and below 1, found {value}.")
        if self.global_every > 1 and self.window < 1:
            raise RecipeError("window: expected at least 1 where layers are local, found 0.")
        if (self.positions == "learned") != (self.max_positions > 0):
            raise RecipeError("max_positions: give it with learned positions, and only with them.")

    @property
    def longest(self) -> int | None:
        """Tokens of the longest sequence that it has positions for; None: of any."""
        return self.max_positions - self.first_position if self.positions == "learned" else None

    def is_global(self, layer: int) -> bool:
        """Whether a layer sees the whole sequence."""
        return layer % self.global_every == 0
