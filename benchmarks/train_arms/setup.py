"""What is the same for all arms of a comparison, and the sizes that are an arm's own.

A preset of the training becomes a model without dropout: transformers' default has none, and losses
could not be compared. Weights are those of one seed in every arm.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tokenmill.loader.masking_config import MaskingConfig
from tokenmill.training.config import TrainingConfig
from tokenmill.training.encoder_config import EncoderConfig
from tokenmill.training.hf.architecture import architecture_of
from tokenmill.training.presets import PRESETS

NEOBERT_MASKS = MaskingConfig()
MODERNBERT_MASKS = MaskingConfig(rate=0.3, mask_share=0.8, random_share=0.1)

ARMS = {
    "A": "padded, dense mask, logits everywhere, 3 syncs",
    "B": "unpadded, attention eager, mask gather",
    "C": "transformers, padded to the longest",
    "Cg": "transformers, padded by length groups",
    "D": "ours, eager",
    "E": "ours, compiled",
    "F": "ours, last layer at masked tokens",
    "G": "ours, compiled, 8,192 tokens",
}
OURS = "DEFG"
LONG = 8192
"""Tokens of G's longest sequences."""


@dataclass(frozen=True, kw_only=True)
class ArmSpec:
    """An arm, and how much it takes at once."""

    letter: str
    micro_batch_tokens: int
    """Padding included. Ours and B hold whole rows; A and C as many lines of the longest length."""

    @property
    def name(self) -> str:
        return f"{self.letter}@{self.micro_batch_tokens}"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What an arm's process is told."""

    encoder: EncoderConfig
    run: Path
    """Has the phases of data.py."""
    device: str
    dtype: str
    compile: bool
    """Whether B, C, E, F and G compile what they can."""
    threads: int
    learning_rate: float
    warmup_steps: int

    def training(self, *, compiled: bool, masked_queries_only: bool) -> TrainingConfig:
        """AdamW as NeoBERT's paper has it, for all arms."""
        return TrainingConfig(
            preset="tiny",  # the encoder stands above
            micro_batch_tokens=1,  # the arm's own, see ArmSpec
            dtype="bfloat16" if self.dtype == "bfloat16" else "float32",
            compile=compiled,
            masked_queries_only=masked_queries_only,
            optimizer="adamw",
            clip_norm=1.0,
        )


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What operations are counted by."""

    mask_rate: float
    mean_length: float
    seen: float
    """Tokens that a token sees in a layer without window: E[length^2] / E[length]."""
    peak_flops: float | None
    """The device's, where it is known."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How a comparison is cut; tokens have padding among them."""

    row_tokens: int
    step_tokens: int
    """Of a measured optimizer step, which has the same rows in all arms."""
    guard_tokens: int
    """Of a step whose loss is compared."""
    guard_steps: int
    corpus_tokens: int
    micro_batch_tokens: dict[str, int]
    """Letter to tokens, for the arms that are measured unless others are asked for."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model and its masks."""

    encoder: EncoderConfig
    masking: MaskingConfig
    wide: bool = False
    """Half the micro-batch on a GPU."""

    def sizes(self, device: str, max_length: int) -> Sizes:
        """For one GPU of 139 GiB, or for a CPU; --arms takes other micro-batches."""
        if device == "cpu":
            rows = 8 * max_length
            return Sizes(
                row_tokens=4 * max_length,
                step_tokens=rows,
                guard_tokens=rows,
                guard_steps=6,
                corpus_tokens=60 * rows,
                # Of 2, 4 and 8 lines the best for each; logits of more fall out of the cache.
                micro_batch_tokens={
                    arm: lines * max_length
                    for arm, lines in {"A": 2, "B": 4, "C": 2, "Cg": 4, "D": 4, "F": 4}.items()
                },
            )
        full = 32_768 if self.wide else 65_536
        micro = dict.fromkeys(["A", "B", "C", "Cg", "D"], full // 2) | dict.fromkeys("EF", full)
        if max_length < LONG:
            micro["G"] = full
        return Sizes(
            row_tokens=4 * max_length if max_length > 2048 else 8 * max_length,
            step_tokens=524_288,
            guard_tokens=full,
            guard_steps=50,
            corpus_tokens=16_000_000,
            micro_batch_tokens=micro,
        )


def device_name(device: str) -> str:
    """What the maker calls it; "cpu" for a CPU."""
    is_cuda = torch.device(device).type == "cuda"
    return torch.cuda.get_device_name(device) if is_cuda else device


def modernbert_of_size(encoder: EncoderConfig) -> EncoderConfig:
    """The encoder itself where it is a ModernBERT, else one with its width, layers, heads,
    feed-forward width and vocabulary."""
    if architecture_of(encoder) == "modernbert":
        return encoder
    names = ("vocab_size", "pad_id", "width", "layers", "heads", "hidden")
    sizes = {name: getattr(encoder, name) for name in names}
    return for_comparison(replace(PRESETS["modernbert-base"], **sizes))


def for_comparison(encoder: EncoderConfig) -> EncoderConfig:
    """Without dropout, and with first weights so large that a vector keeps its length.

    With the recipes' own, attention is next to even for long, and the first losses would be the
    same whatever it looked at.
    """
    deviation = encoder.width**-0.5
    limit = 3**0.5 * deviation  # of uniform weights with that deviation
    init_range = limit if encoder.initialisation == "uniform" else deviation
    return replace(encoder, dropout=0.0, attention_dropout=None, init_range=init_range)


BENCHMARKED = {
    "neobert": Preset(encoder=for_comparison(PRESETS["neobert"]), masking=NEOBERT_MASKS),
    "modernbert-base": Preset(
        encoder=for_comparison(PRESETS["modernbert-base"]), masking=MODERNBERT_MASKS
    ),
    "modernbert-large": Preset(
        encoder=for_comparison(PRESETS["modernbert-large"]), masking=MODERNBERT_MASKS, wide=True
    ),
    "tiny": Preset(encoder=for_comparison(PRESETS["tiny"]), masking=NEOBERT_MASKS),
    "modernbert-tiny": Preset(encoder=modernbert_of_size(PRESETS["tiny"]), masking=NEOBERT_MASKS),
}
"""modernbert-tiny is ModernBERT in tiny's size: the same as transformers' to the weight."""
