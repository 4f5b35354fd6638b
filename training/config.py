"""The settings of training: one for the whole run, one for each phase's learning rate.

They stand in the recipe; the build leaves them resolved in RUN/run.json. Tokens here are positions
of whole rows, padding included: so many a step, always the same, so that the schedule and the
number of steps follow from settings alone. The log counts real tokens beside them.
"""

import math
from dataclasses import dataclass
from typing import Literal

from tokenmill.errors import RecipeError


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """How long a phase is and how its learning rate moves; see `schedule.py` for the picture."""

    tokens: int
    """Tokens of the phase. It ends with the step that reaches them."""
    learning_rate: float
    """The highest rate, reached at the end of the warm-up. NeoBERT: 6e-4 (arXiv:2502.19587)."""
    warmup_tokens: int = 0
    """Tokens over which the rate rises in a straight line from 0. NeoBERT: 2,000 steps."""
    decay: Literal["constant", "linear", "cosine", "1-sqrt"] = "constant"
    """The shape of the fall after the warm-up. NeoBERT: cosine; ModernBERT's last phase: 1-sqrt
    (arXiv:2412.13663)."""
    decay_tokens: int | None = None
    """Tokens that the fall takes; after it the rate stays at its floor. None: the rest of the
    phase."""
    final_fraction: float = 0.1
    """The floor, as a fraction of learning_rate. 0.1 is NeoBERT's; a constant rate has none."""

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
        if self.decay_tokens is not None and self.decay_tokens < 1:
            raise RecipeError(f"decay_tokens: expected at least 1, found {self.decay_tokens}.")
        if not 0 <= self.final_fraction <= 1:
            raise RecipeError(f"final_fraction: expected 0 to 1, found {self.final_fraction}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """The model, the optimizer and the loop, the same in all phases."""

    preset: Literal["neobert", "tiny"]
    """A model of `presets.py`: neobert or tiny."""
    micro_batch_tokens: int
    """Tokens, padding included, that one forward pass may hold; memory decides. Losses do not
    depend on it but for rounding."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The precision of activations and matrix products; weights and loss stay in 32 bits. A GPU
    wants bfloat16, a CPU float32."""
    betas: tuple[float, ...] = (0.9, 0.95)
    """AdamW's two decay rates. NeoBERT's (arXiv:2502.19587, appendix A)."""
    eps: float = 1e-8
    """AdamW's guard against division by 0. NeoBERT's."""
    weight_decay: float = 0.1
    """AdamW's decay, times the learning rate a step. NeoBERT's paper; its code says 0.01."""
    weight_decay_on: Literal["matrices", "all"] = "matrices"
    """What decays: matrices alone, or norms and the bias too, as NeoBERT's code has it."""
    clip_norm: float = 1.0
    """The longest gradient that is taken as it is; longer ones are scaled down to it."""
    seed: int = 0
    """Of the first weights, the only thing drawn; order and masks have the loader's."""
    log_every_steps: int = 10
    """Steps from one line of the log to the next."""
    eval_every_steps: int = 1000
    """Steps from one held-out loss to the next; each phase ends with one."""
    eval_tokens: int = 1_000_000
    """The most tokens of each subset's held-out rows that are read for its loss; of more rows, some
    spread evenly are."""
    checkpoint_every_steps: int = 1000
    """Steps from one checkpoint to the next. NeoBERT's."""
    keep_checkpoints: int = 3
    """The newest ones stay; a damaged one is passed over for the one before, so keep two."""

    def __post_init__(self) -> None:
        for name in ("micro_batch_tokens", "log_every_steps", "eval_every_steps", "eval_tokens",
                     "checkpoint_every_steps", "keep_checkpoints"):  # fmt: skip
            if getattr(self, name) < 1:
                raise RecipeError(f"{name}: expected at least 1, found {getattr(self, name)}.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise RecipeError(f"betas: expected two numbers of [0, 1), found {list(self.betas)}.")
        if not self.clip_norm > 0:
            raise RecipeError(f"clip_norm: expected above 0, found {self.clip_norm}.")
