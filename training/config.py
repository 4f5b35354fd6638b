"""The settings of training: one for the whole run, one for each phase's learning rate.

They stand in the recipe; the build leaves them resolved in RUN/run.json. Tokens here are positions
of whole rows, padding included: so many a step, always the same, so that the schedule and the
number of steps follow from settings alone. The log counts real tokens beside them.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenmill.errors import RecipeError
from tokenmill.shards.run import TokenizerInfo
from tokenmill.training.encoder_config import EncoderConfig
from tokenmill.training.presets import encoder_config


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """How long a phase is and how its learning rate moves; see `schedule.py` for the picture."""

    tokens: int
    """Tokens of the phase. It ends with the step that reaches them."""
    learning_rate: float
    """The highest rate, reached at the end of the warm-up. NeoBERT: 6e-4 (arXiv:2502.19587)."""
    warmup_tokens: int = 0
    """Tokens over which the rate rises in a straight line from 0. NeoBERT: 2,000 steps."""
    stable_tokens: int = 0
    """Tokens after the warm-up in which the rate stays at its height before it falls (the S of
    warm-up, stable, decay)."""
    decay: Literal["constant", "linear", "cosine", "1-sqrt"] = "constant"
    """The shape of the fall. NeoBERT: cosine; ModernBERT's last phase: 1-sqrt (arXiv:2412.13663).
    constant never falls."""
    decay_tokens: int | None = None
    """Tokens that the fall takes; after it the rate stays at its floor. None: the rest of the
    phase."""
    final_fraction: float = 0.1
    """The floor, as a fraction of learning_rate. 0.1 is NeoBERT's; a constant rate has none."""
    weight_decay: float | None = None
    """This phase's weight decay, where it is not the training's (ModernBERT-large)."""

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise RecipeError(f"tokens: expected at least 1, found {self.tokens}.")
        if not 0 < self.learning_rate < math.inf:
            raise RecipeError(f"learning_rate: expected above 0, found {self.learning_rate}.")
        if not 0 <= self.warmup_tokens <= self.tokens:
            raise RecipeError(
                f"warmup_tokens: expected 0 to the phase's {self.tokens} tokens, "
                f"found {self.warmup_tokens}."
            )
        if not 0 <= self.stable_tokens <= self.tokens - self.warmup_tokens:
            raise RecipeError(
                "stable_tokens: expected 0 to what the phase's tokens leave after warmup_tokens, "
                f"{self.tokens - self.warmup_tokens}, found {self.stable_tokens}."
            )
        if self.weight_decay is not None and not 0 <= self.weight_decay < math.inf:
            raise RecipeError(f"weight_decay: expected at least 0, found {self.weight_decay}.")
        if self.decay_tokens is not None and self.decay_tokens < 1:
            raise RecipeError(f"decay_tokens: expected at least 1, found {self.decay_tokens}.")
        if not 0 <= self.final_fraction <= 1:
            raise RecipeError(f"final_fraction: expected 0 to 1, found {self.final_fraction}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """The model, the optimizer and the loop, the same in all phases."""

    preset: str
    """A model of `presets.py`: neobert, modernbert-base, modernbert-large, ettin-17m ... ettin-1b,
    bert-base, bert-large, roberta-base, roberta-large, tiny."""
    model: dict[str, Any] = field(default_factory=dict)
    """Changes to the preset: fields of EncoderConfig, e.g. {layers: 4, width: 256}. vocab_size and
    pad_id are the tokenizer's."""
    tile_from: Path | None = None
    """A folder of `tokenmill export` of a smaller model of the same kind: first weights are its
    matrices, repeated from the middle (ModernBERT-large from base). null: drawn."""
    initial_weights: Path | None = None
    """The same of a model of this very shape, or a published folder of one: training goes on from
    its weights, with a fresh optimizer. null: drawn."""
    micro_batch_tokens: int
    """Tokens, padding included, that one forward pass of one process may hold, a row at least;
    memory decides.
    Without dropout, losses do not depend on it but for rounding."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """The precision of activations and matrix products; weights and loss stay in 32 bits. null:
    bfloat16 on a GPU, float32 on a CPU."""
    compile: bool | None = None
    """torch.compile of each layer and of the head; null: on a GPU."""
    masked_queries_only: bool = True
    """The last layer is computed at masked tokens only, where that is exact (it sees the whole
    sequence, and no other loss needs its other vectors)."""
    checkpoint_activations: bool = False
    """Layers are computed again in the backward pass: memory for a third more work."""
    optimizer: Literal["adamw", "stable-adamw", "muon"] = "adamw"
    """See `optim.py`. stable-adamw shortens its steps where gradients grow, and needs no clip_norm
    (ModernBERT). muon takes the layers' matrices, AdamW the rest, both at the same rate."""
    betas: tuple[float, ...] = (0.9, 0.95)
    """Adam's two decay rates. NeoBERT's (arXiv:2502.19587, appendix A)."""
    eps: float = 1e-8
    """Adam's guard against division by 0. NeoBERT's; ModernBERT and BERT: 1e-6."""
    weight_decay: float = 0.1
    """NeoBERT's paper; its code says 0.01. See weight_decay_times."""
    weight_decay_times: Literal["rate", "schedule"] = "rate"
    """What a step's decay is multiplied with: the learning rate, as in AdamW of torch, or its
    share of the phase's highest rate, as in Composer (ModernBERT: 1e-5). Where stable-adamw
    shortens a step, it lessens the decay too."""
    weight_decay_on: Literal["matrices", "all"] = "matrices"
    """What decays: matrices and embeddings alone, or norms and biases too, as NeoBERT's code."""
    muon_momentum: float = 0.95
    """What Muon's mean of gradients keeps a step (kellerjordan.github.io/posts/muon)."""
    clip_norm: float | None = 1.0
    """The longest gradient that is taken as it is; longer ones are scaled down to it. null: none is
    (RoBERTa, ModernBERT)."""
    z_loss: float = 0.0
    """Weight of the squared logarithm of the softmax's denominator (arXiv:2204.02311: 1e-4)."""
    ema_decay: float | None = None
    """Keep an exponential mean of the weights beside them, this share of it kept a step (gpt-bert:
    0.999); null: none."""
    max_skipped_steps: int = 10
    """Steps in a row whose loss or gradient is not finite. They change no weight and are counted;
    one more ends training."""
    shard: int = 1
    """Processes that share one copy of weights, gradients and moments (FSDP2); there are world size
    / shard copies. 1: every process has all (DDP)."""
    seed: int = 0
    """Of the first weights and of dropout; order and masks have the loader's."""
    deterministic: bool = False
    """Deterministic algorithms on a GPU too, at some cost; a CPU always has them."""
    log_every_steps: int = 10
    """Steps from one line of the log to the next."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where log lines go beside log.jsonl; their packages are extras of this one."""
    eval_every_steps: int = 1000
    """Steps from one held-out loss to the next; each phase ends with one."""
    eval_tokens: int = 1_000_000
    """The most tokens of held-out rows that are read for held-out losses; of more rows, some spread
    evenly are, so that a subset or a source has its share of them."""
    checkpoint_every_steps: int = 1000
    """Steps from one checkpoint to the next. NeoBERT's."""
    keep_checkpoints: int = 3
    """The newest ones stay; a damaged one is passed over for the one before, so keep two."""
    keep_every_steps: int | None = None
    """Checkpoints whose step divides by it stay for good."""

    def __post_init__(self) -> None:
        for name in ("micro_batch_tokens", "log_every_steps", "eval_every_steps", "eval_tokens",
                     "checkpoint_every_steps", "keep_checkpoints", "max_skipped_steps",
                     "shard"):  # fmt: skip
            if getattr(self, name) < 1:
                raise RecipeError(f"{name}: expected at least 1, found {getattr(self, name)}.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise RecipeError(f"betas: expected two numbers of [0, 1), found {list(self.betas)}.")
        for name in ("clip_norm", "keep_every_steps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise RecipeError(f"{name}: expected above 0, or null, found {value}.")
        for name in ("weight_decay", "z_loss"):
            if not getattr(self, name) >= 0:
                raise RecipeError(f"{name}: expected at least 0, found {getattr(self, name)}.")
        if not self.eps > 0:
            raise RecipeError(f"eps: expected above 0, found {self.eps}.")
        if not 0 <= self.muon_momentum < 1:
            raise RecipeError(
                f"muon_momentum: expected at least 0 and below 1, found {self.muon_momentum}."
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise RecipeError(f"ema_decay: expected between 0 and 1, found {self.ema_decay}.")
        if self.tile_from is not None and self.initial_weights is not None:
            raise RecipeError(
                "initial_weights: tile_from is set too. Weights begin once: drop one."
            )
        encoder_config(self.preset, self.model)

    def encoder(self, tokenizer: TokenizerInfo) -> EncoderConfig:
        """The model's shape, with as many tokens as the tokenizer has, or more.

        Raises:
            RecipeError: training.model.vocab_size is less.
        """
        sizes = {"vocab_size": tokenizer.vocab_size, "pad_id": tokenizer.pad_id}
        try:
            return encoder_config(self.preset, self.model, **sizes)
        except RecipeError as error:
            raise RecipeError(f"training.{error}") from None

    def dtype_on(self, device_type: str) -> str:
        """The precision on a device, "cpu" or "cuda"."""
        return self.dtype or ("bfloat16" if device_type == "cuda" else "float32")
